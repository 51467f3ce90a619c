"""C-FIND in the Study Root model: what is stored, as QIDO-RS answers it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from dicom_factory import encoded
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRoot
from rows import add_series
from scu import answers, association, find, find_bytes, identifier
from sqlalchemy import text

from pacs_cbir.receive import find as receive_find
from pacs_cbir.receive.identifier import MAX_IDENTIFIER_BYTES, Identifier, read_identifier
from pacs_cbir.receive.status import answer
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.settings import Settings
from pacs_cbir.store import labels
from pacs_cbir.store.session import Database

FIND = [(StudyRoot, ExplicitVRLittleEndian)]
PATHS = {"STUDY": "/studies", "SERIES": "/studies/{0}/series", "IMAGE": "/studies/{0}/series/{1}/instances"}
NAMES = ("Doe^Jane", "Müller^Jörg", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Дюма")


@pytest.fixture
def cohort(scp: Settings, database: Database) -> Settings:
    with database.transaction() as connection:
        for number, name in enumerate(NAMES, 1):
            study = {
                "PatientID": f"P{number}",
                "PatientName": name,
                "PatientSex": "FMFO"[number - 1],
                "StudyDate": f"2020010{number}",
                "StudyTime": f"1{number}0000",
                "StudyDescription": f"brain {number}",
                "PatientAge": f"04{number}Y",
            }
            for series in ("1", "2"):
                uid = f"1.{number}.{series}"
                add_series(
                    connection,
                    f"1.{number}",
                    uid,
                    study=study,
                    attributes={"Modality": "MR", "SeriesNumber": series, "SeriesDescription": "FLAIR" * int(series)},
                    instance={"InstanceNumber": "7", "Rows": "256"},
                    instance_uids=[f"{uid}.1", f"{uid}.2"],
                )
    return scp


@pytest.fixture
def asked(cohort: Settings) -> Iterator[Association]:
    with association(cohort, FIND) as open_association:
        yield open_association


@pytest.fixture
def qido(cohort: Settings, database: Database) -> TestClient:
    follower = Follower(database, cohort.index_dir)
    return TestClient(create_app(cohort, database, Searcher(database, follower), None))  # type: ignore[arg-type]


def test_keys_that_are_asked_for_are_answered(asked: Association) -> None:
    status, found = find(asked, "STUDY", PatientID="P2", PatientName="", StudyDescription="", ModalitiesInStudy="",
                         NumberOfStudyRelatedInstances="", AccessionNumber="", InstanceAvailability="")  # fmt: skip
    assert status == 0x0000
    [(pending, study)] = found
    assert pending == 0xFF00
    assert study.SpecificCharacterSet == "ISO_IR 192"
    assert (study.QueryRetrieveLevel, study.StudyInstanceUID) == ("STUDY", "1.2")
    assert (study.PatientName, study.PatientID, study.StudyDescription) == ("Müller^Jörg", "P2", "brain 2")
    assert (study.ModalitiesInStudy, study.NumberOfStudyRelatedInstances) == ("MR", 4)
    assert study.InstanceAvailability == "ONLINE"
    assert study["AccessionNumber"].is_empty
    assert "PatientSex" not in study


def test_levels_below(asked: Association) -> None:
    _, series = find(asked, "SERIES", StudyInstanceUID="1.3", SeriesDescription="FLAIRF*", SeriesInstanceUID="")
    assert [ds.SeriesInstanceUID for _, ds in series] == ["1.3.2"]
    _, images = find(asked, "IMAGE", StudyInstanceUID="1.3", SeriesInstanceUID="1.3.2", SOPInstanceUID="", Rows="")
    assert [(ds.SOPInstanceUID, ds.Rows) for _, ds in images] == [("1.3.2.1", 256), ("1.3.2.2", 256)]


KEYS: dict[str, list[str]] = {
    "PatientName": ["", "doe^jane", "*ü*", "müller^jörg", "山田^太郎", "=山田*", "Дюма", "дюма", "*", "D?e*", "nobody"],
    "PatientID": ["P1", "P?", "p1", "P*"],
    "PatientSex": ["F", "", "X"],
    "StudyDate": ["20200101", "20200102-", "-20200102", "20200102-20200103", "2020.01.02"],
    "StudyTime": ["110000-130000", "11", "12-"],
    "StudyInstanceUID": ["1.1", "1.1\\1.3", "9"],
    "SeriesInstanceUID": ["", "1.1.1\\1.2.2"],
    "SOPInstanceUID": ["1.1.1.1\\1.3.2.2"],
    "ModalitiesInStudy": ["MR", "CT\\MR", "CT"],
    "Modality": ["MR", "C*"],
    "SeriesNumber": ["1", "2", "1-2"],
    "SeriesDescription": ["FLAIR", "*FLAIRFLAIR", ""],
    "PatientAge": ["041Y", "042Y-043Y"],
    "Rows": ["256", ""],
    "InstanceNumber": ["7", "8-"],
    "AccessionNumber": ["", "A*"],
}


@pytest.mark.slow
def test_the_same_keys_find_what_qido_finds(asked: Association, qido: TestClient) -> None:
    found_some = 0

    @examples(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(
        level=st.sampled_from(sorted(PATHS)),
        keys=st.sets(st.sampled_from(sorted(KEYS)), max_size=4).flatmap(
            lambda names: st.fixed_dictionaries({name: st.sampled_from(KEYS[name]) for name in names})
        ),
        study=st.sampled_from(["1.1", "1.3"]),
        series=st.sampled_from(["1", "2"]),
    )
    def agree(level: str, keys: dict[str, str], study: str, series: str) -> None:
        nonlocal found_some
        above = {"STUDY": [], "SERIES": ["StudyInstanceUID"], "IMAGE": ["StudyInstanceUID", "SeriesInstanceUID"]}[level]
        place = dict(zip(above, (study, f"{study}.{series}"), strict=False))
        own = {keyword: value for keyword, value in keys.items() if keyword not in place}
        answer = qido.get("/dicom-web" + PATHS[level].format(*place.values()), params=own)
        status, found = find(asked, level, **own, **place)
        if answer.status_code == 400:
            assert status == 0xC000
            return
        assert status == 0x0000, own
        listed = [Dataset.from_json(ds) for ds in answer.json()] if answer.content else []
        assert len(listed) == len(found)
        found_some += bool(found)
        for ours, theirs in zip((ds for _, ds in found), listed, strict=True):
            for keyword in own:
                expected = theirs.get(keyword)
                assert str(ours.get(keyword) or "") == str("" if expected is None else expected), keyword

    agree()
    assert found_some > 30


def test_labels_are_a_key(asked: Association, database: Database) -> None:
    with database.transaction() as connection:
        labels.replace(connection, "1.2", ["glioma"])
    for wanted, uids in ((["glioma"], ["1.2"]), (["metastasis", "glioma"], ["1.2"]), (["Glioma"], [])):
        status, found = answers(asked, identifier("STUDY", private={0x0E: ("LO", wanted)}))
        assert (status, [ds.StudyInstanceUID for _, ds in found]) == (0x0000, uids)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_transfer_syntaxes_and_character_sets(cohort: Settings, syntax: str) -> None:
    with association(cohort, [(StudyRoot, syntax)]) as asked:
        for character_set, name in (
            ("ISO_IR 100", "müller*"),
            ("ISO_IR 192", "*=山田^太郎"),
            (["", "ISO 2022 IR 87"], "*=山田^太郎"),
            ("ISO_IR 144", "Дюма"),
        ):
            ds = identifier("STUDY", PatientName=name, SeriesNumber="1", Rows=256)
            ds.SpecificCharacterSet = character_set
            status, [(_, found)] = answers(asked, ds)
            assert status == 0x0000
            assert str(found.PatientName) in NAMES


def test_what_cannot_be_matched_is_said(asked: Association) -> None:
    ds = identifier("STUDY", PatientID="P1")
    ds.ReferencedStudySequence = [Dataset()]
    status, [(pending, found)] = answers(asked, ds)
    assert (status, pending, found.StudyInstanceUID) == (0x0000, 0xFF01, "1.1")
    assert list(found.ReferencedStudySequence) == []
    ds = identifier("STUDY", PatientID="P1")
    ds.private_block(0x0009, "SOMEONE", create=True).add_new(1, "LO", "x")
    assert [pending for pending, _ in answers(asked, ds)[1]] == [0xFF01]


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"QueryRetrieveLevel": None}, 0xA900, "STUDY, SERIES, IMAGE"),
    ({"QueryRetrieveLevel": "PATIENT"}, 0xA900, "STUDY, SERIES, IMAGE"),
    ({"QueryRetrieveLevel": "SERIES"}, 0xA900, "StudyInstanceUID must be one UID"),
    ({"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ["1.1", "1.2"]}, 0xA900, "StudyInstanceUID must be one UID"),
    ({"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1.1"}, 0xA900, "SeriesInstanceUID must be one UID"),
    ({"StudyDate": "yesterday"}, 0xC000, "StudyDate accepts"),
    ({"StudyInstanceUID": "x"}, 0xC000, "StudyInstanceUID accepts UIDs"),
    ({"StudyInstanceUID": [f"1.{number}" for number in range(1001)]}, 0xC000, "at most 1000 UIDs"),
    ({"StudyInstanceUID": [f"1.{number}" for number in range(200_000)]}, 0xC000, "bytes"),
    ({"PatientID": "x" * 2000}, 0xC000, "PatientID accepts at most"),
    ({"NumberOfStudyRelatedSeries": "2"}, 0xC000, "is counted"),
]


@pytest.mark.parametrize(("elements", "status", "says"), REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_refused(asked: Association, elements: dict[str, Any], status: int, says: str) -> None:
    ds = identifier("STUDY")
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
        if value is None:
            delattr(ds, keyword)
    final, found = answers(asked, ds)
    assert (final.code, found) == (status, [])
    assert says in final.comment
    assert len(final.comment) <= 64
    assert find(asked, "STUDY", PatientID="P1")[0] == 0x0000


def _element(tag: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


STUDY_LEVEL = _element(0x00080052, "CS", b"STUDY ")
HOSTILE = {
    "nothing": b"",
    "noise": bytes(range(256)) * 10,
    "cut off": STUDY_LEVEL[:-2],
    "a length beyond the end": STUDY_LEVEL + struct.pack("<HH2sHI", 0x0010, 0x4000, b"UT", 0, 0xFFFF0000),
    "endless nesting": STUDY_LEVEL + struct.pack("<HH2sHI", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) * 5000,
    "a date of two bytes": STUDY_LEVEL + _element(0x00080020, "US", b"\x01\x02"),
    "a number of three bytes": STUDY_LEVEL + _element(0x00280010, "US", b"\x01\x02\x03"),
    "a name of bytes": STUDY_LEVEL + _element(0x00100010, "AT", b"DOE^JANE"),
    "a level of bytes": _element(0x00080052, "US", b"\x01\x02"),
    "a NUL in a UID": STUDY_LEVEL + _element(0x0020000D, "UI", b"1.\x002."),
    "more keys than fit": STUDY_LEVEL + b"".join(_element(0x00100000 | n, "LO", b"x ") for n in range(0x10, 0xFFF)),
    "too long": STUDY_LEVEL + b"\0" * (2 * MAX_IDENTIFIER_BYTES),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_identifiers_get_a_status(asked: Association, name: str) -> None:
    status = find_bytes(asked, HOSTILE[name])
    assert status in {0xC000, 0xA900} or (name == "a NUL in a UID" and status == 0x0000), status
    assert find(asked, "STUDY", PatientID="P1")[0] == 0x0000


def test_every_cut_of_an_identifier_gets_a_status(asked: Association) -> None:
    whole = encoded(identifier("STUDY", PatientName="Müller*", StudyDate="2020-", StudyInstanceUID="1.1\\1.2"))
    for length in range(0, len(whole), 7):
        assert find_bytes(asked, whole[:length]) is not None, length


def test_a_long_list_is_cut_and_said_to_be(asked: Association, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive_find, "MAX_ANSWERS", 3)
    status, found = find(asked, "STUDY")
    assert len(found) == 3
    assert status.code == 0xA700
    assert "only the first 3 matches" in status.comment
    assert find(asked, "STUDY", PatientID="P1")[0] == 0x0000


def test_a_value_that_is_none_of_its_vr_spoils_no_answer(asked: Association, database: Database) -> None:
    with database.transaction() as connection:
        add_series(connection, "1.9", "1.9.1", study={"PatientID": "P9", "PatientAge": "old"}, attributes={"Rows": "x"},
                   instance={"Rows": "70000", "InstanceNumber": "3"})  # fmt: skip
    status, [(_, found)] = find(
        asked, "IMAGE", StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1", Rows="", InstanceNumber="", PatientAge=""
    )
    assert status == 0x0000
    assert found["Rows"].is_empty
    assert (found.InstanceNumber, found.PatientAge) == (3, "old")


@pytest.fixture
def many(cohort: Settings, database: Database) -> Settings:
    with database.transaction() as connection:
        connection.execute(
            text("""
                INSERT INTO studies (study_instance_uid, attributes)
                SELECT '2.' || number, '{"PatientSex": ["F"]}' FROM generate_series(1, 4000) AS number
            """)
        )
        connection.execute(
            text("""
                WITH made AS (
                    INSERT INTO series (study_id, series_instance_uid, attributes)
                    SELECT id, study_instance_uid || '.1', '{}' FROM studies WHERE study_instance_uid LIKE '2.%'
                    ON CONFLICT DO NOTHING RETURNING id, series_instance_uid)
                INSERT INTO instances (series_id, patient_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
                                       attributes, file, file_size, file_sha256, pixel_sha256, calling_ae_title)
                SELECT id, (SELECT min(id) FROM patients), series_instance_uid || '.1', '1.2', '1.2', '{}',
                       series_instance_uid, 0, '', '', 'TEST' FROM made
            """)
        )
    return cohort


def test_a_query_is_cancelled(many: Settings, database: Database) -> None:
    with association(many, FIND) as asked:
        # On a busy machine all answers may be under way before the cancel arrives; then Success is right.
        for _ in range(5):
            seen = []
            for status, _ in asked.send_c_find(identifier("STUDY", PatientSex=""), StudyRoot, msg_id=5):
                seen.append(status.Status)
                if len(seen) == 1:
                    asked.send_c_cancel(5, 1)
            if seen[-1] != 0x0000:
                break
        assert seen[-1] == 0xFE00
        assert len(seen) < 4000
        assert find(asked, "STUDY", PatientID="P1")[0] == 0x0000


def open_transactions(database: Database) -> int:
    """Of other connections to this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    with database.transaction() as connection:
        return int(connection.execute(text(query)).scalar_one())


