"""Fetch the studies that a PACS had before this service stood beside it, however often that is interrupted."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import date, datetime
from functools import partial

import structlog

from pacs_cbir.errors import PeerAway, PeerError, PeerRefuses, SettingsError
from pacs_cbir.pacs.archive import Archive
from pacs_cbir.pacs.pacing import Pace, Pacing, Stopped
from pacs_cbir.pacs.retrieve import retrieve
from pacs_cbir.pacs.studies import DAY, FIRST_DAY, StudySearch, instances_of_series
from pacs_cbir.store import backfills, holdings
from pacs_cbir.store.only_one import OnlyOne
from pacs_cbir.store.room import require_room
from pacs_cbir.store.session import Database

# After so many studies in a row that brought nothing at the first attempt, something is wrong with all of them.
IN_VAIN = 10

log = structlog.get_logger()


def days_of(study_date: str, today: date) -> tuple[date, date]:
    """A range as it is typed, `YYYYMMDD-YYYYMMDD`, `YYYYMMDD-` (to today) or `YYYYMMDD` → its first and last day.

    Without one, all days that a StudyDate can be of.

    Raises:
        SettingsError: it is none.
    """
    if not study_date:
        return FIRST_DAY, today
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
        show: told the studies by state, whenever they change, and the days that are searched to and will be, while it
            searches.

    Attributes:
        finished: whether it has come to its end.
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
        self._archive, self._database, self._wanted, self._say, self._show = archive, database, wanted, say, show
        self._search = StudySearch(archive, wanted.modality, wanted.body_part)
        self._alone = OnlyOne(database, wanted.peer)
        self._pacing = Pacing(wanted.peer, pace, self._alone, stop, say=say)
        self._row = 0
        self._in_vain = 0
        self.finished = False

    def run(self) -> dict[str, int]:
        """Find and fetch until nothing is left or `stop` is set; returns the studies by state.

        Raises:
            BackfillRuns: another backfill asks this PACS.
            SettingsError: the range of dates is none; nothing was written.
            PeerRefuses: the PACS does not let this service ask or fetch; the next run goes on.
            PeerAway: it has not answered once.
            PeerError: it answered a query with an error, or many studies in a row brought nothing; likewise.
            DatabaseUnavailable: at the start or after the end.
        """
        self.finished = False
        today = datetime.now().astimezone().date()
        days = days_of(self._wanted.study_date, today)
        with self._alone:
            with self._database.transaction() as connection:
                self._row, searched_to = backfills.begin(connection, self._wanted)
            try:
                self._find(*days, searched_to, today)
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

    def _find(self, first: date, last: date, searched_to: date | None, today: date) -> None:
        found: dict[str, int | None] = {}
        missing: list[str] = []
        if searched_to is not None:
            first = searched_to + DAY
        elif not self._wanted.study_date:
            found, self._pacing.heard = self._pacing.do(self._search.at_once)
            missing = list(self._search.incomplete)
            if self._pacing.heard:
                first = last + DAY
                self._pacing.do(partial(self._note, found, missing, today - DAY, last))
        while first <= last:
            of_days, until = self._pacing.do(partial(self._search.some_days, first, last))
            self._pacing.heard = True
            # What it would not name at once is noted only here: a PACS that answers no query of days either was asked
            # wrongly, and the next run asks for all studies again. So it does for those of today: more may come.
            noted = [*missing, *self._search.incomplete]
            self._pacing.do(partial(self._note, found | of_days, noted, min(until, today - DAY), last))
            found, missing, first = {}, [], until + DAY

    def _note(self, found: dict[str, int | None], missing: list[str], searched_to: date, last: date) -> None:
        with self._database.transaction() as connection:
            backfills.add_found(connection, self._row, found, missing, searched_to)
            counts = backfills.count(connection, self._row)
        if found:
            log.info("studies found", searched_to=f"{searched_to:%Y-%m-%d}", found=len(found))
        self._show(counts, (searched_to, last))

    def _fetch(self) -> None:
        while (study := self._pacing.do(self._next)) is not None:
            self._pacing.do(partial(self._fetch_one, study))
        self._pacing.do(self._finish)

    def _finish(self) -> None:
        with self._database.transaction() as connection:
            backfills.finish(connection, self._row)
        self.finished = True

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
        self._pacing.heard = True
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
        expected = study.instances_at_pacs or self._note_count(study, sum((by_series or {}).values()))
        if 0 < expected <= known:
            return None
        require_room(self._archive.settings)
        self._pacing.throttle()
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

    def _note_count(self, study: backfills.Pending, instances: int) -> int:
        if instances:
            with self._database.transaction() as connection:
                backfills.counted(connection, study, instances)
        return instances

    def _known(self, study: str, series: str | None = None) -> int:
        with self._database.reading() as connection:
            return holdings.count_known(connection, study, series)
