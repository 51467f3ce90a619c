"""Hours of the week in which heavy work may run, as an admin writes them: `Mon-Fri 19:00-06:00, Sat-Sun`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pacs_cbir.errors import SettingsError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS_OF_DAY = 24
HOURS_OF_WEEK = HOURS_OF_DAY * len(DAYS)
PART = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:\s*-\s*(?P<last>[a-z]{3}))?)?"
    r"\s*(?:(?P<start>\d{1,2}):00\s*-\s*(?P<end>\d{1,2}):00)?"
)
ACCEPTED = (
    "days (Mon-Fri, Sat), whole hours (19:00-06:00) or both, and commas between them: Mon-Fri 19:00-06:00, Sat-Sun"
)


@dataclass(frozen=True)
class Hours:
    """Whole hours of the week, in this machine's time zone.

    Attributes:
        hours_of_week: those that are allowed, ascending; 0 is Monday 00:00 to 00:59, 167 the end of Sunday.
    """

    hours_of_week: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Hours from parts such as `Mon-Fri 19:00-06:00`, `Sat-Sun` or `22:00-05:00`, with commas between them.

        Hours that end before they start go on into the next day. Days without hours are whole, hours without days are
        every day's.

        Raises:
            SettingsError: a part that cannot be understood; says which and what is accepted.
        """
        return cls(tuple(sorted({hour for part in text.split(",") for hour in _hours_of(part)})))

    def allows(self, moment: datetime) -> bool:
        """Whether work may run at a moment; one without a time zone is this machine's."""
        local = moment.astimezone()
        return local.weekday() * HOURS_OF_DAY + local.hour in self.hours_of_week

    def next_allowed(self, moment: datetime) -> datetime:
        """The moment itself where it is allowed, else the start of the next hour that is, in this machine's zone."""
        if self.allows(moment):
            return moment.astimezone()
        hour = moment.astimezone().replace(minute=0, second=0, microsecond=0).astimezone(UTC)
        # Two more than a week has: clocks that are put forward skip hours.
        later = ((hour + timedelta(hours=count)).astimezone() for count in range(1, HOURS_OF_WEEK + 2))
        return next(start for start in later if self.allows(start))


def _hours_of(part: str) -> set[int]:
    found = PART.fullmatch(part.strip().lower())
    if found is None or not part.strip():
        raise _unclear(part)
    first, last, start, end = found.group("first", "last", "start", "end")
    if any(day is not None and day not in DAYS for day in (first, last)):
        raise _unclear(part)
    begin = 0 if first is None else DAYS.index(first)
    until = len(DAYS) - 1 if first is None else DAYS.index(last or first)
    days = [(begin + day) % len(DAYS) for day in range((until - begin) % len(DAYS) + 1)]
    opens, closes = (0, HOURS_OF_DAY) if start is None else (int(start), int(end))
    if opens >= HOURS_OF_DAY or closes > HOURS_OF_DAY or opens == closes:
        raise _unclear(part)
    length = closes - opens if closes > opens else closes - opens + HOURS_OF_DAY
    return {(day * HOURS_OF_DAY + opens + hour) % HOURS_OF_WEEK for day in days for hour in range(length)}


def _unclear(part: str) -> SettingsError:
    return SettingsError(f"hours: {part.strip()!r} is not understood; accepted are {ACCEPTED}")
