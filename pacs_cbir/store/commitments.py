"""Storage commitments (PS3.4 Annex J): what a sender asks this service to keep, so that it may delete its own copy.

    request ──check──▶ checked: each instance committed, or refused ──report──▶ (row deleted)
                          │ the sender cannot be told
                          └── tried again, with growing pauses, for `TRY_SECONDS` ──▶ given up

A request is a row from the moment it is answered, so that a restart loses none. An instance is committed in the
transaction that writes the request's outcome, after its file was read and is what was received, and is never let go
from then on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection, select, text

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import commitments, instances

TRY_SECONDS = 2 * 86400.0
"""Senders wait for hours, and ask again after that."""
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 3600.0
LEASE_SECONDS = 900.0
"""A request whose process died is taken up after it; longer than telling its sender takes, and prolonged while its
files are read."""
KEEP_SECONDS = 30 * 86400.0
"""Requests that were given up are shown for so long."""


class Refusal(StrEnum):
    """Why an instance was not committed."""

    NO_SUCH_INSTANCE = "no such instance"
    OTHER_SOP_CLASS = "another SOP class"
    NOT_POSSIBLE = "not possible"


@dataclass(frozen=True)
class Reference:
    """An instance that was asked for."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Request:
    """A request that is worked on.

    Attributes:
        ae_title: who asked, and is told.
        outcomes: of each reference, None: committed; None as a whole before they were checked.
        attempt: counted from 1; with the id it fences off a process that lost its lease.
    """

    id: int
    ae_title: str
    transaction_uid: str
    references: tuple[Reference, ...]
    outcomes: tuple[Refusal | None, ...] | None
    attempt: int


@dataclass(frozen=True)
class Open:
    """A request whose sender was not told yet, as an admin sees it.

    Attributes:
        error: why not; empty before the first attempt ended.
        given_up: nobody tries any more.
    """

    ae_title: str
    transaction_uid: str
    instances: int
    requested_at: datetime
    attempts: int
    error: str
    given_up: bool


# The same transaction again is a sender that was not told: it is checked and reported anew.
REQUEST = text("""
    INSERT INTO commitments (ae_title, transaction_uid, sop_class_uids, sop_instance_uids)
    VALUES (:ae_title, :transaction_uid, :sop_class_uids, :sop_instance_uids)
    ON CONFLICT (ae_title, transaction_uid) DO UPDATE
    SET sop_class_uids = excluded.sop_class_uids, sop_instance_uids = excluded.sop_instance_uids, outcomes = NULL,
        requested_at = clock_timestamp(), not_before = clock_timestamp(), attempts = commitments.attempts + 1,
        error = '', given_up = false
    RETURNING id
""")

CLAIM = text("""
    UPDATE commitments SET attempts = attempts + 1,
           not_before = clock_timestamp() + make_interval(secs => :lease_seconds)
    WHERE id = (SELECT id FROM commitments WHERE NOT given_up AND not_before <= clock_timestamp()
                ORDER BY not_before LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, ae_title, transaction_uid, sop_class_uids, sop_instance_uids, outcomes, attempts
""")

FORGET = text("""
    DELETE FROM commitments WHERE given_up AND requested_at < clock_timestamp() - make_interval(secs => :keep_seconds)
""")

# Whose file is another one by now was replaced since it was read.
COMMIT = text("""
    UPDATE instances SET committed_at = coalesce(committed_at, clock_timestamp())
      FROM unnest(CAST(:sop_instance_uids AS text[]), CAST(:files AS text[])) AS whole (sop_instance_uid, file)
     WHERE instances.sop_instance_uid = whole.sop_instance_uid AND instances.file = whole.file
    RETURNING instances.sop_instance_uid
""")

EXTEND = text("""
    UPDATE commitments SET not_before = clock_timestamp() + make_interval(secs => :lease_seconds)
    WHERE id = :id AND attempts = :attempt
""")

WRITE_OUTCOMES = text("""
    UPDATE commitments SET outcomes = :outcomes WHERE id = :id AND attempts = :attempt
""")

DELIVERED = text("DELETE FROM commitments WHERE id = :id AND attempts = :attempt")

# The pause doubles with each attempt; a large exponent is cut off before it is a large number.
FAILED = text("""
    UPDATE commitments SET error = :error,
           given_up = requested_at < clock_timestamp() - make_interval(secs => :try_seconds),
           not_before = clock_timestamp() + make_interval(
               secs => least(:first_seconds * power(2, least(attempts, 30) - 1), :longest_seconds))
    WHERE id = :id AND attempts = :attempt
    RETURNING given_up
""")


def request(connection: Connection, ae_title: str, transaction_uid: str, references: Sequence[Reference]) -> int:
    """Take a request on; the same one again starts anew.

    Returns:
        its row.
    """
    values = {
        "ae_title": ae_title,
        "transaction_uid": transaction_uid,
        "sop_class_uids": [one.sop_class_uid for one in references],
        "sop_instance_uids": [one.sop_instance_uid for one in references],
    }
    return int(connection.execute(REQUEST, values).scalar_one())


