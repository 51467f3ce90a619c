"""A manifest as a file: CSV or Parquet, with paths relative to its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.columns import read_table, write_table
from pacs_cbir.learn.manifest import FIRST_ROW, Manifest, Row
from pacs_cbir.learn.manifest_check import check

_REQUIRED = tuple(name for name, field in Row.model_fields.items() if field.is_required())
_COLUMN_TYPES = {
    "slice": pa.int64(),
    "channel": pa.int64(),
    "spacing_mm": pa.float64(),
    "slice_spacing_mm": pa.float64(),
}


def read_manifest(path: Path) -> Manifest:
    """Read a CSV or Parquet file, told apart by the suffix.

    Raises:
        ManifestError: the file cannot be read, or rows are at fault: all of them are listed.
    """
    records = read_table(path)
    columns = set(records[0]) if records else set()
    faults = [f"row 1: column '{name}' is missing: add it" for name in _REQUIRED if records and name not in columns]
    if unknown := sorted(columns - Row.model_fields.keys()):
        known = ", ".join(Row.model_fields)
        faults.append(
            f"row 1: columns {', '.join(unknown)} are not known: rename them or leave them out; known: {known}"
        )
    if faults:
        raise ManifestError(path.name, faults)
    manifest = Manifest(tuple(parse_rows(records, path)))
    check(manifest, path.name)
    return manifest


def parse_rows(records: Sequence[Mapping[str, Any]], table: Path) -> list[Row]:
    """Rows from a table's values, with paths relative to its folder.

    Raises:
        ManifestError: there are none, or values are at fault: all of them are listed.
    """
    rows, faults = [], []
    for number, record in enumerate(records, FIRST_ROW):
        try:
            rows.append(_row(record, table.parent))
        except ValidationError as error:
            faults += [f"row {number}: {_explained(fault)}" for fault in error.errors()]
    if faults or not rows:
        raise ManifestError(table.name, faults or ["no rows: one at least is needed"])
    return rows


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a CSV or Parquet file, by the suffix, with paths relative to its folder.

    Raises:
        ManifestError: another suffix, or it cannot be written.
    """
    folder = path.parent.resolve()
    records = [row.model_dump() for row in manifest.rows]
    for record in records:
        for name in ("path", "mask"):
            record[name] = record[name] and os.path.relpath(record[name], folder)
    schema = pa.schema([(name, _COLUMN_TYPES.get(name, pa.string())) for name in Row.model_fields])
    write_table(pa.Table.from_pylist(records, schema), path)


def _row(record: Mapping[str, Any], folder: Path) -> Row:
    fields = {name: value for name, value in record.items() if value is not None}
    paths = {
        name: os.path.normpath(folder.resolve() / str(fields[name])) for name in ("path", "mask") if name in fields
    }
    return Row(**({"patient": ""} | fields | paths))


def _explained(fault: Mapping[str, Any]) -> str:
    name, value = fault["loc"][0], fault.get("input")
    if fault["type"] == "missing":
        return f"{name} is empty: fill it in"
    return f"{name} '{value}': {fault['msg'].lower()}; correct it"
