"""Fixtures: one Orthanc for all tests of the room, emptied before each, and our SCP where C-MOVE needs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import Orthanc, orthanc
from crooked_pacs import CrookedPacs
from running import scp_thread

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a service, see pacs_cbir.logs.
    monkeypatch.setattr(logging.getLogger("pynetdicom"), "level", logging.CRITICAL)


@pytest.fixture(scope="session")
def _orthanc(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder: Path = tmp_path_factory.mktemp("orthanc") / "orthanc"
    with orthanc(peer, folder) as started:
        yield started


@pytest.fixture
def pacs(_orthanc: Orthanc, settings: Settings) -> Orthanc:
    """An Orthanc without instances that knows our SCP's address."""
    _orthanc.empty()
    _orthanc.knows(settings)
    return _orthanc


@pytest.fixture
def scp(settings: Settings, database: Database) -> Iterator[Settings]:
    """Our SCP in a thread; the settings it runs with."""
    with scp_thread(settings, database):
        yield settings


@pytest.fixture
def crooked(scp: Settings) -> Iterator[CrookedPacs]:
    """A PACS that can be told to misbehave."""
    with CrookedPacs(scp) as started:
        yield started