def claim(connection: Connection) -> Request | None:
    """Take the request that is due longest; None where none is."""
    connection.execute(FORGET, {"keep_seconds": KEEP_SECONDS})
    row = connection.execute(CLAIM, {"lease_seconds": LEASE_SECONDS}).one_or_none()
    if row is None:
        return None
    outcomes = None if row.outcomes is None else tuple(Refusal(one) if one else None for one in row.outcomes)
    references = tuple(map(Reference, row.sop_class_uids, row.sop_instance_uids))
    return Request(row.id, row.ae_title, row.transaction_uid, references, outcomes, row.attempts)


def check(asked: Request, settings: Settings, database: Database) -> tuple[Refusal | None, ...] | None:
    """Commit what is here and whole, and write down what became of each reference.

    Where instances may leave, none is committed.

    Returns:
        as `Request.outcomes`; None where the request is another process' by now.

    Raises:
        DatabaseUnavailable.
    """
    whole: dict[str, str] = {}
    outcomes: list[Refusal | None] = [Refusal.NOT_POSSIBLE] * len(asked.references)
    if settings.retention == "all":
        with database.transaction() as connection:
            here = _here(connection, asked)
        prolonged = time.monotonic()
        for number, reference in enumerate(asked.references):
            if time.monotonic() - prolonged > LEASE_SECONDS / 3:
                prolonged = time.monotonic()
                if not _prolong(asked, database):
                    return None
            outcomes[number] = _refusal(reference, here, settings.instances_dir)
            if outcomes[number] is None:
                whole[reference.sop_instance_uid] = here[reference.sop_instance_uid][1] or ""
    with database.transaction() as connection:
        files = {"sop_instance_uids": list(whole), "files": list(whole.values())}
        committed = set(connection.scalars(COMMIT, files))
        found = tuple(
            Refusal.NOT_POSSIBLE if outcome is None and reference.sop_instance_uid not in committed else outcome
            for reference, outcome in zip(asked.references, outcomes, strict=True)
        )
        written = {"id": asked.id, "attempt": asked.attempt, "outcomes": [one or "" for one in found]}
        return found if connection.execute(WRITE_OUTCOMES, written).rowcount else None


def _prolong(asked: Request, database: Database) -> bool:
    """Whether the request is still this process', for another lease."""
    ours = {"id": asked.id, "attempt": asked.attempt, "lease_seconds": LEASE_SECONDS}
    with database.transaction() as connection:
        return connection.execute(EXTEND, ours).rowcount == 1


def delivered(connection: Connection, asked: Request) -> None:
    """The sender was told."""
    connection.execute(DELIVERED, {"id": asked.id, "attempt": asked.attempt})


def failed(connection: Connection, asked: Request, error: str) -> bool:
    """The sender could not be told: tried again later, or given up.

    Returns:
        whether it is given up.
    """
    values = {
        "id": asked.id,
        "attempt": asked.attempt,
        "error": error,
        "try_seconds": TRY_SECONDS,
        "first_seconds": FIRST_PAUSE_SECONDS,
        "longest_seconds": LONGEST_PAUSE_SECONDS,
    }
    return bool(connection.execute(FAILED, values).scalar())


def open_requests(connection: Connection) -> list[Open]:
    """Those whose senders were not told yet, the oldest first."""
    rows = connection.execute(select(commitments).order_by(commitments.c.requested_at, commitments.c.id)).all()
    return [
        Open(
            row.ae_title,
            row.transaction_uid,
            len(row.sop_instance_uids),
            row.requested_at,
            row.attempts,
            row.error,
            row.given_up,
        )
        for row in rows
    ]


Here = dict[str, tuple[str, str | None, bytes]]
"""SOP Instance UID → SOP class, file, its sha256."""


def _here(connection: Connection, asked: Request) -> Here:
    columns = (instances.c.sop_instance_uid, instances.c.sop_class_uid, instances.c.file, instances.c.file_sha256)
    named = select(*columns).where(instances.c.sop_instance_uid.in_([one.sop_instance_uid for one in asked.references]))
    return {row.sop_instance_uid: (row.sop_class_uid, row.file, row.file_sha256) for row in connection.execute(named)}


def _refusal(reference: Reference, here: Here, instances_dir: Path) -> Refusal | None:
    sop_class_uid, file, sha256 = here.get(reference.sop_instance_uid, ("", None, b""))
    if file is None:
        return Refusal.NO_SUCH_INSTANCE
    if sop_class_uid != reference.sop_class_uid:
        return Refusal.OTHER_SOP_CLASS
    try:
        with (instances_dir / file).open("rb") as opened:
            same = hashlib.file_digest(opened, "sha256").digest() == bytes(sha256)
    except OSError:
        same = False
    return None if same else Refusal.NOT_POSSIBLE
