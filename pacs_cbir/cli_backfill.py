"""The command that fetches what a PACS had before: `backfill`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

EXIT_FAILURE = 1
commands = typer.Typer(rich_markup_mode="markdown")


@commands.command()
def backfill(
    *,
    study_date: Annotated[
        str | None, typer.Option(help="YYYYMMDD, YYYYMMDD-YYYYMMDD, or YYYYMMDD- until today; all studies by default.")
    ] = None,
    modality: Annotated[str, typer.Option(help="One of the study's modalities; empty for any.")] = "MR",
    body_part: Annotated[str, typer.Option(help="BodyPartExamined of a series; empty for any.")] = "",
    peer: Annotated[str | None, typer.Option(help="Its name in PACS_CBIR_PEERS; the only one by default.")] = None,
    studies_per_minute: Annotated[float, typer.Option(min=0.01, help="Most that are begun in a minute.")] = 20.0,
    hours: Annotated[
        str | None, typer.Option(help="Hours of the week in which the PACS is asked; always by default.")
    ] = None,
) -> None:
    """Fetch the studies that a PACS has from earlier, one after the other; what is here already is not fetched again.

    Ctrl-C or SIGTERM ends it after the study under way. The same command goes on where it was, whatever interrupted
    it; after its end, the same command looks for what is new. `pacs-cbir status` shows it, and what failed and why;
    the exit code is 0 when all studies that were asked for are here.

    Example: `pacs-cbir backfill --study-date 20200101- --modality MR --hours "Mon-Fri 19:00-06:00, Sat-Sun"`
    """
    from pacs_cbir.backfill import peer_named, run_backfill, study_dates
    from pacs_cbir.cli_service import service
    from pacs_cbir.hours import Hours
    from pacs_cbir.pacs.pacing import Pace
    from pacs_cbir.store.backfills import Filter
    from pacs_cbir.store.session import open_database

    settings, stop = service()
    days, part = study_dates(study_date), body_part.strip().upper()
    wanted = Filter(peer_named(settings, peer), days, modality.strip().upper(), part)
    pace = Pace(studies_per_minute, None if hours is None else Hours.parse(hours))
    with open_database(settings) as database:
        complete = run_backfill(settings, database, wanted, pace, stop, console=Console())
    if not complete:
        raise typer.Exit(EXIT_FAILURE)
