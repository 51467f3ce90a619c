"""The CPU image, built as an admin builds it, on a base made here: every role runs from it, and a study is answered."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from dicom_factory import mr_instance, uid
from running import wait_until
from scu import association, store
from server_postgres import server_postgres

from pacs_cbir.settings import Settings

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
WALK = ROOT / "deploy" / "README.md"
SUITE = "bookworm"
HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DATA = "/var/lib/pacs-cbir"
INSTALLED = "/opt/pacs-cbir/bin"
USER = 10001
START_SECONDS = 180.0
END_SECONDS = 60.0
ANSWER_SECONDS = 240.0


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self._base = [program, "--root", str(folder / "store"), "--runroot", str(folder / "run")]
        self._environment = os.environ | {
            "STORAGE_DRIVER": "overlay",
            "BUILDAH_ISOLATION": "chroot",
            # Layers under way, and pip's cache.
            "TMPDIR": str(folder / "tmp"),
        }
        (folder / "tmp").mkdir()

    def __call__(self, *arguments: object) -> str:
        done = subprocess.run(
            [*self._base, *map(str, arguments)], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def start(self, log: Path, *arguments: object) -> subprocess.Popen[bytes]:
        """A command that goes on by itself."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [*self._base, *map(str, arguments)], env=self._environment, stdout=stream, stderr=stream
            )


@pytest.fixture(scope="module")
def buildah(peer: Callable[[str], str]) -> Iterator[Buildah]:
    if os.geteuid() != 0:
        pytest.skip("images are built by root here")
    # Gigabytes, which a file system in memory does not have.
    folder = Path(tempfile.mkdtemp(prefix="cbir-image-", dir="/var/tmp"))
    made = Buildah(peer("buildah"), folder)
    yield made
    made("rm", "--all")
    made("rmi", "--all", "--force")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image(buildah: Buildah, peer: Callable[[str], str]) -> str:
    """The image's name; its base is Debian as debootstrap makes it."""
    with tempfile.TemporaryDirectory(prefix="cbir-base-", dir="/var/tmp") as folder:
        rootfs = Path(folder) / "rootfs"
        subprocess.run(
            [peer("debootstrap"), "--variant=minbase", SUITE, rootfs], check=True, capture_output=True, timeout=600
        )
        # Whom this machine trusts the base trusts: a network may stand behind a proxy with a certificate of its own.
        trusted = rootfs / "usr/local/share/ca-certificates"
        trusted.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOST_CERTIFICATES, trusted / "host.crt")
        container = buildah("from", "scratch")
        buildah("copy", container, rootfs, "/")
        buildah("commit", "--rm", container, "localhost/base")
    buildah(
        *("build", "--format", "docker", "--build-arg", "BASE=localhost/base", "--pull-never"),
        *("-f", ROOT / "docker/cpu.Dockerfile", "-t", "localhost/pacs-cbir:cpu", ROOT),
    )
    return "localhost/pacs-cbir:cpu"


class Container:
    """A container of the image, with the image's own settings and a role."""

    def __init__(self, buildah: Buildah, image: str, options: list[str]) -> None:
        self._buildah, self._options = buildah, options
        self._name = buildah("from", "--pull-never", image)
        # Otherwise it mounts a volume of this container's own over the one that it is told of.
        buildah("config", f"--volume={DATA}-", self._name)
        config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
        self._entrypoint = config["Entrypoint"]

    def of_its_user(self) -> list[str]:
        """Files of the service's user, without the data directory: all others could be read-only."""
        root = Path(self._buildah("mount", self._name))
        found = (str(path.relative_to(root)) for path in root.rglob("*") if path.lstat().st_uid == USER)
        return [inside for inside in found if f"/{inside}" != DATA]

    def run(self, *command: str) -> str:
        """The image's program to its end."""
        return self._buildah("run", *self._options, self._name, "--", *self._entrypoint, *command)

    def is_healthy(self, role: str) -> bool:
        """What a container's health check says."""
        try:
            self.run("health", role)
        except AssertionError:
            return False
        return True

    @contextmanager
    def role(self, *command: str, log: Path) -> Iterator[None]:
        """The image's program for as long as the block runs; it ends when it is asked to, and is nobody's root."""
        process = self._buildah.start(log, "run", *self._options, self._name, "--", *self._entrypoint, *command)
        try:
            yield
        finally:
            below = psutil.Process(process.pid).children(recursive=True)
            program = [f"{INSTALLED}/python", f"{INSTALLED}/pacs-cbir", *command]
            try:
                served = [one for one in below if one.cmdline() == program]
                assert [one.uids().real for one in served] == [USER], log.read_text()
                served[0].terminate()
                assert process.wait(END_SECONDS) == 0, log.read_text()
            finally:
                for one in below:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
                process.kill()


@pytest.fixture
def options(settings: Settings) -> Iterator[list[str]]:
    """What a deployment says: secrets, ports and the volume. Ports are this machine's, as with the host's network."""
    for path in (settings.data_dir, *settings.data_dir.rglob("*")):
        os.chown(path, USER, USER)
    variables = {"DICOM_PORT": settings.dicom_port, "HTTP_PORT": settings.http_port, "SETTLE_SECONDS": 0}
    with server_postgres() as server:
        yield [
            *(f"--env=PACS_CBIR_{name}={value}" for name, value in variables.items()),
            f"--volume={settings.data_dir}:{DATA}",
            *(f"--volume={path}:/run/secrets/{path.name}:ro" for path in sorted(server.secrets.glob("*.toml"))),
            "--hostname=cbir",
        ]


def gigabytes(buildah: Buildah, image: str) -> float:
    """An image's size."""
    [listed] = json.loads(buildah("images", "--json", image))
    number, unit = listed["size"].split()
    assert unit == "GB"
    return float(number)


def test_every_role_runs_from_the_image_and_a_study_is_answered(
    buildah: Buildah, image: str, options: list[str], settings: Settings, tmp_path: Path
) -> None:
    service = [*options, "--env=PACS_CBIR_SETTINGS_FILE=/run/secrets/service.toml"]
    roles = {name: Container(buildah, image, service) for name in ("scp", "worker", "api")}
    owner = [*options, "--env=PACS_CBIR_SETTINGS_FILE=/run/secrets/owner.toml"]
    roles["migrate"] = Container(buildah, image, owner)
    assert "missing → " in roles["migrate"].run("db", "upgrade")
    with ExitStack() as running:
        for name in ("scp", "worker", "api"):
            running.enter_context(roles[name].role(name, log=tmp_path / name))
        for name in ("scp", "worker", "api"):
            wait_until(partial(roles[name].is_healthy, name), START_SECONDS)
        with association(settings) as asked:
            for patient in ("P1", "P2"):
                for number in range(1, 6):
                    ds = mr_instance(patient, patient, patient, number, size=64)
                    assert store(asked, ds) == 0x0000
        url = f"http://127.0.0.1:{settings.http_port}/similar/studies"
        parameters = {"example": uid("P1"), "min_similarity": "-1"}

        def answered() -> list[str]:
            answer = httpx.get(url, params=parameters, headers={"Accept": "application/json"}, timeout=60)
            return [match["StudyInstanceUID"] for match in answer.json()] if answer.status_code == 200 else []

        wait_until(lambda: answered() == [uid("P2")], ANSWER_SECONDS)
    assert gigabytes(buildah, image) <= float(
        re.findall(r"^\| budget \| ([0-9.]+) GB", WALK.read_text(), re.MULTILINE)[0]
    )
    written = {inside for role in roles.values() for inside in role.of_its_user()}
    assert {inside.split("/")[0] for inside in written} <= {"tmp"}, written
