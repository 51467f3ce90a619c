"""`pacs-cbir demo`, as `make demo` runs it: the whole mission, from an empty folder to a ranked answer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacs_cbir.learn.simulate import simulate_cohort
from tests.conftest import free_port

pytestmark = pytest.mark.slow


def demo(report: Path, *arguments: str, ports: tuple[int, int] | None = None) -> dict[str, object]:
    dicom_port, http_port = ports or (free_port(), free_port())
    done = subprocess.run(
        [sys.executable, "-m", "pacs_cbir", "demo", "--once", "--report", report, *arguments],
        env=os.environ | {"PACS_CBIR_HTTP_PORT": str(http_port), "PACS_CBIR_DICOM_PORT": str(dicom_port)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, object] = json.loads((report / "report.json").read_text())
    return result


def test_a_simulated_cohort_is_sent_embedded_and_queried(tmp_path: Path) -> None:
    result = demo(tmp_path, "--patients", "3")
    assert (result["studies"], result["series"], result["embedded"], result["parked"]) == (3, 12, 12, 0)
    matches = result["matches"]
    assert isinstance(matches, list)
    uids = {match["StudyInstanceUID"] for match in matches}
    assert len(uids) == 2
    assert result["query"] not in uids
    similarities = [match["similarity"] for match in matches]
    assert similarities == sorted(similarities, reverse=True)
    picture = np.asarray(Image.open(tmp_path / "contact-sheet.png").convert("L"))
    assert picture.std() > 20


def test_a_service_that_has_the_ports_gets_none_of_the_demonstrations_patients(tmp_path: Path) -> None:
    with socket.socket() as dicom, socket.socket() as http:
        for taken in (dicom, http):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        ports = dicom.getsockname()[1], http.getsockname()[1]
        result = demo(tmp_path, "--patients", "2", ports=ports)
        assert result["studies"] == 2
        for taken in (dicom, http):
            taken.settimeout(0.1)
            with pytest.raises(TimeoutError):
                taken.accept()


def test_a_persons_own_files_are_sent_and_others_passed_over(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    [study] = simulate_cohort(cohort, patients=1, seed=5)
    (cohort / "notes.txt").write_text("no DICOM")
    result = demo(tmp_path / "report", "--from", str(cohort))
    assert (result["studies"], result["embedded"]) == (1, 4)
    assert result["query"] == study.study_instance_uid
    assert result["matches"] == []
