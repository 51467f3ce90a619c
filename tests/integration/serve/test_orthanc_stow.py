"""Orthanc's DICOMweb plugin stores studies here by STOW-RS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from archives import orthanc
from dicom_factory import mr_instance
from served import Api, listening
from stored import rows

from pacs_cbir.store.tables import instances

pytestmark = pytest.mark.peer


def store_all(orthanc_url: str) -> int:
    """Have Orthanc store here what it holds, one study; the status of its answer."""
    with httpx.Client(base_url=orthanc_url, timeout=60) as client:
        order = {"Resources": client.get("/studies").json(), "Synchronous": True}
        return client.post("/dicom-web/servers/pacs-cbir/stow", json=order).status_code


def us(stow_url: str) -> dict[str, object]:
    """Orthanc's options, by which it knows this service as a DICOMweb server."""
    return {
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"pacs-cbir": {"Url": f"{stow_url}/dicom-web/"}}}
    }


def test_orthanc_stores_a_study_here(api: Api, peer: Callable[[str], str], tmp_path: Path) -> None:
    sent = [mr_instance(number=number, size=128) for number in range(12)]
    with listening(api) as url, orthanc(peer, tmp_path / "orthanc", **us(url)) as started:
        started.add(sent)
        assert store_all(started.url) == 200
    assert {row.sop_instance_uid for row in rows(api.database, instances)} == {ds.SOPInstanceUID for ds in sent}


def test_orthanc_sees_that_storing_failed(api: Api, peer: Callable[[str], str], tmp_path: Path) -> None:
    aside = api.settings.incoming_dir.rename(api.settings.data_dir / "aside")
    with listening(api) as url, orthanc(peer, tmp_path / "orthanc", **us(url)) as started:
        started.add([mr_instance()])
        assert store_all(started.url) >= 400
    aside.rename(api.settings.incoming_dir)
    assert rows(api.database, instances) == []
