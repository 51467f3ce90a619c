"""What `pacs-cbir reindex` does: the index again from its rows, or the rows again from the instances."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.search.follow import CHANNEL_REBUILD, Follower
from pacs_cbir.settings import Settings
from pacs_cbir.store import files, jobs
from pacs_cbir.store.session import Database
from pacs_cbir.worker import Worker

LOOK_SECONDS = 0.5


def embed_all(settings: Settings, database: Database, stop: threading.Event, console: Console) -> None:
    """Make a job for every series, and work on them beside the other workers until none is left.

    Raises:
        CheckpointError, DatabaseUnavailable.
    """
    with Decoder(settings.decode_seconds, settings.decode_megabytes) as decoder:
        worker = Worker(settings, database, decoder, re_embed=True)
        with database.transaction() as connection:
            total = jobs.enqueue_all(connection, worker.encoder_id)
        working = threading.Thread(target=worker.run, args=(stop_working := threading.Event(),))
        working.start()
        try:
            with _progress(console) as progress:
                task = progress.add_task("Embedding series", total=total)
                while not stop.wait(LOOK_SECONDS):
                    with database.transaction() as connection:
                        left = jobs.count_re_embed(connection)
                    progress.update(task, completed=total - left)
                    if left == 0:
                        return
        finally:
            stop_working.set()
            working.join()


def rebuild(settings: Settings, database: Database, console: Console) -> None:
    """Write the index anew from the database's rows, and tell the running APIs to take it over.

    Raises:
        DatabaseUnavailable, DiskUnavailable.
    """
    files.prepare(settings)
    follower = Follower(database, settings.index_dir)
    follower.rebuild()
    database.notify(CHANNEL_REBUILD)
    console.print(f"{len(follower.current.index)} stacks, {follower.current.index.slices} slices in the index")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
