"""A PACS that offers the Patient Root model alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import dcmqrscp
from backfilling import EVERYTHING, FAST, JANUARY, JANUARY_DAYS, backfill_of, run, studies_between, study
from crooked_pacs import PATIENT_ROOT, STUDY_ROOT, CrookedPacs
from dicom_factory import mr_instance, uid
from stored import rows
from structlog.testing import capture_logs

from pacs_cbir.errors import PeerError
from pacs_cbir.pacs import query
from pacs_cbir.pacs.backfill import Backfill
from pacs_cbir.pacs.retrieve import open_archive, retrieve, retrieve_series
from pacs_cbir.pacs.studies import StudySearch
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, studies

pytestmark = pytest.mark.peer


@pytest.fixture
def crooked(scp: Settings) -> Iterator[CrookedPacs]:
    """One that asks for a patient below the level PATIENT."""
    with CrookedPacs(scp, PATIENT_ROOT) as started:
        yield started


def levels(crooked: CrookedPacs) -> list[str]:
    return [str(asked.QueryRetrieveLevel) for asked in crooked.asked]


@pytest.mark.parametrize("way", ["c-move", "c-get"])
def test_dcmtks_archive_without_study_root(
    scp: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path, way: str
) -> None:
    held = [*study("first"), *study("second", StudyDate="20200505"), *study("of no day", StudyDate="")]
    with dcmqrscp(peer, tmp_path / "dcmqrscp", scp, held, "--no-study-root") as theirs:
        asked = theirs.model_copy(update={"retrieve": way})
        assert run(asked, scp, database)[0] == {"waiting": 0, "done": 1, "parked": 0}
        assert run(asked, scp, database, EVERYTHING)[0] == {"waiting": 0, "done": 3, "parked": 0}
    assert {row.sop_instance_uid for row in rows(database, instances)} == {ds.SOPInstanceUID for ds in held}


def test_studies_are_found_patient_by_patient(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    crooked.hold([*study("one"), *study("two"), *study("later", StudyDate="20240201")])
    crooked.hold(mr_instance("Pone", "another of one", number=number) for number in (1, 2))
    crooked.counts = {str(uid("two")): 5}
    with capture_logs() as logs:
        backfill, said = backfill_of(crooked.peer(), scp, database)
        assert backfill.run() == {"waiting": 0, "done": 2, "parked": 1}
    assert backfill.incomplete() == []
    assert levels(crooked)[:4] == ["PATIENT", "STUDY", "STUDY", "STUDY"]
    assert levels(crooked).count("PATIENT") == 1
    [error] = backfill.parked().values()
    for told in (str(logs), str(said), error):
        assert not any(name in told for name in ("Pone", "Ptwo", "Plater"))


def test_nobody_is_looked_for_where_relational_queries_are_agreed_on(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.relational = True
    crooked.hold([*study("one"), *study("two")])
    assert run(crooked.peer(), scp, database)[0] == {"waiting": 0, "done": 2, "parked": 0}
    assert "PATIENT" not in levels(crooked)


def test_study_root_is_asked_whose_a_study_is_that_patient_root_alone_hands_over(
    scp: Settings, database: Database
) -> None:
    with CrookedPacs(scp, (STUDY_ROOT[0], *PATIENT_ROOT)) as crooked:
        crooked.hold([*study("one"), *study("two")])
        assert run(crooked.peer(), scp, database)[0] == {"waiting": 0, "done": 2, "parked": 0}
        assert "PATIENT" not in levels(crooked)


def test_a_backfill_goes_on_although_nobody_kept_whose_the_studies_are(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold([*study("one"), *study("two"), *study("three"), *study("gone")])
    archive, stop = open_archive(crooked.peer(), scp, database), threading.Event()
    first = Backfill(archive, database, JANUARY, FAST, stop, say=print, show=lambda *_: stop.set())
    assert first.run()["waiting"] == 4
    crooked.let_go(str(uid("gone")))
    crooked.asked.clear()
    backfill, _ = backfill_of(crooked.peer(), scp, database)
    assert backfill.run() == {"waiting": 0, "done": 3, "parked": 1}
    assert levels(crooked).count("PATIENT") == 1
    assert backfill.parked() == {
        str(uid("gone")): f"CROOKED at 127.0.0.1:{crooked.peer().port} does not have study {uid('gone')}"
    }


def test_a_series_comes_back_without_looking_through_all_patients(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold([*study("one"), *study("two")])
    run(crooked.peer(), scp, database)
    with database.transaction() as connection:
        connection.execute(instances.update().values(file=None))
    crooked.asked.clear()
    series = str(uid("one", "series"))
    assert retrieve_series(crooked.peer(), str(uid("one")), series, scp, database) == 2
    assert levels(crooked) == ["STUDY"]
    # Merged there: they are looked through then.
    for ds in crooked.held:
        ds.PatientID = "another"
    with database.transaction() as connection:
        connection.execute(instances.update().values(file=None))
    assert retrieve_series(crooked.peer(), str(uid("one")), series, scp, database) == 2


@pytest.mark.parametrize("limit_is_told", [False, True])
def test_more_patients_than_one_answer_has(
    crooked: CrookedPacs, scp: Settings, database: Database, *, limit_is_told: bool
) -> None:
    names = ["Я", *(f"Я{number}" for number in range(26)), *(str(number) for number in range(5))]
    for name in names:
        crooked.hold([mr_instance(name, name)])
    crooked.limit = 25
    search = StudySearch(open_archive(crooked.peer(find_limit=25 if limit_is_told else None), scp, database))
    found, incomplete = studies_between(search, *JANUARY_DAYS)
    assert found.keys() == {uid(name) for name in names}
    assert incomplete == []


@pytest.mark.parametrize("way", ["literal", "ignored"])
def test_patients_that_cannot_be_asked_for_are_told(
    crooked: CrookedPacs, scp: Settings, database: Database, way: str
) -> None:
    for number in range(30):
        crooked.hold(study(str(number), 1))
    crooked.hold(mr_instance("", "nobody's", number=number) for number in (1, 2))
    search = StudySearch(open_archive(crooked.peer(), scp, database))
    found, [missing] = studies_between(search, *JANUARY_DAYS)
    assert len(found) == 30
    assert missing.startswith("patients without a PatientID")
    crooked.limit, crooked.literal = 25, way == "literal"
    crooked.ignores = {"PatientID"} if way == "ignored" else set()
    _, [missing] = studies_between(search, *JANUARY_DAYS)
    assert "does not search by a PatientID's start" in missing


@pytest.mark.parametrize("patients", [2, 4])
def test_patients_with_more_studies_than_are_read_are_asked_for_in_parts(
    crooked: CrookedPacs, scp: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, patients: int
) -> None:
    monkeypatch.setattr(query, "MOST_ANSWERS", 5)
    for day in range(1, 13):
        crooked.hold([mr_instance(f"P{day % patients}", f"day {day}", StudyDate=f"202401{day:02}")])
    backfill, _ = backfill_of(crooked.peer(), scp, database)
    assert backfill.run() == {"waiting": 0, "done": 12, "parked": 0}
    assert backfill.incomplete() == []
    assert len({asked.StudyDate for asked in crooked.asked if "StudyDate" in asked}) > 1


def test_a_study_that_nobody_has_is_told(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    with pytest.raises(PeerError, match="does not have study"):
        retrieve(open_archive(crooked.peer(), scp, database), database, str(uid("nowhere")))
    assert rows(database, studies) == []
