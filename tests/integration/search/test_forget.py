"""A patient who is deleted is nowhere any more, and it is proven only where that is true."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arriving import arrive, table
from dicom_factory import mr_instance, uid
from notes import note
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage
from running import following, wait_until
from sqlalchemy import text
from stack_rows import do_jobs, new_stack, random_vectors
from stored import files

from pacs_cbir.errors import DiskUnavailable, JobLost, UnknownPatient
from pacs_cbir.search import forget
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.forget import INDEX_NAME, Report
from pacs_cbir.search.snapshot import read_snapshot
from pacs_cbir.settings import Settings
from pacs_cbir.store import claims, commitments, corrections, deletion, removal
from pacs_cbir.store.commitments import Reference
from pacs_cbir.store.embeddings import NewStack
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.session import Database
from pacs_cbir.store.uploads import upload_folder

NAME = "A-4711"
STUDIES = ("one", "two")


@contextmanager
def ready(database: Database, settings: Settings) -> Iterator[Follower]:
    """The index as an API process follows it, once it answers."""
    with following(Follower(database, settings.index_dir)) as follower:
        wait_until(lambda: follower.ready, 20)
        yield follower


@pytest.fixture
def filled(database: Database, settings: Settings) -> Database:
    """Two studies of the patient, one of somebody else, all embedded."""
    for study in STUDIES:
        for number in (1, 2):
            arrive(database, settings, patient=NAME, study=study, number=number, AccessionNumber="X-4711")
    arrive(database, settings, patient="B", study="other")
    embed(database, settings)
    return database


def embed(database: Database, settings: Settings) -> None:
    def of_all(*named: str) -> list[NewStack]:
        vectors = random_vectors(np.random.default_rng(0), 1 + len(named))
        return [new_stack(vectors, instance_uids=named)]

    do_jobs(database, settings, of_all)


def begin(database: Database, settings: Settings, patient: str = NAME) -> deletion.Deletion:
    with database.transaction() as connection:
        row = removal.named(connection, Identifier(patient))
        return removal.begin(connection, row, "test", settings.settle_seconds)


def put_in_the_way(database: Database, settings: Settings, pending: deletion.Deletion) -> Path:
    """A folder in the place of a file that is to be removed, which it cannot be."""
    with database.transaction() as connection:
        path = settings.instances_dir / min(deletion.items_of(connection, pending, deletion.Kind.FILE))
    path.unlink()
    path.mkdir()
    return path


def delete(database: Database, settings: Settings, patient: str = NAME, seconds: float = 20) -> Report:
    return forget.see_through(settings, database, begin(database, settings, patient), seconds)


def everything(database: Database) -> str:
    """All rows of all tables as text, without the vectors."""
    names = table(database, "SELECT relname FROM pg_stat_user_tables WHERE relname <> 'stack_changes' ORDER BY relname")
    return "\n".join(str(table(database, f"SELECT {name}::text FROM {name}")) for (name,) in names)


def test_nothing_is_left(filled: Database, settings: Settings) -> None:
    with ready(filled, settings) as follower:
        index = follower.current.index
        assert len(index) == 3
        report = delete(filled, settings)
        assert report == Report(
            report.id, {"studies": 2, "series": 2, "instances": 4, "stacks": 2, "files": 4}, {}, 0, True
        )
        assert len(index) == 1
    left = everything(filled)
    assert not [word for word in ("4711", *map(uid, STUDIES), uid("one", "series", 1)) if word in left]
    assert uid("other") in left
    assert len(files(settings)) == 1
    assert [len(read_snapshot(path)) for path in settings.index_dir.iterdir()] == [1]
    assert table(filled, "SELECT count(*) FROM deletion_items") == [(0,)]


def test_what_is_to_be_committed_is_forgotten_and_others_requests_stay(filled: Database, settings: Settings) -> None:
    with filled.transaction() as connection:
        for study in ("one", "other"):
            asked = [Reference(MRImageStorage, uid(study, "series", 1))]
            commitments.request(connection, "PEER", uid("transaction", study), asked)
    assert delete(filled, settings).proved
    assert table(filled, "SELECT transaction_uid FROM commitments") == [(uid("transaction", "other"),)]


def test_a_snapshot_of_a_process_that_is_gone_is_rewritten(filled: Database, settings: Settings) -> None:
    with ready(filled, settings):
        pass
    (path,) = settings.index_dir.iterdir()
    assert len(read_snapshot(path)) == 3
    part = settings.index_dir / "x.0.part"
    part.write_bytes(b"vectors")
    assert delete(filled, settings).left == {"parts of snapshots": 1}
    assert len(read_snapshot(path)) == 1
    os.utime(part, (0, 0))
    assert _again(filled, settings).proved


def test_an_index_that_is_behind_is_waited_for(filled: Database, settings: Settings) -> None:
    with filled.listen() as other:
        other.tell(INDEX_NAME)
        report = delete(filled, settings, seconds=0)
        assert (report.proved, report.indexes_behind) == (False, 1)
        with filled.transaction() as connection:
            (pending,) = deletion.pending(connection)
        other.tell(f"{INDEX_NAME} {pending.transaction_id}")
        assert not _again(filled, settings).proved
        other.tell(f"{INDEX_NAME} {pending.transaction_id + 1}")
        assert _again(filled, settings).proved


def _again(database: Database, settings: Settings) -> Report:
    with database.transaction() as connection:
        (pending,) = deletion.pending(connection)
    return forget.see_through(settings, database, pending, 0)


def test_after_a_kill_it_is_gone_on_with(filled: Database, settings: Settings) -> None:
    pending = begin(filled, settings)
    assert len(files(settings)) == 5, "killed before the files were removed"
    left = everything(filled)
    assert "4711" not in left
    _resume(filled, settings, pending)
    assert len(files(settings)) == 1


def test_an_error_that_nobody_foresaw_ends_no_deletions(
    filled: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending, see_through = begin(filled, settings), forget.see_through

    def once(*given: Any) -> Report:
        monkeypatch.setattr(forget, "see_through", see_through)
        raise RuntimeError

    monkeypatch.setattr(forget, "see_through", once)
    monkeypatch.setattr(forget, "RESUME_SECONDS", 0.1)
    _resume(filled, settings, pending)


def test_a_deletion_that_waits_keeps_no_other_waiting(filled: Database, settings: Settings) -> None:
    waits, other = begin(filled, settings), begin(filled, settings, "B")
    put_in_the_way(filled, settings, waits)
    _resume(filled, settings, other)
    assert not _proved(filled, waits.id)


def _resume(database: Database, settings: Settings, pending: deletion.Deletion) -> None:
    """Go on as a running API does, until the deletion is proved."""
    stop = threading.Event()
    thread = threading.Thread(target=forget.resume, args=(settings, database, stop))
    thread.start()
    try:
        wait_until(lambda: _proved(database, pending.id), 20)
    finally:
        stop.set()
        thread.join()


def _proved(database: Database, number: int) -> bool:
    report = forget.report(database, number)
    return report is not None and report.proved


def test_a_list_that_names_what_is_gone_is_no_proof(filled: Database, settings: Settings) -> None:
    pending = begin(filled, settings)
    with filled.transaction() as connection:
        for study, number in (("one", 2), ("other", 1)):
            named = [Reference(MRImageStorage, "9"), Reference(MRImageStorage, uid(study, "series", number))]
            commitments.request(connection, "PEER", uid("transaction", study), named)
    report = forget.see_through(settings, filled, pending, 0)
    assert (report.proved, report.left) == (False, {"commitments.sop_instance_uids": 1})


def test_a_note_that_comes_while_it_is_pending_is_new_data(filled: Database, settings: Settings) -> None:
    named = [mr_instance(patient=NAME, study="one", number=number) for number in (1, 2)]
    arrive(filled, settings, note(named))
    pending = begin(filled, settings)
    arrive(filled, settings, note(named))
    report = forget.see_through(settings, filled, pending, 0)
    assert (report.proved, report.left) == (True, {})
    assert len(table(filled, "SELECT FROM rejections")) == 3, "and it holds for what comes"


def test_a_file_that_cannot_be_removed_is_no_proof(filled: Database, settings: Settings) -> None:
    pending = begin(filled, settings)
    path = put_in_the_way(filled, settings, pending)
    with pytest.raises(DiskUnavailable):
        forget.see_through(settings, filled, pending, 0)
    assert not _proved(filled, pending.id)
    path.rmdir()
    assert _again(filled, settings).proved


def test_a_row_that_is_left_is_no_proof(filled: Database, settings: Settings) -> None:
    pending = begin(filled, settings)
    with filled.transaction() as connection:
        connection.execute(
            text("""
                INSERT INTO rejections (sop_instance_uid, note_sop_instance_uid, reason, rejected_at)
                SELECT :uid, '9.9', '113001', requested_at - interval '1 second' FROM deletions
            """),
            {"uid": uid("one", "series", 1)},
        )
    report = forget.see_through(settings, filled, pending, 0)
    assert (report.proved, report.left) == (False, {"rejections.sop_instance_uid": 1})


@pytest.mark.parametrize("where", ["orphans", "unknown", "transfer", "cut off", "deflated"])
def test_files_without_rows_go_too(filled: Database, settings: Settings, where: str) -> None:
    folder = {
        "orphans": settings.orphans_dir,
        "unknown": settings.instances_dir / "00",
    }.get(where, settings.incoming_dir)
    ours, theirs = folder / "ours.dcm", folder / "theirs.dcm"
    mr_instance(NAME, "never acknowledged").save_as(ours, enforce_file_format=True)
    mr_instance("B", "never acknowledged").save_as(theirs, enforce_file_format=True)
    if where == "cut off":
        ours.write_bytes(ours.read_bytes()[:-100])
    if where == "deflated":
        ds = mr_instance(NAME, "never acknowledged")
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        ds.save_as(ours, enforce_file_format=True)
        ours.write_bytes(ours.read_bytes()[:-100])
    for path in (ours, theirs):
        os.utime(path, (time.time() - 1000,) * 2)
    assert delete(filled, settings).proved
    assert (ours.exists(), theirs.exists()) == (False, True)


@pytest.mark.parametrize("issuers", [{}, {"A": "NORTH"}, {"A": "SOUTH", "B": "NORTH"}])
def test_a_file_without_an_issuer_may_be_of_whichever_sender(
    database: Database, settings: Settings, issuers: dict[str, str]
) -> None:
    site = settings.model_copy(update={"default_issuers": issuers})
    issuer = "NORTH" if issuers else ""
    arrive(database, site, mr_instance(NAME, "one", IssuerOfPatientID=issuer))
    ours, theirs, others = (site.orphans_dir / f"{name}.dcm" for name in ("ours", "theirs", "others"))
    mr_instance(NAME, "never acknowledged").save_as(ours, enforce_file_format=True)
    mr_instance("B", "never acknowledged").save_as(theirs, enforce_file_format=True)
    mr_instance(NAME, "never acknowledged", IssuerOfPatientID="EAST").save_as(others, enforce_file_format=True)
    with database.transaction() as connection:
        row = removal.named(connection, Identifier(NAME, issuer))
        pending = removal.begin(connection, row, "test", 0)
    assert forget.see_through(site, database, pending, 0).proved
    assert (ours.exists(), theirs.exists(), others.exists()) == (False, True, True)


def test_what_came_with_a_question_to_a_process_that_died_goes_too(filled: Database, settings: Settings) -> None:
    left = settings.uploads_dir / "left"
    left.mkdir()
    mr_instance(NAME).save_as(left / "0.dcm", enforce_file_format=True)
    with upload_folder(settings) as used:
        assert delete(filled, settings).proved
        assert (left.exists(), used.exists()) == (False, True)


def test_what_arrives_afterwards_is_new_data(filled: Database, settings: Settings) -> None:
    pending = begin(filled, settings)
    arrive(filled, settings, patient=NAME, study="one", number=1)
    assert forget.see_through(settings, filled, pending, 0).proved
    assert table(filled, "SELECT count(*) FROM instances") == [(2,)]
    assert all(
        Path(settings.instances_dir / str(file)).is_file() for (file,) in table(filled, "SELECT file FROM instances")
    )


def test_who_was_merged_goes_with_the_survivor(filled: Database, settings: Settings) -> None:
    with filled.transaction() as connection:
        corrections.merge_patients(connection, Identifier(NAME), Identifier("C-4711"), {"PatientName": "X-4711"}, "t")
    assert delete(filled, settings, NAME).proved
    assert "4711" not in everything(filled)


def test_of_a_study_that_was_given_the_former_identifier_goes_too(filled: Database, settings: Settings) -> None:
    with filled.transaction() as connection:
        for study in STUDIES:
            corrections.correct_study(connection, uid(study), Identifier("C-4711"), {}, "test")
    assert delete(filled, settings, "C-4711").proved
    assert "4711" not in everything(filled)


def test_others_of_the_same_study_stay(filled: Database, settings: Settings) -> None:
    arrive(filled, settings, patient="B", study="one", number=3)
    embed(filled, settings)
    assert delete(filled, settings).proved
    assert "4711" not in everything(filled)
    assert uid("one") in everything(filled)
    assert table(filled, "SELECT count(*) FROM conflicts WHERE resolved_at IS NULL") == [(0,)]
    assert table(filled, "SELECT count(*) FROM jobs WHERE status = 'waiting'") == [(1,)], "and is embedded anew"


def test_a_job_under_way_is_lost(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient=NAME, study="one")
    with database.transaction() as connection:
        job = claims.claim(connection, "worker", settings, [])
        assert job is not None
    assert delete(database, settings).proved
    with pytest.raises(JobLost), database.transaction() as connection:
        claims.finish(connection, job, [])


def test_a_patient_is_named_by_a_study_of_theirs_alone(filled: Database, settings: Settings) -> None:
    arrive(filled, settings, patient="B", study="two", number=3)
    with filled.transaction() as connection:
        assert removal.owner(connection, uid("one")) == removal.named(connection, Identifier(NAME))
        with pytest.raises(UnknownPatient, match="several"):
            removal.owner(connection, uid("two"))
        with pytest.raises(UnknownPatient, match="no such study"):
            removal.owner(connection, "9.9")
        with pytest.raises(UnknownPatient):
            removal.named(connection, Identifier("nobody"))
