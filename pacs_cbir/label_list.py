"""What `pacs-cbir labels import` does: a site's list of studies and labels → the studies' labels."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rich.console import Console

from pacs_cbir.errors import InvalidQuery, ManifestError
from pacs_cbir.learn.columns import read_table
from pacs_cbir.store import labels
from pacs_cbir.store.session import Database

STUDY, LABEL = "StudyInstanceUID", "label"
LISTED = 10
"""Studies that are named where they are not here; the others are counted."""


def import_labels(path: Path, database: Database, console: Console) -> None:
    """Give each study of a list the labels that its rows name, and no others; all of the list, or nothing.

    Args:
        path: CSV or Parquet with the columns `StudyInstanceUID` and `label`, a row a label; a study with one empty
            label loses its labels.

    Raises:
        ManifestError: the list cannot be read, or labels cannot be kept: all of them are listed.
        DatabaseUnavailable.
    """
    found, faults = _read(path)
    if faults:
        raise ManifestError(path.name, faults)
    with database.transaction() as connection:
        unknown = [study for study, given in found.items() if not labels.replace(connection, study, given)]
    console.print(f"{len(found) - len(unknown)} studies have the labels of {path.name}", highlight=False)
    if unknown:
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        console.print(f"{len(unknown)} are not here: {', '.join(unknown[:LISTED])}{more}", highlight=False)


def _read(path: Path) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Study Instance UID → labels; and what is wrong."""
    records = read_table(path)
    missing = [name for name in (STUDY, LABEL) if records and name not in records[0]]
    if missing or not records:
        return {}, [f"row 1: column '{name}' is missing: add it" for name in missing] or ["no rows: add some"]
    given: dict[str, list[str]] = defaultdict(list)
    for record in records:
        own = given[str(record[STUDY] or "").strip()]
        if record[LABEL] is not None:
            own.append(str(record[LABEL]))
    found, faults = {}, []
    for study, named in given.items():
        try:
            found[study] = labels.checked(named)
        except InvalidQuery as error:
            faults.append(f"study {study or 'without a UID'}: {error}")
    return found, faults
