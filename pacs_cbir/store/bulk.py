"""Many rows at once, by COPY, for a database that is filled and not received."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, text

from pacs_cbir.store.tables import metadata

_NULL = "\\N"


def copy_rows(connection: Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, identities given; all have the columns of the first.

    Args:
        rows: column → value: text, numbers, bytes, a dict for JSON, a list of texts that need no quotes, None.
    """
    lines = list(rows)
    if not lines:
        return
    columns = list(lines[0])
    sink = io.StringIO()
    csv.writer(sink).writerows([_field(row[column]) for column in columns] for row in lines)
    sink.seek(0)
    names = ", ".join(metadata.tables[table].c[column].name for column in columns)
    cursor = connection.connection.cursor()
    cursor.copy_expert(f"COPY {metadata.tables[table].name} ({names}) FROM STDIN (FORMAT csv, NULL '{_NULL}')", sink)


def _field(value: Any) -> Any:
    if value is None:
        return _NULL
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return f"{{{','.join(value)}}}"
    return value


def analyse(connection: Connection) -> None:
    """Let the planner know what is there, as autovacuum does after a while; of the tables' owner alone."""
    connection.execute(text("ANALYZE"))
