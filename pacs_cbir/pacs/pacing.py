"""When and how fast a PACS is asked, and how long it is waited for: for it, the database and the disk."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pacs_cbir.errors import DatabaseUnavailable, DiskUnavailable, PeerAway, PeerSilent
from pacs_cbir.hours import Hours
from pacs_cbir.store.only_one import OnlyOne

# Growing pauses while the PACS, the database or the disk is away.
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0
# A PACS that has not answered once is more likely written down wrongly than away.
FIRST_CONTACTS = 4
# Hours are looked at again this often, for clocks that are set.
LOOK_SECONDS = 60.0

Given = TypeVar("Given")


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


class Pacing:
    """Does one step after the other, at a pace.

    Args:
        peer: the PACS' name in the settings.
        alone: held before each step.
        stop: set, it ends each wait, and no step begins.
        say: told what a person wants to know, in a sentence.

    Attributes:
        heard: whether the PACS has answered once; set by whoever asks it.
    """

    def __init__(
        self, peer: str, pace: Pace, alone: OnlyOne, stop: threading.Event, *, say: Callable[[str], None]
    ) -> None:
        self._peer, self._pace, self._alone, self._stop, self._say = peer, pace, alone, stop, say
        self._begun: float | None = None
        self.heard = False

    def do(self, step: Callable[[], Given]) -> Given:
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
            except (PeerAway, PeerSilent, DatabaseUnavailable, DiskUnavailable) as error:
                if isinstance(error, PeerAway | PeerSilent) and not self.heard and tries >= FIRST_CONTACTS:
                    raise PeerAway(
                        f"{error}, and has not answered once in {tries} tries: is it up, and is its address in "
                        f"PACS_CBIR_PEERS ({self._peer}) right?"
                    ) from error
                self._say(f"{error}; trying again in {pause:g} s")
            self._wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        raise AssertionError("counting ends nowhere")

    def throttle(self) -> None:
        """To be called before each retrieval.

        Raises:
            Stopped: the run was asked to end.
        """
        if self._begun is not None:
            self._wait(self._begun + 60 / self._pace.studies_per_minute - time.monotonic())
        self._begun = time.monotonic()

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
