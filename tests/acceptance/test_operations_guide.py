"""Every command of the operations guide is typed, in the guide's order, at a running service."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import archives
import httpx
import pytest
from dicom_factory import mr_instance
from running import START_SECONDS, command, is_ready, pacs_cbir, typed, wait_until
from untrained import TWO_NUMBERS, save_untrained

from pacs_cbir.pacs.send import send
from pacs_cbir.settings import Settings

pytestmark = pytest.mark.peer

GUIDE = Path(__file__).parents[2] / "deploy" / "operations.md"
BLOCK_SECONDS = 240


@pytest.mark.slow
def test_what_is_to_be_typed_works(
    settings: Settings, environment: dict[str, str], owner_url: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    here = [mr_instance("STAYS", "stays", number=number, size=64) for number in range(5)]
    goes = [mr_instance("GOES", "goes", number=number, size=64) for number in range(5)]
    earlier = [mr_instance("EARLIER", "earlier", number=number, size=64) for number in range(5)]
    files = tmp_path / "files"
    files.mkdir()
    for number, ds in enumerate([*here, *goes]):
        ds.save_as(files / f"{number}.dcm", enforce_file_format=True)
    peer("echoscu")
    with archives.dcmqrscp(peer, tmp_path / "pacs", settings, earlier) as pacs:
        environment |= {
            "PACS_CBIR_PEERS": json.dumps({"pacs": pacs.model_dump(include={"ae_title", "host", "port"})}),
            "PACS_CBIR_DATABASE_OWNER_URL": owner_url,
            # echoscu of an activated venv is pynetdicom's, which takes other options.
            "PATH": f"/usr/bin:{Path(sys.executable).parent}:{environment['PATH']}",
        }
        with command("serve", environment, tmp_path / "serve.log"):
            url = f"http://127.0.0.1:{settings.http_port}"
            wait_until(lambda: is_ready(url), START_SECONDS)
            sent = send(
                sorted(files.iterdir()), "127.0.0.1", settings.dicom_port, called=settings.ae_title, calling="TEST"
            )
            assert all(one.accepted for one in sent)
            wait_until(lambda: _nothing_waits(url), START_SECONDS)
            other = save_untrained(tmp_path / "other.safetensors", TWO_NUMBERS)
            for words in (("add", str(other)), ("activate", "other", "--incomplete")):
                assert pacs_cbir(environment, "encoder", *words).returncode == 0
            wait_until(lambda: is_ready(url), START_SECONDS)
            for block in blocks():
                study = goes if "delete-patient" in block else here
                script = block.replace("NAME", "other").replace("STUDY", str(study[0].StudyInstanceUID))
                script = script.replace("localhost:8000", f"127.0.0.1:{settings.http_port}")
                script = script.replace("localhost 11112", f"127.0.0.1 {settings.dicom_port}")
                typed(script, environment, tmp_path, BLOCK_SECONDS)
            studies = {one["StudyInstanceUID"] for one in httpx.get(f"{url}/studies").json()}
    assert len(blocks()) >= 15
    assert studies == {ds.StudyInstanceUID for ds in (*here, *earlier)}


def blocks() -> list[str]:
    """What is to be typed, block by block."""
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def _nothing_waits(url: str) -> bool:
    jobs = httpx.get(f"{url}/status").json()["jobs"]
    return bool(jobs["waiting"] == jobs["running"] == 0)
