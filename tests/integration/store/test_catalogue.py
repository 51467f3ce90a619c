"""What is here, as the doors list it."""

from __future__ import annotations

from unittest.mock import ANY

import pytest
from rows import add_series

from pacs_cbir.store.catalogue import StoredFile, attributes, find, stored_file
from pacs_cbir.store.matching import Level
from pacs_cbir.store.session import Database


@pytest.fixture
def two_studies(database: Database) -> Database:
    with database.transaction() as connection:
        for study in ("1", "2"):
            add_series(
                connection,
                study,
                f"{study}.1",
                study={"PatientID": "P1", "StudyDescription": f"study {study}"},
                attributes={"Modality": "MR", "SeriesNumber": "1"},
                instance={"InstanceNumber": "1", "NumberOfFrames": "3"},
                instance_uids=[f"{study}.1.{number}" for number in range(1, 4)],
            )
        add_series(connection, "2", "2.2", attributes={"Modality": "CT"}, sop_class="1.2.840.10008.5.1.4.1.1.2")
    return database


def test_studies_are_counted(two_studies: Database) -> None:
    with two_studies.transaction() as connection:
        _, second = find(connection, Level.STUDY, {}, limit=10, offset=0)
    assert second == {
        "PatientID": ["P1"],
        "StudyDescription": ["study 2"],
        "StudyInstanceUID": ["2"],
        "NumberOfStudyRelatedSeries": ["2"],
        "NumberOfStudyRelatedInstances": ["4"],
        "InstanceAvailability": ["ONLINE"],
        "ModalitiesInStudy": ["CT", "MR"],
        "SOPClassesInStudy": ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"],
    }


def test_series_and_instances_carry_the_levels_above(two_studies: Database) -> None:
    with two_studies.transaction() as connection:
        (one,) = find(connection, Level.SERIES, {"SeriesInstanceUID": "2.1"}, limit=10, offset=0)
        (two,) = find(connection, Level.INSTANCE, {"SOPInstanceUID": "2.1.3"}, limit=10, offset=0)
    assert one["StudyDescription"] == ["study 2"]
    assert one["NumberOfSeriesRelatedInstances"] == ["3"]
    assert (two["StudyInstanceUID"], two["SeriesInstanceUID"], two["SOPInstanceUID"]) == (["2"], ["2.1"], ["2.1.3"])
    assert (two["Modality"], two["NumberOfFrames"]) == (["MR"], ["3"])


def test_keys_of_every_level_work_at_every_level(two_studies: Database) -> None:
    keys = {"StudyDescription": "study ?", "Modality": "MR", "InstanceNumber": "1"}
    with two_studies.transaction() as connection:
        counts = [len(find(connection, level, keys, limit=10, offset=0)) for level in Level]
        none = [find(connection, level, keys | {"Modality": "US"}, limit=10, offset=0) for level in Level]
    assert counts == [2, 2, 6]
    assert none == [[], [], []]


def test_pages_neither_repeat_nor_miss(two_studies: Database) -> None:
    with two_studies.transaction() as connection:
        pages = [find(connection, Level.INSTANCE, {}, limit=2, offset=offset) for offset in range(0, 8, 2)]
    uids = [found["SOPInstanceUID"][0] for page in pages for found in page]
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert len(set(uids)) == 7


def test_attributes_by_row(database: Database) -> None:
    with database.transaction() as connection:
        added = add_series(connection, "1", "1.1", study={"StudyID": "S"}, attributes={"SeriesNumber": "7"})
        of_study = attributes(connection, Level.STUDY, [added.study_id, 999])
        of_series = attributes(connection, Level.SERIES, [added.series_id])
    assert of_study.keys() == {added.study_id}
    assert of_study[added.study_id]["StudyID"] == ["S"]
    assert of_series[added.series_id]["SeriesNumber"] == ["7"]


def test_a_file_is_found_by_its_three_uids(two_studies: Database) -> None:
    with two_studies.transaction() as connection:
        assert stored_file(connection, "2", "2.1", "2.1.3") == StoredFile("00/2.1.3.dcm", 3, "TEST", ANY, ANY)
        assert stored_file(connection, "2", "2.2", "2.2.1") == StoredFile("00/2.2.1.dcm", 1, "TEST", ANY, ANY)
        assert stored_file(connection, "1", "2.1", "2.1.3") is None
