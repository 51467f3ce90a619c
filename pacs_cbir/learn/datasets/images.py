"""Any folder of pictures, or volumes, that a table lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pacs_cbir.learn.columns import read_table
from pacs_cbir.learn.manifest import Row
from pacs_cbir.learn.manifest_file import parse_rows


def images_rows(table: Path) -> tuple[list[Row], list[str]]:
    """The rows of a CSV or Parquet table with a column `path`, relative to the table's folder, and others of a
    manifest's where they are known: label, mask, patient, sequence, split, ...

    Without `study` a numbered slice belongs to its patient's one study, any other picture is a study of its own;
    without `sequence` it is "unknown".

    Returns:
        the rows, and which columns were not used.

    Raises:
        ManifestError: the table cannot be read, or rows are at fault.
    """
    records = read_table(table)
    unused = sorted(set(records[0]) - Row.model_fields.keys()) if records else []
    known = [{name: value for name, value in record.items() if name not in unused} for record in records]
    rows = parse_rows([_completed(record) for record in known], table)
    return rows, [f"columns not used: {', '.join(unused)}"] if unused else []


def _completed(record: dict[str, Any]) -> dict[str, Any]:
    patient, sliced = record.get("patient"), record.get("slice") is not None
    study = record.get("study") or (patient if patient and sliced else record.get("path"))
    return record | {"study": study, "sequence": record.get("sequence") or "unknown"}
