"""A rejection note that dcmtk sends takes a series out of a running index, and what is left of one is searched on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from arriving import table
from dicom_factory import mr_instance, uid
from notes import note
from pydicom import Dataset
from running import scp_thread, wait_until
from scu import association, store
from served import Api

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.store.status import service_status
from pacs_cbir.worker import Worker


@pytest.mark.peer
def test_a_note_from_dcmtk(api: Api, decoder: Decoder, peer: Callable[[str], str], tmp_path: Path) -> None:
    studies = {name: [mr_instance(name, name, number=number) for number in range(1, 7)] for name in ("one", "two")}
    worker = Worker(api.settings, api.database, decoder)
    with scp_thread(api.settings, api.database):
        with association(api.settings) as asked:
            assert {store(asked, ds) for instances in studies.values() for ds in instances} == {0}
        _work(worker)
        api.follower.catch_up()
        assert len(api.follower.current.index) == 2
        assert _similar(api, "one") == [uid("two")]
        _send(api, peer("storescu"), tmp_path, note(studies["two"]))
        api.follower.catch_up()
        assert len(api.follower.current.index) == 1, "before a worker has looked at it"
        assert _similar(api, "one") == []
        _work(worker)
        picture = "/dicom-web/studies/{}/series/{}/instances/{}/rendered".format(
            *(studies["two"][0][key].value for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
        )
        assert api.client.get(picture).status_code == 404
        assert api.client.get(f"/similar/studies?example={uid('two')}").status_code == 404
        (listed,) = api.client.get("/dicom-web/studies").json()
        assert listed["0020000D"]["Value"] == [uid("one")]
        _send(api, peer("storescu"), tmp_path, note(studies["one"][:2], name="some"))
        _work(worker)
        api.follower.catch_up()
        assert set(table(api.database, "SELECT cardinality(sop_instance_uids) FROM stacks")) == {(4,)}
        assert len(api.follower.current.index) == 1
    with api.database.transaction() as connection:
        assert service_status(connection).jobs == {"waiting": 0, "running": 0, "parked": 0}


def _work(worker: Worker) -> None:
    wait_until(lambda: not worker.work_once(), 60)


def _similar(api: Api, study: str) -> list[str]:
    parameters = {"example": uid(study), "min_similarity": "-1"}
    answer = api.client.get("/similar/studies", params=parameters, headers={"Accept": "application/json"})
    return [] if answer.status_code == 204 else [found["StudyInstanceUID"] for found in answer.json()]


def _send(api: Api, storescu: str, tmp_path: Path, ds: Dataset) -> None:
    path = tmp_path / "note.dcm"
    ds.save_as(path, enforce_file_format=True)
    called = ["-aec", api.settings.ae_title, api.settings.dicom_host, str(api.settings.dicom_port)]
    sent = subprocess.run([storescu, *called, str(path)], capture_output=True, text=True, check=False)
    assert sent.returncode == 0, sent.stderr
