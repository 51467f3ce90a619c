"""`pacs-cbir sequences`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

commands = typer.Typer()


@commands.command()
def sequences(
    *,
    re_sort: Annotated[
        bool, typer.Option("--re-sort", help="Read what is here anew first, by the rules as they are now.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --re-sort: show what would be read otherwise, and change nothing.")
    ] = False,
) -> None:
    """Show which headers were read as which MR sequence and why, the unknown ones first.

    Series descriptions and protocol names are shown as they came, whatever someone wrote there. With --re-sort the
    rules of PACS_CBIR_SEQUENCE_RULES hold for what is here too, and nothing is embedded again for that; restart the
    service before, so that what arrives is read alike. Interrupted, the same command goes on.

    Example: `PACS_CBIR_SEQUENCE_RULES=/etc/pacs-cbir-sequences.toml pacs-cbir sequences --re-sort`
    """
    from pacs_cbir.errors import SettingsError
    from pacs_cbir.sequences import print_changes, print_sequences, re_sort_all
    from pacs_cbir.settings import load_settings
    from pacs_cbir.store.session import open_database

    settings = load_settings()
    if dry_run and not re_sort:
        raise SettingsError("--dry-run belongs to --re-sort")
    with open_database(settings) as database:
        if dry_run:
            print_changes(settings, database, Console())
            return
        if re_sort:
            re_sort_all(settings, database, Console(stderr=True))
        print_sequences(database, Console())
