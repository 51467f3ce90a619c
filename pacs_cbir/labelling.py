"""What `pacs-cbir label` does: labels of one study, or those of a site's list of studies."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacs_cbir.errors import InvalidQuery, ManifestError
from pacs_cbir.learn.columns import read_table
from pacs_cbir.store import labels
from pacs_cbir.store.session import Database

STUDY, LABEL = "StudyInstanceUID", "label"


def show_labels(study_instance_uid: str | None, database: Database, console: Console) -> None:
    """Print a study's labels, a line each; without a study all labels that are in use, with their studies' number.

    Raises:
        InvalidQuery: the study is not here.
        DatabaseUnavailable.
    """
    with database.transaction() as connection:
        if study_instance_uid is not None:
            _print(labels.of_study(connection, study_instance_uid), console)
            return
        counts = labels.counted(connection)
    table = Table("label", "studies")
    for label, count in counts.items():
        table.add_row(escape(label), str(count))
    console.print(table if counts else "no study has a label", highlight=False)


def add_labels(study_instance_uid: str, given: list[str], database: Database, console: Console) -> None:
    """Give a study more labels, and print all that it has then.

    Raises:
        InvalidQuery: the study is not here, or a label cannot be kept or is not there.
        DatabaseUnavailable.
    """
    with database.transaction() as connection:
        _print(labels.add(connection, study_instance_uid, given), console)


def remove_labels(study_instance_uid: str, given: list[str], database: Database, console: Console) -> None:
    """Take labels from a study, and print all that it has then.

    Raises:
        InvalidQuery: the study is not here, or a label cannot be kept or is not there.
        DatabaseUnavailable.
    """
    with database.transaction() as connection:
        _print(labels.remove(connection, study_instance_uid, given), console)


def _print(found: tuple[str, ...] | None, console: Console) -> None:
    if found is None:
        raise InvalidQuery("there is no such study here; /dicom-web/studies lists them")
    for label in found:
        console.print(label, highlight=False, markup=False, soft_wrap=True)


def import_labels(path: Path, database: Database, console: Console) -> bool:
    """Give each study of a list the labels that its rows name, and no others; a list with a fault changes nothing.

    Returns whether all its studies are here; those that are not are listed.

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
        # In one order for all lists: two that come at once would otherwise wait for one another.
        unknown = [study for study, given in sorted(found.items()) if not labels.replace(connection, study, given)]
    here = len(found) - len(unknown)
    have = "1 study has" if here == 1 else f"{here} studies have"
    console.print(f"{have} the labels of {path.name}", highlight=False, markup=False)
    if unknown:
        console.print(f"{len(unknown)} {'is' if len(unknown) == 1 else 'are'} not here:", highlight=False)
    for study in unknown:
        console.print(study, highlight=False, markup=False, soft_wrap=True)
    return not unknown


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
