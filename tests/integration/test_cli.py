"""The command line as a person meets it: a process, its output and its exit code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from running import pacs_cbir

from pacs_cbir.errors import DatabaseUnavailable
from pacs_cbir.settings import Settings
from pacs_cbir.store import schema
from pacs_cbir.store.session import Database


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return pacs_cbir(os.environ | environment, *arguments)


def test_a_setting_that_does_not_fit_names_itself_and_ends_with_2() -> None:
    done = run("settings", PACS_CBIR_DICOM_PORT="eleven")
    assert done.returncode == 2
    assert "PACS_CBIR_DICOM_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_in_the_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('aetitle = "X"\n')
    done = run("settings", PACS_CBIR_SETTINGS_FILE=str(file))
    assert done.returncode == 2
    assert "AETITLE" in done.stderr


def test_settings_come_from_file_and_environment_and_hide_secrets(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('ae_title = "FROM_FILE"\ndicom_port = 4242\n')
    done = run(
        "settings",
        PACS_CBIR_SETTINGS_FILE=str(file),
        PACS_CBIR_DICOM_PORT="4243",
        PACS_CBIR_DATABASE_URL="postgresql://someone:hunter2@host/db",
        PACS_CBIR_PEERS='{"archive": {"ae_title": "A", "retrieve": "dicomweb", "dicomweb_url": "https://a.example", '
        '"dicomweb_user": "cbir", "dicomweb_password": "hunter2"}}',
    )
    assert done.returncode == 0
    assert "archive: ae_title=A retrieve=dicomweb" in done.stdout
    assert "FROM_FILE" in done.stdout
    assert "4243" in done.stdout
    assert "4242" not in done.stdout
    assert "someone" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_service_on_an_older_schema_names_the_command_that_upgrades_it(
    environment: dict[str, str], owner_url: str
) -> None:
    owner = Database(owner_url, role=None)
    schema.downgrade(owner, "base")
    done = run("worker", **environment)
    assert done.returncode == 1
    assert "pacs-cbir db upgrade" in done.stderr
    upgraded = run("db", "upgrade", **environment | {"PACS_CBIR_DATABASE_OWNER_URL": owner_url})
    assert upgraded.returncode == 0, upgraded.stderr
    assert f"missing → {schema.latest()}" in upgraded.stdout
    assert schema.current(owner) == schema.latest()
    owner.close()


def test_a_database_that_is_away_is_an_error_and_no_traceback(settings: Settings) -> None:
    done = run("status", PACS_CBIR_DATABASE_URL="postgresql://nobody:pw@127.0.0.1:1/none")
    assert done.returncode == 1
    assert done.stderr == "pacs-cbir: Postgres does not answer: Connection refused\n"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://nobody:hunter@2@127.0.0.1:1/none", r'could not translate host name "…" to address'),
        ("postgresql://nobody@/none?host=/tmp/hunter", "No such file or directory"),
    ],
)
def test_why_the_database_is_away_is_told_without_anything_of_its_address(url: str, reason: str) -> None:
    database = Database(url)
    for ask in (database.ping, lambda: database.listen("x").__enter__()):
        with pytest.raises(DatabaseUnavailable, match=f"Postgres does not answer: {reason}") as raised:
            ask()
        assert not any(part in str(raised.value) for part in ("hunter", "2@", "127", "nobody"))
    database.close()


def test_the_embedded_database_starts_upgrades_itself_and_stops(tmp_path: Path) -> None:
    environment = {"PACS_CBIR_DATA_DIR": str(tmp_path / "d")}
    first = run("status", **environment)
    assert first.returncode == 0, first.stderr
    assert "0 waiting" in first.stdout
    assert "1024 kept in reserve; receiving" in first.stdout
    assert "pixel data: of 0 instances, 0 MiB; retention all" in first.stdout
    assert not (tmp_path / "d" / "postgres" / "postmaster.pid").exists()


def test_without_faiss_a_command_that_needs_it_says_which_extra_to_install(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    # Hides the module from the process, as an installation without the extra would.
    (tmp_path / "faiss.py").write_text("raise ImportError('no faiss here')\n")
    done = run("api", **environment | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "pacs-cbir[cpu]" in done.stderr
    assert "pacs-cbir[gpu]" in done.stderr


def test_simulate_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    done = run("simulate", str(tmp_path))
    assert done.returncode == 2
    assert "empty" in done.stderr
