"""Encoders side by side: added, activated, gone back to, retired, while workers save and others command."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rows import add_series
from running import wait_for_blocked
from sqlalchemy import Connection, select, text
from stack_rows import add_encoder, card, make_active, new_encoder, new_stack, not_embedded, random_vectors, save

from pacs_cbir.errors import EncoderRefused, JobLost
from pacs_cbir.reindex import start_reindex
from pacs_cbir.settings import Settings
from pacs_cbir.store import claims, embeddings, encoders, jobs
from pacs_cbir.store.encoders import EncoderRow, Lacking, State
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import stacks

DICE = np.random.default_rng(5)


@pytest.fixture
def two(database: Database) -> tuple[EncoderRow, EncoderRow]:
    """The active encoder, and one beside it."""
    with database.transaction() as connection:
        return make_active(connection, new_encoder()), encoders.add(connection, new_encoder("b" * 64))


def series(database: Database, *by: EncoderRow) -> int:
    """A series that some encoders have embedded."""
    with database.transaction() as connection:
        count = connection.scalar(text("SELECT count(*) FROM series"))
        series_id = add_series(connection, "1.2.3", f"1.2.3.{count + 1}").series_id
        for encoder in by:
            save(connection, series_id, encoder.id, new_stack(random_vectors(DICE, 2)))
    return series_id


def states(database: Database) -> dict[str, State]:
    with database.transaction() as connection:
        return {row.identity[0]: row.state for row in encoders.listed(connection)}


def activate(database: Database, encoder: EncoderRow) -> None:
    with database.transaction() as connection:
        encoders.activate(connection, encoder.name)


def test_an_encoder_is_added_once_and_under_a_name_of_its_own(database: Database) -> None:
    with database.transaction() as connection:
        row = encoders.add(connection, new_encoder())
        assert (row.state, row.precision, row.card) == (State.BESIDE, "float32", card())
        assert encoders.active(connection) is None
        with pytest.raises(EncoderRefused, match=f"already, as {row.name}, and is beside"):
            encoders.add(connection, new_encoder())
        with pytest.raises(EncoderRefused, match="--name"):
            encoders.add(connection, new_encoder("a" * 63 + "b"))
        with pytest.raises(EncoderRefused, match=f"no encoder 'gliomas'.*{row.name}"):
            encoders.named(connection, "gliomas")


def test_a_switch_is_refused_until_nothing_leaves_the_answers(
    database: Database, settings: Settings, two: tuple[EncoderRow, EncoderRow]
) -> None:
    active, beside = two
    both, missing, parked = series(database, active, beside), series(database, active), series(database, active)
    # What neither has embedded is in no answers.
    series(database)
    with database.transaction() as connection:
        jobs.enqueue_with(connection, parked, [beside.id])
        job = claims.claim(connection, "worker", settings, [beside])
        assert job is not None
        claims.fail(connection, job, "DecodingError: no codec", settings.model_copy(update={"job_attempts": 1}))
        assert encoders.lacking(connection, beside) == Lacking(2, 1)
    with pytest.raises(EncoderRefused, match=f"2 series .* {beside.name} yet, 1 of them were parked"):
        activate(database, beside)
    assert states(database) == {"a": State.ACTIVE, "b": State.BESIDE}
    with database.transaction() as connection:
        # Looked at and found to be nothing to embed is enough.
        save(connection, missing, beside.id, not_embedded("localiser"))
        save(connection, parked, beside.id, new_stack(random_vectors(DICE, 2)))
    activate(database, beside)
    assert states(database) == {"a": State.FORMER, "b": State.ACTIVE}
    with database.transaction() as connection:
        progress = encoders.progress(connection, beside.id)
        assert (progress.series, progress.all_series, progress.parked) == (3, 4, 1)
    assert both


def test_an_incomplete_encoder_can_be_insisted_on(database: Database, two: tuple[EncoderRow, EncoderRow]) -> None:
    series(database, two[0])
    with database.transaction() as connection:
        encoders.activate(connection, two[1].name, incomplete=True)
        # Whoever has to go back must not be held up by what the former lacks.
        row, lacks = encoders.rollback(connection)
    assert (row.identity, lacks) == (two[0].identity, Lacking(0, 0))
    assert states(database) == {"a": State.ACTIVE, "b": State.FORMER}


def test_rollback_goes_to_the_one_before_and_back(database: Database, two: tuple[EncoderRow, EncoderRow]) -> None:
    with database.transaction() as connection, pytest.raises(EncoderRefused, match="no former"):
        encoders.rollback(connection)
    with database.transaction() as connection:
        third = encoders.add(connection, new_encoder("c" * 64))
    activate(database, two[1])
    activate(database, third)
    assert states(database) == {"a": State.BESIDE, "b": State.FORMER, "c": State.ACTIVE}
    for expected in ("b", "c"):
        with database.transaction() as connection:
            assert encoders.rollback(connection)[0].identity[0] == expected
    activate(database, third)
    assert states(database) == {"a": State.BESIDE, "b": State.FORMER, "c": State.ACTIVE}


def test_a_retired_encoder_is_left_out_and_can_come_back(
    database: Database, two: tuple[EncoderRow, EncoderRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "RETIRED_BATCH", 2)
    active, beside = two
    for _ in range(5):
        series_id = series(database, active, beside)
    with database.transaction() as connection:
        with pytest.raises(EncoderRefused, match="active encoder"):
            encoders.retire(connection, active.name)
        encoders.retire(connection, beside.name)
        assert [row.name for row in encoders.kept(connection)] == [active.name]
        with pytest.raises(EncoderRefused, match="retired"):
            encoders.activate(connection, beside.name, incomplete=True)
    deleted = []
    while True:
        with database.transaction() as connection:
            deleted.append(encoders.delete_some(connection, beside.id))
            if not deleted[-1]:
                break
    assert deleted == [2, 2, 1, 0]
    with database.transaction() as connection:
        assert set(connection.scalars(select(stacks.c.encoder_id))) == {active.id}
        found = [new_stack(random_vectors(DICE, 2))]
        embeddings.save(connection, series_id, {active.id: found, beside.id: found})
        assert set(connection.scalars(select(stacks.c.encoder_id))) == {active.id}, "a worker that began before"
        assert encoders.add(connection, new_encoder("b" * 64)).id == beside.id
    assert states(database) == {"a": State.ACTIVE, "b": State.BESIDE}


def test_an_encoder_comes_back_only_once_nothing_of_it_is_left(
    database: Database, two: tuple[EncoderRow, EncoderRow]
) -> None:
    active, beside = two
    series(database, active, beside)
    with database.transaction() as connection:
        encoders.retire(connection, beside.name)
    # Killed here: what arrives from now on makes the embeddings that are left stale.
    with database.transaction() as connection, pytest.raises(EncoderRefused, match="encoder retire"):
        encoders.add(connection, new_encoder("b" * 64))
    with database.transaction() as connection:
        assert encoders.delete_some(connection, beside.id) == 1
        encoders.add(connection, new_encoder("b" * 64))
    again = series(database, active, beside)
    with database.transaction() as connection:
        jobs.enqueue_with(connection, again, [beside.id])
        # The one who retired it goes on.
        jobs.forget(connection, beside.id)
        assert jobs.count_left(connection, beside.id) == 1
        assert encoders.delete_some(connection, beside.id) == 0


def test_a_reindex_ends_when_its_encoder_is_retired_meanwhile(
    database: Database, two: tuple[EncoderRow, EncoderRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    active, beside = two
    for _ in range(3):
        series(database, active)
    monkeypatch.setattr(jobs, "BATCH", 1)
    enqueue_batch = jobs.enqueue_batch
    made: list[int] = []

    def then_retired(connection: Connection, encoder_id: int, after: int) -> int | None:
        made.append(encoder_id)
        last = enqueue_batch(connection, encoder_id, after)
        connection.execute(text("UPDATE encoders SET state = 'retired' WHERE id = :id"), {"id": encoder_id})
        return last

    monkeypatch.setattr(jobs, "enqueue_batch", then_retired)
    with pytest.raises(EncoderRefused, match="meanwhile"):
        start_reindex(database, beside.name, hours=None, workers=None, from_pacs=False)
    assert len(made) == 1


def test_encoders_that_are_activated_at_once_leave_one_active_and_one_former(database: Database) -> None:
    with database.transaction() as connection:
        rows = [encoders.add(connection, new_encoder(str(number) * 64)) for number in range(6)]
    together = threading.Barrier(6)

    def switch(row: EncoderRow) -> None:
        together.wait(10)
        activate(database, row)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(switch, rows))
    assert sorted(states(database).values()) == sorted([State.ACTIVE, State.FORMER, *[State.BESIDE] * 4])


def test_a_switch_waits_for_the_saves_under_way_and_counts_them(
    database: Database, two: tuple[EncoderRow, EncoderRow]
) -> None:
    """A series that the active encoder gets alone, in a transaction that began before, must hinder the switch."""
    active, beside = two
    series_id = series(database)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            save(connection, series_id, active.id, new_stack(random_vectors(DICE, 2)))
            switching = pool.submit(activate, database, beside)
            wait_for_blocked(database)
        with pytest.raises(EncoderRefused, match="1 series"):
            switching.result(10)
        with database.transaction() as connection:
            save(connection, series_id, beside.id, new_stack(random_vectors(DICE, 2)))
            switching = pool.submit(activate, database, beside)
            wait_for_blocked(database)
        switching.result(10)
    assert states(database) == {"a": State.FORMER, "b": State.ACTIVE}


class Storm:
    """Workers, arrivals and an admin who cannot decide, at once."""

    def __init__(self, database: Database, settings: Settings, two: tuple[EncoderRow, EncoderRow]) -> None:
        self.database, self.settings, self.two = database, settings, two
        self.series = [series(database) for _ in range(4)]
        self.saved = self.switched = 0

    def work(self) -> None:
        with self.database.transaction() as connection:
            kept = encoders.kept(connection)
            job = claims.claim(connection, str(threading.get_ident()), self.settings, kept)
        if job is None:
            return
        ids = [row.id for row in kept if job.encoder_id in {None, row.id}]
        try:
            with self.database.transaction() as connection:
                claims.finish(connection, job, ids)
                found = [new_stack(random_vectors(DICE, 2))]
                embeddings.save(connection, job.series_id, dict.fromkeys(ids, found))
        except JobLost:
            return
        self.saved += 1

    def arrive(self) -> None:
        for series_id in self.series:
            with self.database.transaction() as connection:
                jobs.enqueue(connection, series_id, 0)

    def command(self) -> None:
        for row in self.two:
            with self.database.transaction() as connection:
                jobs.enqueue_batch(connection, row.id, 0)
            try:
                activate(self.database, row)
                self.switched += 1
            except EncoderRefused:
                continue
        with self.database.transaction() as connection:
            third = encoders.add(connection, new_encoder("c" * 64))
        with self.database.transaction() as connection:
            encoders.retire(connection, third.name)
        with self.database.transaction() as connection:
            jobs.forget(connection, third.id)
        with self.database.transaction() as connection:
            encoders.delete_some(connection, third.id)


def test_commands_and_workers_at_once_do_not_hold_each_other_up(
    database: Database, settings: Settings, two: tuple[EncoderRow, EncoderRow]
) -> None:
    """A deadlock would be answered as an unavailable database; each switch finds everything, or refuses."""
    storm = Storm(database, settings, two)
    with database.transaction() as connection:
        encoders.set_reindex(connection, two[1].id, hours=None, workers=2, from_pacs=False)
    start = time.monotonic()

    def is_over() -> bool:
        """After 3 s; where the machine is slow, once enough has happened."""
        passed = time.monotonic() - start
        return passed > 30 or (passed > 3 and storm.saved > 10 and storm.switched > 5)

    def until_the_end(step: Callable[[], None]) -> None:
        while not is_over():
            step()

    with ThreadPoolExecutor(5) as pool:
        steps = (storm.work, storm.work, storm.work, storm.arrive, storm.command)
        for running in [pool.submit(until_the_end, step) for step in steps]:
            running.result(60)
    assert storm.saved > 10
    assert storm.switched > 5


def test_a_series_that_is_embedded_by_two_keeps_what_the_other_made(database: Database) -> None:
    with database.transaction() as connection:
        one, other = add_encoder(connection, "a" * 64), add_encoder(connection, "b" * 64)
        series_id = add_series(connection, "1.2.3", "1.2.3.1").series_id
        found = [new_stack(random_vectors(DICE, 2))]
        embeddings.save(connection, series_id, {one: found, other: found})
        before = dict(connection.execute(select(stacks.c.encoder_id, stacks.c.id)).all())  # type: ignore[arg-type]
        embeddings.save(connection, series_id, {other: found})
        after = dict(connection.execute(select(stacks.c.encoder_id, stacks.c.id)).all())  # type: ignore[arg-type]
    assert after[one] == before[one]
    assert after[other] != before[other]
