"""Backfill from real archives, with kills and outages in the middle."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from pathlib import Path

import psycopg2
import pytest
from archives import Orthanc
from arriving import arrive
from backfilling import EVERYTHING, FAST, JANUARY, backfill_of, run, study
from crooked_pacs import CrookedPacs
from dicom_factory import mr_instance, uid
from pydicom.uid import CTImageStorage
from rich.console import Console
from running import listens, pacs_cbir, wait_until
from stored import rows
from structlog.testing import capture_logs

from pacs_cbir.backfill import run_backfill, study_dates
from pacs_cbir.errors import BackfillRuns, PeerAway, PeerError, PeerRefuses, SettingsError
from pacs_cbir.hours import Hours
from pacs_cbir.pacs import pacing, retrieve
from pacs_cbir.pacs.backfill import IN_VAIN, Backfill, days_of
from pacs_cbir.pacs.pacing import Pace
from pacs_cbir.pacs.retrieve import open_archive
from pacs_cbir.pacs.studies import FIRST_DAY
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.status import print_status
from pacs_cbir.store import only_one
from pacs_cbir.store.backfills import Filter, summaries
from pacs_cbir.store.embedded import OWNER, EmbeddedPostgres
from pacs_cbir.store.only_one import OnlyOne
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import backfill_studies, backfills, instances, studies

pytestmark = pytest.mark.peer


def arrivals(database: Database) -> dict[str, object]:
    """SOP Instance UID → when it was received."""
    return {row.sop_instance_uid: row.received_at for row in rows(database, instances)}


@pytest.mark.parametrize("way", ["c-move", "c-get", "dicomweb"])
def test_what_is_asked_for_comes_once(pacs: Orthanc, scp: Settings, database: Database, way: str) -> None:
    wanted = [*study("first", StudyDate="20240101"), *study("last", StudyDate="20240131")]
    others = [
        *study("before", StudyDate="20231231"),
        *study("after", StudyDate="20240201"),
        *study("ct", StudyDate="20240110", Modality="CT", SOPClassUID=CTImageStorage),
    ]
    pacs.add([*wanted, *others])
    assert run(pacs.peer(way), scp, database)[0] == {"waiting": 0, "done": 2, "parked": 0}
    came = arrivals(database)
    assert came.keys() == {ds.SOPInstanceUID for ds in wanted}
    # The same command looks again, and finds a study that has grown and one that is new.
    grown = mr_instance("Pfirst", "first", "another", StudyDate="20240101")
    new = study("new", StudyDate="20240115")
    pacs.add([grown, *new])
    assert run(pacs.peer(way), scp, database)[0] == {"waiting": 0, "done": 3, "parked": 0}
    later = arrivals(database)
    assert later.keys() - came.keys() == {grown.SOPInstanceUID, *(ds.SOPInstanceUID for ds in new)}
    assert {name: later[name] for name in came} == came


@pytest.mark.parametrize("way", ["c-get", "dicomweb"])
def test_all_studies_those_without_a_date_too(pacs: Orthanc, scp: Settings, database: Database, way: str) -> None:
    wanted = [
        *study("dated"),
        *study("of no day", StudyDate="", StudyTime=""),
        *study("without it", StudyDate=None),
        *study("of the future", StudyDate="29990101"),
    ]
    pacs.add([*wanted, *study("ct", Modality="CT", SOPClassUID=CTImageStorage)])
    backfill, _ = backfill_of(pacs.peer(way), scp, database, EVERYTHING)
    assert backfill.run() == {"waiting": 0, "done": 4, "parked": 0}
    assert backfill.incomplete() == []
    assert arrivals(database).keys() == {ds.SOPInstanceUID for ds in wanted}
    pacs.add(study("new", StudyDate=""))
    assert backfill.run() == {"waiting": 0, "done": 5, "parked": 0}


def test_after_a_wrong_address_all_studies_are_asked_for_again(
    pacs: Orthanc, scp: Settings, database: Database
) -> None:
    pacs.add(study("of no day", StudyDate=""))
    wrong, _ = backfill_of(pacs.peer("dicomweb", dicomweb_url=f"{pacs.url}/dicom-wob"), scp, database, EVERYTHING)
    with pytest.raises(PeerError, match="is dicomweb_url in PACS_CBIR_PEERS"):
        wrong.run()
    right, said = backfill_of(pacs.peer("dicomweb"), scp, database, EVERYTHING)
    assert right.run() == {"waiting": 0, "done": 1, "parked": 0}
    assert (right.incomplete(), said) == ([], [])


def test_what_may_be_missing_of_all_studies_is_told(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    crooked.hold(study("of no day", 1, StudyDate=""))
    for day in range(1, 5):
        crooked.hold(study(f"day {day}", 1, StudyDate=f"202401{day:02}"))
    crooked.hold(study("of no day either", 1, StudyDate=""))
    crooked.limit = 3
    backfill, _ = backfill_of(crooked.peer(find_limit=3), scp, database, EVERYTHING)
    assert backfill.run() == {"waiting": 0, "done": 5, "parked": 0}
    [missing] = backfill.incomplete()
    assert "and 1 without a StudyDate were among those" in missing
    shown = Console(record=True, width=400)
    print_status(scp, database, shown)
    assert missing in shown.export_text()


def test_what_comes_twice_or_unasked_does_not_count(
    crooked: CrookedPacs, scp: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieve, "ARRIVAL_SECONDS", 0.3)
    crooked.hold([*study("whole"), *study("broken")])
    crooked.broken = {str(uid("broken", "series", 2))}
    crooked.repeats, crooked.strays = 2, study("stray", 1)
    backfill, _ = backfill_of(crooked.peer(), scp, database)
    assert backfill.run() == {"waiting": 0, "done": 1, "parked": 1}
    [error] = backfill.parked().values()
    assert "1 of 2 instances are here" in error
    assert "says that it sent 3 instances, and 1 are here: it sent some twice, or of another study" in error
    assert uid("stray", "series", 1) in arrivals(database)


def test_a_study_over_which_a_pacs_falls_silent_does_not_keep_the_others_there(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold([*study("silent"), *study("uncounted")])
    crooked.silent_about = {"NumberOfStudyRelatedInstances"}
    crooked.delays = [0, *[2.0] * scp.job_attempts]
    hurried = crooked.peer(timeout_seconds=1)
    counts, said = run(hurried, scp, database)
    assert counts["done"] == 2
    assert said == []


def test_a_pacs_that_says_without_end_that_it_is_sending_is_given_up(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold(study("endless"))
    crooked.endless = True
    backfill, _ = backfill_of(crooked.peer(timeout_seconds=1), scp, database)
    assert backfill.run() == {"waiting": 0, "done": 0, "parked": 1}
    assert crooked.moved == {uid("endless"): scp.job_attempts}
    [error] = backfill.parked().values()
    assert "has said for 1 s that it is sending" in error
    assert "does the PACS know our AE title" in error


def test_a_pacs_that_does_not_count_is_waited_for_while_instances_arrive(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold(study("slow", 4))
    crooked.endless = True
    with ThreadPoolExecutor(1) as pool:
        counts = pool.submit(run, crooked.peer(timeout_seconds=1), scp, database)
        wait_until(lambda: crooked.moved.total() > 0, 30)
        for ds in study("slow", 3):
            time.sleep(0.8)
            arrive(database, scp, ds)
        crooked.endless = False
        assert counts.result(60)[0] == {"waiting": 0, "done": 1, "parked": 0}
    assert crooked.moved == {uid("slow"): 1}


def test_a_body_part_is_a_series_attribute(pacs: Orthanc, scp: Settings, database: Database) -> None:
    pacs.add([*study("head", BodyPartExamined="HEAD"), *study("knee", BodyPartExamined="KNEE")])
    counts, _ = run(pacs.peer("c-get"), scp, database, Filter("pacs", "20240101-", "MR", "KNEE"))
    assert counts["done"] == 1
    assert [row.study_instance_uid for row in rows(database, studies)] == [uid("knee")]


def test_counts_that_are_none_and_studies_without_a_uid_do_not_keep_the_others_there(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold([*study("honest"), *study("counted wrongly"), *study("named wrongly")])
    crooked.counts = {str(uid("counted wrongly")): 99999999999}
    crooked.names = {str(uid("named wrongly")): "1.2.three"}
    archive = open_archive(crooked.peer(), scp, database)
    backfill = Backfill(archive, database, JANUARY, FAST, threading.Event(), say=print, show=lambda *_: None)
    assert backfill.run() == {"waiting": 0, "done": 2, "parked": 0}
    [missing] = backfill.incomplete()
    assert "without a valid StudyInstanceUID" in missing


def test_what_the_pacs_did_not_tell_is_known_to_the_next_run(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold([*study("honest"), *study("named wrongly")])
    crooked.names = {str(uid("named wrongly")): "1.2.three"}
    archive, stop = open_archive(crooked.peer(), scp, database), threading.Event()
    first = Backfill(archive, database, JANUARY, FAST, stop, say=print, show=lambda *_: stop.set())
    assert first.run() == {"waiting": 1, "done": 0, "parked": 0}
    crooked.names = {}
    for ended in ({"waiting": 0, "done": 1, "parked": 0}, {"waiting": 0, "done": 2, "parked": 0}):
        later = Backfill(archive, database, JANUARY, FAST, threading.Event(), say=print, show=lambda *_: None)
        assert later.run() == ended
        shown = Console(record=True, width=200)
        print_status(scp, database, shown)
        missing = ended["done"] == 1
        assert bool(later.incomplete()) is missing
        assert ("without a valid StudyInstanceUID" in shown.export_text()) is missing


def test_a_pacs_that_lies_about_counts_is_asked_so_often_and_no_more(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold([*study("honest"), *study("lied about")])
    crooked.counts = {str(uid("lied about")): 5}
    counts, _ = run(crooked.peer(), scp, database)
    assert counts == {"waiting": 0, "done": 1, "parked": 1}
    [parked] = [row for row in rows(database, backfill_studies) if row.state == "parked"]
    assert parked.study_instance_uid == uid("lied about")
    assert parked.attempts == scp.job_attempts
    assert "2 of 5 instances are here: the PACS reports no failure" in parked.error
    assert crooked.moved[str(uid("honest"))] == 1
    assert crooked.moved[str(uid("lied about"))] == scp.job_attempts


@pytest.mark.parametrize("silent_about", [set(), {"NumberOfStudyRelatedInstances"}])
def test_a_study_that_came_after_all_is_listed_as_failed_no_more(
    crooked: CrookedPacs, scp: Settings, database: Database, silent_about: set[str]
) -> None:
    crooked.hold([*study("late"), *study("in part")])
    crooked.silent_about = silent_about
    late, in_part = str(uid("late")), str(uid("in part"))
    crooked.broken = {str(uid("late", "series", 2)), str(uid("in part", "series", 2))}
    assert run(crooked.peer(), scp, database)[0] == {"waiting": 0, "done": 0, "parked": 2}
    crooked.broken = {str(uid("in part", "series", 2))}
    archive = open_archive(crooked.peer(), scp, database)
    for name in (late, in_part):
        retrieve.retrieve(archive, database, name)
    with database.reading() as connection:
        [kept] = summaries(connection)
    assert kept.counts == {"waiting": 0, "done": 1, "parked": 1}
    assert kept.parked.keys() == {in_part}
    shown = Console(record=True, width=400)
    print_status(scp, database, shown)
    assert in_part in shown.export_text(clear=False)
    assert late not in shown.export_text()


def test_a_pacs_that_does_not_count_is_counted(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    crooked.hold(study("uncounted", 3))
    crooked.silent_about = {"NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"}
    assert run(crooked.peer(), scp, database)[0]["done"] == 1
    assert len(arrivals(database)) == 3
    run(crooked.peer(), scp, database)
    assert crooked.moved == {str(uid("uncounted")): 1}


def test_a_slow_pacs_is_waited_for_and_a_silent_one_counts_as_away(
    crooked: CrookedPacs, scp: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_PAUSE_SECONDS", 0.1)
    crooked.hold(study("slow", 1))
    crooked.delays = [3.0, 0.5]
    counts, said = run(crooked.peer(timeout_seconds=1.5), scp, database)
    assert counts["done"] == 1
    assert len(said) == 1
    assert "ended a query before it was answered, or was silent for 1.5 s" in said[0]
    assert said[0].endswith("; trying again in 0.1 s")


def test_failed_instances_are_named(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    crooked.hold(study("broken"))
    crooked.broken = {str(uid("broken", "series", 2))}
    assert run(crooked.peer(), scp, database)[0]["parked"] == 1
    [row] = rows(database, backfill_studies)
    assert "1 of 2 instances are here" in row.error
    assert f"could not send 1 instances by C-MOVE (status B000H): {uid('broken', 'series', 2)}" in row.error


def test_a_pacs_that_disappears_is_waited_for(
    pacs: Orthanc, scp: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_PAUSE_SECONDS", 0.1)
    for number in range(6):
        pacs.add(study(f"study {number}"))
    ended: list[dict[str, int]] = []
    # A few studies a second: it disappears in the middle.
    thread = threading.Thread(target=lambda: ended.append(run(pacs.peer("c-move"), scp, database, pace=Pace(120))[0]))
    thread.start()
    try:
        wait_until(lambda: len(rows(database, studies)) >= 2, 30)
        pacs.kill()
        wait_until(lambda: not listens(pacs.dicom_port))
    finally:
        pacs.start()
        pacs.knows(scp)
        thread.join()
    assert ended == [{"waiting": 0, "done": 6, "parked": 0}]
    assert len(arrivals(database)) == 12


def test_a_pacs_that_never_answered_is_asked_a_few_times_alone(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(PeerAway, match=r"A at 127\.0\.0\.1:1 does not answer.* 4 tries: .*PACS_CBIR_PEERS \(pacs\)"):
        run(Peer(ae_title="A", host="127.0.0.1", port=1), settings, database)


@pytest.mark.parametrize("wanted", [JANUARY, EVERYTHING])
def test_a_pacs_that_does_not_know_us_is_asked_a_few_times_alone(
    pacs: Orthanc, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, wanted: Filter
) -> None:
    """Orthanc aborts the association of a stranger who asks."""
    monkeypatch.setattr(pacing, "FIRST_PAUSE_SECONDS", 0.01)
    stranger = settings.model_copy(update={"ae_title": "STRANGER"})
    with pytest.raises(PeerAway, match=r"do not know our AE title STRANGER, and has not answered once in 4 tries"):
        run(pacs.peer("c-move"), stranger, database, wanted)


def test_the_search_shows_how_far_it_is_and_logs_days_with_studies(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    crooked.hold(study("one", 1))
    shown: list[tuple[int, tuple[date, date] | None]] = []
    wanted = Filter("pacs", "20231001-20240131", "MR", "")
    backfill = Backfill(
        open_archive(crooked.peer(), scp, database),
        database,
        wanted,
        FAST,
        threading.Event(),
        say=print,
        show=lambda counts, searched: shown.append((sum(counts.values()), searched)),
    )
    with capture_logs() as logs:
        backfill.run()
    searched = [one for _, one in shown if one is not None]
    assert [to for to, _ in searched] == [date(2023, 10, 31), date(2024, 1, 1), date(2024, 1, 31)]
    assert {last for _, last in searched} == {date(2024, 1, 31)}
    assert shown[-1] == (1, None)
    assert [entry["found"] for entry in logs if entry["event"] == "studies found"] == [1]


@pytest.mark.slow
def test_a_killed_backfill_goes_on_and_fetches_nothing_twice(
    pacs: Orthanc, scp: Settings, database: Database, environment: dict[str, str], tmp_path: Path
) -> None:
    for number in range(8):
        pacs.add(study(f"study {number}"))
    theirs = pacs.peer("c-get").model_dump_json(exclude_none=True)
    given = environment | {"COLUMNS": "200", "PACS_CBIR_PEERS": f'{{"pacs": {theirs}}}'}
    arguments = ["backfill", "--study-date", "20240101-", "--studies-per-minute"]
    with (tmp_path / "log").open("ab") as log:
        first = subprocess.Popen(
            [sys.executable, "-m", "pacs_cbir", *arguments, "60"], env=given, stdout=log, stderr=log
        )
        wait_until(lambda: len([row for row in rows(database, backfill_studies) if row.state == "done"]) >= 2, 60)
        first.kill()
        first.wait()
    done = {row.study_instance_uid for row in rows(database, backfill_studies) if row.state == "done"}
    assert 2 <= len(done) < 8
    before = arrivals(database)
    second = pacs_cbir(given, *arguments, "100000")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "8 found, 8 here, 0 failed, 0 left" in second.stdout
    later = arrivals(database)
    assert len(later) == 16
    assert {name: later[name] for name in before} == before
    status = pacs_cbir(given, "status")
    assert (status.returncode, "20240101-" in status.stdout) == (0, True), status.stderr
    assert "Test^" not in (tmp_path / "log").read_text() + second.stdout + second.stderr


def test_outside_of_the_hours_nothing_is_asked(settings: Settings, database: Database) -> None:
    """The peer is not there: asking it would be told."""
    stop = threading.Event()
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        stop.set()

    away = open_archive(Peer(ae_title="A", host="127.0.0.1", port=1), settings, database)
    never = Pace(FAST.studies_per_minute, Hours(hours_of_week=_not_now()))
    counts = Backfill(away, database, JANUARY, never, stop, say=say, show=lambda *_: None).run()
    assert counts == {"waiting": 0, "done": 0, "parked": 0}
    assert "outside of the hours: waiting until" in said[0]
    assert said[-1] == "stopped; the same command goes on"


def _not_now() -> tuple[int, ...]:
    from datetime import datetime

    now = datetime.now().astimezone()
    return ((now.weekday() * 24 + now.hour + 84) % 168,)


def test_one_backfill_a_pacs_at_once(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(only_one, "LOCK_SECONDS", 0.0)
    with OnlyOne(database, "pacs"):
        with pytest.raises(BackfillRuns, match="pacs"), OnlyOne(database, "pacs"):
            pass
        with OnlyOne(database, "another"):
            pass
    with OnlyOne(database, "pacs"):
        pass


def test_one_backfill_a_pacs_at_once_though_connections_end(
    database: Database, postgres: EmbeddedPostgres, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(only_one, "LOCK_SECONDS", 0.0)
    with closing(Database(database_url)) as elsewhere, OnlyOne(database, "pacs") as alone:
        cut(database, postgres)
        alone.hold()
        with pytest.raises(BackfillRuns), OnlyOne(elsewhere, "pacs"):
            pass
        elsewhere.close()
        cut(database, postgres)
        with OnlyOne(elsewhere, "pacs"), pytest.raises(BackfillRuns):
            alone.hold()
        alone.hold()
        cut(database, postgres)


def cut(database: Database, postgres: EmbeddedPostgres) -> None:
    """End the database's connections, as a restart of Postgres does."""
    with closing(psycopg2.connect(postgres.url(OWNER, "postgres").replace("+psycopg2", ""))) as raw:
        raw.cursor().execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [database.url.database]
        )


