"""What a backfill is asked for, and one run of it."""

from __future__ import annotations

import threading
from datetime import date

from dicom_factory import mr_instance
from pydicom.dataset import FileDataset

from pacs_cbir.pacs.backfill import Backfill
from pacs_cbir.pacs.pacing import Pace
from pacs_cbir.pacs.retrieve import open_archive
from pacs_cbir.pacs.studies import DAY, StudySearch
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store.backfills import Filter
from pacs_cbir.store.session import Database

JANUARY = Filter("pacs", "20240101-20240131", "MR", "")
JANUARY_DAYS = (date(2024, 1, 1), date(2024, 1, 31))
EVERYTHING = Filter("pacs", "", "MR", "")
FAST = Pace(studies_per_minute=1e6)


def study(name: str, number_of_instances: int = 2, **attributes: object) -> list[FileDataset]:
    """A study of a patient of its own."""
    return [mr_instance(f"P{name}", name, number=number, **attributes) for number in range(1, number_of_instances + 1)]


def backfill_of(
    peer: Peer, settings: Settings, database: Database, wanted: Filter = JANUARY, pace: Pace = FAST
) -> tuple[Backfill, list[str]]:
    """A backfill, and what it will say."""
    said: list[str] = []
    archive = open_archive(peer, settings, database)
    return Backfill(archive, database, wanted, pace, threading.Event(), say=said.append, show=lambda *_: None), said


def run(
    peer: Peer, settings: Settings, database: Database, wanted: Filter = JANUARY, pace: Pace = FAST
) -> tuple[dict[str, int], list[str]]:
    """One run to its end: the studies by state, and what was said."""
    backfill, said = backfill_of(peer, settings, database, wanted, pace)
    return backfill.run(), said


def studies_between(search: StudySearch, first: date, last: date) -> tuple[dict[str, int | None], list[str]]:
    """The studies of some days, and what the PACS would not tell."""
    found: dict[str, int | None] = {}
    incomplete: list[str] = []
    while first <= last:
        some, until = search.some_days(first, last)
        assert first <= until <= last
        found |= some
        incomplete += search.incomplete
        first = until + DAY
    return found, incomplete
