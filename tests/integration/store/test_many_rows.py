"""What holds arrivals, or is asked all the time, asks as much of many rows as of few, and finds them by an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from rows import add_series
from sqlalchemy import TextClause, event, text
from stack_rows import add_encoder, new_encoder, new_stack, random_vectors, save

from pacs_cbir.dicom.rejection import Reason, Rejection
from pacs_cbir.settings import Settings
from pacs_cbir.store import catalogue, claims, corrections, encoders, jobs, rejections, removal, retention
from pacs_cbir.store.matching import Level
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.session import Connection, Database
from pacs_cbir.store.tables import corrections as corrected
from pacs_cbir.store.tables import deletions, patients, studies
from pacs_cbir.store.tables import rejections as rejected

FEW, MANY = 2, 20
DICE = np.random.default_rng(0)
A, B = Identifier("A"), Identifier("B")


@contextmanager
def told(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are executed in the block, with their values."""
    found: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        found.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def studies_of(connection: Connection, patient: Identifier, count: int) -> list[str]:
    """Studies of a patient, with an embedded series each; the instances' UIDs."""
    encoder_id = add_encoder(connection)
    uids = []
    for number in range(count):
        name = f"1.{ord(patient.patient_id)}.{number}"
        study = {"PatientID": patient.patient_id, "PatientName": patient.patient_id}
        added = add_series(connection, name, f"{name}.1", study=study)
        uids.append(f"{name}.1.1")
        save(connection, added.series_id, encoder_id, new_stack(random_vectors(DICE, 2), instance_uids=uids[-1:]))
    return uids


def merge(connection: Connection, uids: list[str]) -> None:
    del uids
    assert corrections.merge_patients(connection, A, B, {"PatientName": "Other"}, "test") > 1


def reject(connection: Connection, uids: list[str]) -> None:
    rejections.apply(connection, "9.9", Rejection(Reason.QUALITY, tuple(uids)), 0)


def delete(connection: Connection, uids: list[str]) -> None:
    begun = removal.begin(connection, removal.named(connection, A), "test", 0)
    assert begun.removed["instances"] == len(uids)


@pytest.mark.parametrize("correct", [merge, reject, delete])
def test_while_nothing_arrives_no_study_is_asked_for_by_itself(
    database: Database, correct: Callable[[Connection, list[str]], None]
) -> None:
    counts = []
    for count in (FEW, MANY):
        with database.transaction() as connection:
            for table in (deletions, corrected, rejected, studies, patients):
                connection.execute(table.delete())
            uids = studies_of(connection, A, count)
            studies_of(connection, B, count)
        with told(database) as statements, database.transaction() as connection:
            correct(connection, uids)
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_a_worker_too_many_looks_through_no_jobs(database: Database, settings: Settings) -> None:
    with database.transaction() as connection:
        studies_of(connection, A, FEW)
        other = encoders.add(connection, new_encoder("b" * 64)).id
        encoders.set_reindex(connection, other, hours=None, workers=1, from_pacs=False)
        jobs.enqueue_batch(connection, other, 0)
        able = encoders.kept(connection)
    claimed = []
    with told(database) as statements:
        for worker in ("first", "second"):
            with database.transaction() as connection:
                claimed.append(claims.claim(connection, worker, settings, able))
    assert [job is not None for job in claimed] == [True, False]
    looked_through = [values["open"] for statement, values in statements if "ORDER BY not_before, due.id" in statement]
    assert [other in encoder_ids for encoder_ids in looked_through] == [True, False]


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (retention.LEAST_RECENTLY_USED, {"quiet_seconds": 0.0, "batch": 1}, "ix_series_used_at"),
        (retention.KEPT_BYTES, {}, "ix_instances_kept"),
        (encoders.LACKING, {"id": 1}, "ix_stacks_encoder_id_series_id"),
        (claims.ARRIVED, {}, "ix_jobs_arrived"),
        (claims.REINDEX, {"open": [1]}, "ix_jobs_reindex"),
    ],
)
def test_it_is_found_by_an_index(
    database: Database, statement: TextClause, values: dict[str, object], index: str
) -> None:
    with database.transaction() as connection:
        # Few rows are read as a whole, and sorted, whatever index there is.
        for way in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin"):
            connection.execute(text(f"SET LOCAL enable_{way} = off"))
        plan = list(connection.scalars(text(f"EXPLAIN (COSTS OFF) {statement.text}"), values))
    assert any(f" using {index} on" in line for line in plan), plan
    assert "Sort" not in {line.strip().removeprefix("->  ") for line in plan}, plan


@pytest.mark.parametrize(
    ("keyword", "index"),
    [("PatientID", "ix_studies_patient_ids"), ("AccessionNumber", "ix_studies_accession_numbers")],
)
def test_studies_are_found_by_an_identifiers_index(database: Database, keyword: str, index: str) -> None:
    with database.transaction() as connection:
        for number, values in enumerate((["4711"], ["4712", "4711"], ["47110"], ["A4711"])):
            add_series(connection, f"1.{number}", f"1.{number}.1", study={keyword: values})

    def found(value: str) -> list[str]:
        with database.transaction() as connection:
            listed = catalogue.find(connection, Level.STUDY, {keyword: value}, limit=9, offset=0)
        return [study["StudyInstanceUID"][0] for study in listed]

    with told(database) as statements:
        assert found(" 4711 ") == ["1.0", "1.1"], "one matching value of several is enough"
    assert found("4711*") == ["1.0", "1.1", "1.2"]
    assert found("a4711") == []
    statement, values = statements[0]
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", values).scalars().all()
    assert any(f" on {index}" in line for line in plan), plan
