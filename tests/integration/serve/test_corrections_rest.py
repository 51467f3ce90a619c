"""Corrections by REST: they hold in every answer at once, and no one's identity is in a URL, a log or an error."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from arriving import arrive
from dicom_factory import mr_instance, uid
from notes import note
from running import scp_thread
from scu import association, find, store
from served import Api
from structlog.testing import capture_logs

FIND = (("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2"),)


def post(api: Api, what: str, **body: Any) -> httpx.Response:
    return api.client.post(f"/corrections/{what}", json=body)


def similar(api: Api, example: str) -> list[str]:
    answer = api.client.get("/similar/studies", params={"example": example}, headers={"Accept": "application/json"})
    return [] if answer.status_code == 204 else [study["StudyInstanceUID"] for study in answer.json()]


def test_after_a_merge_two_patients_count_as_one_at_once(api: Api) -> None:
    for number in (1, 2, 3):
        api.add(f"1.{number}", f"1.{number}.1", number * 5)
    assert similar(api, "1.1") == ["1.2", "1.3"]
    merged = post(api, "patient-merge", prior={"PatientID": "P1.2"}, surviving={"PatientID": "P1.1"})
    assert (merged.status_code, merged.json()) == (200, {"studies": 1})
    assert similar(api, "1.1") == ["1.3"]
    assert similar(api, "1.3") == ["1.2", "1.1"]


def test_a_study_that_is_given_to_another_patient(api: Api) -> None:
    for number in (1, 2):
        api.add(f"1.{number}", f"1.{number}.1", number * 5)
    given = post(api, "study", StudyInstanceUID="1.2", patient={"PatientID": "P1.1"}, StudyDescription="head")
    assert given.status_code == 200
    assert similar(api, "1.1") == []
    (found,) = api.client.get("/dicom-web/studies?PatientID=P1.1&StudyDescription=head").json()
    assert found["0020000D"]["Value"] == ["1.2"]


def test_every_door_answers_what_is_corrected(api: Api) -> None:
    with scp_thread(api.settings, api.database):
        with association(api.settings) as asked:
            assert store(asked, mr_instance("A", "one")) == 0
        updated = post(api, "patient-update", patient={"PatientID": "A"}, PatientName="Roe^Jane", PatientSex="F")
        assert updated.json() == {"studies": 1}
        with association(api.settings) as asked:
            assert store(asked, mr_instance("A", "one", number=2)) == 0
        with association(api.settings, FIND) as asked:
            final, found = find(asked, "STUDY", PatientName="Roe*", PatientSex="F", StudyInstanceUID="")
            assert (final.code, [str(ds.StudyInstanceUID) for _, ds in found]) == (0, [uid("one")])
            assert find(asked, "STUDY", PatientName="Test*", StudyInstanceUID="")[1] == []
    (study,) = api.client.get("/dicom-web/studies").json()
    assert study["00100010"]["Value"] == [{"Alphabetic": "Roe^Jane"}]
    (listed,) = api.client.get("/studies").json()
    assert listed["PatientSex"] == "F"


def test_a_conflict_is_told_until_it_is_resolved(api: Api) -> None:
    with scp_thread(api.settings, api.database), association(api.settings) as asked:
        for number, patient in enumerate("AB", start=1):
            assert store(asked, mr_instance(patient, "one", number=number)) == 0
    (study,) = api.client.get("/studies").json()
    assert study["conflicts"] == ["several patients"]
    (told,) = api.client.get("/status").json()["conflicts"]
    assert (told["study_instance_uid"], told["kind"], told["instances"]) == (uid("one"), "several patients", 1)
    assert post(api, "study", StudyInstanceUID=uid("one"), patient={"PatientID": "A"}).status_code == 200
    assert "conflicts" not in api.client.get("/studies").json()[0]
    assert api.client.get("/status").json()["conflicts"] == []


def test_a_note_that_cannot_be_read_is_flagged_until_somebody_looked_at_it(api: Api) -> None:
    ds = mr_instance("A", "one")
    unreadable = note([ds])
    del unreadable.ConceptNameCodeSequence
    for one in (ds, mr_instance("B", "one", number=2), unreadable):
        arrive(api.database, api.settings, one)
    note_flag = "unreadable rejection note"
    assert sorted(api.client.get("/studies").json()[0]["conflicts"]) == ["several patients", note_flag]
    assert post(api, "study", StudyInstanceUID=uid("one"), patient={"PatientID": "A"}).status_code == 200
    assert api.client.get("/studies").json()[0]["conflicts"] == [note_flag]
    assert post(api, "study", StudyInstanceUID=uid("one"), notes_looked_at=True).status_code == 200
    assert "conflicts" not in api.client.get("/studies").json()[0]


@pytest.mark.parametrize(
    ("what", "body", "status", "kind"),
    [
        ("patient-update", {"patient": {"PatientID": "X-4711"}, "PatientName": "Roe"}, 404, "unknown-patient"),
        ("study", {"StudyInstanceUID": "9.9", "patient": {"PatientID": "X-4711"}}, 404, "unknown-study"),
        (
            "patient-merge",
            {"prior": {"PatientID": "X-4711"}, "surviving": {"PatientID": "X-4711"}},
            409,
            "merge-refused",
        ),
        ("patient-update", {"patient": {"PatientID": "X-4711\\Y"}}, 400, "invalid-query"),
        ("patient-update", {"patient": {"PatientID": " "}}, 400, "invalid-query"),
        ("patient-update", {"patient": {"PatientID": "X-4711"}, "PatientSex": "X-4711"}, 400, "invalid-query"),
        ("patient-update", {"patient": {"PatientID": "X-4711"}, "Name": "X-4711"}, 400, "invalid-query"),
        ("patient-update", {"patient": {"PatientID": "4711"}, "PatientBirthDate": "19470229"}, 400, "invalid-query"),
    ],
)
def test_what_cannot_be_corrected_says_so_and_names_no_one(
    api: Api, what: str, body: dict[str, Any], status: int, kind: str
) -> None:
    with capture_logs() as lines:
        answer = post(api, what, **body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:pacs-cbir:problem:{kind}")
    assert not any(word in f"{answer.text}{lines}" for word in ("4711", "Roe", "19470229"))


@pytest.mark.parametrize("given", [{}, {"Content-Type": "text/plain"}], ids=["none", "another"])
@pytest.mark.parametrize("what", ["patient-update", "patient-merge", "study", "patient-deletion"])
def test_a_body_of_another_type_is_told_which_is_wanted(api: Api, what: str, given: dict[str, str]) -> None:
    answer = api.client.post(f"/corrections/{what}", content=b'{"patient": {"PatientID": "X-4711"}}', headers=given)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def test_the_history_is_listed_without_identities(api: Api) -> None:
    api.add("1.1", "1.1.1")
    post(api, "patient-update", patient={"PatientID": "P1.1"}, PatientName="Roe^Jane")
    post(api, "patient-merge", prior={"PatientID": "P1.1"}, surviving={"PatientID": "P2"})
    answer = api.client.get("/corrections")
    assert [(one["kind"], one["door"], one["keywords"]) for one in answer.json()] == [
        ("patient merge", "REST", []),
        ("patient update", "REST", ["PatientName"]),
    ]
    assert "Roe" not in answer.text
    assert "P1" not in answer.text
