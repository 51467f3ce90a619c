"""Jobs against a real Postgres: sequences of operations, and threads that claim, fail and die at once."""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as budget
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from rows import add_series
from running import wait_for_blocked
from sqlalchemy import Connection, text
from stack_rows import add_encoder, new_stack, save

from pacs_cbir.errors import JobLost
from pacs_cbir.settings import Settings
from pacs_cbir.store import claims, encoders, jobs
from pacs_cbir.store.claims import Job
from pacs_cbir.store.session import Database

ATTEMPTS = 3
SERIES = 3


def make_series(database: Database, count: int = 1) -> list[int]:
    with database.transaction() as connection:
        return [add_series(connection, "1.2.3", f"1.2.3.{number + 1}").series_id for number in range(count)]


def enqueue(database: Database, series_id: int, settle_seconds: float = 0) -> None:
    with database.transaction() as connection:
        jobs.enqueue(connection, series_id, settle_seconds)


def claim(database: Database, settings: Settings, worker: str = "worker") -> Job | None:
    with database.transaction() as connection:
        return claims.claim(connection, worker, settings, encoders.kept(connection))


def claim_one(database: Database, settings: Settings) -> Job:
    job = claim(database, settings)
    assert job is not None
    return job


def finish(database: Database, job: Job) -> None:
    with database.transaction() as connection:
        claims.finish(connection, job, embeds_with(connection, job))


def embeds_with(connection: Connection, job: Job) -> list[int]:
    return [row.id for row in encoders.kept(connection) if job.encoder_id in {None, row.id}]


def fail(database: Database, job: Job, settings: Settings, error: str = "VolumeError: no") -> bool:
    with database.transaction() as connection:
        return claims.fail(connection, job, error, settings)


def pass_time(database: Database, *, settle: bool = False, expire: bool = False) -> None:
    """Let waiting jobs become due, or the leases of running ones run out."""
    with database.transaction() as connection:
        if settle:
            connection.execute(text("UPDATE jobs SET not_before = clock_timestamp() WHERE status = 'waiting'"))
        if expire:
            connection.execute(
                text("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 s' WHERE status = 'running'")
            )


def states(database: Database) -> list[tuple[int, str]]:
    with database.transaction() as connection:
        rows = connection.execute(text("SELECT series_id, status FROM jobs ORDER BY series_id, status"))
        return [(row.series_id, row.status) for row in rows]


def errors(database: Database) -> list[str]:
    with database.transaction() as connection:
        return list(connection.scalars(text("SELECT error FROM jobs WHERE status = 'parked'")))


