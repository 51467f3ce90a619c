"""A patient is deleted: rows in one transaction (`removal`), then files, and then it is looked for what could be left.

While a deletion is pending its rows name what is to be gone by UIDs, numbers, file names and salted digests, so that it
can be gone on with after a kill; once it is proven that nothing is left, how much it was is all that is kept. What
arrives for the patient afterwards is new data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Row,
    Text,
    cast,
    delete,
    exists,
    func,
    select,
    text,
    update,
)

from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.tables import deletion_items, deletions, instances, metadata, series, studies
from pacs_cbir.store.tables import patients as patient_rows


class Kind(StrEnum):
    """What an item of a pending deletion names."""

    PATIENT = "patient"
    """A row of `patients`."""
    IDENTITY = "identity"
    """Salted SHA-256 of an issuer and a PatientID."""
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    STACK = "stack"
    FILE = "file"
    """Below the instances directory."""


# Which columns of any table name what is deleted, those of tables that a later version adds too.
COLUMNS = {
    "study_instance_uid": Kind.STUDY,
    "series_instance_uid": Kind.SERIES,
    "sop_instance_uid": Kind.INSTANCE,
    "note_sop_instance_uid": Kind.INSTANCE,
    "sop_instance_uids": Kind.INSTANCE,
    "stack_id": Kind.STACK,
    "file": Kind.FILE,
}
# A change of a stack is a random number that names nobody, and the indexes need it to follow.
_EXEMPT = frozenset({"stack_changes", "deletion_items", "deletions"})


@dataclass(frozen=True)
class Deletion:
    """A deletion; no patient's identity.

    Attributes:
        removed: what → how many rows or files.
        transaction_id: of the transaction that deleted the rows.
        proved_at: when nothing was found to be left, by the database's clock; None: pending.
    """

    id: int
    removed: Mapping[str, int]
    transaction_id: int
    salt: bytes
    proved_at: datetime | None


def digest(salt: bytes, identifier: Identifier) -> str:
    """An identifier as a pending deletion keeps it."""
    named = f"{identifier.issuer_of_patient_id}\0{identifier.patient_id}"
    return hashlib.sha256(salt + named.encode("utf-8", "replace")).hexdigest()


def pending(connection: Connection) -> list[Deletion]:
    """Deletions of which it is not proven yet that nothing is left."""
    rows = connection.execute(select(deletions).where(deletions.c.proved_at.is_(None)).order_by(deletions.c.id))
    return [of_row(row) for row in rows]


def get(connection: Connection, deletion_id: int) -> Deletion | None:
    """One deletion; None where there is none of that number."""
    row = connection.execute(select(deletions).where(deletions.c.id == deletion_id)).one_or_none()
    return None if row is None else of_row(row)


def items_of(connection: Connection, deletion: Deletion, kind: Kind) -> set[str]:
    """What a pending deletion names."""
    query = select(deletion_items.c.value).where(
        deletion_items.c.deletion_id == deletion.id, deletion_items.c.kind == kind
    )
    return set(connection.scalars(query))


def rows_left(connection: Connection, deletion: Deletion) -> dict[str, int]:
    """Table and column → rows that still name what was deleted, and had not arrived since.

    Instances, series and studies that came again with their UIDs are new data: what they name is not looked for.
    """
    found = {}
    again = _came_again(connection, deletion)
    for table_name, column, kind in naming_columns():
        if table_name in {"studies", "series", "instances"} and column != "file":
            continue
        gone = sorted(items_of(connection, deletion, kind) - again)
        table = metadata.tables[table_name]
        query = select(func.count()).select_from(table).where(names(table.c[column], gone))
        if table_name == "rejections":
            # Notes may come, or come again, as long as it is pending: what they say is new data. One that came before
            # is told by the clock: neither is written while the other is.
            began = select(deletions.c.requested_at).where(deletions.c.id == deletion.id).scalar_subquery()
            query = query.where(table.c.rejected_at <= began)
        count = connection.execute(query).scalar_one()
        if count:
            found[f"{table_name}.{column}"] = count
    ids = [int(one) for one in items_of(connection, deletion, Kind.PATIENT)]
    if count := connection.execute(select(func.count()).where(patient_rows.c.id.in_(ids))).scalar_one():
        found["patients"] = count
    return found


def names(column: Column[Any], gone: list[str]) -> ColumnElement[bool]:
    """Whether a row names one of some things. A list is a storage commitment's request or a stack's instances: the row
    goes as a whole, and a sender that is told nothing keeps its copies."""
    listed = cast(gone, ARRAY(Text))
    if not isinstance(column.type, ARRAY):
        return column == func.any(cast(listed, ARRAY(column.type)))
    # Not &&, which compares each with each: half a minute for a patient of 500 instances among 200 000 stacks.
    value = func.unnest(column).column_valued("value")
    return exists(select(value).where(value == func.any(listed)).correlate(column.table))


def _came_again(connection: Connection, deletion: Deletion) -> set[str]:
    """UIDs that were deleted and have rows again."""
    found: set[str] = set()
    for kind, column in (
        (Kind.STUDY, studies.c.study_instance_uid),
        (Kind.SERIES, series.c.series_instance_uid),
        (Kind.INSTANCE, instances.c.sop_instance_uid),
    ):
        found |= set(connection.scalars(select(column).where(column.in_(items_of(connection, deletion, kind)))))
    return found


def prove(connection: Connection, deletion: Deletion) -> None:
    """Nothing is left: of the deletion how much it was is kept, and nothing that names anything."""
    connection.execute(delete(deletion_items).where(deletion_items.c.deletion_id == deletion.id))
    connection.execute(
        update(deletions).where(deletions.c.id == deletion.id).values(proved_at=func.clock_timestamp(), salt=b"")
    )


# What every API process tells of its index, see Follower; a process that died is gone from here by itself.
BEHIND = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE :prefix || '%'
      AND coalesce(nullif(substring(application_name FROM '[0-9]+$'), '')::bigint, 0) <= :transaction_id
""")


def indexes_behind(connection: Connection, deletion: Deletion, prefix: str) -> int:
    """How many API processes have not said yet that their index is past the deletion."""
    named_by = {"prefix": prefix, "transaction_id": deletion.transaction_id}
    return int(connection.execute(BEHIND, named_by).scalar_one())


def naming_columns() -> list[tuple[str, str, Kind]]:
    """Table and column of everything that may name what is deleted, and what the column names."""
    # A stack's embeddings are looked for by the stack, which names their instances too and has an index: to read
    # millions of vectors takes longer than a statement may, and arrivals wait meanwhile.
    return [
        (table.name, column.name, COLUMNS[column.name])
        for table in metadata.sorted_tables
        if table.name not in _EXEMPT
        for column in table.columns
        if column.name in COLUMNS and (column.name == "stack_id" or "stack_id" not in table.columns)
    ]


def of_row(row: Row[*tuple[object, ...]]) -> Deletion:
    """From a row of `deletions`."""
    return Deletion(row.id, row.removed, row.transaction_id, row.salt, row.proved_at)
