"""What `pacs-cbir reindex` does: the index again from its rows, or an encoder's embeddings from the instances."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pacs_cbir.errors import EncoderRefused
from pacs_cbir.hours import Hours
from pacs_cbir.search.follow import CHANNEL_REBUILD, INDEX_NAME, Follower
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders, files, jobs
from pacs_cbir.store.encoders import State
from pacs_cbir.store.session import Database

LOOK_SECONDS = 0.5


def start_reindex(database: Database, name: str, *, hours: str | None, workers: int | None, from_pacs: bool) -> int:
    """Make a job for every series that an encoder lacks, and try again what was parked; the workers do the rest.

    Interrupted, or called again, it makes those that are missing.

    Args:
        hours: of the week in which the jobs may run; None: as said before, always at first.
        workers: that may work on them at once; None: as said before, all at first.
        from_pacs: whether pixel data that is no longer here is fetched from the PACS; False: as said before.

    Returns:
        the encoder's row.

    Raises:
        SettingsError: the hours are not understood.
        EncoderRefused: there is none of that name, or it is retired, also meanwhile.
        DatabaseUnavailable.
    """
    if hours is not None:
        Hours.parse(hours)
    with database.transaction() as connection:
        encoder = encoders.named(connection, name)
        if encoder.state is State.RETIRED:
            raise EncoderRefused(f"{name} is retired: `pacs-cbir encoder add` brings it back first")
        encoders.set_reindex(connection, encoder.id, hours=hours, workers=workers, from_pacs=from_pacs)
        jobs.unpark(connection, encoder.id)
    after: int | None = 0
    while after is not None:
        # Many short transactions: what arrives meanwhile waits for none of them long.
        with database.transaction() as connection:
            # Jobs of a retired encoder would be nobody's, and keep their series' pixel data here for ever.
            if not encoders.hold(connection, [encoder.id]):
                raise EncoderRefused(f"{name} was retired meanwhile")
            after = jobs.enqueue_batch(connection, encoder.id, after)
    return encoder.id


def show_progress(database: Database, encoder_id: int, stop: threading.Event, console: Console) -> bool:
    """Show how far the workers are, until they are done or `stop` is set; returns whether they are.

    Raises:
        DatabaseUnavailable.
    """
    with database.transaction() as connection:
        start = encoders.progress(connection, encoder_id)
    total = start.waiting + start.running
    with _progress(console) as progress:
        task = progress.add_task("Embedding series", total=total)
        while True:
            with database.transaction() as connection:
                left = jobs.count_left(connection, encoder_id)
            progress.update(task, total=max(total, left), completed=max(total, left) - left)
            if left == 0:
                return True
            if stop.wait(LOOK_SECONDS):
                return False


def report_reindex(database: Database, name: str, console: Console, *, done: bool) -> None:
    """Say where it stands, and what to do next.

    Raises:
        EncoderRefused: the encoder is gone.
        DatabaseUnavailable.
    """
    with database.transaction() as connection:
        encoder = encoders.named(connection, name)
        now, lacks = encoders.progress(connection, encoder.id), encoders.lacking(connection, encoder)
    console.print(f"{now.series} of {now.all_series} series are embedded by {name}, {now.parked} were parked")
    if not done:
        console.print(
            f"{now.waiting + now.running} jobs are left, and the workers go on with them; `pacs-cbir encoder list` and "
            f"`pacs-cbir reindex --encoder {name}` show how far they are"
        )
    elif lacks.series:
        console.print(f"{lacks.series} series that are in the answers now are not; `pacs-cbir status` says why")
    elif encoder.state is not State.ACTIVE:
        console.print(f"`pacs-cbir encoder activate {name}` lets it answer")


def rebuild(settings: Settings, database: Database, console: Console) -> None:
    """Write the index anew from the database's rows, and tell the running APIs to take it over.

    Raises:
        DatabaseUnavailable, DiskUnavailable.
    """
    files.prepare(settings)
    follower = Follower(database, settings.index_dir)
    with database.listen() as connection:
        connection.tell(INDEX_NAME)
        follower.rebuild()
    database.notify(CHANNEL_REBUILD)
    console.print(f"{len(follower.current.index)} stacks, {follower.current.index.slices} slices in the index")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
