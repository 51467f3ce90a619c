"""The index equals the table: any interleaving of transactions, concurrent committers, lost servers, restarts."""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import resource
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as budget
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from rows import add_series
from running import following
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError
from stack_rows import DIMENSION, add_encoder, card, new_encoder, new_stack, not_embedded, random_vectors, save, unit

from pacs_cbir.errors import DatabaseUnavailable, IndexNotReady, InvalidQuery
from pacs_cbir.search import encoder_index, follow
from pacs_cbir.search.follow import CHANNEL_REBUILD, Follower
from pacs_cbir.search.snapshot import snapshot_path
from pacs_cbir.store import embeddings, encoders
from pacs_cbir.store.embedded import EmbeddedPostgres
from pacs_cbir.store.embeddings import StoredStack
from pacs_cbir.store.encoders import EncoderRow
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import embeddings as embedding_rows
from pacs_cbir.store.tables import series, studies

IDENTITY = "a" * 64
PROMISED_SECONDS = 2.0


def table(database: Database) -> dict[object, bytes]:
    """What the index must hold: stack → vectors."""
    with database.transaction() as connection:
        encoder = encoders.active(connection)
        assert encoder is not None
        ids = embeddings.written(connection, encoder.id).transactions
        return {stack.id: stack.vectors.tobytes() for stack in embeddings.load(connection, encoder.id, ids)}


def held(follower: Follower) -> dict[object, bytes]:
    return {stack.id: stack.vectors.tobytes() for stack in follower.current.index.stored()}


def add(database: Database, study: str = "1.2", name: str = "1.2.1", seed: int = 0) -> int:
    """One series with one stack, embedded; returns its row."""
    with database.transaction() as connection:
        encoder = encoders.active(connection)
        encoder_id = encoder.id if encoder else add_encoder(connection, IDENTITY)
        series_id = add_series(connection, study, name).series_id
        save(connection, series_id, encoder_id, new_stack(random_vectors(np.random.default_rng(seed), 3)))
    return series_id


def seconds_until(condition: Callable[[], bool], limit: float = 10.0) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit, "it never came"
        time.sleep(0.01)
    return time.monotonic() - start


