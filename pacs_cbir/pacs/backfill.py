"""Fetch the studies that a PACS had before this service stood beside it, however often that is interrupted."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from pacs_cbir.errors import DatabaseUnavailable, DiskUnavailable, PeerAway, PeerError, PeerRefuses, SettingsError
from pacs_cbir.hours import Hours
from pacs_cbir.pacs.archive import Archive
from pacs_cbir.pacs.retrieve import retrieve
from pacs_cbir.pacs.studies import DAY, StudySearch, instances_of_series
from pacs_cbir.store import backfills, holdings
from pacs_cbir.store.room import require_room
from pacs_cbir.store.session import Database

# Studies of so many days are asked for at once.
WINDOW_DAYS = 31
# Growing pauses while the PACS, the database or the disk is away.
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0
# A PACS that has not answered once is more likely written down wrongly than away.
FIRST_CONTACTS = 4
# Hours are looked at again this often, for clocks that are set.
LOOK_SECONDS = 60.0
# After so many studies in a row that brought nothing at the first attempt, something is wrong with all of them.
IN_VAIN = 10

Given = TypeVar("Given")
log = structlog.get_logger()


class Stopped(Exception):
    """The backfill was asked to end."""


@dataclass(frozen=True)
class Pace:
    """When and how fast.

    Attributes:
        studies_per_minute: at most so many retrievals begin in one.
        hours: of the week in which the PACS is asked; None for always.
    """

    studies_per_minute: float
    hours: Hours | None = None


def days_of(study_date: str, today: date) -> tuple[date, date]:
    """A range as it is typed, `YYYYMMDD-YYYYMMDD`, `YYYYMMDD-` (to today) or `YYYYMMDD` → its first and last day.

    Raises:
        SettingsError: it is none.
    """
    start, dash, end = study_date.partition("-")
    try:
        first = _day(start)
        last = today if dash and not end else _day(end or start)
    except ValueError:
        raise SettingsError(
            f"--study-date: {study_date!r} is no YYYYMMDD, YYYYMMDD-YYYYMMDD or YYYYMMDD- (until today)"
        ) from None
    if last < first:
        raise SettingsError(f"--study-date: {study_date} ends before it starts")
    return first, last


def _day(text: str) -> date:
    if not re.fullmatch(r"[0-9]{8}", text):
        raise ValueError(text)
    return datetime.strptime(text, "%Y%m%d").date()


class Backfill:
    """One run of a backfill.

    Args:
        wanted: which studies; its row is made or gone on with.
        stop: set, it ends the run after the study under way.
        say: told what a person wants to know, in a sentence.
        show: told the studies by state, whenever they change, and the months that are searched to and will be, while
            it searches.
    """

    def __init__(
        self,
        archive: Archive,
        database: Database,
        wanted: backfills.Filter,
        pace: Pace,
        stop: threading.Event,
        *,
        say: Callable[[str], None],
        show: Callable[[dict[str, int], tuple[date, date] | None], None],
    ) -> None:
        self._archive, self._database, self._wanted, self._pace, self._stop = archive, database, wanted, pace, stop
        self._say, self._show = say, show
        self._search = StudySearch(archive, wanted.modality, wanted.body_part)
        self._alone = backfills.OnlyOne(database, wanted.peer)
        self._row = 0
        self._begun: float | None = None
        self._in_vain = 0
        self._heard = False

    def run(self) -> dict[str, int]:
        """Find and fetch until nothing is left or `stop` is set; returns the studies by state.

        Raises:
            BackfillRuns: another backfill asks this PACS.
            SettingsError: the range of dates is none.
            PeerRefuses: the PACS does not let this service ask or fetch; the next run goes on.
            PeerAway: it has not answered once.
            PeerError: it answered a query with an error, or many studies in a row brought nothing; likewise.
            DatabaseUnavailable: at the start.
        """
        with self._alone:
            with self._database.transaction() as connection:
                self._row, searched_to = backfills.begin(connection, self._wanted)
            try:
                self._find(searched_to)
                self._fetch()
            except Stopped:
                self._say("stopped; the same command goes on")
            with self._database.transaction() as connection:
                return backfills.count(connection, self._row)

    def parked(self) -> dict[str, str]:
        """StudyInstanceUID → error of what failed too often.

        Raises:
            DatabaseUnavailable.
        """
        with self._database.reading() as connection:
            return backfills.parked(connection, self._row)

    def incomplete(self) -> list[str]:
        """What the PACS would not tell of, in words.

        Raises:
            DatabaseUnavailable.
        """
        with self._database.reading() as connection:
            return backfills.incomplete(connection, self._row)

    def _find(self, searched_to: date | None) -> None:
        today = datetime.now().astimezone().date()
        first, last = days_of(self._wanted.study_date, today)
        if searched_to is not None:
            first = searched_to + DAY
        while first <= last:
            until = min(first + timedelta(days=WINDOW_DAYS - 1), last)
            found = self._patiently(partial(self._search.between, first, until))
            self._heard = True
            counts = {study.study_instance_uid: study.instances for study in found}
            # Of today more may come: the next run asks for it again.
            self._patiently(partial(self._note, counts, min(until, today - DAY), last))
            first = until + DAY

    def _note(self, found: dict[str, int | None], searched_to: date, last: date) -> None:
        with self._database.transaction() as connection:
            backfills.add_found(connection, self._row, found, self._search.incomplete, searched_to)
            counts = backfills.count(connection, self._row)
        if found:
            log.info("studies found", searched_to=f"{searched_to:%Y-%m-%d}", found=len(found))
        self._show(counts, (searched_to, last))

    def _fetch(self) -> None:
        while (study := self._patiently(self._next)) is not None:
            self._patiently(partial(self._fetch_one, study))
        with self._database.transaction() as connection:
            backfills.finish(connection, self._row)

    def _next(self) -> backfills.Pending | None:
        with self._database.transaction() as connection:
            return backfills.next_study(connection, self._row)

    def _fetch_one(self, study: backfills.Pending) -> None:
        """One attempt at a study, and what came of it."""
        settings, uid = self._archive.settings, study.study_instance_uid
        before = self._known(uid)
        try:
            problem = self._complete(study)
        except (PeerAway, PeerRefuses):
            raise
        except PeerError as error:
            problem = str(error)
        self._heard = True
        with self._database.transaction() as connection:
            if problem is None:
                backfills.done(connection, study)
                log.info("study is here", study=uid)
            else:
                parked = backfills.failed(connection, study, problem, settings.job_attempts)
                log.warning("study is not whole", study=uid, parked=parked, error=problem)
            counts = backfills.count(connection, self._row)
        self._show(counts, None)
        self._require_some(study, problem, brought=self._known(uid) - before)

    def _require_some(self, study: backfills.Pending, problem: str | None, *, brought: int) -> None:
        if problem is None or brought > 0:
            self._in_vain = 0
        elif study.attempts == 0:
            self._in_vain += 1
        if self._in_vain >= IN_VAIN:
            raise PeerError(f"{IN_VAIN} studies in a row brought nothing; the last one: {problem}")

    def _complete(self, study: backfills.Pending) -> str | None:
        """Bring what is missing of a study; returns what is wrong where it is not whole afterwards."""
        uid = study.study_instance_uid
        known = self._known(uid)
        by_series = None if known == 0 and study.instances_at_pacs else instances_of_series(self._archive, uid)
        expected = study.instances_at_pacs or sum((by_series or {}).values())
        if 0 < expected <= known:
            return None
        require_room(self._archive.settings)
        self._throttle()
        failures: list[str] = []
        if known == 0 or by_series is None:
            failures += retrieve(self._archive, self._database, uid).fetched.failures
        else:
            for series, count in by_series.items():
                if self._known(uid, series) < count:
                    failures += retrieve(self._archive, self._database, uid, series).fetched.failures
        here = self._known(uid)
        if here >= expected and here > 0:
            return None
        reason = "; ".join(failures) or "the PACS reports no failure: what it counts is not what it sends"
        return f"{here} of {expected} instances are here: {reason}"

    def _known(self, study: str, series: str | None = None) -> int:
        with self._database.reading() as connection:
            return holdings.count_known(connection, study, series)

    def _throttle(self) -> None:
        if self._begun is not None:
            self._wait(self._begun + 60 / self._pace.studies_per_minute - time.monotonic())
        self._begun = time.monotonic()

    def _patiently(self, step: Callable[[], Given]) -> Given:
        """Do a step in the hours that are allowed; again, after growing pauses, while something is away.

        Raises:
            Stopped: the run was asked to end.
            PeerAway: the PACS has not answered once.
            BackfillRuns: another backfill began while the database was away.
        """
        pause = FIRST_PAUSE_SECONDS
        for tries in itertools.count(1):
            self._wait_for_hours()
            try:
                self._alone.hold()
                return step()
            except (PeerAway, DatabaseUnavailable, DiskUnavailable) as error:
                if isinstance(error, PeerAway) and not self._heard and tries >= FIRST_CONTACTS:
                    raise PeerAway(
                        f"{error}, and has not answered once in {tries} tries: is it up, and is its address in "
                        f"PACS_CBIR_PEERS ({self._wanted.peer}) right?"
                    ) from error
                self._say(f"{error}; trying again in {pause:g} s")
            self._wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        raise AssertionError("counting ends nowhere")

    def _wait_for_hours(self) -> None:
        hours = self._pace.hours
        now = datetime.now().astimezone()
        if self._stop.is_set():
            raise Stopped
        if hours is None or hours.allows(now):
            return
        until = hours.next_allowed(now)
        self._say(f"outside of the hours: waiting until {until:%a %Y-%m-%d %H:%M}")
        while not hours.allows(now):
            self._wait(min(LOOK_SECONDS, max(1.0, (until - now).total_seconds())))
            now = datetime.now().astimezone()

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped
