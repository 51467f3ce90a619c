"""`pacs-cbir serve` as a process: it keeps its children running, and ends with all of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from dicom_factory import mr_instance
from running import command, listens, pacs_cbir, wait_until
from scu import association, store

from pacs_cbir.settings import Settings, load_settings
from tests.conftest import free_port

START_SECONDS = 120.0
EXIT_SETTINGS = 2


@pytest.fixture
def own_environment() -> Iterator[dict[str, str]]:
    """A service of its own: an empty data directory, whose path is short enough for a socket, and free ports."""
    folder = Path(tempfile.mkdtemp(prefix="cbir-", dir="/tmp"))
    yield os.environ | {
        "PACS_CBIR_DATA_DIR": str(folder / "data"),
        "PACS_CBIR_DICOM_PORT": str(free_port()),
        "PACS_CBIR_HTTP_PORT": str(free_port()),
    }
    shutil.rmtree(folder)


def settings_of(environment: dict[str, str]) -> Settings:
    names = ("data_dir", "dicom_port", "http_port")
    return load_settings(**{name: environment[f"PACS_CBIR_{name.upper()}"] for name in names})


def children(supervisor: int) -> dict[str, psutil.Process]:
    """Command → child process that runs."""
    found = {}
    for child in psutil.Process(supervisor).children():
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            found[child.cmdline()[-1]] = child
    return found


def family(supervisor: int, settings: Settings) -> list[psutil.Process]:
    """The supervisor, its descendants, and the embedded Postgres, which is nobody's child."""
    postmaster = int((settings.postgres_dir / "postmaster.pid").read_text().splitlines()[0])
    heads = [psutil.Process(supervisor), psutil.Process(postmaster)]
    return heads + [child for head in heads for child in head.children(recursive=True)]


def is_up(settings: Settings) -> bool:
    try:
        ready = httpx.get(f"http://127.0.0.1:{settings.http_port}/health/ready").is_success
    except httpx.TransportError:
        return False
    return ready and listens(settings.dicom_port)


@pytest.mark.slow
def test_killed_children_come_back_and_the_end_leaves_no_process(
    own_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = settings_of(own_environment)
    with command("serve", own_environment, tmp_path / "log") as supervisor:
        wait_until(lambda: is_up(settings), START_SECONDS)
        before = children(supervisor.pid)
        assert before.keys() == {"scp", "api", "worker"}
        for process in before.values():
            process.kill()
        wait_until(lambda: children(supervisor.pid).keys() == before.keys(), START_SECONDS)
        wait_until(lambda: is_up(settings), START_SECONDS)
        after = children(supervisor.pid)
        assert not {process.pid for process in before.values()} & {process.pid for process in after.values()}
        with association(settings) as asked:
            assert store(asked, mr_instance()) == 0x0000
        running = family(supervisor.pid, settings)
        assert len(running) > 5
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0
        _, alive = psutil.wait_procs(running, timeout=5)
        assert alive == []
        assert not (settings.postgres_dir / "postmaster.pid").exists()


@pytest.mark.slow
def test_children_do_not_outlive_a_killed_supervisor(own_environment: dict[str, str], tmp_path: Path) -> None:
    settings = settings_of(own_environment)
    with command("serve", own_environment, tmp_path / "log") as supervisor:
        wait_until(lambda: is_up(settings), START_SECONDS)
        running = family(supervisor.pid, settings)
        supervisor.kill()
        _, alive = psutil.wait_procs(running, timeout=40)
        assert alive == []


@pytest.mark.parametrize(
    ("name", "setting"), [("scp", "PACS_CBIR_DICOM_PORT"), ("api", "PACS_CBIR_HTTP_PORT"), ("serve", None)]
)
def test_a_port_that_is_taken_is_a_setting_to_change(
    environment: dict[str, str], tmp_path: Path, name: str, setting: str | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        changed = {setting: port} if setting else {"PACS_CBIR_DICOM_PORT": port, "PACS_CBIR_HTTP_PORT": port}
        done = pacs_cbir(environment | changed, name)
    assert done.returncode == EXIT_SETTINGS
    assert (setting or "PACS_CBIR_DICOM_PORT") in done.stderr
    assert port in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["serve", "scp", "worker", "api", "status", "settings"])
def test_a_setting_that_is_none_ends_with_its_name(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("dicom_prot = 104\n")
    done = pacs_cbir(environment | {"PACS_CBIR_SETTINGS_FILE": str(file)}, name)
    assert done.returncode == EXIT_SETTINGS
    assert "PACS_CBIR_DICOM_PROT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_value_that_does_not_fit_ends_with_its_settings_name(environment: dict[str, str]) -> None:
    done = pacs_cbir(environment | {"PACS_CBIR_DICOM_PORT": "eleven"}, "serve")
    assert done.returncode == EXIT_SETTINGS
    assert "PACS_CBIR_DICOM_PORT" in done.stderr