class JobMachine(RuleBasedStateMachine):
    """Arrivals, workers that come and go, and what must hold after each step.

    The model numbers a series' arrivals; a job that is claimed sees the arrivals until then.
    """

    held = Bundle("held")

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__()
        self.database, self.settings = database, settings

    @initialize()
    def begin(self) -> None:
        with self.database.transaction() as connection:
            connection.execute(text("DELETE FROM studies"))
            connection.execute(text("DELETE FROM patients"))
            if not encoders.kept(connection):
                add_encoder(connection)
                add_encoder(connection, "b" * 64)
            self.encoders = [row.id for row in encoders.kept(connection)]
        self.series = make_series(self.database, SERIES)
        self.arrived = dict.fromkeys(self.series, 0)
        # By series and encoder.
        self.embedded = dict.fromkeys(itertools.product(self.series, self.encoders), 0)
        self.seen: dict[tuple[int, int], int] = {}

    @rule(series=st.integers(0, SERIES - 1), settled=st.booleans())
    def arrive(self, series: int, settled: bool) -> None:
        enqueue(self.database, self.series[series], 0 if settled else 30)
        self.arrived[self.series[series]] += 1

    @rule(settle=st.booleans(), expire=st.booleans())
    def wait(self, settle: bool, expire: bool) -> None:
        pass_time(self.database, settle=settle, expire=expire)

    @rule(target=held, worker=st.sampled_from("abc"))
    def claim(self, worker: str) -> object:
        before = {row.id: row for row in self.rows()}
        job = claim(self.database, self.settings, worker)
        if job is None:
            assert not any(row.due for row in self.rows())
            return multiple()
        assert before[job.id].due
        assert job.attempt == before[job.id].attempts + 1
        assert job.attempt <= ATTEMPTS
        self.seen[job.id, job.attempt] = self.arrived[job.series_id]
        return job

    def rows(self) -> list[Any]:
        with self.database.transaction() as connection:
            return list(
                connection.execute(
                    text("""
                        SELECT *, CASE status
                            WHEN 'running' THEN lease_until < clock_timestamp() AND attempts < :attempts
                            WHEN 'waiting' THEN not_before <= clock_timestamp() AND NOT EXISTS (
                                SELECT FROM jobs AS r WHERE r.series_id = jobs.series_id AND r.status = 'running')
                            ELSE false END AS due
                        FROM jobs"""),
                    {"attempts": ATTEMPTS},
                )
            )

    def owned(self, job: Job) -> bool:
        return any((row.id, row.attempts, row.status) == (job.id, job.attempt, "running") for row in self.rows())

    @rule(job=consumes(held))
    def finish(self, job: Job) -> None:
        if not self.owned(job):
            with pytest.raises(JobLost):
                finish(self.database, job)
            return
        finish(self.database, job)
        for encoder in self.encoders if job.encoder_id is None else [job.encoder_id]:
            # A zombie's content never replaces newer content.
            assert self.seen[job.id, job.attempt] >= self.embedded[job.series_id, encoder]
            self.embedded[job.series_id, encoder] = self.seen[job.id, job.attempt]

    @rule(job=consumes(held))
    def fail(self, job: Job) -> None:
        if not self.owned(job):
            # The worker's block ends without an error when it finds that its job was lost: what it did is committed.
            with self.database.transaction() as connection, pytest.raises(JobLost):
                claims.fail(connection, job, "VolumeError: late", self.settings)
            return
        assert fail(self.database, job, self.settings) == (job.attempt >= ATTEMPTS)

    @rule(job=held)
    def extend(self, job: Job) -> None:
        owned = self.owned(job)
        try:
            with self.database.transaction() as connection:
                claims.extend(connection, job, 60)
        except JobLost:
            assert not owned
        else:
            assert owned

    @rule(encoder=st.integers(0, 1), again=st.booleans())
    def reindex(self, encoder: int, again: bool) -> None:
        with self.database.transaction() as connection:
            if again:
                jobs.unpark(connection, self.encoders[encoder])
            # Nothing of this machine leaves stacks, so nothing counts as embedded already.
            assert jobs.enqueue_batch(connection, self.encoders[encoder], 0) == max(self.series)

    @invariant()
    def one_of_each(self) -> None:
        rows = self.rows()
        counts = Counter((row.series_id, row.status, row.encoder_id) for row in rows)
        assert all(count == 1 for count in counts.values())
        running = Counter(row.series_id for row in rows if row.status == "running")
        assert all(count == 1 for count in running.values())

    @invariant()
    def nothing_is_lost(self) -> None:
        for series, encoder in self.embedded:
            if self.embedded[series, encoder] == self.arrived[series]:
                continue
            covered = [
                row.status == "waiting" or self.seen[row.id, row.attempts] == self.arrived[series]
                for row in self.rows()
                if row.series_id == series and row.encoder_id in {None, encoder}
            ]
            assert any(covered)

    @invariant()
    def parked_with_an_error(self) -> None:
        assert all(row.error for row in self.rows() if row.status == "parked")

    def teardown(self) -> None:
        if not hasattr(self, "series"):
            return
        for _ in range(100):
            pass_time(self.database, settle=True, expire=True)
            job = self.claim("last")
            if not isinstance(job, Job):
                break
            self.finish(job)
        for row in self.rows():
            assert row.status == "parked"
        self.nothing_is_lost()


