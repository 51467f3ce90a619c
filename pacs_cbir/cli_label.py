"""Commands that say what studies show: `label`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

EXIT_FAILURE = 1
commands = typer.Typer(
    help="What people say of studies. A label `excluded`, or `excluded: motion`, keeps a study out of training sets.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Study = Annotated[str, typer.Argument(help="Its Study Instance UID.")]
Labels = Annotated[list[str], typer.Argument(help="In the site's own words; those with spaces in quotes.")]


@commands.command()
def add(study: Study, labels: Labels) -> None:
    """Give a study labels beside those that it has.

    Example: `pacs-cbir label add 2.25.1234 "O-RADS 4" "excluded: motion"`
    """
    from pacs_cbir.labelling import add_labels
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    with open_database(load_settings()) as database:
        add_labels(study, labels, database, Console())


@commands.command()
def remove(study: Study, labels: Labels) -> None:
    """Take labels from a study.

    Example: `pacs-cbir label remove 2.25.1234 "excluded: motion"`
    """
    from pacs_cbir.labelling import remove_labels
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    with open_database(load_settings()) as database:
        remove_labels(study, labels, database, Console())


@commands.command()
def show(
    study: Annotated[str | None, typer.Argument(help="Its Study Instance UID; without it all labels in use.")] = None,
) -> None:
    """Print a study's labels, or all labels with how many studies have each.

    Example: `pacs-cbir label show 2.25.1234`
    """
    from pacs_cbir.labelling import show_labels
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    with open_database(load_settings()) as database:
        show_labels(study, database, Console())


@commands.command(name="import")
def import_(
    table: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Columns StudyInstanceUID and label.")],
) -> None:
    """Give each study of a list the labels that its rows name, and no others.

    Studies that are not here are listed, and the exit code is 1 then; the others have their labels all the same.

    Example: `pacs-cbir label import diagnoses.csv`
    """
    from pacs_cbir.labelling import import_labels
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    with open_database(load_settings()) as database:
        all_here = import_labels(table, database, Console())
    if not all_here:
        raise typer.Exit(EXIT_FAILURE)
