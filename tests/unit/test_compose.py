"""deploy/compose.yaml, as Compose itself reads it, held to the code and the files that it names."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from deployed import COMMANDS, DEPLOY, HEALTH_CHECKS, VARIABLES

IMAGES = {"pacs-cbir:cpu", "pacs-cbir:gpu"}
PROFILES = {"cpu": {"api", "worker"}, "gpu": {"api-gpu", "worker-gpu"}}
SERVICES = {"postgres", "migrate", "scp", "orthanc", "ohif"}


def compose(*profiles: str) -> dict[str, Any]:
    """The file with everything filled in."""
    program = Path(sysconfig.get_path("scripts")) / "docker-compose"
    chosen = [f"--profile={one}" for one in profiles]
    done = subprocess.run(
        [program, "-f", DEPLOY / "compose.yaml", *chosen, "config", "--format=json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return compose(*PROFILES)


@pytest.fixture(scope="module")
def parts(everything: dict[str, Any]) -> dict[str, Any]:
    """Services that are parts of pacs-cbir."""
    return {name: one for name, one in everything["services"].items() if one["image"] in IMAGES}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_every_part_once(profile: str) -> None:
    assert set(compose(profile)["services"]) == SERVICES | PROFILES[profile]


def test_parts_run_commands_with_settings_that_there_are(parts: dict[str, Any]) -> None:
    assert {" ".join(one["command"]) for one in parts.values()} == {"db upgrade", "scp", "worker", "api"}
    for one in parts.values():
        assert " ".join(one["command"]) in COMMANDS
        assert one["environment"].keys() <= VARIABLES
        # Above, where it is not the image's own.
        if not one["healthcheck"].get("disable"):
            assert tuple(one["healthcheck"]["test"][1:]) in HEALTH_CHECKS
            assert one["healthcheck"]["test"][-1] == one["command"][0]


def test_parts_can_write_to_the_volume_alone_and_have_no_rights(parts: dict[str, Any]) -> None:
    for name, one in parts.items():
        assert one["read_only"]
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        mounted = [(volume["type"], volume["target"]) for volume in one.get("volumes", ())]
        assert mounted == ([] if name == "migrate" else [("volume", "/var/lib/pacs-cbir")])


def test_an_image_is_built_once_in_a_profile() -> None:
    for profile in PROFILES:
        services = compose(profile)["services"].values()
        ours = [one for one in services if one["image"] in IMAGES]
        assert sorted(one["image"] for one in ours if "build" in one) == sorted({one["image"] for one in ours})
        assert {one["pull_policy"] for one in ours} == {"never"}


def test_what_is_mounted_and_built_is_there(everything: dict[str, Any], tmp_path: Path) -> None:
    for one in everything["services"].values():
        for volume in one.get("volumes", ()):
            assert volume["type"] == "volume" or Path(volume["source"]).is_file()
        if "build" in one:
            assert (Path(one["build"]["context"]) / one["build"]["dockerfile"]).is_file()
    subprocess.run([DEPLOY / "make-secrets.sh", "postgres", tmp_path / "secrets"], check=True)
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert {Path(one["file"]).name for one in everything["secrets"].values()} == made
    assert {Path(one["file"]).parent for one in everything["secrets"].values()} == {DEPLOY / "secrets"}


def test_who_asks_whom_by_a_name_that_there_is(everything: dict[str, Any], parts: dict[str, Any]) -> None:
    services = everything["services"]
    assert {one["environment"].get("PACS_CBIR_API_URL") for one in parts.values()} == {"http://api:8000", None}
    for name in ("api", "api-gpu"):
        assert services[name]["networks"]["default"]["aliases"] == ["api"]
    assert services["orthanc"]["environment"]["PACS_CBIR_DICOM_HOST"] in services
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name, one in parts.items():
        if name != "migrate":
            assert one["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_dicom_alone_is_published_to_others(everything: dict[str, Any]) -> None:
    ports = {
        (name, port["target"]): port.get("host_ip")
        for name, one in everything["services"].items()
        for port in one.get("ports", ())
    }
    assert [where for where, address in ports.items() if address != "127.0.0.1"] == [("scp", 11112)]


def test_a_gpu_is_asked_for_where_the_image_needs_one(parts: dict[str, Any]) -> None:
    for one in parts.values():
        devices = one.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", ())
        assert [device["capabilities"] for device in devices] == ([["gpu"]] if one["image"] == "pacs-cbir:gpu" else [])
