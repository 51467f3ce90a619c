"""The embedded Postgres: what it logs of those who use it, and its end."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from running import wait_until
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pacs_cbir.errors import DatabaseUnavailable
from pacs_cbir.store import embedded, schema
from pacs_cbir.store.session import Database

MARK = "MARK-4711"
ADD_PATIENT = text("INSERT INTO patients (issuer_of_patient_id, patient_id) VALUES ('', :mark)")
RUNS = text("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for the sake of the socket's path."""
    with tempfile.TemporaryDirectory(prefix="cbir-", dir="/tmp") as made:
        yield Path(made) / "postgres"


@contextmanager
def served(folder: Path) -> Iterator[Database]:
    """The services' database on a server of its own."""
    with embedded.EmbeddedPostgres(folder) as server:
        schema.prepare_embedded(server)
        database = Database(server.url(embedded.SERVICE_LOGIN))
        try:
            yield database
        finally:
            database.close()


def sleeping(database: Database) -> list[int]:
    """The server's processes that sleep for somebody."""
    with database.reading() as connection:
        return list(connection.scalars(RUNS))


def answers(database: Database) -> bool:
    try:
        database.ping()
    except DatabaseUnavailable:
        return False
    return True


def test_its_log_says_what_went_wrong_and_nothing_of_whom(folder: Path) -> None:
    def add_twice(database: Database) -> None:
        with database.transaction() as connection:
            for _ in range(2):
                connection.execute(ADD_PATIENT, {"mark": MARK})

    def no_number(database: Database) -> None:
        with database.transaction() as connection:
            connection.execute(text("SELECT CAST(:mark AS bigint)"), {"mark": MARK})

    def wait_for_ever(database: Database) -> None:
        with database.transaction() as connection:
            connection.execute(text("SELECT pg_sleep(600), :mark"), {"mark": MARK})

    with served(folder) as database, ThreadPoolExecutor(1) as pool:
        owner = Database(database.url.set(username=embedded.OWNER).render_as_string(), role=None)
        for broken in (add_twice, no_number):
            with pytest.raises(DBAPIError):
                broken(database)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            waiting = pool.submit(wait_for_ever, database)
            wait_until(lambda: len(sleeping(owner)) == 1, 30)
            os.kill(sleeping(owner)[0], number)
            with pytest.raises(DatabaseUnavailable):
                waiting.result(60)
        owner.close()
        wait_until(lambda: answers(database), 30)
    logged = (folder / "log").read_text()
    assert "was terminated by signal 9" in logged
    assert MARK not in logged


@pytest.mark.slow
def test_a_server_that_does_not_end_when_it_is_asked_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As one does that is asked while it recovers from a crash. Postgres kills its processes after five seconds.
    monkeypatch.setattr(embedded, "STOP_SECONDS", 7)
    with served(folder) as database:
        with database.transaction() as connection:
            connection.execute(ADD_PATIENT, {"mark": MARK})
        server = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
        next(child for child in server.children() if "checkpointer" in " ".join(child.cmdline())).suspend()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    with served(folder) as database, database.reading() as connection:
        assert connection.scalar(text("SELECT patient_id FROM patients")) == MARK
