"""Which studies a PACS has, though it limits its answers, ignores keys or is slow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest
from archives import Orthanc, dcmqrscp, orthanc
from backfilling import JANUARY_DAYS, studies_between, study
from crooked_pacs import CrookedPacs
from dicom_factory import uid
from pydicom.uid import CTImageStorage

from pacs_cbir.errors import PeerError, PeerSilent
from pacs_cbir.pacs import query
from pacs_cbir.pacs.retrieve import open_archive
from pacs_cbir.pacs.studies import StudySearch, instances_of_series
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database

pytestmark = pytest.mark.peer


@pytest.mark.slow
def test_a_pacs_that_limits_its_answers_and_says_so(
    peer: Callable[[str], str], settings: Settings, database: Database, tmp_path: Path
) -> None:
    """Orthanc ends the query as if it had been cancelled."""
    names = {f"{day}-{second}": (f"202401{day:02}", f"1011{second:02}") for day in (3, 4) for second in range(5)}
    with orthanc(peer, tmp_path / "limited", LimitFindResults=2) as pacs:
        for name, (day, time) in names.items():
            pacs.add(study(name, 1, StudyDate=day, StudyTime=time))
        pacs.add(study("of no day", 1, StudyDate=""))
        search = StudySearch(open_archive(pacs.peer("c-get"), settings, database), "MR")
        days = JANUARY_DAYS
        found, incomplete = studies_between(search, *days)
        assert found.keys() == {uid(name) for name in names}
        assert incomplete == []
        pacs.add(study("twin", 1, StudyDate="20240103", StudyTime="101100"))
        pacs.add(study("triplet", 1, StudyDate="20240103", StudyTime="101100"))
        _, incomplete = studies_between(search, *days)
        assert search.at_once()[1] is False
        assert [one for one in incomplete if "2024-01-03 101100" in one]


@pytest.mark.parametrize("old_forms", [False, True])
def test_a_pacs_that_limits_its_answers_and_says_nothing(
    crooked: CrookedPacs, scp: Settings, database: Database, *, old_forms: bool
) -> None:
    crooked.old_forms = old_forms
    for day in range(1, 29):
        crooked.hold(study(f"day {day}", 1, StudyDate=f"202401{day:02}"))
    for second in range(30):
        crooked.hold(study(f"second {second}", 1, StudyDate="20240120", StudyTime=f"1011{second:02}"))
    crooked.limit = 25
    search = StudySearch(open_archive(crooked.peer(), scp, database), "MR")
    found, incomplete = studies_between(search, *JANUARY_DAYS)
    assert len(found) == 58
    assert incomplete == []


def test_a_pacs_that_ignores_keys_is_checked(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    crooked.hold([*study("mr", 1), *study("ct", 1, Modality="CT", SOPClassUID=CTImageStorage)])
    crooked.ignores = {"ModalitiesInStudy"}
    search = StudySearch(open_archive(crooked.peer(), scp, database), "MR")
    days = JANUARY_DAYS
    assert studies_between(search, *days)[0].keys() == {uid("mr")}
    crooked.silent_about = {"ModalitiesInStudy"}
    assert studies_between(search, *days)[0].keys() == {uid("mr")}
    crooked.ignores = {"StudyDate"}
    with pytest.raises(PeerError, match="answered with others"):
        search.some_days(date(2023, 1, 1), date(2023, 1, 31))


MOSTLY = (date(2000, 1, 1), date(2024, 1, 31))


def ranges(crooked: CrookedPacs) -> list[str]:
    """The StudyDates that it was asked for."""
    return [str(asked.StudyDate) for asked in crooked.asked if asked.QueryRetrieveLevel == "STUDY"]


def test_days_with_few_studies_are_asked_for_together(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    crooked.hold(study("one", 1, StudyDate="20200505"))
    search = StudySearch(open_archive(crooked.peer(), scp, database), "MR")
    found, incomplete = studies_between(search, *MOSTLY)
    assert found == {uid("one"): 1}
    assert incomplete == []
    assert ranges(crooked)[:3] == ["20000101-20000131", "20000201-20000402", "20000403-20000804"]
    assert len(ranges(crooked)) < 12


def test_a_pacs_that_is_silent_over_many_days_is_asked_for_fewer(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.delays = [3.0]
    search = StudySearch(open_archive(crooked.peer(timeout_seconds=1), scp, database), "MR")
    with pytest.raises(PeerSilent, match="was silent for 1 s"):
        search.some_days(*MOSTLY)
    assert search.some_days(*MOSTLY) == ({}, date(2000, 1, 15))
    assert ranges(crooked) == ["20000101-20000131", "20000101-20000115"]


def test_more_answers_than_are_read_are_cancelled_and_asked_for_in_parts(
    crooked: CrookedPacs, scp: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "MOST_ANSWERS", 5)
    for day in range(1, 29):
        crooked.hold(study(f"day {day}", 1, StudyDate=f"202401{day:02}"))
    crooked.pause = 0.02
    search = StudySearch(open_archive(crooked.peer(), scp, database), "MR")
    found, incomplete = studies_between(search, *JANUARY_DAYS)
    assert len(found) == 28
    assert incomplete == []
    assert crooked.cancelled > 0


def test_a_pacs_that_has_too_many_answers_to_everything_is_not_asked_without_end(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.too_many = True
    search = StudySearch(open_archive(crooked.peer(), scp, database), "MR")
    with pytest.raises(PeerError, match="too many answers to every query, and gives none"):
        search.some_days(*JANUARY_DAYS)
    assert len(crooked.asked) < 40


@pytest.mark.parametrize("refused", [False, True])
def test_a_pacs_that_does_not_answer_for_all_studies_at_once_is_asked_by_days(
    crooked: CrookedPacs, scp: Settings, database: Database, *, refused: bool
) -> None:
    crooked.hold(study("one", 1))
    crooked.refuses_all = refused
    crooked.delays = [] if refused else [3.0]
    search = StudySearch(open_archive(crooked.peer(timeout_seconds=1), scp, database), "MR")
    assert search.at_once() == ({}, False)
    [missing] = search.incomplete
    assert "without a StudyDate" in missing
    assert search.some_days(*JANUARY_DAYS)[0] == {uid("one"): 1}


@pytest.mark.parametrize("way", ["dcmqrscp", "c-get", "dicomweb"])
def test_all_studies_are_found_at_once_although_they_are_many(
    request: pytest.FixtureRequest,
    settings: Settings,
    database: Database,
    peer: Callable[[str], str],
    tmp_path: Path,
    *,
    way: str,
) -> None:
    held = study("of no day", 1, StudyDate="")
    for number in range(24):
        held += study(str(number), 1, StudyDate=f"202401{number // 2 + 1:02}")
    with ExitStack() as stack:
        if way == "dcmqrscp":
            theirs = stack.enter_context(dcmqrscp(peer, tmp_path / "dcmqrscp", settings, held))
        else:
            pacs: Orthanc = request.getfixturevalue("pacs")
            pacs.add(held)
            theirs = pacs.peer(way)
        search = StudySearch(open_archive(theirs, settings, database), "MR")
        found, whole = search.at_once()
    assert whole
    assert found.keys() == {ds.StudyInstanceUID for ds in held}
    assert search.incomplete == []


@pytest.mark.parametrize("limit", [None, 25])
def test_all_studies_at_once_are_checked_by_halves(
    crooked: CrookedPacs, scp: Settings, database: Database, limit: int | None
) -> None:
    for number in range(56):
        crooked.hold(study(str(number), 1, StudyDate=f"202401{number // 2 + 1:02}"))
    crooked.hold(study("of no day", 1, StudyDate=""))
    crooked.limit = limit
    search = StudySearch(open_archive(crooked.peer(), scp, database), "MR")
    found, whole = search.at_once()
    assert whole is (limit is None)
    assert len(found) == (57 if whole else 0)
    assert len(search.incomplete) == (0 if whole else 1)


def test_instances_of_a_series_are_counted_once_each_and_all_or_not_at_all(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold(study("uncounted", 3))
    crooked.silent_about = {"NumberOfSeriesRelatedInstances"}
    crooked.repeats = 2
    name, series = str(uid("uncounted")), str(uid("uncounted", "series"))
    assert instances_of_series(open_archive(crooked.peer(), scp, database), name) == {series: 3}
    limited = open_archive(crooked.peer(find_limit=4), scp, database)
    with pytest.raises(PeerError, match=r"more instances of study .* than it names at once"):
        instances_of_series(limited, name)
