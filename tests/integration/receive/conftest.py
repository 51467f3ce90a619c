"""Fixtures: the SCP as `pacs-cbir scp` runs it, in a thread of the test or as a process."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import START_SECONDS, command, listens, scp_thread, wait_until

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database


@pytest.fixture(autouse=True)
def _keep_no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest keeps the exceptions of threads, and with them the associations and transfers that they broke off."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    # As in a service, see pacs_cbir.logs.
    monkeypatch.setattr(logging.getLogger("pynetdicom"), "level", logging.CRITICAL)


@pytest.fixture
def scp(settings: Settings, database: Database) -> Iterator[Settings]:
    """An SCP in a thread; the settings it runs with."""
    with scp_thread(settings, database):
        yield settings


@pytest.fixture
def scp_process(settings: Settings, environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An SCP as a process; its log is `scp.log` in the test's folder."""
    with command("scp", environment, tmp_path / "scp.log") as process:
        wait_until(lambda: listens(settings.dicom_port), START_SECONDS)
        yield process
