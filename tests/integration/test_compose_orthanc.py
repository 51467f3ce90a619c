"""Orthanc with the very files that deploy/compose.yaml gives it: it starts, and knows where studies go."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml
from deployed import DEPLOY
from running import listens, wait_until

from tests.conftest import free_port

pytestmark = pytest.mark.peer


def test_orthanc_starts_and_forwards_to_the_scp(peer: Callable[[str], str], tmp_path: Path) -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["orthanc"]
    http, dicom = free_port(), free_port()
    for mounted in service["volumes"]:
        source, target, *_ = mounted.split(":")
        if target.startswith("/etc/orthanc/"):
            shutil.copy(DEPLOY / source, tmp_path / Path(target).name)
    site = json.loads((tmp_path / "site.json").read_text())
    elsewhere = {"HttpPort": http, "DicomPort": dicom, "StorageDirectory": "db", "IndexDirectory": "db"}
    assert elsewhere.keys() <= site.keys()
    # A folder that the image has and Debian's package has not.
    site["Plugins"] = [folder for folder in site["Plugins"] if Path(folder).is_dir()]
    (tmp_path / "site.json").write_text(json.dumps(site | elsewhere))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [peer("Orthanc"), tmp_path],
            env=os.environ | service["environment"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: process.poll() is not None or listens(http), 60)
        assert process.poll() is None, (tmp_path / "log").read_text()
        known = httpx.get(f"http://127.0.0.1:{http}/modalities/pacs-cbir/configuration").raise_for_status().json()
        assert (known["Host"], known["Port"]) == ("scp", 11112)
        assert httpx.get(f"http://127.0.0.1:{http}/dicom-web/studies").is_success
    finally:
        process.terminate()
        process.wait(30)
