"""deploy/systemd, read by systemd itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest
from deployed import COMMANDS, DEPLOY, VARIABLES

from pacs_cbir import cli
from pacs_cbir.settings import SETTINGS_FILE_VARIABLE

pytestmark = [pytest.mark.peer, pytest.mark.slow]

UNITS = DEPLOY / "systemd"
INSTALLED = "/opt/pacs-cbir/bin/pacs-cbir"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
# In tenths: systemd calls what is below 20 "OK", its best but for services that need no network.
EXPOSURE = 15


@pytest.fixture
def analyze(peer: Callable[[str], str], tmp_path: Path) -> Callable[..., str]:
    """`systemd-analyze` over the units, as if pacs-cbir were installed where they look for it; what it complains of."""
    units = shutil.copytree(UNITS, tmp_path / "units")
    for path in units.glob("*.service"):
        path.write_text(path.read_text().replace(INSTALLED, f"{sys.prefix}/bin/pacs-cbir"))
    worker = units / "pacs-cbir-worker@.service.d"
    worker.mkdir()
    (units / "gpu.conf").rename(worker / "gpu.conf")

    def run(verb: str, *arguments: str) -> str:
        names = [units / one if "." in one else one for one in arguments]
        done = subprocess.run(
            [peer("systemd-analyze"), verb, *names], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stderr + (f"{done.stdout}\nexit code {done.returncode}" if done.returncode else "")

    return run


def test_systemd_finds_no_fault(analyze: Callable[..., str]) -> None:
    assert analyze("verify", "pacs-cbir.target", *SERVICES) == ""


@pytest.mark.parametrize("name", SERVICES)
def test_little_of_the_machine_is_exposed(analyze: Callable[..., str], name: str) -> None:
    assert analyze("security", "--offline=true", f"--threshold={EXPOSURE}", name) == ""


def read(path: Path) -> dict[str, str]:
    """A unit's settings, the last of each; keys are told apart by case."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return {key: value for section in parser.sections() for key, value in parser[section].items()}


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_runs_a_command_that_there_is_with_a_file_that_is_made(name: str, tmp_path: Path) -> None:
    unit = read(UNITS / name)
    program, _, command = unit["ExecStart"].partition(" ")
    assert program == INSTALLED
    assert command in COMMANDS
    credential, _, file = unit["LoadCredential"].partition(":")
    common = read(UNITS / "pacs-cbir-.service.d" / "common.conf")
    assert f"{SETTINGS_FILE_VARIABLE}=%d/{credential}" in common["Environment"]
    subprocess.run([DEPLOY / "make-secrets.sh", "db.example", tmp_path / "secrets"], check=True)
    assert (tmp_path / "secrets" / Path(file).name).is_file()
    if name != "pacs-cbir-migrate.service":
        assert unit["RestartPreventExitStatus"] == str(cli.EXIT_SETTINGS)


def test_variables_are_settings() -> None:
    text = "".join(path.read_text() for path in UNITS.rglob("*") if path.is_file())
    named = set(re.findall(r"PACS_CBIR_[A-Z_]+", text))
    assert named
    assert named <= VARIABLES


def test_the_target_starts_every_part() -> None:
    # Its `Wants=` stands twice, which ConfigParser does not keep.
    wanted = " ".join(re.findall(r"^Wants=(.*)$", (UNITS / "pacs-cbir.target").read_text(), re.MULTILINE))
    parts = {name.replace("@.", "@1.") for name in SERVICES} - {"pacs-cbir-migrate.service"}
    assert parts < set(wanted.split())
    for name in SERVICES:
        unit = read(UNITS / name)
        assert unit["PartOf"] == "pacs-cbir.target"
        assert name == "pacs-cbir-migrate.service" or "pacs-cbir-migrate.service" == unit["Requires"] == unit["After"]
