"""Orthanc as the PACS, with the configuration that we hand out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import archives
import httpx
import pytest
from dicom_factory import composite, mr_instance
from pydicom.dataset import FileDataset
from pydicom.uid import CTImageStorage, EnhancedSRStorage
from running import scp_thread, wait_until
from stored import rows

from pacs_cbir.learn.simulate import simulate_cohort
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances

pytestmark = pytest.mark.peer

ARRIVAL_SECONDS = 120.0


@contextmanager
def orthanc(peer: Callable[[str], str], folder: Path, settings: Settings) -> Iterator[httpx.Client]:
    """Orthanc that forwards to us what is stable for a second."""
    environment = {"PACS_CBIR_DICOM_PORT": str(settings.dicom_port), "PACS_CBIR_AE_TITLE": settings.ae_title}
    with (
        archives.orthanc(peer, folder, environment, StableAge=1) as started,
        httpx.Client(base_url=started.url, timeout=60) as client,
    ):
        yield client


@pytest.mark.slow
def test_orthanc_forwards_mr_studies_whole_and_no_others(
    settings: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path
) -> None:
    [patient] = simulate_cohort(tmp_path / "cohort", patients=1, seed=3)
    mr = tmp_path / "mr"
    mr.mkdir()
    whole = [
        mr_instance(series="a", number=1),
        mr_instance(series="b", number=1),
        composite(EnhancedSRStorage, "SR", CompletionFlag="COMPLETE"),
    ]
    ct = mr_instance(study="ct", SOPClassUID=CTImageStorage, Modality="CT")
    for number, ds in enumerate([*whole, ct]):
        ds.save_as(mr / f"{number}.dcm", enforce_file_format=True)
    simulated = sorted(patient.folder.rglob("*.dcm"))
    assert len(simulated) == patient.instances
    with scp_thread(settings, database), orthanc(peer, tmp_path / "orthanc", settings) as client:
        for path in [mr / "3.dcm", *simulated, *(mr / f"{number}.dcm" for number in range(3))]:
            client.post("/instances", content=path.read_bytes()).raise_for_status()
        wait_until(lambda: len(rows(database, instances)) >= patient.instances + len(whole), ARRIVAL_SECONDS)
        wait_until(lambda: {job["State"] for job in jobs(client)} == {"Success"}, ARRIVAL_SECONDS)
        assert len(client.get("/instances").json()) == patient.instances + len(whole) + 1
    arrived = {row.sop_instance_uid: row for row in rows(database, instances)}
    assert len(arrived) == patient.instances + len(whole)
    assert {ds.SOPInstanceUID for ds in whole} < arrived.keys()
    assert ct.SOPInstanceUID not in arrived
    assert {row.calling_ae_title for row in arrived.values()} == {"ORTHANC"}


def test_orthancs_job_fails_while_the_service_is_away_and_succeeds_when_sent_again(
    settings: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "instance.dcm"
    mr_instance().save_as(path, enforce_file_format=True)
    with orthanc(peer, tmp_path / "orthanc", settings) as client:
        client.post("/instances", content=path.read_bytes()).raise_for_status()
        wait_until(lambda: [job["State"] for job in jobs(client)] == ["Failure"], ARRIVAL_SECONDS)
        with scp_thread(settings, database):
            client.post(f"/jobs/{jobs(client)[0]['ID']}/resubmit", content="").raise_for_status()
            wait_until(lambda: len(rows(database, instances)) == 1, ARRIVAL_SECONDS)


def test_orthanc_is_told_what_is_committed(
    settings: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path
) -> None:
    ds = mr_instance()
    environment = {"PACS_CBIR_DICOM_PORT": str(settings.dicom_port), "PACS_CBIR_AE_TITLE": settings.ae_title}
    with archives.orthanc(peer, tmp_path / "orthanc", environment, StableAge=1) as started:
        peers = {"orthanc": started.peer("c-move")}
        committing = settings.model_copy(update={"storage_commitment": True, "peers": peers})
        with scp_thread(committing, database), httpx.Client(base_url=started.url, timeout=60) as client:
            asks_for_commitment(client, ds, database)
    assert [row.committed_at is not None for row in rows(database, instances)] == [True]


def asks_for_commitment(client: httpx.Client, ds: FileDataset, database: Database) -> None:
    """Orthanc forwards an instance, and asks for it twice, the second time with one that is not there."""
    client.post("/instances", content=archives.as_file(ds)).raise_for_status()
    wait_until(lambda: len(rows(database, instances)) == 1, ARRIVAL_SECONDS)
    stranger = {"SOPClassUID": ds.SOPClassUID, "SOPInstanceUID": "2.25.1"}
    here = {"SOPClassUID": ds.SOPClassUID, "SOPInstanceUID": ds.SOPInstanceUID}
    found = told(client, [here])
    assert found["Status"] == "Success"
    assert [one["SOPInstanceUID"] for one in found["Success"]] == [ds.SOPInstanceUID]
    found = told(client, [here, stranger])
    assert found["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in found["Success"]] == [ds.SOPInstanceUID]
    (failure,) = found["Failures"]
    assert failure["SOPInstanceUID"] == "2.25.1"
    assert failure["Description"].endswith("was not available")


def told(client: httpx.Client, named: list[dict[str, str]]) -> dict[str, Any]:
    """What Orthanc is told, once it is, of a commitment that it asks for."""
    asked = client.post("/modalities/pacs-cbir/storage-commitment", json={"DicomInstances": named})
    report = f"/storage-commitment/{asked.raise_for_status().json()['ID']}"
    wait_until(lambda: client.get(report).json()["Status"] != "Pending", ARRIVAL_SECONDS)
    found: dict[str, Any] = client.get(report).json()
    return found


def jobs(client: httpx.Client) -> list[dict[str, str]]:
    """Orthanc's jobs."""
    found: list[dict[str, str]] = client.get("/jobs", params={"expand": ""}).json()
    return found
