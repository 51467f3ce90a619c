"""The walk of deploy/README.md for systemd, typed where it can be here, up to parts that are healthy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from dicom_factory import mr_instance
from running import typed, wait_until
from scu import association, store
from server_postgres import DEPLOY, EmptyServer, empty_server

from pacs_cbir.settings import Settings

pytestmark = pytest.mark.slow

UNITS = DEPLOY / "systemd"
START_SECONDS = 120.0
# What makes a user of the machine, fetches packages, or speaks to a systemd that is not there.
NOT_HERE = ("useradd", "python3 -m venv", "systemctl")


@pytest.fixture(scope="module")
def server() -> Iterator[EmptyServer]:
    with empty_server() as made:
        yield made


class Machine:
    """Folders that stand for the machine's, and what is typed and started in them."""

    def __init__(self, root: Path, server: EmptyServer, settings: Settings) -> None:
        self.etc, self.state, self.units = root / "etc", root / "state", root / "units"
        self._places = {
            "/etc/pacs-cbir": str(self.etc),
            "/var/lib/pacs-cbir": str(self.state),
            "/etc/systemd/system": str(self.units),
            "/opt/pacs-cbir/bin": f"{sys.prefix}/bin",
            "runuser -u postgres -- ": "",
            "make-secrets.sh localhost": f"make-secrets.sh 127.0.0.1:{server.port}",
            "DICOM_HOST=0.0.0.0": f"DICOM_PORT={settings.dicom_port}\nPACS_CBIR_HTTP_PORT={settings.http_port}",
        }
        self._environment = server.superuser
        for folder in (self.state, self.units):
            folder.mkdir()

    def here(self, text: str) -> str:
        """The same, with this machine's places."""
        for there, place in self._places.items():
            text = text.replace(there, place)
        return text

    def type(self, commands: str) -> str:
        """What a shell says to them."""
        return typed(self.here(commands), self._environment, DEPLOY.parent, START_SECONDS)

    def unit(self, name: str) -> tuple[list[str], dict[str, str]]:
        """A unit's command, and its environment as systemd would make it."""
        text = (self.units / name).read_text()
        common = (self.units / "pacs-cbir-.service.d" / "common.conf").read_text()
        credential, file = re.findall(r"^LoadCredential=([^:]+):(.*)$", text, re.MULTILINE)[0]
        credentials = self.state.parent / f"credentials-{name}"
        credentials.mkdir(exist_ok=True)
        (credentials / credential).write_text(Path(self.here(file)).read_text())
        set_ = re.findall(r"^Environment=(.*)$", common, re.MULTILINE)[0]
        set_ = set_.replace("%d", str(credentials)).replace("%S/pacs-cbir", str(self.state))
        lines = [*set_.split(), *(self.etc / "environment").read_text().split()]
        command = self.here(re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)[0]).split()
        return command, dict(line.split("=", 1) for line in lines)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """A unit's command, which is asked to end with the block."""
        command, environment = self.unit(name)
        with (self.state.parent / name).open("wb") as log:
            process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(60) == 0

    def is_healthy(self, part: str) -> bool:
        """What the part's own check says."""
        command, environment = self.unit("pacs-cbir-scp.service")
        asked = [command[0], "health", part]
        return subprocess.run(asked, env=os.environ | environment, capture_output=True, check=False).returncode == 0


def test_the_walk_with_systemd(server: EmptyServer, settings: Settings, tmp_path: Path) -> None:
    section = (DEPLOY / "README.md").read_text().partition("\n## systemd\n")[2].partition("\n## ")[0]
    walk, status = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    machine = Machine(tmp_path, server, settings)
    typed = [line.strip() for line in walk.replace("\\\n", "").splitlines()]
    here = [line for line in typed if not line.startswith(NOT_HERE)]
    assert len(here) == len(typed) - 5
    for line in here:
        machine.type(line)
    assert {path.name for path in machine.units.iterdir()} == {one.name for one in UNITS.glob("pacs-cbir*")}
    command, environment = machine.unit("pacs-cbir-migrate.service")
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    with ExitStack() as running:
        for part in ("scp.service", "api.service", "worker@.service"):
            running.enter_context(machine.running(f"pacs-cbir-{part}"))
        for part in ("scp", "api", "worker"):
            wait_until(lambda part=part: machine.is_healthy(part), START_SECONDS)  # type: ignore[misc]
        with association(settings) as asked:
            assert store(asked, mr_instance()) == 0x0000
        told = machine.type(status)
    assert "1 waiting" in told or "1 running" in told, told
