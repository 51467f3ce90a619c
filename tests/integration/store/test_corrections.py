"""Corrections hold for what is here and for what comes, and the files stay as they were received."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from arriving import arrive, table
from dicom_factory import mr_instance, uid
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import dcmread

from pacs_cbir.errors import MergeRefused, UnknownPatient, UnknownStudy
from pacs_cbir.settings import Settings
from pacs_cbir.store import conflicts, corrections
from pacs_cbir.store.catalogue import find, header
from pacs_cbir.store.examples import Example, named_rows
from pacs_cbir.store.matching import Level
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.session import Database

A, B, C = Identifier("A"), Identifier("B"), Identifier("C")


def update(database: Database, patient: Identifier, **values: str) -> int:
    with database.transaction() as connection:
        return corrections.update_patient(connection, patient, values, "test")


def merge(database: Database, prior: Identifier, surviving: Identifier, **values: str) -> int:
    with database.transaction() as connection:
        return corrections.merge_patients(connection, prior, surviving, values, "test")


def correct(database: Database, study: str, patient: Identifier | None = None, **values: str) -> None:
    with database.transaction() as connection:
        corrections.correct_study(connection, uid(study), patient, values, "test")


def said(database: Database, study: str) -> dict[str, Any]:
    with database.transaction() as connection:
        found = header(connection, uid(study))
    return {key: found.get(key, [""])[0] for key in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")}


def patients_of(database: Database, study: str) -> set[Any]:
    query = """
        SELECT patients.patient_id FROM studies JOIN study_patients ON study_id = studies.id
        JOIN patients ON patients.id = study_patients.patient_id WHERE studies.study_instance_uid = :study"""
    of_instances = """
        SELECT DISTINCT patients.patient_id FROM studies JOIN series ON study_id = studies.id
        JOIN instances ON series_id = series.id JOIN patients ON patients.id = instances.patient_id
        WHERE studies.study_instance_uid = :study"""
    found, theirs = ({row[0] for row in table(database, text, study=uid(study))} for text in (query, of_instances))
    assert found == theirs
    return found


def flagged(database: Database, study: str) -> list[str]:
    with database.transaction() as connection:
        return conflicts.of_studies(connection, [uid(study)]).get(uid(study), [])


def test_an_update_holds_for_what_is_here_and_what_comes(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one", PatientAge="064Y")
    arrive(database, settings, patient="B", study="other")
    assert update(database, A, PatientName="Roe^Jane", PatientBirthDate="19610203", PatientSex="F") == 1
    arrive(database, settings, patient="A", study="one", number=2, PatientAge="064Y")
    arrive(database, settings, patient="A", study="two")
    wanted = {"PatientID": "A", "PatientName": "Roe^Jane", "PatientBirthDate": "19610203", "PatientSex": "F"}
    assert (said(database, "one"), said(database, "two")) == (wanted, wanted)
    with database.transaction() as connection:
        assert "PatientAge" not in header(connection, uid("one"))
        keys = {"PatientName": "Roe*", "PatientBirthDate": "19610203"}
        assert len(find(connection, Level.STUDY, keys, limit=9, offset=0)) == 2
        assert find(connection, Level.STUDY, {"PatientName": "Test^A"}, limit=9, offset=0) == []
    assert said(database, "other")["PatientName"] == "Test^B"
    files = sorted(settings.instances_dir.rglob("*.dcm"))
    assert {str(dcmread(file).PatientName) for file in files} == {"Test^A", "Test^B"}


def test_a_value_can_be_taken_away(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    update(database, A, PatientBirthDate="")
    arrive(database, settings, patient="A", study="one", number=2)
    assert said(database, "one")["PatientBirthDate"] == ""


def test_of_strangers_nothing_is_kept(database: Database) -> None:
    with pytest.raises(UnknownPatient):
        update(database, A, PatientName="Roe^Jane")
    assert merge(database, A, B, PatientName="Roe^Jane") == 0
    with pytest.raises(UnknownPatient):
        update(database, B, PatientName="Roe^Jane")
    assert table(database, "SELECT patient_id, demographics FROM patients ORDER BY patient_id") == [
        ("A", None),
        ("B", None),
    ]


def test_a_merge_holds_for_what_is_here_and_what_comes(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    arrive(database, settings, patient="B", study="two")
    assert merge(database, A, B, PatientName="Roe^Jane") == 1
    arrive(database, settings, patient="A", study="one", number=2)
    arrive(database, settings, patient="A", study="three")
    for study in ("one", "two", "three"):
        assert patients_of(database, study) == {"B"}
        assert (said(database, study)["PatientID"], said(database, study)["PatientName"]) == ("B", "Roe^Jane")
    with database.transaction() as connection:
        named = named_rows(connection, Example(uid("one")), None)
        assert named is not None
        assert len(named.same_patients) == 3
    assert flagged(database, "one") == []


def test_of_merged_patients_who_differ_the_surviving_one_is_right(database: Database, settings: Settings) -> None:
    wrong = {"PatientBirthDate": "19610203", "PatientSex": "F"}
    arrive(database, settings, patient="A", study="one", PatientAge="064Y", **wrong)
    arrive(database, settings, patient="A", study="silent", PatientBirthDate="", PatientSex="")
    arrive(database, settings, patient="B", study="two", PatientBirthDate="19700707", PatientSex="M")
    update(database, A, PatientBirthDate="19610204")
    arrive(database, settings, patient="C", study="three", PatientBirthDate="19700707", PatientSex="M")
    assert merge(database, A, B) == 2
    arrive(database, settings, patient="A", study="four", **wrong)
    arrive(database, settings, patient="B", study="five", PatientBirthDate="", PatientSex="M")
    wanted = {"PatientID": "B", "PatientName": "Test^B", "PatientBirthDate": "19700707", "PatientSex": "M"}
    for study in ("one", "silent", "two", "four", "five"):
        assert said(database, study) == wanted
    assert flagged(database, "one") == ["several birth dates", "several sexes"]
    assert (flagged(database, "two"), flagged(database, "three")) == ([], [])
    merge(database, A, B)
    assert flagged(database, "one") == ["several birth dates", "several sexes"]
    update(database, B, PatientBirthDate="19700708")
    assert flagged(database, "one") == ["several sexes"]
    correct(database, "one")
    assert flagged(database, "one") == []


def test_a_study_with_a_stray_instance_tells_and_takes_nothing_of_its_patient(
    database: Database, settings: Settings
) -> None:
    arrive(database, settings, patient="B", study="own", PatientBirthDate="19700707")
    for number in (1, 2):
        arrive(database, settings, patient="C", study="other", number=number, PatientBirthDate="19501212")
    arrive(database, settings, patient="B", study="other", number=3, PatientBirthDate="19700707")
    arrive(database, settings, patient="A", study="prior", PatientBirthDate="19700707")
    for number in (1, 2):
        arrive(database, settings, patient="C", study="third", number=number, PatientBirthDate="19501212")
    arrive(database, settings, patient="A", study="third", number=3, PatientBirthDate="19700707")
    merge(database, A, B)
    assert [said(database, study)["PatientID"] for study in ("own", "prior", "other", "third")] == ["B", "B", "C", "C"]
    born = [said(database, study)["PatientBirthDate"] for study in ("own", "prior", "other", "third")]
    assert born == ["19700707", "19700707", "19501212", "19501212"]
    update(database, B, PatientBirthDate="19700708")
    assert [said(database, study)["PatientBirthDate"] for study in ("own", "other")] == ["19700708", "19501212"]
    arrive(database, settings, patient="B", study="later", PatientBirthDate="19700708", PatientSex="F")
    found = [flagged(database, study) for study in ("own", "prior", "other", "third", "later")]
    assert found == [[], [], ["several patients"], ["several patients"], []]


def test_what_a_merge_tells_of_the_surviving_patient_is_no_conflict(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one", PatientBirthDate="19610203")
    arrive(database, settings, patient="B", study="two", PatientBirthDate="19700707")
    merge(database, A, B, PatientBirthDate="19700708")
    assert [said(database, study)["PatientBirthDate"] for study in ("one", "two")] == ["19700708"] * 2
    assert flagged(database, "one") == []


def test_of_a_surviving_patient_without_studies_the_prior_one_tells(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    update(database, A, PatientBirthDate="19610203")
    merge(database, A, B)
    arrive(database, settings, patient="B", study="two")
    assert [said(database, study)["PatientBirthDate"] for study in ("one", "two")] == ["19610203"] * 2
    assert flagged(database, "one") == []


def test_what_comes_after_a_merge_and_says_another_birth_date_is_flagged(
    database: Database, settings: Settings
) -> None:
    arrive(database, settings, patient="A", study="one", PatientBirthDate="19610203", PatientSex="F")
    merge(database, A, B)
    arrive(database, settings, patient="B", study="two", PatientBirthDate="19700707", PatientSex="F")
    arrive(database, settings, patient="B", study="three", PatientBirthDate="", PatientSex="F")
    for study, born in (("four", "19610203"), ("five", "19700707")):
        arrive(database, settings, patient="C", study=study, PatientBirthDate=born)
    found = [flagged(database, study) for study in ("one", "two", "three", "four", "five")]
    assert found == [[], ["several birth dates"], [], [], []]
    update(database, B, PatientBirthDate="19700707")
    arrive(database, settings, patient="A", study="six", PatientBirthDate="19610203", PatientSex="F")
    assert {said(database, study)["PatientBirthDate"] for study in ("one", "two", "three", "six")} == {"19700707"}
    assert (flagged(database, "two"), flagged(database, "six")) == ([], [])


def test_merges_chain_and_repeat_and_never_circle(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    merge(database, A, B)
    merge(database, B, C)
    assert merge(database, A, B) == merge(database, A, C) == 0
    for prior, surviving in ((C, A), (C, B), (B, B), (C, C), (A, Identifier("D"))):
        with pytest.raises(MergeRefused):
            merge(database, prior, surviving)
    arrive(database, settings, patient="A", study="two")
    arrive(database, settings, patient="B", study="two", number=2)
    assert patients_of(database, "one") == patients_of(database, "two") == {"C"}
    assert table(database, "SELECT count(*) FROM patients WHERE patient_id = 'D'") == [(0,)]


def test_a_merge_before_anything_came(database: Database, settings: Settings) -> None:
    merge(database, Identifier("1", "OLD"), Identifier("1", "NEW"))
    arrive(database, settings, patient="1", study="one", IssuerOfPatientID="OLD")
    with database.transaction() as connection:
        assert header(connection, uid("one"))["IssuerOfPatientID"] == ["NEW"]


def test_a_merge_of_two_patients_of_one_study_resolves_the_conflict(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    arrive(database, settings, patient="B", study="one", number=2)
    assert flagged(database, "one") == ["several patients"]
    merge(database, A, B)
    assert flagged(database, "one") == []
    assert table(database, "SELECT count(*), count(resolved_at) FROM conflicts") == [(1, 1)]


def test_a_study_is_given_to_its_patient(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one", PatientAge="064Y", EthnicGroup="x", OtherPatientIDs="A2")
    arrive(database, settings, patient="B", study="two", PatientBirthDate="19700707", PatientSex="M")
    correct(database, "one", B, AccessionNumber="A7")
    for number in (2, 3):
        arrive(database, settings, patient="A", study="one", number=number, PatientAge="064Y", OtherPatientIDs="A2")
        assert patients_of(database, "one") == {"B"}
        with database.transaction() as connection:
            found = header(connection, uid("one"))
        assert found["AccessionNumber"] == ["A7"]
        assert not {"PatientAge", "EthnicGroup", "OtherPatientIDs"} & found.keys()
        wanted = {"PatientID": "B", "PatientName": "Test^B", "PatientBirthDate": "19700707", "PatientSex": "M"}
        assert said(database, "one") == wanted
    assert flagged(database, "one") == []
    update(database, B, PatientName="Roe^Jane")
    arrive(database, settings, patient="A", study="one", number=4)
    assert said(database, "one")["PatientName"] == "Roe^Jane"


def test_of_an_unknown_owner_nothing_of_the_former_one_is_left(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    correct(database, "one", B)
    arrive(database, settings, patient="A", study="one", number=2)
    wanted = {"PatientID": "B", "PatientName": "", "PatientBirthDate": "", "PatientSex": ""}
    assert said(database, "one") == wanted
    arrive(database, settings, patient="B", study="one", number=3)
    assert said(database, "one")["PatientName"] == "Test^B"


def test_a_study_is_given_back_to_its_patient_after_a_stray_instance(database: Database, settings: Settings) -> None:
    wanted = {"PatientID": "A", "PatientName": "Test^A", "PatientBirthDate": "19610203", "PatientSex": "F"}
    for number in range(3):
        arrive(database, settings, patient="A", study="one", number=number, PatientBirthDate="19610203", PatientSex="F")
    arrive(database, settings, patient="B", study="one", number=7)
    assert said(database, "one") == wanted
    assert flagged(database, "one") == ["several patients"]
    correct(database, "one", A)
    assert said(database, "one") == wanted
    assert (patients_of(database, "one"), flagged(database, "one")) == ({"A"}, [])


def test_a_study_is_given_to_nobody_who_was_merged(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    arrive(database, settings, patient="B", study="two")
    merge(database, B, A)
    with pytest.raises(MergeRefused, match="name the surviving one"):
        correct(database, "two", B)
    assert patients_of(database, "two") == {"A"}


def test_a_third_patient_in_a_study_that_was_given_is_flagged(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    correct(database, "one", B)
    arrive(database, settings, patient="C", study="one", number=2)
    assert (patients_of(database, "one"), flagged(database, "one")) == ({"B"}, ["unexpected patient"])
    correct(database, "one")
    assert flagged(database, "one") == []


def test_a_study_that_was_given_follows_its_patient(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A", study="one")
    correct(database, "one", B)
    merge(database, B, C, PatientName="Roe^Jane")
    arrive(database, settings, patient="A", study="one", number=2)
    arrive(database, settings, patient="B", study="one", number=3)
    assert (patients_of(database, "one"), flagged(database, "one")) == ({"C"}, [])
    assert said(database, "one")["PatientName"] == "Roe^Jane"


def test_a_study_without_a_patient_id_is_given_one(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="", study="one")
    correct(database, "one", B)
    arrive(database, settings, patient="", study="one", number=2)
    assert (patients_of(database, "one"), flagged(database, "one")) == ({"B"}, [])


def test_a_study_that_is_not_here(database: Database) -> None:
    with pytest.raises(UnknownStudy):
        correct(database, "one", B)
    assert table(database, "SELECT count(*) FROM patients") == [(0,)]


def test_one_instance_under_two_studies_is_flagged_in_both(database: Database, settings: Settings) -> None:
    arrive(database, settings, study="one")
    arrive(database, settings, study="one", number=2)
    moved = mr_instance(study="two")
    moved.SOPInstanceUID = moved.file_meta.MediaStorageSOPInstanceUID = uid("one", "series", 1)
    arrive(database, settings, moved)
    assert flagged(database, "one") == flagged(database, "two") == ["several studies"]
    query = "SELECT DISTINCT sop_instance_uid FROM conflicts"
    assert table(database, query) == [(uid("one", "series", 1),)]


def test_a_study_sent_again_under_another_patient_is_recorded(database: Database, settings: Settings) -> None:
    for number in (1, 2):
        arrive(database, settings, patient="A", study="one", number=number)
    arrive(database, settings, patient="B", study="one", number=1)
    assert flagged(database, "one") == ["several patients"]
    arrive(database, settings, patient="B", study="one", number=2)
    assert flagged(database, "one") == []
    assert table(database, "SELECT count(*) FROM conflicts WHERE resolved_at > seen_at") == [(2,)]


def test_the_history_tells_no_one_who_they_are(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="A-4711", study="one")
    update(database, Identifier("A-4711"), PatientName="Roe^Jane", PatientSex="F")
    correct(database, "one", B, AccessionNumber="A7")
    with database.transaction() as connection:
        found = corrections.history(connection, 10)
    assert [(one.kind, one.study_instance_uid, one.keywords) for one in found] == [
        ("study", uid("one"), ("AccessionNumber", "PatientID")),
        ("patient update", None, ("PatientName", "PatientSex")),
    ]
    assert not any(word in repr(found) for word in ("Roe", "4711", "A7"))


@dataclass
class Expected:
    """Who survived, and what is said of them."""

    into: dict[str, str] = field(default_factory=dict)
    name: dict[str, str] = field(default_factory=dict)
    studies: dict[str, str] = field(default_factory=dict)

    def survivor(self, patient: str) -> str:
        while patient in self.into:
            patient = self.into[patient]
        return patient

    def of(self, patient: str) -> list[str]:
        return [study for study, owner in self.studies.items() if self.survivor(owner) == patient]


_run = itertools.count()
_patient = st.sampled_from("ABCD")
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), _patient, st.integers(1, 2)),
        st.tuples(st.just("merge"), _patient, _patient),
        st.tuples(st.just("update"), _patient, st.sampled_from(["Roe^Jane", "Poe^Ann"])),
    ),
    max_size=14,
)


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(steps=_steps)
def test_every_study_has_the_surviving_patient(
    database: Database, settings: Settings, steps: list[tuple[str, str, Any]]
) -> None:
    run, expected = f"run{next(_run)}-", Expected()
    for what, patient, other in steps:
        _do(database, settings, run, expected, (what, patient, other))
        for study, owner in expected.studies.items():
            survivor = expected.survivor(owner)
            assert patients_of(database, study) == {run + survivor}
            found = said(database, study)
            assert found["PatientID"] == run + survivor
            if survivor in expected.name:
                assert found["PatientName"] == expected.name[survivor]


def _do(database: Database, settings: Settings, run: str, expected: Expected, step: tuple[str, str, Any]) -> None:
    what, patient, other = step
    survivor, identifier = expected.survivor(patient), Identifier(run + patient)
    if what == "arrive":
        study = f"{run}{patient}{other}"
        number = len(expected.studies) + 1
        arrive(database, settings, patient=run + patient, study=study, number=number)
        expected.studies[study] = patient
    elif what == "update":
        if expected.of(survivor):
            update(database, identifier, PatientName=other)
            expected.name[survivor] = other
        else:
            with pytest.raises(UnknownPatient):
                update(database, identifier, PatientName=other)
    else:
        surviving = expected.survivor(other)
        if patient in {other, surviving} or survivor not in {patient, surviving}:
            with pytest.raises(MergeRefused):
                merge(database, identifier, Identifier(run + other))
            return
        theirs = [said(database, study)["PatientName"] for study in expected.of(surviving)]
        merge(database, identifier, Identifier(run + other))
        if survivor == patient:
            expected.into[patient] = surviving
            name = expected.name.get(surviving) or (theirs and theirs[-1]) or expected.name.get(survivor)
            if name:
                expected.name[surviving] = name