def test_any_sequence_of_operations(database: Database, settings: Settings) -> None:
    patient = settings.model_copy(update={"job_attempts": ATTEMPTS, "retry_seconds": 30.0})
    run_state_machine_as_test(
        functools.partial(JobMachine, database, patient),
        settings=budget(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            # Shrinking takes minutes; the steps are printed in any case.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_workers_that_claim_at_once_get_different_jobs(database: Database, settings: Settings) -> None:
    workers = 8
    for series_id in make_series(database, workers + 1):
        enqueue(database, series_id)
    together = threading.Barrier(workers)

    def hold(number: int) -> Job | None:
        with database.transaction() as connection:
            together.wait(10)
            job = claims.claim(connection, str(number), settings, [])
            # Nobody commits before all have claimed, so nobody may wait for another.
            together.wait(10)
            return job

    with ThreadPoolExecutor(workers) as pool:
        claimed = list(pool.map(hold, range(workers)))
    assert len({job.series_id for job in claimed if job is not None}) == workers


def test_each_job_is_claimed_once(database: Database, settings: Settings) -> None:
    made = make_series(database, 40)
    for series_id in made:
        enqueue(database, series_id)

    def work(number: int) -> list[int]:
        return [job.series_id for job in iter(lambda: claim(database, settings, str(number)), None)]

    with ThreadPoolExecutor(6) as pool:
        claimed = [series_id for worker in pool.map(work, range(6)) for series_id in worker]
    assert sorted(claimed) == sorted(made)


class Storm:
    """Arrivals and workers in threads, with real leases of 50 ms that workers outlive."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings.model_copy(update={"lease_seconds": 0.05, "job_attempts": 1000, "retry_seconds": 0.0})
        self.series = make_series(database, 4)
        self.arrived, self.embedded = dict.fromkeys(self.series, 0), dict.fromkeys(self.series, 0)
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def arrivals(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self.stop.is_set():
            series_id = dice.choice(self.series)
            with self.lock:
                enqueue(self.database, series_id, dice.choice([0, 0.02]))
                self.arrived[series_id] += 1
            time.sleep(dice.random() * 0.01)

    def worker(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self.stop.is_set():
            job = claim(self.database, self.settings)
            if job is None:
                continue
            with self.lock:
                seen = self.arrived[job.series_id]
            time.sleep(dice.random() * 0.1)
            with contextlib.suppress(JobLost):
                self.end(job, seen, dice.random())

    def end(self, job: Job, seen: int, fate: float) -> None:
        if fate < 0.2:
            return
        if fate < 0.5:
            fail(self.database, job, self.settings)
            return
        with self.lock:
            finish(self.database, job)
            assert seen >= self.embedded[job.series_id], "a zombie committed"
            self.embedded[job.series_id] = seen

    def drain(self) -> None:
        while states(self.database):
            job = claim(self.database, self.settings)
            if job is not None:
                finish(self.database, job)
                self.embedded[job.series_id] = self.arrived[job.series_id]


def test_storm_of_arrivals_and_dying_workers(database: Database, settings: Settings) -> None:
    storm = Storm(database, settings)
    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(storm.arrivals, n) for n in (1, 2)] + [pool.submit(storm.worker, n) for n in range(4)]
        time.sleep(3)
        storm.stop.set()
        for future in running:
            future.result()
    storm.drain()
    assert storm.embedded == storm.arrived
    assert min(storm.arrived.values()) > 3


def test_an_arrival_moves_the_waiting_job(database: Database, settings: Settings) -> None:
    (series_id,) = make_series(database)
    enqueue(database, series_id, 0)
    enqueue(database, series_id, 30)
    assert claim(database, settings) is None
    assert states(database) == [(series_id, "waiting")]


def test_the_database_settles(database: Database, settings: Settings) -> None:
    (series_id,) = make_series(database)
    enqueue(database, series_id, 0.3)
    assert claim(database, settings) is None
    time.sleep(0.4)
    assert claim_one(database, settings).series_id == series_id


def test_an_arrival_while_running_waits_for_the_end(database: Database, settings: Settings) -> None:
    (series_id,) = make_series(database)
    enqueue(database, series_id)
    first = claim_one(database, settings)
    enqueue(database, series_id)
    assert claim(database, settings) is None
    finish(database, first)
    second = claim_one(database, settings)
    assert (second.series_id, second.attempt) == (series_id, 1)


def test_retries_wait_longer_each_time(database: Database, settings: Settings) -> None:
    slow = settings.model_copy(update={"retry_seconds": 10.0, "job_attempts": 4})
    (series_id,) = make_series(database)
    enqueue(database, series_id)
    waits = []
    for _ in range(3):
        assert not fail(database, claim_one(database, slow), slow)
        assert claim(database, slow) is None
        with database.transaction() as connection:
            left = connection.scalar(text("SELECT extract(epoch FROM not_before - clock_timestamp()) FROM jobs"))
        waits.append(float(left))
        pass_time(database, settle=True)
    assert waits == pytest.approx([10, 20, 40], abs=1)
    assert fail(database, claim_one(database, slow), slow, "DecodingError: no codec")
    assert errors(database) == ["DecodingError: no codec"]


def test_a_success_clears_what_was_parked(database: Database, settings: Settings) -> None:
    (series_id,) = make_series(database)
    once = settings.model_copy(update={"job_attempts": 1})
    for error in ("first", "second"):
        enqueue(database, series_id)
        assert fail(database, claim_one(database, once), once, error)
        assert errors(database) == [error]
    enqueue(database, series_id)
    finish(database, claim_one(database, once))
    assert states(database) == []


def test_workers_that_die_at_every_attempt_park_the_job(database: Database, settings: Settings) -> None:
    (series_id,) = make_series(database)
    for _ in range(2):
        enqueue(database, series_id)
        for attempt in range(1, settings.job_attempts + 1):
            assert claim_one(database, settings).attempt == attempt
            pass_time(database, expire=True)
        assert claim(database, settings) is None
        assert states(database) == [(series_id, "parked")]
        assert "died or hung 3 times" in errors(database)[0]


def test_a_zombie_does_not_take_the_parked_error_away(database: Database, settings: Settings) -> None:
    """Its last attempt failed after the job was parked for its silence; its transaction is committed all the same."""
    once = settings.model_copy(update={"job_attempts": 1})
    (series_id,) = make_series(database)
    enqueue(database, series_id)
    zombie = claim_one(database, once)
    pass_time(database, expire=True)
    assert claim(database, once) is None
    with database.transaction() as connection, pytest.raises(JobLost):
        claims.fail(connection, zombie, "late", once)
    assert "died or hung" in errors(database)[0]


def test_a_deleted_series_takes_its_job_along(database: Database, settings: Settings) -> None:
    (series_id,) = make_series(database)
    enqueue(database, series_id)
    job = claim_one(database, settings)
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM studies"))
    with pytest.raises(JobLost):
        finish(database, job)
    enqueue(database, series_id)
    assert states(database) == []


def test_a_failure_waits_for_an_arrival_that_is_not_committed(database: Database, settings: Settings) -> None:
    """Else it would retry beside the waiting job that it does not see yet."""
    (series_id,) = make_series(database)
    enqueue(database, series_id)
    job = claim_one(database, settings)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            jobs.enqueue(connection, series_id, 0)
            failing = pool.submit(fail, database, job, settings)
            wait_for_blocked(database)
        assert failing.result(10) is False
    assert states(database) == [(series_id, "waiting")]


def reindex(database: Database, encoder_id: int) -> None:
    with database.transaction() as connection:
        jobs.unpark(connection, encoder_id)
        after = 0
        while (last := jobs.enqueue_batch(connection, encoder_id, after)) is not None:
            after = last


def left(database: Database, encoder_id: int) -> int:
    with database.transaction() as connection:
        return jobs.count_left(connection, encoder_id)


@pytest.fixture
def two(database: Database) -> tuple[int, int]:
    """The active encoder, and one beside it."""
    with database.transaction() as connection:
        beside = add_encoder(connection, "b" * 64)
        return add_encoder(connection), beside


def test_reindexing_makes_jobs_for_what_an_encoder_lacks(
    database: Database, settings: Settings, two: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    active, beside = two
    made = make_series(database, 5)
    with database.transaction() as connection:
        save(connection, made[0], beside, new_stack(np.eye(8, dtype=np.float32)[:1]))
        save(connection, made[1], active, new_stack(np.eye(8, dtype=np.float32)[:1]))
    enqueue(database, made[2], 30)
    for _ in range(2):
        reindex(database, beside)
        assert left(database, beside) == 3, "what is embedded, or will be with all encoders, is left out"
        assert left(database, active) == 0
    claimed = [claim_one(database, settings) for _ in range(3)]
    assert {job.series_id for job in claimed} == {made[1], made[3], made[4]}
    assert {job.encoder_id for job in claimed} == {beside}


def test_what_arrives_goes_before_what_is_reindexed(
    database: Database, settings: Settings, two: tuple[int, int]
) -> None:
    made = make_series(database, 2)
    reindex(database, two[1])
    enqueue(database, made[1])
    first = claim_one(database, settings)
    assert (first.series_id, first.encoder_id) == (made[1], None)
    assert claim_one(database, settings).series_id == made[0]
    assert claim(database, settings) is None, "a series has one running job"
    finish(database, first)
    assert left(database, two[1]) == 1, "it was embedded with all: nothing is left to reindex"


def test_a_worker_is_given_jobs_of_the_encoders_that_it_has(
    database: Database, settings: Settings, two: tuple[int, int]
) -> None:
    made = make_series(database, 2)
    reindex(database, two[1])
    with database.transaction() as connection:
        able = [row for row in encoders.kept(connection) if row.id != two[1]]
        assert claims.claim(connection, "without a GPU", settings, able) is None
        assert claims.claim(connection, "without any", settings, []) is None
    enqueue(database, made[0])
    with database.transaction() as connection:
        job = claims.claim(connection, "without a GPU", settings, able)
        assert job is not None
        assert job.encoder_id is None
        claims.finish(connection, job, [two[0]])
        jobs.enqueue_with(connection, made[0], [two[1]])
    assert left(database, two[1]) == 2


def test_at_most_so_many_workers_reindex_at_once(database: Database, settings: Settings, two: tuple[int, int]) -> None:
    make_series(database, 12)
    reindex(database, two[1])
    with database.transaction() as connection:
        encoders.set_reindex(connection, two[1], hours=None, workers=2, from_pacs=False)
    together = threading.Barrier(6)

    def work(number: int) -> list[Job]:
        together.wait(10)
        found = (claim(database, settings, str(number)) for _ in range(2))
        return [job for job in found if job is not None]

    with ThreadPoolExecutor(6) as pool:
        claimed = list(pool.map(work, range(6)))
    assert sum(bool(jobs_) for jobs_ in claimed) == 2
    (first, *_) = [jobs_ for jobs_ in claimed if jobs_]
    for job in first:
        finish(database, job)
    assert claim(database, settings, "another") is not None


def test_outside_its_hours_an_encoder_reindexes_nothing_and_arrivals_go(
    database: Database, settings: Settings, two: tuple[int, int]
) -> None:
    made = make_series(database, 2)
    reindex(database, two[1])
    with database.transaction() as connection:
        now = connection.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone()
        # Of another day than today and tomorrow: the test may run at midnight.
        other = f"{now + datetime.timedelta(days=3):%a}"
        encoders.set_reindex(connection, two[1], hours=other, workers=None, from_pacs=False)
    assert claim(database, settings) is None
    enqueue(database, made[0])
    finish(database, claim_one(database, settings))
    assert claim(database, settings) is None
    with database.transaction() as connection:
        today = f"{now:%a}, {now + datetime.timedelta(days=1):%a}"
        encoders.set_reindex(connection, two[1], hours=today, workers=None, from_pacs=False)
    assert claim_one(database, settings).series_id == made[1]


def test_many_workers_that_claim_a_series_several_jobs_start_one(
    database: Database, settings: Settings, two: tuple[int, int]
) -> None:
    """The unique index would end the other's transaction with an error."""
    made = make_series(database, 3)
    for _ in range(8):
        for encoder_id in two:
            reindex(database, encoder_id)
        for series_id in made:
            enqueue(database, series_id)
        together = threading.Barrier(6)

        def work(number: int) -> Job | None:
            together.wait(10)  # noqa: B023 - all are done before the next
            return claim(database, settings, str(number))

        with ThreadPoolExecutor(6) as pool:
            claimed = [job for job in pool.map(work, range(6)) if job is not None]
        assert len({job.series_id for job in claimed}) == len(claimed) == 3
        while (job := claim(database, settings)) is not None:
            claimed.append(job)
        for job in claimed:
            finish(database, job)
        assert states(database) == []


def test_what_was_parked_is_tried_again(database: Database, settings: Settings, two: tuple[int, int]) -> None:
    once = settings.model_copy(update={"job_attempts": 1})
    made = make_series(database, 2)
    enqueue(database, made[0])
    reindex(database, two[1])
    for _ in range(2):
        assert fail(database, claim_one(database, once), once)
    assert states(database) == [(made[0], "parked"), (made[1], "parked")]
    assert left(database, two[1]) == 0
    reindex(database, two[1])
    assert states(database) == [(made[0], "waiting"), (made[1], "waiting")]
    for _ in range(2):
        job = claim_one(database, settings)
        assert job.attempt == 1
        finish(database, job)
    assert states(database) == []


def test_a_failed_job_of_one_encoder_gives_way_to_a_job_of_all(
    database: Database, settings: Settings, two: tuple[int, int]
) -> None:
    (series_id,) = make_series(database)
    reindex(database, two[1])
    job = claim_one(database, settings)
    enqueue(database, series_id)
    assert fail(database, job, settings) is False
    assert left(database, two[1]) == 0
    job = claim_one(database, settings)
    reindex(database, two[0])
    assert fail(database, job, settings) is False
    assert sorted(states(database)) == [(series_id, "waiting")] * 2