@pytest.mark.slow
def test_who_leaves_in_the_middle_leaves_nothing_behind(many: Settings, database: Database) -> None:
    for _ in range(many.maximum_associations + 2):
        with association(many, FIND) as asked:
            assert asked.is_established
            next(iter(asked.send_c_find(identifier("STUDY", PatientSex=""), StudyRoot)))
            assert open_transactions(database) == 0
            asked.abort()
    with association(many, FIND) as asked:
        status, found = find(asked, "STUDY", PatientSex="")
        assert (status, len(found)) == (0x0000, 4004)


def test_an_identifier_takes_no_more_memory_than_it_may(asked: Association, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def recorded(encoded: bytes, transfer_syntax: UID) -> Identifier:
        lengths.append(len(encoded))
        return read_identifier(encoded, transfer_syntax)

    monkeypatch.setattr(receive_find, "read_identifier", recorded)
    assert find_bytes(asked, STUDY_LEVEL + b"\0" * (20 * MAX_IDENTIFIER_BYTES)) == 0xC000
    assert MAX_IDENTIFIER_BYTES < lengths[0] < 2 * MAX_IDENTIFIER_BYTES


def test_a_question_is_not_in_the_log(asked: Association, capsys: pytest.CaptureFixture[str]) -> None:
    assert find(asked, "STUDY", PatientName="Geheim^*", PatientID="GEHEIM")[0] == 0x0000
    status, _ = find(asked, "STUDY", PatientName="Geheim^*", StudyDate="geheim")
    assert status.code == 0xC000
    assert "query answered" in (said := capsys.readouterr().out)
    assert "query_level=study" in said
    assert "query refused" in said
    assert "geheim" not in (said + status.comment).lower()


def test_a_comment_that_is_too_long_ends_with_a_word() -> None:
    """64 characters are little (PS3.7 C.4.2)."""
    said = str(answer(0xC000, "example accepts {study}, {study}/{series} and {study}/{series}/{instance}").ErrorComment)
    assert said == "example accepts {study}, {study}/{series} and..."
    assert len(said) <= 64
    assert answer(0xC000, "short enough").ErrorComment == "short enough"
