"""What a rejection note names does not count: not in listings, counts, files to embed, and not in running jobs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from arriving import arrive, table
from dicom_factory import mr_instance, uid
from notes import OF_INTEREST, PATIENT_SAFETY, QUALITY, REASONS, RETENTION, WORKLIST, note
from pydicom import DataElement, config
from pydicom.dataset import FileDataset
from pydicom.sr.codedict import Code
from stack_rows import do_jobs, not_embedded

from pacs_cbir.errors import JobLost
from pacs_cbir.settings import Settings
from pacs_cbir.store import catalogue, claims, conflicts, listing
from pacs_cbir.store.examples import Example, named_rows
from pacs_cbir.store.ingest import Outcome
from pacs_cbir.store.matching import Level
from pacs_cbir.store.session import Database
from pacs_cbir.store.status import service_status

ONE, TWO, THREE = (mr_instance(number=number) for number in (1, 2, 3))


def uids(database: Database, level: Level, **keys: str) -> list[str]:
    keyword = {Level.STUDY: "StudyInstanceUID", Level.SERIES: "SeriesInstanceUID", Level.INSTANCE: "SOPInstanceUID"}
    with database.transaction() as connection:
        return [found[keyword[level]][0] for found in catalogue.find(connection, level, keys, limit=99, offset=0)]


def rejected(database: Database) -> dict[str, str]:
    query = "SELECT sop_instance_uid, rejected FROM instances WHERE rejected IS NOT NULL"
    return {str(row[0]): str(row[1]) for row in table(database, query)}


def embed(database: Database, settings: Settings) -> list[int]:
    """Do what is due as a worker does, with one stack a series; how many instances each had."""
    return do_jobs(database, settings, lambda *named: [not_embedded("test", *named)] if named else [])


@pytest.mark.parametrize("reason", REASONS, ids=lambda code: code.value)
def test_what_is_rejected_does_not_count(database: Database, settings: Settings, reason: Code) -> None:
    for ds in (ONE, TWO, THREE):
        arrive(database, settings, ds)
    assert embed(database, settings) == [3]
    arrive(database, settings, note([ONE, TWO], reason))
    assert table(database, "SELECT count(*) FROM stacks") == [(0,)], "at once, not when it is embedded anew"
    assert rejected(database) == dict.fromkeys([ONE.SOPInstanceUID, TWO.SOPInstanceUID, uid("note")], reason.value)
    assert sorted(embed(database, settings)) == [0, 1]
    assert uids(database, Level.INSTANCE) == [THREE.SOPInstanceUID]
    assert uids(database, Level.SERIES) == [THREE.SeriesInstanceUID]
    assert uids(database, Level.STUDY, ModalitiesInStudy="KO") == []
    assert uids(database, Level.STUDY, SOPClassesInStudy=note([ONE]).SOPClassUID) == []
    assert uids(database, Level.STUDY, InstanceNumber="1") == []
    (study,) = _attributes(database, Level.STUDY)
    assert (study["NumberOfStudyRelatedInstances"], study["NumberOfStudyRelatedSeries"]) == (["1"], ["1"])
    assert study["ModalitiesInStudy"] == ["MR"]
    (series,) = _attributes(database, Level.SERIES)
    assert series["NumberOfSeriesRelatedInstances"] == ["1"]
    with database.transaction() as connection:
        state = service_status(connection)
        assert (state.instances, sum(state.rejected.values())) == (1, 3)
        (listed,) = listing.series_of(connection, [ONE.StudyInstanceUID], None)[ONE.StudyInstanceUID]
        assert listed.instances == 1
        for ds, here in ((ONE, False), (THREE, True)):
            names = ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID
            assert (catalogue.stored_file(connection, *names) is not None) is here
            assert (named_rows(connection, Example(*names), None) is not None) is here


def _attributes(database: Database, level: Level) -> list[dict[str, list[str]]]:
    with database.transaction() as connection:
        return catalogue.find(connection, level, {}, limit=9, offset=0)


def test_a_study_of_which_all_is_rejected_is_in_no_listing(database: Database, settings: Settings) -> None:
    for ds in (ONE, TWO):
        arrive(database, settings, ds)
    arrive(database, settings, note([ONE, TWO]))
    assert [uids(database, level) for level in Level] == [[], [], []]
    assert set(embed(database, settings)) == {0}
    assert rejected(database).keys() == {ONE.SOPInstanceUID, TWO.SOPInstanceUID, uid("note")}, "and kept"
    with database.transaction() as connection:
        assert named_rows(connection, Example(ONE.StudyInstanceUID), None) is None


@pytest.mark.parametrize("reason", [QUALITY, PATIENT_SAFETY, WORKLIST], ids=lambda code: code.value)
def test_what_comes_after_its_rejection_or_again_stays_out(
    database: Database, settings: Settings, reason: Code
) -> None:
    arrive(database, settings, note([ONE], reason))
    assert arrive(database, settings, ONE) is Outcome.STORED
    assert arrive(database, settings, ONE) is Outcome.UNCHANGED
    changed = mr_instance(PatientComments="again")
    assert arrive(database, settings, changed) is not Outcome.UNCHANGED
    assert uids(database, Level.INSTANCE) == []
    arrive(database, settings, TWO)
    assert uids(database, Level.INSTANCE) == [TWO.SOPInstanceUID]


def test_what_comes_again_after_its_retention_is_back(database: Database, settings: Settings) -> None:
    arrive(database, settings, ONE)
    expired = note([ONE, TWO], RETENTION)
    arrive(database, settings, copy.deepcopy(expired))
    embed(database, settings)
    assert uids(database, Level.INSTANCE) == []
    for ds in (ONE, TWO):
        arrive(database, settings, ds)
    assert uids(database, Level.INSTANCE) == [ONE.SOPInstanceUID, TWO.SOPInstanceUID]
    assert embed(database, settings) == [2]
    assert arrive(database, settings, expired) is Outcome.UNCHANGED
    assert uids(database, Level.INSTANCE) == [], "the note holds for what is here when it comes again"
    assert rejected(database)[TWO.SOPInstanceUID] == RETENTION.value
    arrive(database, settings, TWO)
    assert uids(database, Level.INSTANCE) == [TWO.SOPInstanceUID]
    assert embed(database, settings) == [1]


def test_another_note_holds_where_a_retention_expired(database: Database, settings: Settings) -> None:
    arrive(database, settings, ONE)
    arrive(database, settings, note([ONE], RETENTION, "first"))
    arrive(database, settings, note([ONE], QUALITY, "second"))
    arrive(database, settings, ONE)
    assert rejected(database)[ONE.SOPInstanceUID] == "113001"


def test_a_note_that_comes_again_changed_replaces_the_first(database: Database, settings: Settings) -> None:
    for ds in (ONE, TWO):
        arrive(database, settings, ds)
    arrive(database, settings, note([ONE, TWO]))
    arrive(database, settings, note([TWO]))
    assert uids(database, Level.INSTANCE) == [ONE.SOPInstanceUID]


def test_a_selection_of_another_title_rejects_nothing(database: Database, settings: Settings) -> None:
    arrive(database, settings, ONE)
    arrive(database, settings, note([ONE], OF_INTEREST))
    other_scheme = Code("113037", "99TEST", "Something else")
    arrive(database, settings, note([ONE], other_scheme, "other"))
    assert len(uids(database, Level.INSTANCE)) == 3
    assert rejected(database) == {}


def test_a_job_under_way_is_lost(database: Database, settings: Settings) -> None:
    arrive(database, settings, ONE)
    with database.transaction() as connection:
        job = claims.claim(connection, "worker", settings, [])
        assert job is not None
    arrive(database, settings, note([ONE]))
    with pytest.raises(JobLost), database.transaction() as connection:
        claims.finish(connection, job, [])


def without_title(ds: FileDataset) -> None:
    del ds.ConceptNameCodeSequence


def without_references(ds: FileDataset) -> None:
    del ds.CurrentRequestedProcedureEvidenceSequence
    del ds.ContentSequence


def broken_reference(ds: FileDataset) -> None:
    del ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence


def no_uid(ds: FileDataset) -> None:
    references = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    references[0].add(DataElement("ReferencedSOPInstanceUID", "UI", "1.2\0.3", validation_mode=config.IGNORE))


def too_long(ds: FileDataset) -> None:
    ds.TextValue = "x" * (17 << 20)


@pytest.mark.parametrize("broken", [without_title, without_references, broken_reference, no_uid, too_long])
def test_a_note_that_cannot_be_read_is_kept_and_flagged(
    database: Database, settings: Settings, broken: Callable[[FileDataset], None]
) -> None:
    arrive(database, settings, ONE)
    ds = copy.deepcopy(note([ONE]))
    broken(ds)
    assert arrive(database, settings, ds) is Outcome.STORED
    with database.transaction() as connection:
        (told,) = conflicts.flagged(connection, 9)
    assert (told.study_instance_uid, told.kind) == (ONE.StudyInstanceUID, "unreadable rejection note")
    assert rejected(database) == {}
    assert arrive(database, settings, ds) is Outcome.UNCHANGED
    assert arrive(database, settings, note([ONE])) is Outcome.REPLACED
    assert rejected(database).keys() == {ONE.SOPInstanceUID, uid("note")}
    with database.transaction() as connection:
        assert conflicts.flagged(connection, 9) == (), "it was read this time"


def test_a_note_of_many_references(database: Database, settings: Settings) -> None:
    arrive(database, settings, ONE)
    ds = note([ONE])
    references = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    for number in range(5000):
        item = copy.deepcopy(references[0])
        item.ReferencedSOPInstanceUID = f"1.2.3.{number}"
        references.append(item)
    arrive(database, settings, ds)
    assert table(database, "SELECT count(*) FROM rejections") == [(5002,)]
    assert ONE.SOPInstanceUID in rejected(database)
