"""Pixel data that leaves: which, when, in which order, and what a crash leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from arriving import arrive
from dicom_factory import mr_instance, uid
from running import pacs_cbir
from sqlalchemy import insert, text, update
from stack_rows import add_encoder, new_stack, random_vectors, save
from stored import files, rows

from pacs_cbir.errors import SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store import files as store_files
from pacs_cbir.store import retention
from pacs_cbir.store.ingest import Outcome
from pacs_cbir.store.session import Database
from pacs_cbir.store.status import service_status
from pacs_cbir.store.tables import instances, jobs, series

SLICES = 3
DICE = np.random.default_rng(0)


def receive(database: Database, settings: Settings, study: str, number: int, **attributes: object) -> Outcome:
    return arrive(database, settings, study=study, number=number, **attributes)


def embed(database: Database, study: str) -> None:
    """As a worker does at the end of the series' job."""
    with database.transaction() as connection:
        encoder_id = add_encoder(connection)
        series_id = series_of(database, study)
        connection.execute(jobs.delete().where(jobs.c.series_id == series_id))
        save(connection, series_id, encoder_id, new_stack(random_vectors(DICE, 2)))


def series_of(database: Database, study: str) -> int:
    with database.transaction() as connection:
        return int(
            connection.execute(
                text("SELECT id FROM series WHERE series_instance_uid = :uid"), {"uid": uid(study, "series")}
            ).scalar_one()
        )


def last_used(database: Database, study: str, hours: float) -> None:
    """Say that a series was used so many hours ago."""
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE series SET used_at = now() - make_interval(secs => :s) WHERE series_instance_uid = :uid"),
            {"s": hours * 3600, "uid": uid(study, "series")},
        )


@pytest.fixture
def studies(database: Database, settings: Settings) -> list[str]:
    """Four studies of a series each, embedded; the first one was used longest ago."""
    names = ["a", "b", "c", "d"]
    for age, study in enumerate(reversed(names), start=2):
        for number in range(1, SLICES + 1):
            receive(database, settings, study, number)
        embed(database, study)
        last_used(database, study, age)
    return names


def kept(database: Database, settings: Settings) -> set[str]:
    """The studies whose files are here, all of them; of the others none is, in rows and on the disk."""
    on_disk = {str(path.relative_to(settings.instances_dir)) for path in files(settings)}
    found = rows(database, instances)
    assert on_disk == {row.file for row in found if row.file is not None}
    here = {name for name in "abcd" for row in found if row.file and row.series_id == series_of(database, name)}
    assert len(on_disk) == SLICES * len(here)
    return here


def with_retention(settings: Settings, name: str, files_kept: float = 1.0) -> Settings:
    """A cache in which so many files of these tests have room."""
    size = max(path.stat().st_size for path in files(settings))
    gigabytes = size * files_kept / retention.GIBIBYTE
    return settings.model_copy(update={"retention": name, "cache_gigabytes": gigabytes})


def test_all_stay_by_default(database: Database, settings: Settings, studies: list[str]) -> None:
    assert settings.retention == "all"
    assert retention.let_go(settings, database) == 0
    assert kept(database, settings) == set(studies)


