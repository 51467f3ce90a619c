"""What runs during a test: the SCP in a thread, `pacs-cbir` as a process, and waiting for them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import text

from pacs_cbir.receive.scp import run_scp
from pacs_cbir.search.follow import Follower
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database

START_SECONDS = 60.0
END_SECONDS = 60.0
RUN_SECONDS = 120.0


@contextmanager
def scp_thread(settings: Settings, database: Database) -> Iterator[None]:
    """The SCP, as `pacs-cbir scp` runs it, for as long as the block does."""
    stop = threading.Event()
    thread = threading.Thread(target=run_scp, args=(settings, database, stop))
    thread.start()
    try:
        wait_until(lambda: listens(settings.dicom_port), START_SECONDS)
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def command(name: str, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`pacs-cbir NAME` as a process that is asked to end with the block; what it says goes to `log`."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_cbir", name], env=environment, stdout=stream, stderr=stream
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def pacs_cbir(environment: Mapping[str, str], *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """`pacs-cbir ARGUMENTS` to its end, with lines that are not broken; `given` is what it reads."""
    return subprocess.run(
        [sys.executable, "-m", "pacs_cbir", *arguments],
        env={**environment, "COLUMNS": "400"},
        input=given,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


def typed(script: str, environment: Mapping[str, str], folder: Path, seconds: float) -> str:
    """What is said on standard output by a shell in `folder` to which a document's commands are typed.

    Raises:
        AssertionError: one of them failed; says what was said.
    """
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def is_ready(url: str) -> bool:
    """Whether an API answers queries."""
    try:
        return httpx.get(f"{url}/health/ready").is_success
    except httpx.TransportError:
        return False


@contextmanager
def following(follower: Follower) -> Iterator[Follower]:
    """A follower as the API's thread runs it, for as long as the block does."""
    stop = threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        yield follower
    finally:
        stop.set()
        thread.join(END_SECONDS)
        assert not thread.is_alive()


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that happens by itself.

    Raises:
        AssertionError: it did not.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(0.02)


def wait_for_blocked(database: Database, count: int = 1) -> None:
    """Wait until so many of the server's sessions wait for a lock."""

    def blocked() -> bool:
        with database.transaction() as connection:
            return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) >= count)

    wait_until(blocked, 30)