@pytest.mark.slow
def test_many_studies_in_a_row_that_bring_nothing_end_it(
    crooked: CrookedPacs, scp: Settings, database: Database
) -> None:
    for number in range(IN_VAIN + 2):
        crooked.hold(study(f"study {number}", 1))
        crooked.broken.add(str(uid(f"study {number}", "series", 1)))
    with pytest.raises(PeerError, match=f"{IN_VAIN} studies in a row brought nothing"):
        run(crooked.peer(), scp, database)
    crooked.broken.clear()
    assert run(crooked.peer(), scp, database)[0]["done"] == IN_VAIN + 2


def test_a_pacs_that_refuses_ends_it(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    crooked.hold(study("one"))
    with pytest.raises(PeerRefuses, match="A801H"):
        run(crooked.peer(), scp.model_copy(update={"ae_title": "STRANGER"}), database)
    assert run(crooked.peer(), scp, database)[0]["done"] == 1


def test_what_was_stopped_is_not_complete(crooked: CrookedPacs, scp: Settings, database: Database) -> None:
    settings = scp.model_copy(update={"peers": {"pacs": crooked.peer()}})
    stop = threading.Event()
    shown = Console(record=True)
    assert run_backfill(settings, database, JANUARY, FAST, stop, console=shown)
    stop.set()
    assert not run_backfill(settings, database, JANUARY, FAST, stop, console=shown)
    assert "stopped; the same command goes on" in shown.export_text()


@pytest.mark.parametrize("wrong", ["2020", "20200131-20200101"])
def test_a_range_that_is_none_leaves_no_backfill_behind(settings: Settings, database: Database, wrong: str) -> None:
    away = Peer(ae_title="A", host="127.0.0.1", port=1)
    with pytest.raises(SettingsError, match="--study-date"):
        run(away, settings, database, Filter("pacs", wrong, "MR", ""))
    assert rows(database, backfills) == []


def test_all_studies_are_asked_for_by_no_date_and_not_by_an_empty_one() -> None:
    assert (study_dates(None), study_dates(" 20200101- ")) == ("", "20200101-")
    for empty in ("", " "):
        with pytest.raises(SettingsError, match="--study-date is empty"):
            study_dates(empty)


def test_ranges_of_days() -> None:
    today = date(2024, 5, 6)
    assert days_of("20200101-", today) == (date(2020, 1, 1), today)
    assert days_of("20200101-20200131", today) == (date(2020, 1, 1), date(2020, 1, 31))
    assert days_of("20200101", today) == (date(2020, 1, 1), date(2020, 1, 1))
    assert days_of("", today) == (FIRST_DAY, today)
    for wrong in ("-20200101", "2020", "20201301", "20200131-20200101", "20990101-"):
        with pytest.raises(SettingsError, match="--study-date"):
            days_of(wrong, today)
