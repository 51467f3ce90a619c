"""Hours of the week: what an admin may write, and what it means."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_cbir.errors import SettingsError
from pacs_cbir.hours import DAYS, HOURS_OF_WEEK, Hours

MONDAY = datetime(2026, 3, 2)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(hour_of_week: float) -> datetime:
    return MONDAY + timedelta(hours=hour_of_week)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("Mon 08:00-10:00", {8, 9}),
        ("mon 8:00 - 10:00", {8, 9}),
        ("Tue 22:00-02:00", {46, 47, 48, 49}),
        ("Sun 23:00-01:00", {167, 0}),
        ("Wed", set(range(48, 72))),
        ("Wed 00:00-24:00", set(range(48, 72))),
        ("Sat-Sun", set(range(120, 168))),
        ("Sun-Mon 05:00-06:00", {149, 5}),
        ("05:00-06:00", {5 + 24 * day for day in range(7)}),
        ("Mon-Sun", set(range(168))),
        ("Mon 08:00-10:00,Mon 09:00-11:00", {8, 9, 10}),
    ],
)
def test_what_is_meant(text: str, hours: set[int]) -> None:
    assert Hours.parse(text).hours_of_week == tuple(sorted(hours))


def test_nights_and_the_weekend() -> None:
    hours = Hours.parse("Mon-Fri 19:00-06:00, Sat-Sun")
    assert [hours.allows(at(hour)) for hour in (5.99, 18.99, 19, 24 + 5.99, 24 + 6)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    # Friday's night goes on into Saturday, Monday's early hours belong to no night.
    assert all(hours.allows(at(hour)) for hour in range(4 * 24 + 19, HOURS_OF_WEEK))
    assert hours.next_allowed(at(10.5)) == at(19).astimezone()
    assert hours.next_allowed(at(20.5)) == at(20.5).astimezone()
    assert Hours.parse("Mon 09:00-10:00").next_allowed(at(10)) == at(HOURS_OF_WEEK + 9).astimezone()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mon,",
        "Mon-",
        "Monday",
        "Mon-Fry",
        "Mon 8-10",
        "Mon 08:30-10:00",
        "Mon 24:00-02:00",
        "Mon 08:00-25:00",
        "Mon 08:00-08:00",
        "Mon 08:00",
        "nights",
    ],
)
def test_what_cannot_be_understood_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="accepted are days") as raised:
        Hours.parse(text)
    assert repr(text.rsplit(",", maxsplit=1)[-1]) in str(raised.value)


def test_hours_are_the_machines_also_where_clocks_are_put_forward(zone: None) -> None:
    hours = Hours.parse("Sun 02:00-04:00")
    assert hours.allows(datetime(2026, 3, 1, 1, 30, tzinfo=UTC))
    assert not hours.allows(datetime(2026, 3, 1, 3, 0, tzinfo=UTC))
    # On 29 March 2026 the hour from 02:00 is missing in Berlin: 03:00 CEST is 01:00 UTC.
    assert hours.next_allowed(datetime(2026, 3, 28, 12, tzinfo=UTC)) == datetime(2026, 3, 29, 1, tzinfo=UTC)


@given(
    st.sampled_from(DAYS), st.sampled_from(DAYS), st.integers(0, 23), st.integers(0, 24), st.floats(0, 168, width=16)
)
def test_the_next_allowed_moment_is_allowed_and_the_first(
    first: str, last: str, start: int, end: int, hour: float
) -> None:
    if start == end:
        return
    hours = Hours.parse(f"{first}-{last} {start:02}:00-{end:02}:00")
    assert set(hours.hours_of_week) <= set(range(HOURS_OF_WEEK))
    found = hours.next_allowed(at(hour))
    assert hours.allows(found)
    between = int((found - at(hour).astimezone()).total_seconds() // 3600)
    assert not any(
        hours.allows(at(hour + passed)) for passed in range(between) if at(hour + passed) < found.replace(tzinfo=None)
    )
