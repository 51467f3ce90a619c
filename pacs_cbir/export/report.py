"""What an export says of itself: the manifest, the report that goes with it, and what the site is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacs_cbir.dicom.confidentiality import EDITION
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.export.query import Order
from pacs_cbir.learn.datasets.database import pseudonymous_rows
from pacs_cbir.learn.datasets.report import save
from pacs_cbir.learn.manifest import Row
from pacs_cbir.store.pseudonyms import Pseudonyms
from pacs_cbir.store.session import Database
from pacs_cbir.store.stack_files import stack_files

MANIFEST, REPORT = "manifest.csv", "report.json"


@dataclass(frozen=True)
class Left:
    """A series that was selected and has not left the site, and why."""

    study_instance_uid: str
    series_instance_uid: str
    reason: str


@dataclass
class Done:
    """What an export has done.

    Attributes:
        written: file below the instances directory → what was made of it.
        removed: how many series an earlier run wrote that are in the set no more.
    """

    written: dict[str, Path] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    removed: int = 0


def save_manifest(
    database: Database, pseudonyms: Pseudonyms, written: Mapping[str, Path], out: Path, console: Console
) -> tuple[list[Row], list[str]]:
    """List what was written and is embedded, for training, with the sequence that the service took it for.

    Returns:
        the rows, and what is not among them and why. Without any rows there is no manifest.

    Raises:
        ManifestError, DatabaseUnavailable.
    """
    with database.transaction() as connection:
        found = [file for file in stack_files(connection) if file.file in written]
    rows, notes = pseudonymous_rows(found, pseudonyms, written)
    if rows:
        save(rows, notes, out / MANIFEST, console)
    else:
        (out / MANIFEST).unlink(missing_ok=True)
        notes.append("no manifest: nothing that was exported is embedded")
    return rows, notes


def save_report(out: Path, order: Order, done: Done, pseudonyms: Pseudonyms, notes: Sequence[str]) -> None:
    """Write `report.json`: what was done, and what is not in the set and why, by pseudonyms alone. The query is not in
    it, since it may name someone.

    Raises:
        DiskUnavailable.
    """
    series = Counter(path.parent for path in done.written.values())
    content = {
        "profile": f"PS3.15 {EDITION} Basic Application Level Confidentiality Profile",
        "retain_longitudinal": order.retain_longitudinal,
        "clean_pixel": order.clean_pixel,
        "instances": len(done.written),
        "notes": list(notes),
        "series": [
            {
                "patient": folder.parent.parent.name,
                "study": folder.parent.name,
                "series": folder.name,
                "instances": count,
            }
            for folder, count in series.items()
        ],
        "not_exported": [
            {
                "study": pseudonyms.uid(one.study_instance_uid),
                "series": pseudonyms.uid(one.series_instance_uid),
                "reason": one.reason,
            }
            for one in done.left
        ],
    }
    with whole_file(out / REPORT) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode())


def show(done: Done, console: Console) -> None:
    """Tell the site what has left, and by its own UIDs what has not."""
    if done.left:
        table = Table("study", "series", "why", title="Not exported")
        for one in done.left:
            table.add_row(one.study_instance_uid, one.series_instance_uid, escape(one.reason))
        console.print(table)
    if done.removed:
        console.print(f"{done.removed} series of an earlier run are not in the set any more", highlight=False)
    series = len({path.parent for path in done.written.values()})
    console.print(
        f"{len(done.written)} instances of {series} series exported, {len(done.left)} series not", highlight=False
    )
