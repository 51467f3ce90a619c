"""Orthanc's DICOMweb plugin stores studies here by STOW-RS."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from dicom_factory import mr_instance
from running import START_SECONDS, listens, wait_until
from served import Api, listening
from stored import rows

from pacs_cbir.store.tables import instances
from tests.conftest import free_port

pytestmark = pytest.mark.peer

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@contextmanager
def orthanc(program: str, folder: Path, stow_url: str) -> Iterator[httpx.Client]:
    """Orthanc that knows this service as a DICOMweb server."""
    folder.mkdir()
    http = free_port()
    settings = {
        "HttpPort": http,
        "DicomServerEnabled": False,
        "StorageDirectory": "db",
        "IndexDirectory": "db",
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"pacs-cbir": {"Url": stow_url}}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, folder / "orthanc.json"], cwd=folder, stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or listens(http), START_SECONDS)
        assert process.poll() is None, (folder / "log").read_text()
        with httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def test_orthanc_stores_a_study_here(api: Api, peer: Callable[[str], str], tmp_path: Path) -> None:
    if not PLUGIN.exists():
        peer(str(PLUGIN))
    sent = [mr_instance(number=number, size=128) for number in range(12)]
    with listening(api) as url, orthanc(peer("Orthanc"), tmp_path / "orthanc", f"{url}/dicom-web/") as client:
        for number, ds in enumerate(sent):
            ds.save_as(tmp_path / str(number), enforce_file_format=True)
            client.post("/instances", content=(tmp_path / str(number)).read_bytes()).raise_for_status()
        [study] = client.get("/studies").json()
        answer = client.post("/dicom-web/servers/pacs-cbir/stow", json={"Resources": [study], "Synchronous": True})
        assert answer.status_code == 200, answer.text
    assert {row.sop_instance_uid for row in rows(api.database, instances)} == {ds.SOPInstanceUID for ds in sent}


def test_orthanc_sees_that_storing_failed(api: Api, peer: Callable[[str], str], tmp_path: Path) -> None:
    if not PLUGIN.exists():
        peer(str(PLUGIN))
    aside = api.settings.incoming_dir.rename(api.settings.data_dir / "aside")
    mr_instance().save_as(tmp_path / "instance", enforce_file_format=True)
    with listening(api) as url, orthanc(peer("Orthanc"), tmp_path / "orthanc", f"{url}/dicom-web/") as client:
        posted = client.post("/instances", content=(tmp_path / "instance").read_bytes()).json()
        answer = client.post(
            "/dicom-web/servers/pacs-cbir/stow", json={"Resources": [posted["ID"]], "Synchronous": True}
        )
        assert answer.status_code >= 400
    aside.rename(api.settings.incoming_dir)
    assert rows(api.database, instances) == []