def test_of_a_cache_the_least_recently_used_leave_first(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    full = with_retention(settings, "cache", 4 * SLICES)
    assert retention.let_go(full, database) == 0
    half = with_retention(settings, "cache", 2 * SLICES + 1)
    assert retention.let_go(half, database) == 2 * SLICES
    assert kept(database, settings) == {"c", "d"}
    assert retention.let_go(half, database) == 0
    # Reading is use, and so is arrival.
    with database.transaction() as connection:
        retention.record_use(connection, series_of(database, "c"))
    assert receive(database, settings, "a", 1, PatientName="Other^Name") is Outcome.HEADER_UPDATED
    for number in (2, 3):
        receive(database, settings, "a", number)
    assert retention.let_go(half, database) == SLICES
    assert kept(database, settings) == {"a", "c"}
    unused = {row.id for row in rows(database, series) if row.used_at is None}
    assert unused == {series_of(database, name) for name in "bd"}, "they are looked at no more"
    with database.transaction() as connection:
        retention.record_use(connection, series_of(database, "b"))
    assert unused == {row.id for row in rows(database, series) if row.used_at is None}, "a thumbnail is no pixel data"


def test_without_a_cache_all_leave_that_was_left_alone_for_an_hour(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    last_used(database, "b", 0.9)
    assert retention.let_go(with_retention(settings, "none"), database) == 3 * SLICES
    assert kept(database, settings) == {"b"}
    stays = rows(database, instances)
    assert len(stays) == 4 * SLICES, "the rows stay"
    assert all(row.file_size and row.file_sha256 for row in stays)
    with database.transaction() as connection:
        state = service_status(connection)
    assert (state.instances, state.with_pixel_data) == (4 * SLICES, SLICES)
    assert state.pixel_data_bytes == sum(path.stat().st_size for path in files(settings))
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM stacks")).scalar_one() == 4


def test_a_series_of_which_an_instance_comes_again_stays_as_a_whole(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    none = with_retention(settings, "none")
    with database.transaction() as arriving:
        # As an arrival does, before it asks for the series: who waited for it here would be waited for there.
        again = text("SELECT id FROM instances WHERE sop_instance_uid = :uid FOR UPDATE")
        arriving.execute(again, {"uid": uid("a", "series", 1)})
        assert retention.let_go(none, database) == 3 * SLICES
        assert kept(database, settings) == {"a"}
    assert retention.let_go(none, database) == SLICES


@pytest.mark.parametrize("status", ["waiting", "running", "parked"])
def test_a_series_with_a_job_keeps_its_files(
    database: Database, settings: Settings, studies: list[str], status: str
) -> None:
    with database.transaction() as connection:
        connection.execute(
            insert(jobs).values(series_id=series_of(database, "a"), status=status, not_before=text("now()"))
        )
    retention.let_go(with_retention(settings, "none"), database)
    assert kept(database, settings) == {"a"}


def test_a_series_that_an_encoder_lacks_keeps_its_files(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM stacks WHERE series_id = :id"), {"id": series_of(database, "b")})
    retention.let_go(with_retention(settings, "none"), database)
    assert kept(database, settings) == {"b"}


def test_before_anything_was_embedded_all_stay(database: Database, settings: Settings) -> None:
    receive(database, settings, "a", 1)
    with database.transaction() as connection:
        connection.execute(jobs.delete())
    last_used(database, "a", 9)
    assert retention.let_go(with_retention(settings, "none"), database) == 0


def test_what_was_committed_never_leaves_and_narrower_settings_are_refused(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    narrow = with_retention(settings, "none")
    retention.require_allowed(narrow, database)
    with database.transaction() as connection:
        one = instances.c.sop_instance_uid == mr_instance(study="a", number=2).SOPInstanceUID
        connection.execute(update(instances).where(one).values(committed_at=text("now()")))
    with pytest.raises(SettingsError, match=r"PACS_CBIR_RETENTION is none.*set it to all"):
        retention.require_allowed(narrow, database)
    retention.require_allowed(settings, database)
    retention.let_go(narrow, database)
    assert kept(database, settings) == {"a"}


@pytest.mark.slow
def test_every_service_refuses_narrower_settings_than_what_was_committed(
    database: Database, settings: Settings, studies: list[str], environment: dict[str, str]
) -> None:
    with database.transaction() as connection:
        connection.execute(update(instances).values(committed_at=text("now()")))
    for service in ("scp", "worker", "serve"):
        done = pacs_cbir(environment | {"PACS_CBIR_RETENTION": "cache"}, service)
        assert (done.returncode, "set it to all" in done.stderr) == (2, True), done.stderr


def test_what_comes_again_is_stored_again_and_embedded_no_more(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    retention.let_go(with_retention(settings, "none"), database)
    for number in range(1, SLICES + 1):
        assert receive(database, settings, "a", number) is Outcome.RESTORED
    assert kept(database, settings) == {"a"}
    assert rows(database, jobs) == []
    # A late instance was parked for want of the others, which come now.
    with database.transaction() as connection:
        connection.execute(
            insert(jobs).values(series_id=series_of(database, "b"), status="parked", not_before=text("now()"))
        )
    receive(database, settings, "b", 1)
    assert [job.status for job in rows(database, jobs)] == ["parked", "waiting"]


def test_a_corrected_header_of_what_has_left_is_no_other_picture(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    retention.let_go(with_retention(settings, "none"), database)
    assert receive(database, settings, "a", 1, PatientName="Other^Name") is Outcome.HEADER_UPDATED
    assert rows(database, jobs) == []
    assert receive(database, settings, "b", 1, EchoTime="17") is Outcome.REPLACED
    assert [job.series_id for job in rows(database, jobs)] == [series_of(database, "b")]


def die_before_files_are_removed(settings: Settings, environment: dict[str, str]) -> None:
    """Another process lets go, and is killed once the rows are committed."""
    program = (
        "import os, signal\n"
        "from pacs_cbir.settings import load_settings\n"
        "from pacs_cbir.store import files, retention\n"
        "from pacs_cbir.store.session import open_database\n"
        "files.discard = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "settings = load_settings()\n"
        "with open_database(settings) as database:\n"
        "    retention.let_go(settings, database)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"PACS_CBIR_RETENTION": "none"}, timeout=60, check=False
    )
    assert killed.returncode == -9


def test_a_kill_between_rows_and_files_leaves_what_the_sweep_removes(
    database: Database, settings: Settings, studies: list[str], environment: dict[str, str]
) -> None:
    die_before_files_are_removed(settings, environment)
    assert all(row.file is None for row in rows(database, instances))
    left = files(settings)
    assert len(left) == 4 * SLICES
    stranger = settings.instances_dir / "00" / "stranger.dcm"
    stranger.write_bytes(b"whole, and of no row")
    for path in (*left, stranger):
        os.utime(path, (0, 0))
    narrow = with_retention(settings, "none")
    assert store_files.sweep(narrow, database) == 4 * SLICES + 1
    assert files(settings) == []
    assert [path.name for path in settings.orphans_dir.iterdir()] == ["stranger.dcm"]


def test_where_all_stays_the_sweep_removes_nothing(
    database: Database, settings: Settings, studies: list[str], environment: dict[str, str]
) -> None:
    die_before_files_are_removed(settings, environment)
    for path in files(settings):
        os.utime(path, (0, 0))
    store_files.sweep(settings, database)
    assert len(list(settings.orphans_dir.iterdir())) == 4 * SLICES


@contextmanager
def locked(database: Database, study: str) -> Iterator[None]:
    """An instance of a series arrives, and is not committed yet."""
    with database.transaction() as connection:
        connection.execute(
            text("SELECT id FROM series WHERE id = :id FOR KEY SHARE"), {"id": series_of(database, study)}
        )
        yield


def test_a_series_that_receives_is_left_alone(database: Database, settings: Settings, studies: list[str]) -> None:
    with locked(database, "a"):
        retention.let_go(with_retention(settings, "none"), database)
    assert kept(database, settings) == {"a"}


def test_several_processes_make_room_once(database: Database, settings: Settings, studies: list[str]) -> None:
    half = with_retention(settings, "cache", 2 * SLICES + 1)
    with ThreadPoolExecutor(8) as pool:
        removed = sum(pool.map(lambda _: retention.let_go(half, database), range(8)))
    assert removed == 2 * SLICES
    assert kept(database, settings) == {"c", "d"}


def test_while_another_process_makes_room_none_is_made(
    database: Database, settings: Settings, studies: list[str]
) -> None:
    half = with_retention(settings, "cache", 2 * SLICES + 1)
    with database.transaction() as connection:
        assert connection.execute(retention.ALONE).scalar_one()
        assert retention.let_go(half, database) == 0
    assert retention.let_go(half, database) == 2 * SLICES


def test_a_use_is_written_down_once_in_a_while(database: Database, studies: list[str]) -> None:
    def used() -> list[object]:
        return [row.used_at for row in rows(database, series)]

    before = used()
    with database.transaction() as connection:
        retention.record_use(connection, series_of(database, "a"))
    after = used()
    assert before != after
    with database.transaction() as connection:
        retention.record_use(connection, series_of(database, "a"))
    assert used() == after
