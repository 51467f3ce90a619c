"""The list of studies: what the page shows of each, and how far its embedding is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from served import Api
from sqlalchemy import delete, insert, update

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.store import labels
from pacs_cbir.store.matching import keyword_of
from pacs_cbir.store.tables import jobs, stacks, studies

STUDY = {
    "PatientID": "SECRET-7",
    "PatientName": "Secret^Name",
    "PatientBirthDate": "19800601",
    "AccessionNumber": "A77",
    "PatientSex": "F",
    "StudyDate": "20200102",
    "StudyDescription": "MR brain",
}
SERIES = {"Modality": "MR", "SeriesDescription": "t2_tirm", "SeriesNumber": "3"}


def listed(api: Api, **parameters: Any) -> list[dict[str, Any]]:
    answer = api.client.get("/studies", params=parameters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def changed(api: Api, decoder: Decoder, **values: object) -> Api:
    """The same with other settings."""
    settings = api.settings.model_copy(update=values)
    app = create_app(settings, api.database, Searcher(api.database, api.follower), decoder)
    return replace(api, client=TestClient(app), settings=settings)


def test_a_study_says_what_it_is_and_not_whose(api: Api) -> None:
    api.add("1.1", "1.1.1", sequence="FLAIR", study=STUDY, attributes=SERIES)
    [study] = listed(api)
    assert abs(datetime.fromisoformat(study.pop("received")) - datetime.now(UTC)) < timedelta(minutes=5)
    assert [study] == [
        {
            "StudyInstanceUID": "1.1",
            "StudyDate": "20200102",
            "StudyDescription": "MR brain",
            "ModalitiesInStudy": "MR",
            "PatientSex": "F",
            "PatientAge": "039Y",
            "NumberOfStudyRelatedInstances": 1,
            "series": [
                {
                    "SeriesInstanceUID": "1.1.1",
                    "SeriesNumber": 3,
                    "Modality": "MR",
                    "SeriesDescription": "t2_tirm",
                    "instances": 1,
                    "state": "embedded",
                    "sequence": "FLAIR",
                    "in_domain": True,
                    "picture": "1.1.1.1",
                }
            ],
        }
    ]


def test_identity_is_shown_where_the_site_says_so(api: Api, decoder: Decoder) -> None:
    api.add("1.1", "1.1.1", study=STUDY)
    [study] = listed(changed(api, decoder, show_identity=True))
    assert (study["PatientName"], study["PatientID"], study["AccessionNumber"]) == ("Secret^Name", "SECRET-7", "A77")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientName", "Secret*"),
        ("PatientID", "SECRET-7"),
        ("00100020", "SECRET-7"),
        ("PatientBirthDate", "19800601"),
        ("OtherPatientIDs", "SECRET-7"),
        ("MedicalRecordLocator", "SECRET-7"),
        ("AccessionNumber", "A77"),
        ("ReferringPhysicianName", "House*"),
        ("RequestedProcedureID", "R77"),
    ],
)
def test_identity_is_searched_where_the_site_says_so(api: Api, decoder: Decoder, name: str, value: str) -> None:
    api.add("1.1", "1.1.1", study=STUDY)
    refused = api.client.get("/studies", params={name: value})
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")
    assert "PACS_CBIR_SHOW_IDENTITY is off" in refused.json()["detail"]
    assert value not in refused.text
    shown = changed(api, decoder, show_identity=True)
    answer = shown.client.get("/studies", params={name: value})
    assert answer.status_code == (200 if keyword_of(name) in STUDY else 204)


def test_sex_and_age_are_searched_by_anybody(api: Api) -> None:
    api.add("1.1", "1.1.1", study=STUDY | {"PatientAge": "039Y"})
    assert len(listed(api, PatientSex="F", PatientAge="030Y-040Y", StudyDescription="MR*")) == 1


ORDERED = {
    "1.1": {"StudyDate": "20240102", "StudyTime": "0900", "StudyDescription": "head"},
    "1.2": {"StudyDate": "2024.01.02", "StudyTime": "10:30", "StudyDescription": "Knie"},
    "1.3": {"StudyDescription": "Ödem"},
    "1.4": {"StudyDate": "20250101", "StudyDescription": "HEAD"},
    "1.5": {"StudyDate": "20231231", "StudyTime": "2359"},
}


@pytest.mark.parametrize(
    ("order", "uids"),
    [
        (None, ["1.4", "1.2", "1.1", "1.5", "1.3"]),
        ("-StudyDate", ["1.4", "1.2", "1.1", "1.5", "1.3"]),
        ("StudyDate", ["1.5", "1.1", "1.2", "1.4", "1.3"]),
        ("StudyDescription", ["1.1", "1.4", "1.2", "1.3", "1.5"]),
        ("-StudyDescription", ["1.3", "1.2", "1.4", "1.1", "1.5"]),
        ("-received", ["1.5", "1.4", "1.3", "1.2", "1.1"]),
        ("received", ["1.1", "1.2", "1.3", "1.4", "1.5"]),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_of_every_order_follow_one_another(api: Api, order: str | None, uids: list[str], limit: int) -> None:
    for uid, study in ORDERED.items():
        api.add(uid, f"{uid}.1", study=study)
    asked = {"limit": limit} | ({} if order is None else {"order": order})
    found = [study["StudyInstanceUID"] for study in listed(api, **asked)]
    while len(found) < len(uids):
        found += [study["StudyInstanceUID"] for study in listed(api, **asked, after=found[-1])]
    assert found == uids
    assert api.client.get("/studies", params=asked | {"after": found[-1]}).status_code == 204


def test_what_arrives_and_leaves_moves_no_study_between_pages(api: Api) -> None:
    for day in (1, 2, 3, 4):
        api.add(f"1.{day}", f"1.{day}.1", study={"StudyDate": f"2024010{day}"})
    assert [study["StudyInstanceUID"] for study in listed(api, limit=2)] == ["1.4", "1.3"]
    api.add("1.9", "1.9.1", study={"StudyDate": "20250101"})
    with api.database.transaction() as connection:
        connection.execute(delete(studies).where(studies.c.study_instance_uid == "1.4"))
    assert [study["StudyInstanceUID"] for study in listed(api, limit=2, after="1.3")] == ["1.2", "1.1"]
    assert [study["StudyInstanceUID"] for study in listed(api, limit=2)] == ["1.9", "1.3"]


def test_an_order_or_study_that_there_is_not_is_refused(api: Api) -> None:
    api.add("1.1", "1.1.1", study=STUDY)
    for asked in ({"order": "PatientName"}, {"after": "1.2"}, {"after": "\0"}, {"after": "x"}, {"offset": "1"}):
        refused = api.client.get("/studies", params=asked)
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json"), asked
    assert "without it" in api.client.get("/studies", params={"after": "1.2"}).json()["detail"]


def test_what_has_one_value_is_given_once(api: Api) -> None:
    for asked in ("order=received&order=-received", "limit=1&limit=2", "after=1&after=2", "PatientSex=F&PatientSex=M"):
        refused = api.client.get(f"/studies?{asked}")
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json"), asked
        assert asked.partition("=")[0] in refused.json()["detail"]


def test_labels_are_searched(api: Api) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        api.add(uid, f"{uid}.1", study=STUDY)
    with api.database.transaction() as connection:
        labels.replace(connection, "1.1", ["glioblastoma"])
        labels.replace(connection, "1.3", ["metastasis"])
    assert [study["StudyInstanceUID"] for study in listed(api, label="metastasis")] == ["1.3"]
    both = listed(api, label=["metastasis", "glioblastoma"], order="received")
    assert [study["StudyInstanceUID"] for study in both] == ["1.1", "1.3"]
    assert api.client.get("/studies", params={"label": "knee"}).status_code == 204


def test_keys_that_match_nothing_or_are_none(api: Api) -> None:
    api.add("1.1", "1.1.1", study=STUDY)
    assert api.client.get("/studies", params={"StudyDescription": "knee"}).status_code == 204
    assert api.client.get("/studies", params={"Foo": "1"}).status_code == 400


def test_how_far_the_embedding_is(api: Api) -> None:
    api.add("1.1", "1.1.1", sequence="T1", in_domain=False)
    refused = api.add("1.1", "1.1.2")
    waiting, parked = api.add("1.1", "1.1.3", None), api.add("1.1", "1.1.4", None)
    api.add("1.1", "1.1.5", None)
    with api.database.transaction() as connection:
        connection.execute(update(stacks).where(stacks.c.series_id == refused).values(not_embedded="a localiser"))
        for series_id, status, error in ((waiting, "waiting", None), (parked, "parked", "the codec died")):
            values = {"series_id": series_id, "status": status, "error": error, "not_before": "2020-01-01T00:00:00Z"}
            connection.execute(insert(jobs).values(values))
    [study] = listed(api)
    assert [(one["state"], one.get("reason"), one.get("in_domain")) for one in study["series"]] == [
        ("embedded", None, False),
        ("not embedded", "a localiser", True),
        ("waiting", None, None),
        ("parked", "the codec died", None),
        ("not embedded", "the active encoder has not looked at it", None),
    ]


def test_the_report_of_each(api: Api, decoder: Decoder) -> None:
    api.add("1.1", "1.1.1", study=STUDY)
    [study] = listed(changed(api, decoder, report_url="https://ris/{StudyInstanceUID}"))
    assert study["report"] == "https://ris/1.1"


@pytest.mark.parametrize("limit", ["0", "101", "x"])
def test_a_page_has_a_limit(api: Api, limit: str) -> None:
    assert api.client.get("/studies", params={"limit": limit}).status_code == 400
