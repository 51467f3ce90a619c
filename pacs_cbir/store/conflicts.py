"""What instances say that cannot all be true: recorded when it is seen, flagged until it is resolved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, text


class Kind(StrEnum):
    """What cannot be true.

    `SEVERAL_PATIENTS` is resolved by itself once all instances of the study are one patient's, by a merge or because
    they came again, `UNREADABLE_NOTE` once the note comes again and can be read or a person says that they have looked
    at it, and what merged patients differ in by a correction that says it; the others by a person, who corrects or
    confirms the study.
    """

    SEVERAL_PATIENTS = "several patients"
    """The instance's patient is not that of the study's other instances, or was another when it came before."""
    UNEXPECTED_PATIENT = "unexpected patient"
    """The study was given to a patient, and the instance names a third one."""
    SEVERAL_STUDIES = "several studies"
    """The instance came under another study before."""
    UNREADABLE_NOTE = "unreadable rejection note"
    """The instance is a Key Object Selection that cannot be read, and may reject others."""
    SEVERAL_BIRTH_DATES = "several birth dates"
    """The study's patient was merged with one who was born on another day. At the merge the surviving one's day is
    answered for both; what comes first later keeps its own."""
    SEVERAL_SEXES = "several sexes"
    """Likewise, of another sex."""


OF_KEYWORD = {"PatientBirthDate": Kind.SEVERAL_BIRTH_DATES, "PatientSex": Kind.SEVERAL_SEXES}
"""What merged patients may differ in only where they are not one patient, or somebody was wrong."""


@dataclass(frozen=True)
class Conflict:
    """One kind of conflict of one study; no patient's identity.

    Attributes:
        instances: how many told it.
        since: when the first of them came, by the database's clock.
    """

    study_instance_uid: str
    kind: str
    instances: int
    since: datetime


# One statement an instance: that it belongs to its patient, and that this study has others.
JOIN_STUDY = text("""
    WITH joined AS (
        INSERT INTO study_patients (study_id, patient_id) VALUES (:study_id, :patient_id) ON CONFLICT DO NOTHING)
    INSERT INTO conflicts (study_id, kind, sop_instance_uid)
    SELECT :study_id, :kind, :sop_instance_uid
    WHERE EXISTS (SELECT FROM study_patients WHERE study_id = :study_id AND patient_id <> :patient_id)
    ON CONFLICT (study_id, kind, sop_instance_uid) DO UPDATE SET seen_at = clock_timestamp(), resolved_at = NULL
""")

RECORD = text("""
    INSERT INTO conflicts (study_id, kind, sop_instance_uid)
    SELECT id, :kind, :sop_instance_uid FROM studies WHERE id = ANY(:study_ids)
    ON CONFLICT (study_id, kind, sop_instance_uid) DO UPDATE SET seen_at = clock_timestamp(), resolved_at = NULL
""")

# Told by the first instance: what is wrong is all of the study's.
RECORD_MERGED = text("""
    INSERT INTO conflicts (study_id, kind, sop_instance_uid)
    SELECT study_id, :kind, min(sop_instance_uid) FROM instances JOIN series ON series.id = series_id
    WHERE study_id = ANY(:study_ids) GROUP BY study_id
    ON CONFLICT (study_id, kind, sop_instance_uid) DO UPDATE SET seen_at = clock_timestamp(), resolved_at = NULL
""")

# A value that was corrected is the same in all of a patient's studies.
RECORD_DIFFERING = text("""
    INSERT INTO conflicts (study_id, kind, sop_instance_uid)
    SELECT own.id, told.kind, :sop_instance_uid
    FROM studies AS own, unnest(CAST(:keywords AS text[]), CAST(:kinds AS text[])) AS told (keyword, kind)
    WHERE own.id = :study_id AND EXISTS (SELECT FROM patients WHERE merged_into = :patient_id)
      AND EXISTS (SELECT FROM study_patients JOIN studies AS other ON other.id = study_id
                  WHERE study_patients.patient_id = :patient_id AND other.id <> own.id
                    AND other.attributes -> 'PatientID' = own.attributes -> 'PatientID'
                    AND other.attributes -> told.keyword <> own.attributes -> told.keyword)
    ON CONFLICT (study_id, kind, sop_instance_uid) DO UPDATE SET seen_at = clock_timestamp(), resolved_at = NULL
""")

RESOLVE_MERGED = text("""
    UPDATE conflicts SET resolved_at = clock_timestamp()
    WHERE study_id = ANY(:study_ids) AND kind = ANY(:kinds) AND resolved_at IS NULL
""")

RESOLVE_SEVERAL_PATIENTS = text("""
    UPDATE conflicts SET resolved_at = clock_timestamp()
    WHERE study_id = ANY(:study_ids) AND kind = :kind AND resolved_at IS NULL
      AND (SELECT count(*) FROM study_patients WHERE study_patients.study_id = conflicts.study_id) = 1
