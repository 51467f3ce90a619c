"""An example's name, and the vectors or the error that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from rows import add_series
from sqlalchemy import text
from stack_rows import DIMENSION, add_encoder, new_stack, not_embedded, random_vectors, save, unit

from pacs_cbir.errors import ExampleNotEmbedded, ExampleNotReady, ExampleNotReindexed, UnknownExample
from pacs_cbir.search.example import ResolvedExample, resolve
from pacs_cbir.search.stack_index import Kind
from pacs_cbir.settings import Settings
from pacs_cbir.store import claims, encoders, jobs
from pacs_cbir.store.examples import Example
from pacs_cbir.store.session import Database

EYE = unit(np.eye(DIMENSION))
UIDS = [f"1.2.3.1.{number}" for number in range(1, 6)]


@pytest.fixture
def encoder_id(database: Database) -> int:
    with database.transaction() as connection:
        return add_encoder(connection)


def ask(database: Database, *example: str | int | None) -> ResolvedExample:
    with database.transaction() as connection:
        encoder = encoders.active(connection)
        return resolve(connection, Example(*example), encoder and encoder.id)  # type: ignore[arg-type]


def axes(found: ResolvedExample) -> list[int]:
    """Which rows of `EYE` the vectors are."""
    return [int(np.argmax(vector.vector)) for vector in found.vectors]


def test_a_study_is_its_whole_stacks(database: Database, encoder_id: int) -> None:
    with database.transaction() as connection:
        first = add_series(connection, "1.2.3", "1.2.3.1")
        second = add_series(connection, "1.2.3", "1.2.3.2")
        add_series(connection, "1.2.4", "1.2.4.1")
        save(connection, first.series_id, encoder_id, new_stack(EYE[:4]), new_stack(EYE[[4, 1]], sequence="T2"))
        save(connection, second.series_id, encoder_id, new_stack(EYE[5:], plane="sagittal"), not_embedded("derived"))
    found = ask(database, "1.2.3")
    assert (found.study_id, found.series_ids) == (first.study_id, {first.series_id, second.series_id})
    assert sorted(axes(found)) == [0, 4, 5]
    assert all(vector.whole for vector in found.vectors)
    assert {(vector.kind, vector.series_instance_uid) for vector in found.vectors} == {
        (Kind("axial", "T1", "BRAIN"), "1.2.3.1"),
        (Kind("axial", "T2", "BRAIN"), "1.2.3.1"),
        (Kind("sagittal", "T1", "BRAIN"), "1.2.3.2"),
    }
    one = ask(database, "1.2.3", "1.2.3.2")
    assert (axes(one), one.series_ids) == ([5], {second.series_id})


def test_an_instance_is_its_slice_or_the_nearest_embedded_one(database: Database, encoder_id: int) -> None:
    """Of five instances the second and the fifth are embedded."""
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1", instance_uids=UIDS)
        stack = new_stack(EYE[:3], instance_uids=UIDS, frames=[(UIDS[1], 1), (UIDS[4], 1)])
        save(connection, added.series_id, encoder_id, stack)
    found = [ask(database, "1.2.3", "1.2.3.1", uid) for uid in UIDS]
    assert [axes(example) for example in found] == [[1], [1], [1], [2], [2]]
    assert not any(vector.whole for example in found for vector in example.vectors)
    assert axes(ask(database, "1.2.3", "1.2.3.1", UIDS[3], 1)) == [2]


def test_an_instance_belongs_to_its_own_stack(database: Database, encoder_id: int) -> None:
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1", instance_uids=UIDS)
        save(
            connection,
            added.series_id,
            encoder_id,
            new_stack(EYE[:3], instance_uids=UIDS[:2]),
            new_stack(EYE[3:6], instance_uids=UIDS[2:4]),
            not_embedded("a localiser", UIDS[4]),
        )
    assert axes(ask(database, "1.2.3", "1.2.3.1", UIDS[3])) == [5]
    with pytest.raises(ExampleNotEmbedded, match="a localiser"):
        ask(database, "1.2.3", "1.2.3.1", UIDS[4])


def test_frames_of_a_multiframe_instance(database: Database, encoder_id: int) -> None:
    uid = UIDS[0]
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1", instance_uids=[uid], instance={"NumberOfFrames": "20"})
        stack = new_stack(EYE[:4], instance_uids=[uid], frames=[(uid, 3), (uid, 9), (uid, 18)])
        save(connection, added.series_id, encoder_id, stack)
    whole = ask(database, "1.2.3", "1.2.3.1", uid)
    assert (axes(whole), [vector.whole for vector in whole.vectors]) == ([0], [True])
    frames = [ask(database, "1.2.3", "1.2.3.1", uid, frame) for frame in (1, 5, 7, 13, 20)]
    assert [axes(example) for example in frames] == [[1], [1], [2], [2], [3]]
    with pytest.raises(UnknownExample):
        ask(database, "1.2.3", "1.2.3.1", uid, 21)


@pytest.mark.parametrize("number_of_frames", ["", "many", "1.5", "9" * 30, "-3"])
def test_a_number_of_frames_that_is_none(database: Database, encoder_id: int, number_of_frames: str) -> None:
    with database.transaction() as connection:
        added = add_series(
            connection,
            "1.2.3",
            "1.2.3.1",
            instance_uids=UIDS[:1],
            instance={"NumberOfFrames": number_of_frames},
        )
        save(connection, added.series_id, encoder_id, new_stack(EYE[:2], instance_uids=UIDS[:1]))
    assert axes(ask(database, "1.2.3", "1.2.3.1", UIDS[0], 1)) == [1]
    with pytest.raises(UnknownExample):
        ask(database, "1.2.3", "1.2.3.1", UIDS[0], 2)


def test_a_resliced_stack_has_no_slice_of_an_instance(database: Database, encoder_id: int) -> None:
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1", instance_uids=UIDS)
        stack = new_stack(EYE[:4], instance_uids=UIDS, frames=[(UIDS[0], 1)] * 3)
        save(connection, added.series_id, encoder_id, stack)
    found = ask(database, "1.2.3", "1.2.3.1", UIDS[2])
    assert (axes(found), found.vectors[0].whole) == ([0], True)


@pytest.mark.parametrize(
    "example",
    [
        ("1.2.9",),
        ("1.2.3", "1.2.3.9"),
        ("1.2.4", "1.2.3.1"),
        ("1.2.3", "1.2.3.1", "1.2.3.1.9"),
        ("1.2.3", "1.2.3.2", "1.2.3.1.1"),
        ("1.2.3", "1.2.3.1", "1.2.3.1.1", 2),
    ],
)
def test_unknown(database: Database, encoder_id: int, example: tuple[str | int, ...]) -> None:
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1", instance_uids=UIDS)
        add_series(connection, "1.2.3", "1.2.3.2")
        add_series(connection, "1.2.4", "1.2.4.1")
        save(connection, added.series_id, encoder_id, new_stack(EYE[:6], instance_uids=UIDS))
    with pytest.raises(UnknownExample):
        ask(database, *example)


def test_what_is_waiting_running_and_parked(database: Database, encoder_id: int, settings: Settings) -> None:
    once = settings.model_copy(update={"job_attempts": 1})
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1")
        jobs.enqueue(connection, added.series_id, 100)
    with pytest.raises(ExampleNotReady) as waiting:
        ask(database, "1.2.3")
    assert 95 < waiting.value.retry_after <= 105
    with database.transaction() as connection:
        jobs.enqueue(connection, added.series_id, 0)
        job = claims.claim(connection, "worker", once, [])
    assert job is not None
    with pytest.raises(ExampleNotReady) as running:
        ask(database, "1.2.3")
    assert 0 < running.value.retry_after <= 10
    with database.transaction() as connection:
        claims.fail(connection, job, "NotAVolume: it has one slice", once)
    with pytest.raises(ExampleNotEmbedded, match="it has one slice"):
        ask(database, "1.2.3")
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM jobs"))
    with pytest.raises(ExampleNotReindexed, match="`pacs-cbir reindex --encoder test-aaaaaaaa`"):
        ask(database, "1.2.3")
    with database.transaction() as connection:
        save(connection, added.series_id, encoder_id, new_stack(EYE[:2], instance_uids=["another"]))
    with pytest.raises(ExampleNotEmbedded, match="no part of it") as late:
        ask(database, "1.2.3", "1.2.3.1", "1.2.3.1.1")
    assert not isinstance(late.value, ExampleNotReindexed)


def test_half_a_study_is_no_example_yet_but_a_late_instance_takes_no_answer_away(
    database: Database, encoder_id: int
) -> None:
    dice = np.random.default_rng(0)
    with database.transaction() as connection:
        ready = add_series(connection, "1.2.3", "1.2.3.1")
        waiting = add_series(connection, "1.2.3", "1.2.3.2")
        save(connection, ready.series_id, encoder_id, new_stack(random_vectors(dice, 3)))
        jobs.enqueue(connection, ready.series_id, 100)
        jobs.enqueue(connection, waiting.series_id, 100)
    with pytest.raises(ExampleNotReady):
        ask(database, "1.2.3")
    assert len(ask(database, "1.2.3", "1.2.3.1").vectors) == 1


def test_an_overdue_job_is_due_now(database: Database, encoder_id: int) -> None:
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1")
        jobs.enqueue(connection, added.series_id, -500)
    with pytest.raises(ExampleNotReady) as waiting:
        ask(database, "1.2.3")
    assert 0 < waiting.value.retry_after <= 10


def test_embeddings_of_another_encoder_do_not_count(database: Database, encoder_id: int) -> None:
    dice = np.random.default_rng(0)
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1")
        save(connection, added.series_id, encoder_id, new_stack(random_vectors(dice, 3)))
        add_encoder(connection, "b" * 64)
        jobs.enqueue(connection, added.series_id, 0)
    with pytest.raises(ExampleNotReady):
        ask(database, "1.2.3")
