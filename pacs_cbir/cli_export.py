"""The command that writes a research set: `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

EXIT_NOT_ALL = 3
commands = typer.Typer()


@commands.command()
def export(
    out: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet, or the same export's.")],
    query: Annotated[
        str, typer.Option(help="Matching keys and labels, as in the URL of a listing; empty: all that is here.")
    ],
    profile: Annotated[Literal["basic"], typer.Option(help="Of PS3.15 Annex E.")] = "basic",
    retain_longitudinal: Annotated[
        bool, typer.Option("--retain-longitudinal", help="Move a patient's dates alike, instead of removing them.")
    ] = False,
    clean_pixel: Annotated[
        bool, typer.Option("--clean-pixel", help="Black out what is not picture, where the header says what is.")
    ] = False,
) -> None:
    """Write studies for research, de-identified by PS3.15, with a manifest for training and a report.

    Series that would need more than is offered stay here, and are listed with the reason; the exit code is 3 then.
    Called again with the same options, it goes on where it stopped.

    Example: `pacs-cbir export --query "Modality=MR&StudyDate=20200101-&label=glioma" --profile basic research`
    """
    from pacs_cbir.export.query import read_order
    from pacs_cbir.export.run import export as run
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    assert profile == "basic"  # noqa: S101 - the only one there is, which typer has checked
    settings = load_settings()
    order = read_order(query, retain_longitudinal=retain_longitudinal, clean_pixel=clean_pixel)
    with open_database(settings) as database:
        all_left = run(order, out, settings, database, Console())
    if not all_left:
        raise typer.Exit(EXIT_NOT_ALL)
