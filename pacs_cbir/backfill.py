"""What `pacs-cbir backfill` does: one backfill from a peer of the settings, with its progress."""

from __future__ import annotations

import threading
from datetime import date

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from pacs_cbir.errors import SettingsError
from pacs_cbir.pacs.backfill import Backfill
from pacs_cbir.pacs.pacing import Pace
from pacs_cbir.pacs.retrieve import open_archive
from pacs_cbir.settings import Settings
from pacs_cbir.store.backfills import Filter
from pacs_cbir.store.session import Database


def peer_named(settings: Settings, name: str | None) -> str:
    """The peer of that name, or the only one; its name.

    Raises:
        SettingsError: there is none, or nothing says which.
    """
    names = ", ".join(sorted(settings.peers)) or "none"
    if name is None and len(settings.peers) == 1:
        return next(iter(settings.peers))
    if name is None or name not in settings.peers:
        raise SettingsError(f"--peer: which PACS? PACS_CBIR_PEERS has {names}")
    return name


def study_dates(option: str | None) -> str:
    """The range of dates as a `Filter` has it: empty without the option.

    Raises:
        SettingsError: the option is there and empty, as of a variable that a script has not set: it would mean all.
    """
    if option is not None and not option.strip():
        raise SettingsError("--study-date is empty: leave it out for all studies, or give YYYYMMDD- (until today)")
    return (option or "").strip()


def run_backfill(
    settings: Settings, database: Database, wanted: Filter, pace: Pace, stop: threading.Event, *, console: Console
) -> bool:
    """Run until nothing is left or `stop` is set; says what was parked, and returns whether all studies are here.

    Raises:
        BackfillRuns, SettingsError, PeerRefuses, PeerAway, PeerError, DatabaseUnavailable: as `Backfill.run`.
    """
    archive = open_archive(settings.peers[wanted.peer], settings, database)
    with _progress(console) as progress:
        task = progress.add_task("Searching", total=None, parked=0)

        def show(counts: dict[str, int], searched: tuple[date, date] | None) -> None:
            found, ended = sum(counts.values()), counts["done"] + counts["parked"]
            if searched is None:
                progress.update(
                    task, description="Fetching studies", total=found, completed=ended, parked=counts["parked"]
                )
            else:
                to, last = searched
                progress.update(task, description=f"Searched to {to:%Y-%m} of {last:%Y-%m}, {found} found")

        def say(sentence: str) -> None:
            progress.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

        backfill = Backfill(archive, database, wanted, pace, stop, say=say, show=show)
        counts = backfill.run()
    incomplete = backfill.incomplete()
    for what in incomplete:
        say(f"studies may be missing; {what}")
    say(f"{sum(counts.values())} found, {counts['done']} here, {counts['parked']} failed, {counts['waiting']} left")
    _print_parked(backfill.parked(), console)
    return backfill.finished and not counts["parked"] and not incomplete


def _print_parked(parked: dict[str, str], console: Console) -> None:
    if not parked:
        return
    table = Table(
        Column("StudyInstanceUID", overflow="fold"),
        Column("Error", overflow="fold"),
        title="Failed; the same command tries again",
        title_justify="left",
    )
    for uid, error in parked.items():
        table.add_row(uid, escape(error))
    console.print(table)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[parked]} failed"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    )
