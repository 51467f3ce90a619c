"""A patient is deleted by REST and by the command, beside a running API process, and no one learns who it was."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from arriving import arrive, table
from dicom_factory import uid
from running import START_SECONDS, command, is_ready, pacs_cbir, wait_until

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database


@pytest.mark.slow
def test_beside_a_running_api(
    settings: Settings, database: Database, environment: dict[str, str], tmp_path: Path
) -> None:
    for patient in ("A-4711", "B-4711", "C"):
        arrive(database, settings, patient=patient, study=patient)
    url = f"http://127.0.0.1:{settings.http_port}"
    with command("api", environment, tmp_path / "api.log"):
        wait_until(lambda: is_ready(url), START_SECONDS)
        told = pacs_cbir(environment, "delete-patient", given="A-4711\n\n")
        assert (told.returncode, "nothing left" in told.stdout) == (0, True), told.stderr
        unknown = pacs_cbir(environment, "delete-patient", given="A-4711\n\n")
        assert unknown.returncode == 1
        assert "nobody is known here" in unknown.stderr
        answer = httpx.post(f"{url}/corrections/patient-deletion", json={"StudyInstanceUID": uid("B-4711")}, timeout=60)
        assert (answer.status_code, answer.json()["proved"], answer.json()["left"]) == (200, True, {})
        assert answer.json()["removed"]["instances"] == answer.json()["removed"]["files"] == 1
        later = httpx.get(f"{url}/corrections/patient-deletions/{answer.json()['id']}").json()
        assert later == answer.json()
        assert httpx.get(f"{url}/corrections/patient-deletions/99").status_code == 404
        gone = httpx.post(f"{url}/corrections/patient-deletion", json={"patient": {"PatientID": "B-4711"}})
        assert gone.status_code == 404
        assert httpx.post(f"{url}/corrections/patient-deletion", json={}).status_code == 400
    assert "no deletion is pending" in pacs_cbir(environment, "delete-patient", "--resume").stdout
    assert table(database, "SELECT patient_id FROM patients") == [("C",)]
    said = (tmp_path / "api.log").read_text() + told.stdout + unknown.stderr + answer.text + gone.text
    assert "4711" not in said


def test_one_line_from_a_pipe_is_enough(settings: Settings, database: Database, environment: dict[str, str]) -> None:
    arrive(database, settings, patient="A-4711", study="one")
    told = pacs_cbir(environment, "delete-patient", given="A-4711")
    assert told.returncode == 0, told.stderr
    assert [line.split(":")[0] for line in told.stdout.splitlines()] == ["deletion 1", "nothing left"]
    assert "patient deleted" in told.stderr
    assert table(database, "SELECT patient_id FROM patients") == []


def test_a_study_on_the_command_line_is_asked_about_without_a_terminal_too(
    settings: Settings, database: Database, environment: dict[str, str]
) -> None:
    arrive(database, settings, patient="A", study="one")
    for given, code, left in (("", 1, 1), ("n\n", 0, 1), ("y\n", 0, 0)):
        told = pacs_cbir(environment, "delete-patient", "--study", uid("one"), given=given)
        assert told.returncode == code, told.stderr
        assert "Delete for good (studies: 1, series: 1, instances: 1)? [y/N]" in told.stderr
        assert table(database, "SELECT count(*) FROM instances") == [(left,)]


def test_at_a_terminal_it_says_how_much_will_go_and_asks(
    settings: Settings, database: Database, environment: dict[str, str]
) -> None:
    arrive(database, settings, patient="A-4711", study="one")
    for answer, left in (("n", [(1,)]), ("y", [(0,)])):
        ours, theirs = pty.openpty()
        with os.fdopen(theirs) as terminal:
            os.write(ours, f"A-4711\n\n{answer}\n".encode())
            told = subprocess.run(
                [sys.executable, "-m", "pacs_cbir", "delete-patient"],
                env=environment,
                stdin=terminal,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        os.close(ours)
        assert told.returncode == 0, told.stderr
        assert "Delete for good (studies: 1, series: 1, instances: 1)? [y/N]" in told.stderr
        assert ("nothing was deleted" in told.stdout) == (answer == "n")
        assert table(database, "SELECT count(*) FROM instances") == left
