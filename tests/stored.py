"""What an ingest left: rows and files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Table, select, true, update

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, jobs, patients, series, studies, study_patients

_TABLES = (patients, studies, study_patients, series, instances, jobs)


def rows(database: Database, table: Table) -> list[Row[Any]]:
    """All rows of a table, in the order of its key."""
    with database.transaction() as connection:
        return list(connection.execute(select(table).order_by(*table.primary_key.columns)))


def everything(database: Database, settings: Settings) -> tuple[list[list[Row[Any]]], dict[str, bytes]]:
    """All rows that an ingest writes, and all files with their content."""
    found = {str(path): path.read_bytes() for path in files(settings)}
    return [rows(database, table) for table in _TABLES], found


def files(settings: Settings) -> list[Path]:
    """Every file below the instances and the incoming directory."""
    return [
        path
        for folder in (settings.instances_dir, settings.incoming_dir)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def let_go(database: Database, settings: Settings, *sop_instance_uids: str) -> None:
    """Let the pixel data of instances leave; of all without names."""
    chosen = instances.c.sop_instance_uid.in_(sop_instance_uids) if sop_instance_uids else true()
    with database.transaction() as connection:
        left = connection.scalars(select(instances.c.file).where(chosen)).all()
        connection.execute(update(instances).where(chosen).values(file=None))
    for file in left:
        if file is not None:
            (settings.instances_dir / file).unlink()


def data_set(path: Path) -> bytes:
    """A Part 10 file's bytes behind its file meta information (PS3.10 7.1)."""
    content = path.read_bytes()
    assert content[128:132] == b"DICM"
    (length,) = struct.unpack("<I", content[140:144])
    return content[144 + length :]
