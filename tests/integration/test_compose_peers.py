"""Orthanc and nginx with the very files that deploy/compose.yaml gives them."""

from __future__ import annotations

import json
import os
import re
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

pytestmark = [pytest.mark.peer, pytest.mark.slow]

SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def mounted(service: str, below: str, folder: Path) -> None:
    """Put what a service gets below a folder of its own into another one."""
    for volume in SERVICES[service]["volumes"]:
        source, target, *_ = volume.split(":")
        if target.startswith(below):
            shutil.copy(DEPLOY / source, folder / Path(target).name)


def test_nginx_finds_no_fault(peer: Callable[[str], str], tmp_path: Path) -> None:
    mounted("ohif", "/srv/ohif/", tmp_path)
    (tmp_path / "tmp").mkdir()
    dockerfile = (DEPLOY.parent / "docker" / "ohif.Dockerfile").read_text()
    command = json.loads(re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)[0].replace("/srv/ohif", str(tmp_path)))
    done = subprocess.run([peer(command[0]), *command[1:], "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = (tmp_path / "site.conf").read_text()
    assert re.findall(r"set \$pacs(?:_cbir)? (\w+):", site) == ["orthanc", "api"]
    assert re.findall(r"listen (\d+)", site) == [SERVICES["ohif"]["ports"][0].rpartition(":")[2]]


def test_orthanc_starts_and_forwards_to_the_scp(peer: Callable[[str], str], tmp_path: Path) -> None:
    http, dicom = free_port(), free_port()
    mounted("orthanc", "/etc/orthanc/", tmp_path)
    site = json.loads((tmp_path / "site.json").read_text())
    elsewhere = {"HttpPort": http, "DicomPort": dicom, "StorageDirectory": "db", "IndexDirectory": "db"}
    assert elsewhere.keys() <= site.keys()
    # A folder that the image has and Debian's package has not.
    site["Plugins"] = [folder for folder in site["Plugins"] if Path(folder).is_dir()]
    (tmp_path / "site.json").write_text(json.dumps(site | elsewhere))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [peer("Orthanc"), tmp_path],
            env=os.environ | SERVICES["orthanc"]["environment"],
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