class Interleaving(RuleBasedStateMachine):
    """Two sessions that begin, embed, delete and end in any order, and two followers that look, save and die."""

    def __init__(self, database: Database, folder: Path) -> None:
        super().__init__()
        self.database, self.folder = database, folder
        self.dice = np.random.default_rng(0)
        self.open: dict[int, Connection] = {}

    @initialize()
    def begin_empty(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with self.database.transaction() as connection:
            for name in ("studies", "patients", "encoders"):
                connection.execute(text(f"DELETE FROM {name}"))
            add_encoder(connection, IDENTITY)
        self.followers = [Follower(self.database, self.folder_of(number)) for number in range(2)]

    def folder_of(self, number: int) -> Path:
        folder = self.folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def session(self, number: int) -> Connection:
        if number not in self.open:
            self.open[number] = self.database.engine.connect()
        return self.open[number]

    @rule(number=st.integers(0, 1), which=st.integers(0, 1), stacks=st.integers(1, 2))
    def embed(self, number: int, which: int, stacks: int) -> None:
        """A session has a study of its own, so that sessions do not wait for one another's rows."""
        connection = self.session(number)
        name = f"1.{number}.{which}"
        series_id = connection.scalar(select(series.c.id).where(series.c.series_instance_uid == name))
        if series_id is None:
            series_id = add_series(connection, f"1.{number}", name).series_id
        encoder = encoders.active(connection)
        assert encoder is not None
        found = [new_stack(random_vectors(self.dice, 3)) for _ in range(stacks)]
        save(connection, series_id, encoder.id, not_embedded("a localiser"), *found)

    @rule(number=st.integers(0, 1), which=st.integers(0, 1), whole_study=st.booleans())
    def delete(self, number: int, which: int, whole_study: bool) -> None:
        doomed = (
            studies.delete().where(studies.c.study_instance_uid == f"1.{number}")
            if whole_study
            else series.delete().where(series.c.series_instance_uid == f"1.{number}.{which}")
        )
        self.session(number).execute(doomed)

    @rule(number=st.integers(0, 1), commit=st.sampled_from([True, True, True, False]))
    def end(self, number: int, commit: bool) -> None:
        if number in self.open:
            connection = self.open.pop(number)
            if commit:
                connection.commit()
            connection.close()

    @rule(number=st.integers(0, 1))
    def look(self, number: int) -> None:
        self.followers[number].catch_up()
        assert held(self.followers[number]) == table(self.database)

    @rule(number=st.integers(0, 1))
    def save_snapshot(self, number: int) -> None:
        self.followers[number].save()

    @rule(number=st.integers(0, 1))
    def kill(self, number: int) -> None:
        self.followers[number] = Follower(self.database, self.folder_of(number))

    @precondition(lambda self: not self.open)
    @rule(number=st.integers(0, 1), identity=st.sampled_from("aab"))
    def switch_encoder(self, number: int, identity: str) -> None:
        with self.database.transaction() as connection:
            add_encoder(connection, identity * 64)
        self.followers[number].rebuild()
        assert held(self.followers[number]) == table(self.database)

    def teardown(self) -> None:
        for connection in self.open.values():
            connection.close()
        for number in range(len(getattr(self, "followers", ()))):
            self.look(number)


def test_any_interleaving(database: Database, tmp_path: Path) -> None:
    run_state_machine_as_test(
        functools.partial(Interleaving, database, tmp_path / "index"),
        settings=budget(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            # Shrinking takes minutes; the steps are printed in any case.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


class Committers:
    """Threads that embed and delete; some of their transactions take their time, some are given up."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.stop = threading.Event()
        self.committed = 0

    def work(self, number: int) -> None:
        dice, vectors = random.Random(number), np.random.default_rng(number)
        while not self.stop.is_set():
            try:
                with self.database.transaction() as connection:
                    self.change(connection, number, dice, vectors)
                    if dice.random() < 0.3:
                        time.sleep(dice.random() * 0.4)
                    if dice.random() < 0.1:
                        connection.rollback()
                self.committed += 1
            except (DatabaseUnavailable, DBAPIError):
                time.sleep(0.05)

    def change(self, connection: Connection, number: int, dice: random.Random, vectors: np.random.Generator) -> None:
        study = f"1.{number}"
        fate = dice.random()
        if fate < 0.05:
            connection.execute(studies.delete().where(studies.c.study_instance_uid == study))
            return
        name = f"{study}.{dice.randrange(8)}"
        found = connection.scalar(select(series.c.id).where(series.c.series_instance_uid == name))
        if fate < 0.2:
            connection.execute(series.delete().where(series.c.id == found))
            return
        encoder = encoders.active(connection)
        assert encoder is not None
        series_id = found or add_series(connection, study, name).series_id
        save(connection, series_id, encoder.id, new_stack(random_vectors(vectors, 4)))


def look_and_die(database: Database, folder: Path, stop: threading.Event) -> Follower:
    """A follower that is killed again and again, mostly some time after its last snapshot; returns the last one."""
    dice = random.Random(3)
    follower = Follower(database, folder)
    while not stop.is_set():
        with_luck = dice.random()
        try:
            follower.catch_up()
            if with_luck < 0.2:
                follower.save()
        except DatabaseUnavailable:
            time.sleep(0.05)
        if with_luck > 0.9:
            follower = Follower(database, folder)
        time.sleep(0.02)
    return follower


def test_concurrent_committers_and_a_restart_of_the_server(
    database: Database, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    for name in ("one", "two", "dying"):
        (tmp_path / name).mkdir()
    with database.transaction() as connection:
        add_encoder(connection, IDENTITY)
    one, two = Follower(database, tmp_path / "one"), Follower(database, tmp_path / "two")
    committers = Committers(database)
    with ThreadPoolExecutor(5) as pool, following(one), following(two):
        working = [pool.submit(committers.work, number) for number in range(4)]
        dying = pool.submit(look_and_die, database, tmp_path / "dying", committers.stop)
        time.sleep(2)
        before = committers.committed
        postgres._stop()
        time.sleep(0.3)
        postgres.ensure_running()
        time.sleep(2)
        committers.stop.set()
        for future in working:
            future.result()
        assert committers.committed > before > 10
        expected = table(database)
        assert expected
        waited = seconds_until(lambda: held(one) == expected and held(two) == expected)
        assert waited < PROMISED_SECONDS
        last = dying.result()
        last.catch_up()
        assert held(last) == expected
    again = Follower(database, tmp_path / "one")
    again.catch_up()
    assert held(again) == expected


def test_a_notification_wakes(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the polling, which is put off here."""
    monkeypatch.setattr(follow, "POLL_SECONDS", 15.0)
    add(database)
    follower = Follower(database, tmp_path)
    stop = threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        seconds_until(lambda: len(follower.current.index) == 1)
        for number in range(2, 5):
            add(database, name=f"1.2.{number}", seed=number)
            assert seconds_until(lambda n=number: len(follower.current.index) == n) < 1
        with database.transaction() as connection:
            connection.execute(studies.delete())
        assert seconds_until(lambda: len(follower.current.index) == 0) < 1
    finally:
        stop.set()
        database.notify(embeddings.CHANNEL)
        thread.join(20)


def test_polling_alone_keeps_the_promise(database: Database, owner_url: str, tmp_path: Path) -> None:
    """As when a pooler between swallows notifications."""
    add(database)
    follower = Follower(database, tmp_path)
    with following(follower):
        seconds_until(lambda: len(follower.current.index) == 1)
        owner = Database(owner_url, role=None, pool_size=1)
        with owner.transaction() as connection:
            connection.execute(text("ALTER TABLE stacks DISABLE TRIGGER stacks_notify"))
        owner.close()
        add(database, name="1.2.2", seed=2)
        assert seconds_until(lambda: len(follower.current.index) == 2) < PROMISED_SECONDS


def test_file_descriptors_above_1023(database: Database, tmp_path: Path) -> None:
    """An API with many clients has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2048:
        pytest.skip("this machine allows fewer file descriptors")
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        follower = Follower(database, tmp_path)
        with following(follower):
            seconds_until(lambda: follower.ready)
            add(database)
            assert seconds_until(lambda: len(follower.current.index) == 1) < PROMISED_SECONDS
            add(database, name="1.2.2", seed=2)
            assert seconds_until(lambda: len(follower.current.index) == 2) < PROMISED_SECONDS
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ready_where_there_is_nothing_yet(database: Database, tmp_path: Path) -> None:
    follower = Follower(database, tmp_path)
    assert not follower.ready
    follower.catch_up()
    assert follower.ready
    follower.rebuild()
    follower.save()
    assert list(tmp_path.iterdir()) == []
    add(database)
    follower.catch_up()
    assert held(follower) == table(database)


def test_a_restart_reads_the_snapshot_and_loads_the_rest(database: Database, tmp_path: Path) -> None:
    add(database, seed=1)
    gone = add(database, name="1.2.2", seed=2)
    follower = Follower(database, tmp_path)
    follower.catch_up()
    follower.save()
    before = held(follower)
    with database.transaction() as connection:
        # Rows of a stack never change; here they do, to show where the vectors come from.
        connection.execute(embedding_rows.update().values(vector=unit(np.eye(DIMENSION))[0].tobytes()))
        connection.execute(series.delete().where(series.c.id == gone))
    add(database, name="1.2.3", seed=3)
    again = Follower(database, tmp_path)
    again.catch_up()
    after = held(again)
    assert after.keys() == table(database).keys()
    assert len(after) == 2
    (same,) = before.keys() & after.keys()
    assert after[same] == before[same] != table(database)[same]


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "noise"])
def test_a_damaged_snapshot_is_built_anew(database: Database, tmp_path: Path, damage: str) -> None:
    add(database)
    follower = Follower(database, tmp_path)
    follower.catch_up()
    follower.save()
    path = snapshot_path(tmp_path, IDENTITY)
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "changed": content[:-5] + bytes(reversed(content[-5:])),
        "noise": random.Random(0).randbytes(500),
    }[damage]
    assert damaged != content
    path.write_bytes(damaged)
    again = Follower(database, tmp_path)
    again.catch_up()
    assert held(again) == table(database)
    again.save()
    assert path.read_bytes()[:8] == content[:8]


def test_the_snapshot_is_written_beside_the_following(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SNAPSHOT_CHANGES", 1), ("SNAPSHOT_SHARE", 0.0), ("SNAPSHOT_SECONDS", 0.0)):
        monkeypatch.setattr(encoder_index, name, value)
    abandoned, recent = tmp_path / "x.1.part", tmp_path / "x.2.part"
    for part in (abandoned, recent):
        part.touch()
    os.utime(abandoned, (time.time() - 7200, time.time() - 7200))
    add(database)
    with following(Follower(database, tmp_path)):
        seconds_until(lambda: snapshot_path(tmp_path, IDENTITY).exists())
    assert not abandoned.exists()
    assert recent.exists()


def test_a_folder_that_cannot_be_written_stops_nothing(database: Database, tmp_path: Path) -> None:
    add(database)
    follower = Follower(database, tmp_path / "missing")
    follower.catch_up()
    follower.save()
    assert held(follower) == table(database)


def test_another_encoder_takes_over(database: Database, tmp_path: Path) -> None:
    series_id = add(database)
    follower = Follower(database, tmp_path)
    follower.catch_up()
    former = follower.current
    with database.transaction() as connection:
        encoder_id = add_encoder(connection, "b" * 64, 16)
    follower.catch_up()
    assert follower.ready
    assert (follower.current.encoder_id, len(follower.current.index)) == (encoder_id, 0)
    assert len(former.index) == 1, "a reader keeps what it took"
    with database.transaction() as connection:
        vectors = random_vectors(np.random.default_rng(0), 3, dimension=16)
        save(connection, series_id, encoder_id, new_stack(vectors))
    follower.catch_up()
    assert held(follower) == table(database)
    assert follower.current.index.dimension == 16


def test_rebuilding_on_request_drops_what_the_table_does_not_have(database: Database, tmp_path: Path) -> None:
    add(database)
    other = Follower(database, tmp_path)
    other.catch_up()
    follower = Follower(database, tmp_path)
    with following(follower):
        seconds_until(lambda: len(follower.current.index) == 1)
        (stack,) = other.current.index.stored()
        follower.current.index.update([dataclasses.replace(stack, id=uuid.uuid4())], [])
        database.notify(CHANNEL_REBUILD)
        seconds_until(lambda: held(follower) == table(database))
        seconds_until(lambda: snapshot_path(tmp_path, IDENTITY).exists())


def test_an_old_snapshot_is_never_written_over_that_of_a_rebuilt_index(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database)
    follower = Follower(database, tmp_path)
    follower.catch_up()
    [old] = follower._open.values()
    begun, go_on, written = threading.Event(), threading.Event(), []
    write = encoder_index.write_snapshot

    def write_slowly(path: Path, stacks: Iterable[StoredStack]) -> None:
        if not begun.is_set():
            begun.set()
            go_on.wait(20)
            written.append("old")
        else:
            written.append("rebuilt")
        write(path, stacks)

    monkeypatch.setattr(encoder_index, "write_snapshot", write_slowly)
    old._start_saving()
    assert begun.wait(20)
    wait = old.end_saving
    monkeypatch.setattr(old, "end_saving", lambda: (go_on.set(), wait()))
    follower.rebuild()
    go_on.set()
    wait()
    assert written == ["old", "rebuilt"]


def test_a_follower_that_slept_for_long_compares_everything(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, seed=1)
    follower = Follower(database, tmp_path)
    follower.catch_up()
    with database.transaction() as connection:
        connection.execute(series.delete())
    add(database, name="1.2.2", seed=2)
    with database.transaction() as connection:
        embeddings.forget_changes(connection, -1)
    monkeypatch.setattr(encoder_index, "LONGEST_SLEEP_SECONDS", 0.0)
    follower.catch_up()
    assert held(follower) == table(database)


def test_more_stacks_than_one_batch(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_index, "LOAD_BATCH", 3)
    for number in range(1, 9):
        add(database, name=f"1.2.{number}", seed=number)
    follower = Follower(database, tmp_path)
    follower.catch_up()
    assert held(follower) == table(database)
    for number in range(9, 17):
        add(database, name=f"1.2.{number}", seed=number)
    follower.catch_up()
    assert held(follower) == table(database)


@pytest.fixture
def beside(database: Database) -> EncoderRow:
    """An encoder beside the active one; each has embedded three series."""
    dice = np.random.default_rng(9)
    with database.transaction() as connection:
        row = encoders.add(connection, new_encoder("b" * 64, card(16)))
        active = add_encoder(connection, IDENTITY)
        for number in range(3):
            series_id = add_series(connection, "1.2.3", f"1.2.3.{number}").series_id
            save(connection, series_id, active, new_stack(random_vectors(dice, 2)))
            save(connection, series_id, row.id, new_stack(random_vectors(dice, 2, 16)))
    return row


def test_until_a_switch_is_loaded_the_former_answers_and_follows(
    database: Database, tmp_path: Path, beside: EncoderRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower(database, tmp_path)
    follower.catch_up()
    former = follower.current
    assert former.encoder is not None
    monkeypatch.setattr(encoder_index, "LOAD_BATCH", 1)
    load, sizes, dice = embeddings.load, [], np.random.default_rng(10)

    def arrive_and_load(connection: Connection, encoder_id: int, ids: list[uuid.UUID]) -> Iterator[StoredStack]:
        if encoder_id == beside.id:
            assert follower.ready
            assert follower.current is former
            sizes.append(len(former.index))
            with database.transaction() as arriving:
                series_id = add_series(arriving, "1.2.4", f"1.2.4.{len(sizes)}").series_id
                save(arriving, series_id, former.encoder.id, new_stack(random_vectors(dice, 2)))
        return load(connection, encoder_id, ids)

    monkeypatch.setattr(embeddings, "load", arrive_and_load)
    with database.transaction() as connection:
        encoders.activate(connection, beside.name)
    follower.catch_up()
    assert sizes == [3, 4, 5]
    assert follower.current.encoder_id == beside.id
    assert len(follower.current.index) == 3


def test_an_encoder_that_is_named_is_loaded_followed_and_let_go(
    database: Database, tmp_path: Path, beside: EncoderRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower(database, tmp_path)
    follower.catch_up()
    with pytest.raises(InvalidQuery, match=f"encoder accepts .*{beside.name}"):
        follower.named("another")
    with pytest.raises(IndexNotReady, match=beside.name):
        follower.named(beside.name)
    follower.catch_up()
    named = follower.named(beside.name)
    assert (named.encoder_id, len(named.index), named.index.dimension) == (beside.id, 3, 16)
    assert follower.current.encoder_id != beside.id
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM series WHERE series_instance_uid = '1.2.3.0'"))
    follower.catch_up()
    assert len(follower.named(beside.name).index) == len(follower.current.index) == 2
    # The active one needs no second index under its name.
    assert follower.current.encoder is not None
    assert follower.named(follower.current.encoder.name) is follower.current
    monkeypatch.setattr(follow, "IDLE_SECONDS", -1)
    follower.catch_up()
    with pytest.raises(IndexNotReady):
        follower.named(beside.name)
    assert follower.ready
    monkeypatch.undo()
    follower.catch_up()
    follower.named(beside.name)
    with database.transaction() as connection:
        encoders.retire(connection, beside.name)
    follower.catch_up()
    with pytest.raises(InvalidQuery, match="encoder accepts"):
        follower.named(beside.name)
