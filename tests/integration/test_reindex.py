"""`pacs-cbir reindex --encoder` as a person runs it, with workers that are killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from arriving import arrive
from running import command, wait_until
from sqlalchemy import text
from untrained import TWO_NUMBERS, Untrained, save_untrained

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.worker import Worker

SERIES = 24


def pacs_cbir(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pacs_cbir", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    process = pacs_cbir(environment, *arguments)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def receive(settings: Settings, database: Database, series: str) -> None:
    arrive(database, settings, series=series, size=32)


def count(database: Database, query: str) -> int:
    with database.transaction() as connection:
        return int(connection.execute(text(query)).scalar_one())


def by_encoder(database: Database) -> dict[str, Counter[int]]:
    """Name of each encoder → how often it has embedded each series."""
    query = text("SELECT name, series_id FROM stacks JOIN encoders ON encoders.id = encoder_id")
    found: dict[str, Counter[int]] = {}
    with database.transaction() as connection:
        for row in connection.execute(query):
            found.setdefault(row.name, Counter())[row.series_id] += 1
    return found


@pytest.fixture
def stored(settings: Settings, database: Database, tmp_path: Path) -> Untrained:
    """Series that encoder `a` has embedded, and the checkpoint of another."""
    one, other = (
        Untrained.of(save_untrained(tmp_path / f"{name}.safetensors", TWO_NUMBERS, seed=seed))
        for seed, name in enumerate(("a", "other"))
    )
    one.add(settings, database, active=True)
    for number in range(SERIES):
        receive(settings, database, str(number))
    with Decoder(60, 4096) as decoder:
        worker = Worker(settings, database, decoder)
        while worker.work_once():
            pass
    return other


LEFT = "SELECT count(*) FROM jobs WHERE encoder_id IS NOT NULL"
RUNNING = f"{LEFT} AND status = 'running' AND lease_until > clock_timestamp()"
HOLD = text("SELECT id FROM encoders ORDER BY id FOR NO KEY UPDATE")


@contextmanager
def killed_at_work(environment: dict[str, str], database: Database, log: Path) -> Iterator[None]:
    """A worker that is killed by -9 in the middle of a job, when it has done some others; the block runs meanwhile."""
    before = count(database, LEFT)
    with log.open("ab") as sink:
        worker = subprocess.Popen(
            [sys.executable, "-m", "pacs_cbir", "worker"], env=environment, stdout=sink, stderr=sink
        )
    try:
        yield
        wait_until(lambda: count(database, LEFT) < before, 120)
        with database.transaction() as connection:
            # Saves wait for this: it is held in the middle of its jobs.
            connection.execute(HOLD)
            wait_until(lambda: count(database, RUNNING) > 0, 30)
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.slow
def test_killed_at_any_point_it_goes_on_where_it_was(
    stored: Untrained, settings: Settings, database: Database, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"PACS_CBIR_LEASE_SECONDS": "1", "PACS_CBIR_JOB_ATTEMPTS": "20"}
    assert run(environment, "encoder", "add", str(stored.path)) == (
        0,
        "other was added with precision float32; next: pacs-cbir reindex --encoder other\n",
    )
    code, said = run(environment, "encoder", "activate", "other")
    assert code == 1
    assert f"{SERIES} series" in said
    # The command is killed while it shows the progress of nobody.
    command_ = pacs_cbir(environment, "reindex", "--encoder", "other")
    wait_until(lambda: count(database, "SELECT count(*) FROM jobs") == SERIES, 60)
    command_.kill()
    command_.communicate()
    # Workers are, each in the middle of a job, while studies keep arriving.
    for number in range(2):
        with killed_at_work(environment, database, tmp_path / "worker.log"):
            receive(settings, database, f"late {number}")
    assert 0 < count(database, LEFT) < SERIES
    with command("worker", environment, tmp_path / "worker.log"):
        code, said = run(environment, "reindex", "--encoder", "other")
        assert code == 0, said
        wait_until(lambda: count(database, "SELECT count(*) FROM jobs") == 0, 60)
    assert "pacs-cbir encoder activate other" in said
    found = by_encoder(database)
    assert found.keys() == {"a", "other"}
    for embedded in found.values():
        assert len(embedded) == SERIES + 2
        assert set(embedded.values()) == {1}
    code, said = run(environment, "encoder", "activate", "other")
    assert code == 0, said
    assert "other" in run(environment, "status")[1]
    code, said = run(environment, "encoder", "rollback")
    assert code == 0, said
    assert run(environment, "encoder", "retire", "other")[0] == 0
    assert by_encoder(database).keys() == {"a"}
    code, said = run(environment | {"COLUMNS": "200"}, "encoder", "list")
    assert code == 0
    assert "retired" in said


def test_interrupted_it_says_that_the_jobs_go_on(
    settings: Settings, database: Database, environment: dict[str, str], tmp_path: Path
) -> None:
    other = Untrained.of(save_untrained(tmp_path / "other.safetensors", TWO_NUMBERS))
    other.add(settings, database)
    receive(settings, database, "one")
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM jobs"))
    process = pacs_cbir(environment, "reindex", "--encoder", "other", "--hours", "Mon-Sun", "--workers", "3")
    wait_until(lambda: count(database, "SELECT count(*) FROM jobs") == 1, 60)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "1 jobs are left, and the workers go on with them" in " ".join(said.split())
    code, said = run(environment | {"COLUMNS": "200"}, "encoder", "list")
    assert code == 0
    assert all(part in said for part in ("other", "beside", "0 of 1", "Mon-Sun", "3"))
    assert run(environment, "reindex", "--encoder", "other", "--hours", "at night")[0] == 2
    assert run(environment, "reindex", "--encoder", "none")[0] == 1
