"""Matching keys against real rows: PS3.4 C.2.2.2, one behaviour a row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import add_series
from sqlalchemy import delete

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.store.catalogue import find
from pacs_cbir.store.matching import Level, conditions, keyword_of, series_filter
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import studies

STUDY = {
    "PatientName": "Yamada^Tarou^^=山田^太郎=やまだ^たろう",
    "PatientID": "A_1%",
    "PatientBirthDate": "1970.05.01",
    "PatientAge": "050Y",
    "PatientWeight": "70.50",
    "PatientSize": "tall",
    "StudyDate": "20210304",
    "StudyTime": "10:30:15.5",
    "StudyDescription": "MR Brain 100%",
    "OtherPatientIDs": ["X1", "X2"],
}


@pytest.fixture
def one(database: Database) -> Database:
    with database.transaction() as connection:
        add_series(
            connection,
            "1.2.3",
            "1.2.3.1",
            study=STUDY,
            attributes={"Modality": "MR", "SeriesDescription": "T1 ax", "EchoTime": "10", "SeriesNumber": "1"},
            instance={"AcquisitionDateTime": "20210304103015.25+0100", "Rows": "256"},
            instance_uids=["1.2.3.1.1", "1.2.3.1.2"],
        )
        add_series(
            connection,
            "1.2.3",
            "1.2.3.2",
            attributes={"Modality": "SR", "SeriesDescription": "report", "EchoTime": "none"},
            sop_class="1.2.840.10008.5.1.4.1.1.88.11",
        )
    return database


def matches(database: Database, keys: Mapping[str, str]) -> bool:
    with database.transaction() as connection:
        return bool(find(connection, Level.STUDY, keys, limit=10, offset=0))


MATCHING = [
    ("PatientID", "A_1%"),
    ("00100020", "A_1%"),
    ("PatientID", " A_1% "),
    ("PatientID", "A_*"),
    ("PatientID", "?_?%"),
    ("PatientID", ""),
    ("PatientComments", ""),
    ("PatientComments", "*"),
    ("StudyDescription", "*100%"),
    ("OtherPatientIDs", "X2"),
    ("PatientName", "yamada^TAROU"),
    ("PatientName", "yamada*"),
    ("PatientName", "山田^太郎"),
    ("PatientName", "やまだ*"),
    ("PatientName", "=山田^太郎"),
    ("PatientName", "Yamada^Tarou=山田*"),
    ("PatientName", "==やまだ^たろう"),
    ("PatientAge", "050Y"),
    ("PatientBirthDate", "19700501"),
    ("StudyDate", "20210304"),
    ("StudyDate", "20210304-20210304"),
    ("StudyDate", "20210301-20210310"),
    ("StudyDate", "20210304-"),
    ("StudyDate", "-20210304"),
    ("StudyTime", "10"),
    ("StudyTime", "1030"),
    ("StudyTime", "103015.5"),
    ("StudyTime", "103015.500000"),
    ("StudyTime", "09-10"),
    ("StudyTime", "-1030"),
    ("StudyTime", "103015.4-"),
    ("AcquisitionDateTime", "2021"),
    ("AcquisitionDateTime", "20210304103015.25"),
    ("AcquisitionDateTime", "202102-202103"),
    ("PatientWeight", "70.5"),
    ("PatientWeight", "705e-1"),
    ("EchoTime", "10.0"),
    ("EchoTime", "9.5-10"),
    ("EchoTime", "10-"),
    ("EchoTime", "-5 - 1e1"),
    ("PatientAge", "050Y-"),
    ("PatientAge", "-050Y"),
    ("PatientAge", "049Y-051Y"),
    ("PatientAge", "599M - 050Y"),
    ("Rows", "256"),
    ("StudyInstanceUID", "1.2.3"),
    ("StudyInstanceUID", "9.9,1.2.3"),
    ("StudyInstanceUID", "9.9\\1.2.3"),
    ("SeriesInstanceUID", "1.2.3.2"),
    ("SOPInstanceUID", "1.2.3.1.2"),
    ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.11"),
    ("SOPClassesInStudy", "1.2.840.10008.5.1.4.1.1.4,9.9"),
    ("ModalitiesInStudy", "SR"),
    ("ModalitiesInStudy", "CT\\SR"),
    ("ModalitiesInStudy", "CT,M*"),
]


def test_matches(one: Database) -> None:
    wrong = [(key, value) for key, value in MATCHING if not matches(one, {key: value})]
    assert wrong == []


FUZZY = [
    ("PatientName", "tarou yam"),
    ("PatientName", "YÄMADA"),
    ("PatientName", "ta?ou^yamada"),
    ("PatientName", "太郎"),
    ("StudyDescription", "mr bräin 100%"),
    ("StudyDescription", "*BRAIN*"),
    ("PatientID", "a_1%"),
]
NOT_EVEN_FUZZY = [
    ("PatientName", "amada"),
    ("PatientName", "tarou suzuki"),
    ("StudyDescription", "brain"),
    ("StudyDescription", "mr_brain*"),
    ("StudyDate", "20210305"),
]


def test_fuzzy_matching(one: Database) -> None:
    with one.transaction() as connection:

        def found(key: str, value: str, *, fuzzy: bool) -> bool:
            return bool(find(connection, Level.STUDY, {key: value}, limit=10, offset=0, fuzzy=fuzzy))

        assert [key for key in FUZZY if not found(*key, fuzzy=True)] == []
        assert [key for key in NOT_EVEN_FUZZY if found(*key, fuzzy=True)] == []
        assert not any(found(*key, fuzzy=False) for key in FUZZY if key != ("StudyDescription", "*BRAIN*"))


NOT_MATCHING = [
    ("PatientID", "a_1%"),
    ("PatientID", "AA1%"),
    ("PatientID", "A_1"),
    ("PatientID", "%"),
    ("PatientID", "A_1%?"),
    ("PatientID", "__1*"),
    ("PatientID", "*_%?"),
    ("PatientID", "?/_*"),
    ("PatientComments", "?*"),
    ("OtherPatientIDs", "X1X2"),
    ("PatientName", "Yamada"),
    ("PatientName", "=Yamada*"),
    ("PatientName", "Yamada*=Suzuki*"),
    ("PatientAge", "050M"),
    ("PatientAge", "051Y-"),
    ("PatientAge", "-049Y"),
    ("PatientAge", "-590M"),
    ("EchoTime", "10.1-"),
    ("EchoTime", "1-9.9"),
    ("EchoTime", "-10"),
    ("StudyDate", "20210305"),
    ("StudyDate", "20210305-"),
    ("StudyDate", "-20210303"),
    ("StudyTime", "1031"),
    ("StudyTime", "1031-"),
    ("StudyTime", "-1029"),
    ("AcquisitionDateTime", "-202102"),
    ("PatientWeight", "70.05"),
    ("PatientSize", "1"),
    ("EchoTime", "11"),
    ("StudyInstanceUID", "1.2"),
    ("ModalitiesInStudy", "CT"),
    ("ModalitiesInStudy", "CT\\US"),
    ("SOPClassesInStudy", "1.2.840.10008.5.1.4.1.1.2"),
]


def test_does_not_match(one: Database) -> None:
    wrong = [(key, value) for key, value in NOT_MATCHING if matches(one, {key: value})]
    assert wrong == []


def test_one_series_meets_all_series_keys(one: Database) -> None:
    assert matches(one, {"Modality": "MR", "SeriesDescription": "T1*", "Rows": "256"})
    assert not matches(one, {"Modality": "SR", "SeriesDescription": "T1*"})
    assert not matches(one, {"Modality": "SR", "Rows": "256"})
    assert matches(one, {"Modality": "MR", "ModalitiesInStudy": "SR"})


def test_series_filter_leaves_series_that_meet_all_keys(one: Database) -> None:
    def found(keys: Mapping[str, str]) -> int:
        condition = series_filter(keys)
        assert condition is not None
        with one.transaction() as connection:
            return len(connection.execute(condition).all())

    assert found({"StudyDate": "2021*".replace("*", "0101-20211231")}) == 2
    assert found({"StudyDate": "20210304", "Modality": "MR"}) == 1
    assert found({"Rows": "256"}) == 1
    assert found({"ModalitiesInStudy": "SR"}) == 2
    assert found({"StudyDate": "20220101-"}) == 0
    assert series_filter({"PatientName": "*", "StudyDate": ""}) is None


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("PatientNam", "x", "PatientNam"),
        ("00100021x", "x", "00100021x"),
        ("00090010", "x", "00090010"),
        ("StudyDate", "2021-03-04", "StudyDate accepts YYYYMMDD"),
        ("StudyDate", "20210230", "StudyDate"),
        ("StudyDate", "202103", "StudyDate"),
        ("StudyDate", "2021*", "StudyDate"),
        ("StudyDate", "-", "StudyDate"),
        ("StudyTime", "25", "StudyTime accepts HH"),
        ("StudyTime", "1030.5", "StudyTime"),
        ("AcquisitionDateTime", "20211301", "AcquisitionDateTime"),
        ("AcquisitionDateTime", "20210304103015+0100", "without an offset"),
        ("StudyInstanceUID", "1.2.*", "StudyInstanceUID accepts UIDs"),
        ("StudyInstanceUID", "1.2.3,", "StudyInstanceUID"),
        ("StudyInstanceUID", "1." * 40 + "1", "StudyInstanceUID"),
        ("SeriesNumber", "one", "SeriesNumber accepts a decimal number"),
        ("PatientAge", "abc", "PatientAge accepts an age, as 045Y"),
        ("PatientAge", "45", "PatientAge accepts an age"),
        ("EchoTime", "1-10-20", "EchoTime"),
        ("EchoTime", "1e9999", "EchoTime"),
        ("Modality", "MR\\CT", "Modality accepts one value"),
        ("PatientID", "a\0b", "PatientID"),
        ("ReferencedStudySequence", "x", "ReferencedStudySequence"),
        ("PixelData", "x", "PixelData"),
        ("NumberOfStudyRelatedSeries", "2", "counted"),
    ],
)
def test_what_cannot_be_understood_is_named(key: str, value: str, says: str) -> None:
    with pytest.raises(InvalidQuery, match=re.escape(says)):
        series_filter({key: value})


def test_a_key_under_two_names_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="PatientID is given twice"):
        series_filter({"PatientID": "1", "00100020": "1"})


def test_tags_and_keywords_name_attributes() -> None:
    assert keyword_of("0008103E") == keyword_of("0008103e") == keyword_of("SeriesDescription") == "SeriesDescription"


TEXT = st.text(st.sampled_from("aB%_/\\^'\"[]!-é *?"), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=TEXT, key=TEXT.filter(lambda text: "\\" not in text))
def test_text_matches_as_a_shell_pattern_does(database: Database, stored: str, key: str) -> None:
    value, pattern = stored.strip(), key.strip()
    with database.transaction() as connection:
        connection.execute(delete(studies))
        add_series(connection, "1.2.3", "1.2.3.1", study={"StudyDescription": value})
    # A shell pattern's classes are not DICOM's.
    expected = pattern in {"", "*"} or fnmatchcase(value, pattern.replace("[", "[[]"))
    assert matches(database, {"StudyDescription": key}) == expected


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("InstanceNumber", "1" * 60_000 + "x"),
        ("InstanceNumber", "1" * 1000 + "x"),
        ("PatientName", "=".join("a" * 5000)),
        ("PatientID", "x" * 1025),
        ("ModalitiesInStudy", ",".join(["MR"] * 101)),
        ("StudyInstanceUID", ",".join(f"1.{number}" for number in range(1001))),
    ],
)
def test_what_is_too_long_is_refused_at_once(key: str, value: str) -> None:
    with pytest.raises(InvalidQuery, match=key):
        conditions({key: value})