""")

RESOLVE_NOTE = text("""
    UPDATE conflicts SET resolved_at = clock_timestamp()
    WHERE study_id IN (SELECT study_id FROM series WHERE id = ANY(:series_ids)) AND kind = :kind
      AND sop_instance_uid = :sop_instance_uid AND resolved_at IS NULL
""")

RESOLVE = text("""
    UPDATE conflicts SET resolved_at = clock_timestamp()
    WHERE study_id = :study_id AND resolved_at IS NULL AND (:notes_looked_at OR kind <> :note)
""")

FLAGGED = text("""
    SELECT study_instance_uid, kind, count(*) AS instances, min(seen_at) AS since
    FROM conflicts JOIN studies ON studies.id = study_id
    WHERE resolved_at IS NULL AND (CAST(:uids AS text[]) IS NULL OR study_instance_uid = ANY(:uids))
    GROUP BY study_instance_uid, kind ORDER BY since, study_instance_uid LIMIT :limit
""")


def join_study(connection: Connection, study_id: int, patient_id: int, sop_instance_uid: str) -> None:
    """An instance makes a study its patient's; that it was another's too is a conflict."""
    named = {"study_id": study_id, "patient_id": patient_id, "sop_instance_uid": sop_instance_uid}
    connection.execute(JOIN_STUDY, named | {"kind": Kind.SEVERAL_PATIENTS})


def record(connection: Connection, study_ids: Collection[int], kind: Kind, sop_instance_uid: str) -> None:
    """An instance told a conflict of some studies; those that are gone have none."""
    told = {"study_ids": list(study_ids), "kind": kind, "sop_instance_uid": sop_instance_uid}
    connection.execute(RECORD, told)


def record_merged(connection: Connection, study_ids: Collection[int], keyword: str) -> None:
    """Those studies' patient was merged into one of whom an attribute of `OF_KEYWORD` says otherwise."""
    connection.execute(RECORD_MERGED, {"study_ids": list(study_ids), "kind": OF_KEYWORD[keyword]})


def record_differing(connection: Connection, study_id: int, patient_id: int, sop_instance_uid: str) -> None:
    """A new study came of a patient; where somebody was merged into them, their studies may say one thing alone."""
    named = {"study_id": study_id, "patient_id": patient_id, "sop_instance_uid": sop_instance_uid}
    connection.execute(RECORD_DIFFERING, named | {"keywords": list(OF_KEYWORD), "kinds": list(OF_KEYWORD.values())})


def resolve_merged(connection: Connection, study_ids: Collection[int], keywords: Collection[str]) -> None:
    """It was said what is true of those attributes in those studies."""
    kinds = [kind for keyword, kind in OF_KEYWORD.items() if keyword in keywords]
    connection.execute(RESOLVE_MERGED, {"study_ids": list(study_ids), "kinds": kinds})


def resolve_several_patients(connection: Connection, study_ids: Collection[int]) -> None:
    """Of those studies that are one patient's by now."""
    connection.execute(RESOLVE_SEVERAL_PATIENTS, {"study_ids": list(study_ids), "kind": Kind.SEVERAL_PATIENTS})


def resolve_unreadable_note(connection: Connection, series_ids: Collection[int], sop_instance_uid: str) -> None:
    """A note that could not be read came again.

    Args:
        series_ids: where it was and is.
    """
    again = {"series_ids": list(series_ids), "kind": Kind.UNREADABLE_NOTE, "sop_instance_uid": sop_instance_uid}
    connection.execute(RESOLVE_NOTE, again)


def resolve(connection: Connection, study_id: int, *, notes_looked_at: bool) -> None:
    """A person has looked at a study, and said what is true.

    Args:
        notes_looked_at: at its notes too, which cannot be read here; whose the study is tells nothing of them.
    """
    said = {"study_id": study_id, "notes_looked_at": notes_looked_at, "note": Kind.UNREADABLE_NOTE}
    connection.execute(RESOLVE, said)


def flagged(connection: Connection, limit: int) -> tuple[Conflict, ...]:
    """What is not resolved, the oldest first."""
    return _flagged(connection, None, limit)


def of_studies(connection: Connection, study_instance_uids: Collection[str]) -> dict[str, list[str]]:
    """Study Instance UID → the kinds of its conflicts that are not resolved; studies without any are left out."""
    found: dict[str, list[str]] = {}
    for conflict in _flagged(connection, list(study_instance_uids), None):
        found.setdefault(conflict.study_instance_uid, []).append(conflict.kind)
    return found


def _flagged(connection: Connection, uids: list[str] | None, limit: int | None) -> tuple[Conflict, ...]:
    rows = connection.execute(FLAGGED, {"uids": uids, "limit": limit})
    return tuple(Conflict(row.study_instance_uid, row.kind, row.instances, row.since) for row in rows)
