"""Tables on disk: CSV or Parquet, told apart by the suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pacs_cbir.errors import ManifestError


def read_table(path: Path) -> list[dict[str, Any]]:
    """One dictionary a row; a CSV's values are text, and None where they are empty.

    Raises:
        ManifestError: another suffix, or it cannot be read.
    """
    try:
        parquet = _is_parquet(path)
        if parquet:
            names = pyarrow.parquet.read_schema(path).names
        else:
            with pyarrow.csv.open_csv(path) as reader:
                names = reader.schema.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ManifestError(path.name, [f"row 1: columns {', '.join(twice)} are there twice: keep one of each"])
        if parquet:
            return list(pyarrow.parquet.read_table(path).to_pylist())
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        return list(pyarrow.csv.read_csv(path, convert_options=options).to_pylist())
    except UnicodeDecodeError as error:
        raise ManifestError(path.name, [f"cannot be read: {error}: save it in UTF-8"]) from error
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(path.name, [f"cannot be read: {error}"]) from error


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
