"""Which headers were read as which MR sequence, and giving a stack another name while its embeddings stay.

A stack's row never changes, so it gets another: the indexes follow that as they follow a worker. Embeddings do not
depend on the name, and are copied.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, text

from pacs_cbir.dicom.sequence_header import NUMBERS
from pacs_cbir.store.tables import stacks

BATCH = 500
"""Series whose stacks are looked at in one go."""


@dataclass(frozen=True)
class ReadAs:
    """Headers that were read as one sequence for one reason, and differ in numbers alone.

    Attributes:
        values: keyword → what they say; under `rule` why it is that sequence.
        numbers: keyword → the different values, as text.
        stacks, series: how many have such headers.
    """

    sequence: str
    values: Mapping[str, str]
    numbers: Mapping[str, tuple[str, ...]]
    stacks: int
    series: int


@dataclass(frozen=True)
class NamedStack:
    """A stack of an MR image as far as its name goes; the attributes are its row's.

    Attributes:
        sop_class_uid: of its instances.
    """

    id: uuid.UUID
    series_id: int
    encoder_id: int
    sequence: str
    body_part: str
    not_embedded: str | None
    evidence: Mapping[str, str]
    sop_class_uid: str


@dataclass(frozen=True)
class Name:
    """What a stack is taken for; the attributes are its row's."""

    sequence: str
    evidence: Mapping[str, str]
    in_domain: bool
    not_embedded: str | None


# Of what is no MR image no header was looked at.
_READ_AS = text(f"""
    SELECT sequence, evidence - CAST(:numbers AS text[]) AS header, count(*) AS stacks,
           count(DISTINCT series_id) AS series,
           {", ".join(f"array_agg(DISTINCT evidence ->> '{number}') AS {number.lower()}" for number in NUMBERS)}
      FROM stacks JOIN encoders ON encoders.id = encoder_id
     WHERE state = 'active' AND evidence <> '{{}}'
     GROUP BY sequence, header ORDER BY sequence, count(*) DESC, header
""")  # noqa: S608 - DICOM keywords of this project

_COUNT = text("SELECT count(*) FROM series")

_NEXT = text("SELECT id FROM series WHERE id > :after ORDER BY id LIMIT :batch")

_NAMED = text("""
    SELECT id, series_id, encoder_id, sequence, body_part, not_embedded, evidence,
           separated_by ->> 'sop_class_uid' AS sop_class_uid
      FROM stacks
     WHERE series_id = ANY(:series_ids) AND encoder_id = ANY(:encoder_ids) AND evidence <> '{}'
     ORDER BY series_id, id
""")

# Whoever deletes a series may wait for a worker, and that one for the encoder that is held here: this waits for nobody.
_HOLD_SERIES = text("SELECT id FROM series WHERE id = :series_id FOR KEY SHARE SKIP LOCKED")
_IS_THERE = text("SELECT EXISTS (SELECT FROM series WHERE id = :series_id)")

# The embeddings are as old as they were: what arrived since then is still to be embedded.
_COPY = text("""
    INSERT INTO stacks (id, series_id, encoder_id, sequence, plane, body_part, in_domain, not_embedded, separated_by,
                        evidence, sop_instance_uids, missing_slices, created_at)
    SELECT :new_id, series_id, encoder_id, :sequence, CASE WHEN CAST(:not_embedded AS text) IS NULL THEN plane END,
           body_part, :in_domain, :not_embedded, separated_by, CAST(:evidence AS jsonb), sop_instance_uids,
           missing_slices, created_at
      FROM stacks WHERE id = :id
""")

_COPY_EMBEDDINGS = text("""
    INSERT INTO embeddings (stack_id, slice, sop_instance_uid, frame_number, position_mm, vector)
    SELECT :new_id, slice, sop_instance_uid, frame_number, position_mm, vector FROM embeddings WHERE stack_id = :id
""")


def read_as(connection: Connection) -> list[ReadAs]:
    """What the active encoder's stacks were read as, by sequence, the most frequent header first."""
    return [_read_as(row) for row in connection.execute(_READ_AS, {"numbers": list(NUMBERS)})]


def _read_as(row: Row[*tuple[object, ...]]) -> ReadAs:
    found = {number: row._mapping[number.lower()] for number in NUMBERS}
    numbers = {number: tuple(one for one in values if one is not None) for number, values in found.items()}
    return ReadAs(row.sequence, row.header, {n: v for n, v in numbers.items() if v}, row.stacks, row.series)


def count_series(connection: Connection) -> int:
    """How many series there are."""
    return int(connection.execute(_COUNT).scalar_one())


def series_after(connection: Connection, after: int) -> list[int]:
    """Some series, those with the lowest ids above `after`."""
    return list(connection.scalars(_NEXT, {"after": after, "batch": BATCH}))


def named_stacks(connection: Connection, series_ids: Sequence[int], encoder_ids: Collection[int]) -> list[NamedStack]:
    """The MR images' stacks of some series and encoders, series by series."""
    given = {"series_ids": list(series_ids), "encoder_ids": list(encoder_ids)}
    return [NamedStack(**row._mapping) for row in connection.execute(_NAMED, given)]


def hold_series(connection: Connection, series_id: int) -> bool:
    """Keep a series from being deleted until the transaction ends; False where it is gone, or locked at present."""
    return connection.execute(_HOLD_SERIES, {"series_id": series_id}).scalar() is not None


def is_there(connection: Connection, series_id: int) -> bool:
    """Whether a series is here."""
    return bool(connection.execute(_IS_THERE, {"series_id": series_id}).scalar_one())


def rename(connection: Connection, stack: NamedStack, name: Name) -> None:
    """Put another row in a stack's place, with its embeddings unless `not_embedded` says why it has none any more.

    To be called while its encoder is held alone and its series is held.
    """
    given = {
        "id": stack.id,
        "new_id": uuid.uuid4(),
        "sequence": name.sequence,
        "evidence": json.dumps(dict(name.evidence)),
        "in_domain": name.in_domain,
        "not_embedded": name.not_embedded,
    }
    connection.execute(_COPY, given)
    if name.not_embedded is None:
        connection.execute(_COPY_EMBEDDINGS, given)
    connection.execute(delete(stacks).where(stacks.c.id == stack.id))
