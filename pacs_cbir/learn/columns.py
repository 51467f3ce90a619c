"""Tables on disk: CSV or Parquet, told apart by the suffix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pacs_cbir.errors import ManifestError


def read_table(path: Path) -> list[dict[str, Any]]:
    """One dictionary a row, None where a value is empty. A CSV's values are text; a Parquet file's numbers are whole
    where they can be, since a column of numbers that lacks some is one of floats.

    Raises:
        ManifestError: another suffix, or it cannot be read.
    """
    try:
        parquet = _is_parquet(path)
        if not parquet:
            _require_commas(path)
        if parquet:
            names = pyarrow.parquet.read_schema(path).names
        else:
            with pyarrow.csv.open_csv(path) as reader:
                names = reader.schema.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ManifestError(path.name, [f"row 1: columns {', '.join(twice)} are there twice: keep one of each"])
        if parquet:
            return _plain(pyarrow.parquet.read_table(path))
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        return _plain(pyarrow.csv.read_csv(path, convert_options=options))
    except UnicodeDecodeError as error:
        raise ManifestError(path.name, [f"cannot be read: {error}: save it in UTF-8"]) from error
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(path.name, [f"cannot be read: {error}"]) from error


def _require_commas(path: Path) -> None:
    """Some spreadsheets part columns otherwise, where a comma is the decimal point."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if sign in first and "," not in first:
            raise ManifestError(path.name, [f"row 1: its columns are parted by {name}: save it with commas"])


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    return [{name: _value(value) for name, value in record.items()} for record in table.to_pylist()]


def _value(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    return None if isinstance(value, str) and not value.strip() else value


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table; what was there is replaced.

    Raises:
        ManifestError: another suffix, or it cannot be written.
    """
    try:
        if _is_parquet(path):
            pyarrow.parquet.write_table(table, path)
        else:
            pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(quoting_style="needed"))
    except OSError as error:
        raise ManifestError(path.name, [f"cannot be written: {error}"]) from error


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() not in {".csv", ".parquet"}:
        raise ManifestError(path.name, [f"'{path.suffix}' is not a manifest's suffix: name it .csv or .parquet"])
    return path.suffix.lower() == ".parquet"
