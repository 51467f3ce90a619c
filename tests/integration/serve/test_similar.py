"""The query by example, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydicom import Dataset
from served import Api

from pacs_cbir.dicom.private_block import PRIVATE_CREATOR
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.store import jobs

PLAIN = {"Accept": "application/json"}


@pytest.fixture
def cohort(api: Api) -> Api:
    api.add("1", "1.1", 0)
    api.add("1", "1.2", 0, sequence="FLAIR")
    api.add("2", "2.1", 60, study={"PatientID": "P2", "PatientSex": "F", "StudyDescription": "MR brain"})
    api.add("2", "2.2", 60, sequence="FLAIR", attributes={"SeriesDescription": "ax FLAIR"})
    api.add("3", "3.1", 0, study={"PatientID": "P3", "PatientName": "Doe^Jane", "PatientSex": "M"}, in_domain=False)
    api.add("4", "4.1", 0, study={"PatientID": "P1"})
    return api


def plain(api: Api, path: str, **parameters: Any) -> Any:
    answer = api.client.get(path, params=parameters, headers=PLAIN)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def test_what_lacks_slices_is_marked(api: Api) -> None:
    api.add("1", "1.1")
    api.add("2", "2.1", 0, missing_slices=2)
    api.add("3", "3.1", 10, missing_slices=1, in_domain=False)
    api.add("4", "4.1", 20)
    marks = [["slices-missing"], ["outside-encoder-domain", "slices-missing"], None]
    found = plain(api, "/similar/studies", example="1")
    assert [one.get("notes") for one in found] == [one["series"][0].get("notes") for one in found] == marks
    assert [one.get("notes") for one in plain(api, "/similar/series", example="1/1.1")] == marks
    as_dicom = api.client.get("/similar/studies", params={"example": "1"}).json()
    assert [one.get("00751003", {}).get("Value") for one in as_dicom] == marks
    status = api.client.get("/status").json()
    assert status["with_gaps"] == [["2", "2.1", 2], ["3", "3.1", 1]]


def test_studies_best_first_without_the_own_patient(cohort: Api) -> None:
    first, second = plain(cohort, "/similar/studies", example="1")
    assert first == {
        "StudyInstanceUID": "3",
        "PatientSex": "M",
        "labels": [],
        "similarity": pytest.approx(1.0),
        "coverage": 0.5,
        "notes": ["outside-encoder-domain"],
        "series": [
            {
                "SeriesInstanceUID": "3.1",
                "sequence": "T1",
                "similarity": pytest.approx(1.0),
                "parts": {"appearance": pytest.approx(1.0)},
                "like": "1.1",
                "slice": {
                    "SOPInstanceUID": "3.1.1",
                    "frame": 1,
                    "similarity": pytest.approx(1.0),
                    "like": {"SOPInstanceUID": "1.1.1", "frame": 1},
                },
                "notes": ["outside-encoder-domain"],
            }
        ],
    }
    assert second["StudyInstanceUID"] == "2"
    assert second["similarity"] == pytest.approx(0.5, abs=1e-6)
    assert second["coverage"] == 1.0
    assert "notes" not in second
    assert {(series["sequence"], series["like"]) for series in second["series"]} == {("T1", "1.1"), ("FLAIR", "1.2")}


def test_the_own_patient_is_answered_where_asked_for(cohort: Api) -> None:
    found = plain(cohort, "/similar/studies", example="1", own_patient="true")
    assert [study["StudyInstanceUID"] for study in found] == ["3", "4", "2"]


def test_series_instances_and_frames_are_examples(cohort: Api) -> None:
    for example in ("1/1.1", "1/1.1/1.1.1", "1/1.1/1.1.1/1"):
        found = plain(cohort, "/similar/series", example=example)
        uids = [(series["StudyInstanceUID"], series["SeriesInstanceUID"], series["like"]) for series in found]
        assert uids == [("3", "3.1", "1.1"), ("2", "2.1", "1.1")], example


def test_pages(cohort: Api) -> None:
    pages = [plain(cohort, "/similar/studies", example="1", limit=1, offset=offset) for offset in range(2)]
    assert [[study["StudyInstanceUID"] for study in page] for page in pages] == [["3"], ["2"]]
    assert cohort.client.get("/similar/studies?example=1&limit=1&offset=2").status_code == 204


def test_matching_keys_filter_and_return(cohort: Api) -> None:
    (found,) = plain(cohort, "/similar/studies", example="1", PatientSex="F", includefield="StudyDescription,StudyDate")
    assert (found["StudyInstanceUID"], found["PatientSex"], found["StudyDescription"]) == ("2", "F", "MR brain")
    assert "PatientID" not in found
    nothing = cohort.client.get("/similar/studies?example=1&SeriesDescription=*T2*")
    assert (nothing.status_code, nothing.content) == (204, b"")
    assert [
        s["SeriesInstanceUID"] for s in plain(cohort, "/similar/series", example="1", SeriesDescription="*FLAIR")
    ] == ["2.2"]


def test_the_default_is_dicom_json(cohort: Api) -> None:
    answer = cohort.client.get("/similar/studies?example=1&includefield=StudyDescription")
    assert answer.headers["content-type"] == "application/dicom+json"
    best, next_best = (Dataset.from_json(found) for found in answer.json())
    assert (best.StudyInstanceUID, best.PatientName, best.PatientID, best.PatientSex) == ("3", "Doe^Jane", "P3", "M")
    assert (best.NumberOfStudyRelatedSeries, best.ModalitiesInStudy) == (1, "MR")
    assert best.RetrieveURL == "http://testserver/dicom-web/studies/3"
    assert next_best.StudyDescription == "MR brain"
    block = next_best.private_block(0x0075, PRIVATE_CREATOR)
    assert block[0x01].value == pytest.approx(0.5, abs=1e-6)
    assert len(block[0x10].value) == 2


def test_series_as_dicom_json(cohort: Api) -> None:
    answer = cohort.client.get("/similar/series", params={"example": "1/1.2"})
    (found,) = (Dataset.from_json(found) for found in answer.json())
    block = found.private_block(0x0075, PRIVATE_CREATOR)
    assert (found.StudyInstanceUID, found.SeriesInstanceUID, found.PatientID) == ("2", "2.2", "P2")
    assert (block[0x04].value, block[0x05].value) == ("FLAIR", "1.2")


def similarities(api: Api, **parameters: Any) -> dict[str, float]:
    found = plain(api, "/similar/studies", example="1", **parameters)
    return {study["StudyInstanceUID"]: round(study["similarity"], 4) for study in found}


def test_sequences_are_chosen_and_weighed(api: Api) -> None:
    for sequence, series, degrees in (("T1", "1", 60), ("FLAIR", "2", 0)):
        api.add("1", f"1.{series}", 0, sequence=sequence)
        api.add("2", f"2.{series}", degrees, sequence=sequence, study={"PatientID": "P2"})
    assert similarities(api) == {"2": 0.75}
    assert similarities(api, sequence="t1") == {"2": 0.5}
    assert similarities(api, sequence="T1,FLAIR") == {"2": 0.75}
    assert similarities(api, weights="FLAIR:3") == {"2": 0.875}
    assert similarities(api, weights="FLAIR:1,T1:0") == {"2": 1.0}
    assert [s["sequence"] for s in plain(api, "/similar/series", example="1", sequence="T1")] == ["T1"]
    answer = api.client.get("/similar/studies?example=1&sequence=T2")
    assert answer.status_code == 400
    assert "the example has FLAIR, T1" in answer.json()["detail"]


def test_a_floor_leaves_out_what_is_less_alike(cohort: Api) -> None:
    assert similarities(cohort, min_similarity=0.4) == {"3": 1.0, "2": 0.5}
    assert similarities(cohort, min_similarity=0.6) == {"3": 1.0}
    found = plain(cohort, "/similar/series", example="1", min_similarity=0.6)
    assert [series["SeriesInstanceUID"] for series in found] == ["3.1"]


def test_nothing_similar_is_said_and_not_shown(api: Api) -> None:
    api.activate(unrelated={"T1": 0.6})
    for study, degrees in (("1", 0), ("2", 40), ("3", 60), ("4", 80)):
        api.add(study, f"{study}.1", degrees)
    answer = api.client.get("/similar/studies?example=1", headers=PLAIN)
    assert [study["StudyInstanceUID"] for study in answer.json()] == ["2"]
    assert answer.headers["warning"].startswith('299 pacs-cbir "2 more were left out')
    assert "reaches 0.500 of the 0.600 that count" in answer.headers["warning"]
    floor = api.client.get("/similar/studies?example=1&min_similarity=0.9", headers=PLAIN)
    assert floor.status_code == 204
    assert "3 more were left out" in floor.headers["warning"]
    assert "reaches 0.766 of the 0.900 that min_similarity asks for" in floor.headers["warning"]
    assert list(similarities(api, min_similarity=-1)) == ["2", "3", "4"]
    nothing = api.client.get("/similar/series?example=1&StudyInstanceUID=3,4")
    assert nothing.status_code == 204
    assert "min_similarity=-1" in nothing.headers["warning"]


def test_feedback_moves_the_example(api: Api) -> None:
    for study, degrees in (("1", 0), ("2", 40), ("3", -40), ("4", 60), ("5", -60)):
        api.add(study, f"{study}.1", degrees)
    assert list(similarities(api)) == ["2", "3", "4", "5"]
    assert list(similarities(api, like="4")) == ["2", "4", "3", "5"]
    assert list(similarities(api, unlike="2")) == ["3", "5", "4"]
    assert list(similarities(api, unlike="2/2.1/2.1.1", like=["5", "3"])) == ["3", "5", "4"]
    assert api.client.get("/similar/studies?example=1&like=9").status_code == 404


def test_what_became_of_a_match(api: Api) -> None:
    api.add("1", "1.1", 0, study={"PatientID": "P1", "StudyDate": "20200105"})
    later = {"PatientID": "P2", "StudyDate": "20210101", "PatientBirthDate": "19800102", "PatientSex": "F"}
    api.add("2", "2.1", 60, study={**later, "StudyDescription": "MR brain", "AccessionNumber": "A/7 b"})
    api.add("3", "3.1", 80, study={"PatientID": "P3", "StudyDate": "2019.12.31", "PatientAge": "006M"})
    api.add("4", "4.1", 85, study={"PatientID": "P4", "StudyDate": "soon"})
    client = TestClient(
        create_app(
            api.settings.model_copy(update={"report_url": "https://ris.example/report?accession={AccessionNumber}"}),
            api.database,
            Searcher(api.database, api.follower),
            None,  # type: ignore[arg-type]  # no picture is asked for
        )
    )
    two, three, four = client.get("/similar/studies?example=1", headers=PLAIN).json()
    assert (two["days"], two["PatientAge"], two["PatientSex"]) == (362, "040Y", "F")
    assert two["report"] == "https://ris.example/report?accession=A%2F7%20b"
    assert (three["days"], three["PatientAge"]) == (-5, "006M")
    assert not {"days", "report", "PatientAge"} & set(four)
    assert not {"PatientID", "PatientName", "PatientBirthDate"} & set(two)
    (best, *_) = client.get("/similar/studies?example=1").json()
    block = Dataset.from_json(best).private_block(0x0075, PRIVATE_CREATOR)
    assert (block[0x0B].value, block[0x0C].value) == (362, two["report"])
    assert "report" not in plain(api, "/similar/studies", example="1")[0]


def test_parts_the_encoder_has_not_are_refused_by_name(cohort: Api) -> None:
    assert similarities(cohort, parts="appearance:2") == similarities(cohort)
    answer = cohort.client.get("/similar/studies?example=1&parts=lesion:1")
    assert answer.status_code == 400
    assert "the encoder has appearance, and not lesion" in answer.json()["detail"]


WRONG = [
    ("", 400, "example"),
    ("example=x", 400, "example accepts"),
    ("example=1&limit=0", 400, "limit"),
    ("example=1&limit=1001", 400, "limit"),
    ("example=1&offset=-1", 400, "offset"),
    ("example=1&Nonsense=1", 400, "Nonsense"),
    ("example=1&includefield=Nonsense", 400, "Nonsense"),
    ("example=1&StudyDate=yesterday", 400, "StudyDate accepts YYYYMMDD"),
    ("example=1&PatientID=a%00b", 400, "PatientID"),
    ("example=1&like=x", 400, "example accepts"),
    ("example=1&sequence=T9", 400, "sequence accepts the MR sequences T1, T1CE"),
    ("example=1&weights=T1", 400, "weights accepts names with a weight"),
    ("example=1&weights=T1:-1", 400, "weights accepts"),
    ("example=1&weights=T1:1,T1:2", 400, "each name once"),
    ("example=1&parts=appearance:nan", 400, "parts accepts"),
    ("example=1&parts=appearance:0", 400, "must count more than 0"),
    ("example=1&min_similarity=2", 400, "min_similarity"),
    ("example=1&min_similarity=nan", 400, "min_similarity"),
    ("&".join(["example=1", *(f"like=1.{number}" for number in range(101))]), 400, "at most 100"),
    ("&".join(f"example=1.{number}" for number in range(101)), 400, "at most 100"),
    ("example=9.9", 404, "not here"),
    ("example=1/9.9", 404, "not here"),
]


@pytest.mark.parametrize("path", ["/similar/studies", "/similar/series"])
def test_what_is_wrong_is_said(cohort: Api, path: str) -> None:
    for query, status, says in WRONG:
        answer = cohort.client.get(f"{path}?{query}")
        assert answer.headers["content-type"] == "application/problem+json", query
        assert answer.status_code == answer.json()["status"] == status, query
        assert says in answer.json()["detail"], query


def test_an_example_that_waits_to_be_embedded_says_when_to_ask_again(api: Api) -> None:
    series_id = api.add("5", "5.1", None)
    with api.database.transaction() as connection:
        jobs.enqueue(connection, series_id, 30)
    answer = api.client.get("/similar/studies?example=5")
    assert answer.status_code == 409
    assert 25 <= int(answer.headers["retry-after"]) <= 60


def test_an_example_without_embeddings_says_why(api: Api) -> None:
    api.add("5", "5.1", None)
    answer = api.client.get("/similar/studies?example=5")
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:pacs-cbir:problem:example-not-embedded"


def test_nothing_else_is_on_offer(cohort: Api) -> None:
    answer = cohort.client.get("/similar/studies?example=1", headers={"Accept": "application/dicom+xml"})
    assert (answer.status_code, answer.headers["content-type"]) == (406, "application/problem+json")


def test_a_form_asks_what_a_url_asks(cohort: Api) -> None:
    asked = {"example": ["1"], "like": ["3"], "PatientSex": "F", "includefield": "StudyDescription"}
    for path in ("/similar/studies", "/similar/series"):
        by_form = cohort.client.post(path, data=asked, headers=PLAIN)
        assert by_form.status_code == 200, by_form.text
        assert by_form.json() == cohort.client.get(path, params=asked, headers=PLAIN).json()


def test_a_long_url_is_sent_to_the_form(cohort: Api) -> None:
    asked = {"example": "1", "SeriesInstanceUID": ",".join(f"2.{number}" for number in range(1000, 2000))}
    answer = cohort.client.get("/similar/studies", params={**asked, "PatientComments": "*" * 8192})
    assert answer.status_code == 414
    assert "by POST" in answer.json()["detail"]
    assert cohort.client.post("/similar/studies", data=asked).status_code == 204
    asked["SeriesInstanceUID"] += ",2.1"
    answer = cohort.client.post("/similar/studies", data=asked)
    assert answer.status_code == 400
    assert "at most 1000 UIDs" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"example=x", {}, 400, "example accepts"),
        (b"PatientSex=F", {}, 400, "example"),
        (b"example=1&limit=0", {}, 400, "limit"),
        (b"example=1&Nonsense=1", {}, 400, "Nonsense"),
        (b"&".join([b"example=1"] + [b"like=1.%d" % n for n in range(101)]), {}, 400, "at most 100"),
        (b"example=1&" * 1001, {}, 400, "more than 1000"),
        (b"\xff", {}, 400, "no form"),
        (b"example=1&PatientComments=" + b"x" * 300_000, {}, 413, "bytes"),
        (b"{}", {"Content-Type": "application/json"}, 415, "x-www-form-urlencoded"),
    ],
)
def test_what_is_wrong_in_a_form_is_said(
    cohort: Api, body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    sent = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    answer = cohort.client.post("/similar/studies", content=body, headers=sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]


def test_fuzzy_matching(cohort: Api) -> None:
    assert similarities(cohort, PatientName="jané", fuzzymatching="true") == {"3": 1.0}
    assert cohort.client.get("/similar/studies?example=1&PatientName=jane").status_code == 204


def test_plain_json_counts_where_it_is_asked_to(api: Api) -> None:
    for study in ("1.1", "1.2"):
        api.add(study, f"{study}.1")
    headers = {"Accept": "application/json"}

    def first(url: str) -> dict[str, object]:
        return api.client.get(url, headers=headers).json()[0]  # type: ignore[no-any-return]

    counted = "ModalitiesInStudy,NumberOfStudyRelatedInstances"
    study = first(f"/similar/studies?example=1.1&includefield={counted}")
    assert (study["ModalitiesInStudy"], study["NumberOfStudyRelatedInstances"]) == ("MR", 1)
    assert first("/similar/studies?example=1.1&includefield=all")["NumberOfStudyRelatedSeries"] == 1
    assert first("/similar/studies?example=1.1&ModalitiesInStudy=MR")["ModalitiesInStudy"] == "MR"
    series = first("/similar/series?example=1.1&includefield=NumberOfSeriesRelatedInstances")
    assert series["NumberOfSeriesRelatedInstances"] == 1
