"""QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset
from rows import add_series
from served import Api
from sqlalchemy import text

from pacs_cbir.serve import dicomweb


@pytest.fixture
def two(api: Api) -> Api:
    with api.database.transaction() as connection:
        for study, sex in (("1", "F"), ("2", "M")):
            for series in ("1", "2"):
                add_series(
                    connection,
                    study,
                    f"{study}.{series}",
                    study={"PatientID": f"P{study}", "PatientSex": sex, "StudyDescription": "brain"},
                    attributes={"Modality": "MR", "SeriesNumber": series, "EchoTime": "9.5"},
                    instance={"InstanceNumber": "7", "Rows": "256", "SliceLocation": "1"},
                )
    return api


def search(api: Api, path: str, **parameters: Any) -> list[Dataset]:
    answer = api.client.get(f"/dicom-web{path}", params=parameters)
    if answer.status_code == 204:
        return []
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    return [Dataset.from_json(found) for found in answer.json()]


def test_studies(two: Api) -> None:
    first, second = search(two, "/studies")
    assert (first.StudyInstanceUID, first.PatientID, first.NumberOfStudyRelatedInstances) == ("1", "P1", 2)
    assert second.RetrieveURL == "http://testserver/dicom-web/studies/2"
    assert first.InstanceAvailability == "ONLINE"
    assert "StudyDescription" not in first


def test_what_has_left_is_not_called_online(two: Api) -> None:
    gone, *_ = search(two, "/studies/1/series/1.1/instances")
    with two.database.transaction() as connection:
        connection.execute(
            text("UPDATE instances SET file = NULL WHERE sop_instance_uid = :uid"), {"uid": gone.SOPInstanceUID}
        )
    for path in ("/studies", "/studies/1/series", "/studies/1/series/1.1/instances"):
        first, *_ = search(two, path, includefield="InstanceAvailability")
        assert first.InstanceAvailability == "UNAVAILABLE", path
    for path in ("/studies", "/studies/1/series"):
        assert search(two, path, includefield="InstanceAvailability")[-1].InstanceAvailability == "ONLINE", path


@pytest.mark.parametrize(
    ("path", "uids"),
    [
        ("/series", ["1.1", "1.2", "2.1", "2.2"]),
        ("/studies/2/series", ["2.1", "2.2"]),
        ("/studies/9/series", []),
    ],
)
def test_series(two: Api, path: str, uids: list[str]) -> None:
    found = search(two, path)
    assert [ds.SeriesInstanceUID for ds in found] == uids
    assert all(("PatientID" in ds) == (path == "/series") for ds in found)
    assert all(ds.NumberOfSeriesRelatedInstances == 1 for ds in found)
    assert all("NumberOfStudyRelatedSeries" not in ds for ds in found)


@pytest.mark.parametrize(
    ("path", "uids"),
    [
        ("/instances", ["1.1.1", "1.2.1", "2.1.1", "2.2.1"]),
        ("/studies/2/instances", ["2.1.1", "2.2.1"]),
        ("/studies/2/series/2.2/instances", ["2.2.1"]),
        ("/studies/1/series/2.2/instances", []),
    ],
)
def test_instances(two: Api, path: str, uids: list[str]) -> None:
    found = search(two, path)
    assert [ds.SOPInstanceUID for ds in found] == uids
    assert all((ds.Rows, ds.InstanceNumber) == (256, 7) for ds in found)
    assert all(ds.RetrieveURL.endswith(f"/instances/{ds.SOPInstanceUID}") for ds in found)


def test_matching_and_return_keys(two: Api) -> None:
    (found,) = search(two, "/studies", PatientSex="F", includefield="00081030")
    assert (found.StudyInstanceUID, found.StudyDescription) == ("1", "brain")
    (one,) = search(two, "/series", SeriesNumber="2", StudyInstanceUID="2", EchoTime="")
    assert (one.SeriesInstanceUID, one.EchoTime) == ("2.2", 9.5)
    assert "SliceLocation" in search(two, "/instances", includefield="all", limit=1)[0]


def test_the_path_is_not_contradicted(two: Api) -> None:
    answer = two.client.get("/dicom-web/studies/1/series?StudyInstanceUID=2")
    assert (answer.status_code, "path" in answer.json()["detail"]) == (400, True)


def test_pages_and_the_servers_own_limit(two: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [ds.StudyInstanceUID for ds in search(two, "/studies", limit=1, offset=1)] == ["2"]
    monkeypatch.setattr(dicomweb, "MAX_RESULTS", 3)
    answer = two.client.get("/dicom-web/series?limit=100")
    assert len(answer.json()) == 3
    assert "Additional results" in answer.headers["warning"]
    assert "warning" not in two.client.get("/dicom-web/series?limit=2").headers


def test_nothing_is_an_empty_list(two: Api) -> None:
    nothing = two.client.get("/dicom-web/studies", params={"PatientID": "nobody"})
    assert (nothing.status_code, nothing.content) == (204, b"")


@pytest.mark.parametrize("path", ["/studies?StudyDate=x", "/studies/x/series", "/studies?limit=-1", "/series?A=1"])
def test_what_cannot_be_understood(two: Api, path: str) -> None:
    answer = two.client.get(f"/dicom-web{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    "path", ["/studies/*/series", "/studies/%20/series", "/studies/1,2/series", "/studies/%00/series"]
)
def test_a_path_names_one_study(two: Api, path: str) -> None:
    assert two.client.get(f"/dicom-web{path}").status_code == 400


@pytest.mark.parametrize(
    "path", ["/studies/%00/series/1/instances/1/rendered", "/studies/1/series/1/instances/*/rendered"]
)
def test_a_picture_is_of_one_instance(two: Api, path: str) -> None:
    assert two.client.get(f"/dicom-web{path}").status_code == 400


def test_an_attribute_that_is_no_value_of_its_vr_is_left_out(two: Api) -> None:
    with two.database.transaction() as connection:
        instance = {"RedPaletteColorLookupTableData": "text", "ReferencedImageSequence": "text", "InstanceNumber": "3"}
        add_series(connection, "3", "3.1", instance=instance)
    [found] = search(two, "/instances", StudyInstanceUID="3", includefield="all")
    assert found.InstanceNumber == 3
    assert "ReferencedImageSequence" not in found


def test_a_name_that_has_no_json_spoils_no_answer(two: Api) -> None:
    with two.database.transaction() as connection:
        add_series(connection, "3", "3.1", study={"PatientID": "P3", "PatientName": "\\"})
    found = search(two, "/studies", includefield="all")
    assert [ds.PatientID for ds in found] == ["P1", "P2", "P3"]
    assert "PatientName" not in found[2]
