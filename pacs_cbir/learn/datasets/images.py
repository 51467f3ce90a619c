"""Any folder of pictures, or volumes, that a table lists."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.columns import read_table
from pacs_cbir.learn.manifest import Row
from pacs_cbir.learn.manifest_file import parse_rows

MOST_LABELS = 20


def images_rows(table: Path) -> tuple[list[Row], list[str]]:
    """The rows of a CSV or Parquet table with a column `path`, relative to the table's folder, and others of a
    manifest's where they are known: label, mask, patient, sequence, split, ...

    Without `study` a numbered slice belongs to its patient's one study, any other picture is a study of its own;
    without `sequence` it is "unknown".

    Returns:
        the rows, and which columns were not used, above all where one may be the label.

    Raises:
        ManifestError: the table cannot be read, or rows are at fault.
    """
    records = read_table(table)
    columns = list(records[0]) if records else []
    if columns and "path" not in columns:
        raise ManifestError(table.name, [f"row 1: no column path; it has {', '.join(columns)}: rename one, or add it"])
    unused = sorted(set(columns) - Row.model_fields.keys())
    known = [{name: value for name, value in record.items() if name not in unused} for record in records]
    rows = parse_rows([_completed(record) for record in known], table)
    notes = [f"columns not used: {', '.join(unused)}"] if unused else []
    if all(row.label is None for row in rows) and (labels := _like_labels(records, unused)):
        notes.append(f"no row has a label, and {', '.join(labels)} may be one: rename that column to label")
    return rows, notes


def _like_labels(records: list[dict[str, Any]], columns: list[str]) -> list[str]:
    """Columns of a few values, of which some come again."""
    values = {column: [record[column] for record in records if record[column] is not None] for column in columns}
    # A Parquet file's may be lists.
    values = {column: of for column, of in values.items() if all(isinstance(one, Hashable) for one in of)}
    return [column for column, of in values.items() if 2 <= len(set(of)) <= min(MOST_LABELS, len(of) - 1)]


def _completed(record: dict[str, Any]) -> dict[str, Any]:
    patient, sliced = record.get("patient"), record.get("slice") is not None
    study = record.get("study") or (patient if patient and sliced else record.get("path"))
    return record | {"study": study, "sequence": record.get("sequence") or "unknown"}
