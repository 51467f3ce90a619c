"""dicomweb-client reads the listings and stores instances, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dicom_factory import mr_instance, uid
from dicomweb_client import DICOMwebClient
from pydicom import Dataset
from served import Api, listening
from stored import rows

from pacs_cbir.store.tables import instances


@pytest.fixture
def client(api: Api) -> Iterator[DICOMwebClient]:
    for study, sex in (("1.1", "F"), ("1.2", "M"), ("1.3", "F")):
        api.add(
            study, f"{study}.1", 0, study={"PatientID": f"P{study}", "PatientSex": sex, "PatientName": "Müller^Ida"}
        )
    with listening(api) as url:
        yield DICOMwebClient(f"{url}/dicom-web")


def uids(found: list[dict[str, dict[str, object]]], keyword: str) -> list[str]:
    return [str(Dataset.from_json(one)[keyword].value) for one in found]


def test_searches(client: DICOMwebClient) -> None:
    assert uids(client.search_for_studies(), "StudyInstanceUID") == ["1.1", "1.2", "1.3"]
    assert uids(client.search_for_studies(limit=1, offset=1), "StudyInstanceUID") == ["1.2"]
    found = client.search_for_studies(search_filters={"PatientSex": "F"}, fields=["StudyDescription"])
    assert uids(found, "StudyInstanceUID") == ["1.1", "1.3"]
    found = client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "ida muller"})
    assert len(found) == 3
    assert uids(client.search_for_series("1.2"), "SeriesInstanceUID") == ["1.2.1"]
    assert uids(client.search_for_instances("1.2", "1.2.1"), "SOPInstanceUID") == ["1.2.1.1"]
    assert len(client.search_for_instances()) == 3


def test_nothing_is_an_empty_list(client: DICOMwebClient) -> None:
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    assert client.search_for_series("9.9") == []


def test_stores(api: Api) -> None:
    sent = [mr_instance(number=1), mr_instance(number=2), mr_instance(study="other")]
    with listening(api) as url:
        client = DICOMwebClient(f"{url}/dicom-web")
        stored = client.store_instances(sent[:2])
        assert [item.ReferencedSOPInstanceUID for item in stored.ReferencedSOPSequence] == [
            ds.SOPInstanceUID for ds in sent[:2]
        ]
        mixed = client.store_instances(sent[1:], uid("study"))
        assert [item.ReferencedSOPInstanceUID for item in mixed.FailedSOPSequence] == [sent[2].SOPInstanceUID]
        assert uids(client.search_for_instances(uid("study")), "SOPInstanceUID") == [
            ds.SOPInstanceUID for ds in sent[:2]
        ]
    assert len(rows(api.database, instances)) == 2
