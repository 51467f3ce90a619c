"""Instances that rejection notes took out of use: kept, and in no answer, listing, count, picture or embedding.

A rejection for quality, for patient safety, or for a wrong worklist entry holds for instances that come later or again:
what replaces them has other UIDs. One for an expired retention holds for what is here when the note comes, or comes
again: what comes after it is back.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, ScalarSelect, func, select, text

from pacs_cbir.dicom.rejection import Reason, Rejection
from pacs_cbir.store import jobs
from pacs_cbir.store.tables import instances, rejections

MEANING = {
    Reason.QUALITY: "rejected for quality reasons",
    Reason.PATIENT_SAFETY: "rejected for patient safety reasons",
    Reason.WORKLIST: "incorrect modality worklist entry",
    Reason.RETENTION: "data retention policy expired",
}

FORGET_NOTE = text("DELETE FROM rejections WHERE note_sop_instance_uid = :note RETURNING sop_instance_uid")

# Of an expired retention only what is here is noted.
NOTE = text("""
    INSERT INTO rejections (sop_instance_uid, note_sop_instance_uid, reason)
    SELECT uid, :note, :reason FROM unnest(CAST(:uids AS text[])) AS uid
    WHERE :reason <> :retention OR EXISTS (SELECT FROM instances WHERE sop_instance_uid = uid)
""")

APPLY = text("""
    UPDATE instances SET rejected = named.reason
    FROM unnest(CAST(:uids AS text[])) AS uid LEFT JOIN LATERAL (
        SELECT reason FROM rejections WHERE sop_instance_uid = uid ORDER BY reason = :retention, reason LIMIT 1
    ) AS named ON true
    WHERE instances.sop_instance_uid = uid AND rejected IS DISTINCT FROM named.reason
    RETURNING series_id
""")


def apply(connection: Connection, note: str, rejection: Rejection, settle_seconds: float) -> None:
    """Take what a note names out of use, and the note itself; what an earlier version of it named is back.

    Within a transaction that holds for correction (see `patients`).

    Args:
        note: its SOP Instance UID.
        rejection: what it says, which could be read.
    """
    before = set(connection.scalars(FORGET_NOTE, {"note": note}))
    named = {*rejection.sop_instance_uids, note}
    said = {"note": note, "reason": rejection.reason, "retention": Reason.RETENTION}
    connection.execute(NOTE, said | {"uids": sorted(named)})
    changed = {"uids": sorted(named | before), "retention": Reason.RETENTION}
    withdraw(connection, set(connection.scalars(APPLY, changed)), settle_seconds)


# A series' row is locked before its jobs are (see `jobs`), and left to a worker that ends: its job is waited for.
LOCK_SERIES = text("SELECT id FROM series WHERE id = ANY(:series_ids) ORDER BY id FOR NO KEY UPDATE")
END_JOBS = text("DELETE FROM jobs WHERE series_id = ANY(:series_ids) AND status = 'running'")
WITHDRAW = text("""
    DELETE FROM stacks WHERE series_id = ANY(:series_ids) AND EXISTS (
        SELECT FROM unnest(sop_instance_uids) AS uid
        WHERE NOT EXISTS (SELECT FROM instances WHERE sop_instance_uid = uid AND instances.series_id = stacks.series_id
                             AND rejected IS NULL))
""")


def withdraw(connection: Connection, series_ids: Collection[int], settle_seconds: float) -> None:
    """Drop the stacks that hold what does not count any more, and embed what is left of their series anew.

    A worker that has one of the series in hand loses its job.
    """
    withdrawn = {"series_ids": list(series_ids)}
    for statement in (LOCK_SERIES, END_JOBS, WITHDRAW):
        connection.execute(statement, withdrawn)
    jobs.enqueue_all(connection, series_ids, settle_seconds)


def reason_of(sop_instance_uid: str) -> ScalarSelect[str | None]:
    """Why an arriving instance does not count; null where it does."""
    holding = (rejections.c.sop_instance_uid == sop_instance_uid) & (rejections.c.reason != Reason.RETENTION)
    return select(func.min(rejections.c.reason)).where(holding).scalar_subquery()


FORGET_EXPIRED = text("DELETE FROM rejections WHERE sop_instance_uid = :uid AND reason = :retention")


def forget_expired(connection: Connection, sop_instance_uid: str) -> None:
    """An instance whose retention had expired has come again."""
    connection.execute(FORGET_EXPIRED, {"uid": sop_instance_uid, "retention": Reason.RETENTION})


def counts(connection: Connection) -> dict[str, int]:
    """Reason in words → how many instances that are here."""
    query = select(instances.c.rejected, func.count()).where(instances.c.rejected.is_not(None))
    return {MEANING[Reason(reason)]: count for reason, count in connection.execute(query.group_by("rejected"))}
