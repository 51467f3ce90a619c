"""Real archives on the loopback: Orthanc with the configuration that we hand out, and dcmtk's dcmqrscp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydicom.dataset import FileDataset
from running import START_SECONDS, listens, wait_until

from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from tests.conftest import free_port

DEPLOYED = Path(__file__).parents[1] / "deploy" / "orthanc"
PLUGINS = Path("/usr/share/orthanc/plugins")
DICOMWEB_PLUGIN, PYTHON_PLUGIN = (PLUGINS / f"libOrthanc{name}.so" for name in ("DicomWeb", "Python"))


class Orthanc:
    """Orthanc, which can be killed and started again with what it holds."""

    def __init__(self, program: str, folder: Path, environment: Mapping[str, str], **options: object) -> None:
        folder.mkdir()
        for path in DEPLOYED.iterdir():
            if path.suffix in {".json", ".lua", ".py"}:
                shutil.copy(path, folder)
        self.http_port, self.dicom_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        site = {
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "StorageDirectory": "db",
            "IndexDirectory": "db",
            # Nothing is forwarded meanwhile.
            "StableAge": 86400,
            "Plugins": [str(DICOMWEB_PLUGIN)],
        }
        (folder / "site.json").write_text(json.dumps(site | options))
        self._program, self._folder, self._environment = program, folder, os.environ | environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, self._folder], env=self._environment, cwd=self._folder, stdout=log, stderr=log
            )
        process = self._process
        wait_until(
            lambda: process.poll() is not None or (listens(self.http_port) and listens(self.dicom_port)), START_SECONDS
        )
        assert process.poll() is None, (self._folder / "log").read_text()

    def kill(self) -> None:
        """As a PACS that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def add(self, instances: Iterable[FileDataset]) -> None:
        """Put instances into it."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for ds in instances:
                client.post("/instances", content=as_file(ds)).raise_for_status()

    def empty(self) -> None:
        """Remove everything."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for patient in client.get("/patients").json():
                client.delete(f"/patients/{patient}").raise_for_status()

    def knows(self, settings: Settings, **changed: object) -> None:
        """Tell it where we are; `changed` is told instead of the truth."""
        entry = {"AET": settings.ae_title, "Host": "127.0.0.1", "Port": settings.dicom_port} | changed
        httpx.put(f"{self.url}/modalities/pacs-cbir", json=entry, timeout=60).raise_for_status()

    def peer(self, retrieve: str, **options: Any) -> Peer:
        """Its entry in our settings."""
        given: dict[str, Any] = {
            "ae_title": "ORTHANC",
            "host": "127.0.0.1",
            "port": self.dicom_port,
            "retrieve": retrieve,
            "dicomweb_url": f"{self.url}/dicom-web",
            "timeout_seconds": 20,
        }
        return Peer(**(given | options))


@contextmanager
def orthanc(
    peer: Callable[[str], str], folder: Path, environment: Mapping[str, str] | None = None, **options: object
) -> Iterator[Orthanc]:
    """An Orthanc for as long as the block runs; `options` are its own."""
    if not DICOMWEB_PLUGIN.exists():
        peer(str(DICOMWEB_PLUGIN))
    started = Orthanc(peer("Orthanc"), folder, environment or {}, **options)
    started.start()
    try:
        yield started
    finally:
        started.kill()


@contextmanager
def dcmqrscp(
    peer: Callable[[str], str], folder: Path, settings: Settings, instances: Iterable[FileDataset], *options: str
) -> Iterator[Peer]:
    """dcmtk's archive with some instances in it; `options` are its own."""
    storage = folder / "storage"
    storage.mkdir(parents=True)
    port = free_port()
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nus = ({settings.ae_title}, 127.0.0.1, {settings.dicom_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDCMQRSCP {storage} RW (200, 1024mb) ANY\nAETable END\n"
    )
    paths = []
    for number, ds in enumerate(instances):
        paths.append(storage / f"{number}.dcm")
        paths[-1].write_bytes(as_file(ds))
    subprocess.run([peer("dcmqridx"), storage, *paths], check=True, capture_output=True, timeout=60)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [peer("dcmqrscp"), *options, "-c", folder / "dcmqrscp.cfg"],
            env=os.environ | {"TCP_NODELAY": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: process.poll() is not None or listens(port), START_SECONDS)
        assert process.poll() is None, (folder / "log").read_text()
        yield Peer(ae_title="DCMQRSCP", host="127.0.0.1", port=port, timeout_seconds=20)
    finally:
        process.terminate()
        process.wait(30)


def as_file(ds: FileDataset) -> bytes:
    """An instance as its Part 10 file."""
    from io import BytesIO

    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
