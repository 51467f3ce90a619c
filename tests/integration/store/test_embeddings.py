"""Stacks, their change feed and their encoder, in a real Postgres."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
import pytest
from rows import Added, add_series
from running import wait_for_blocked
from sqlalchemy import Connection, insert, select, text
from stack_rows import add_encoder, new_stack, not_embedded, random_vectors, save, unit

from pacs_cbir.errors import PixelDataGone
from pacs_cbir.store import embeddings
from pacs_cbir.store.moment import now
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import embeddings as embedding_rows
from pacs_cbir.store.tables import instances, series, stack_changes

DICE = np.random.default_rng(7)


@pytest.fixture
def one(database: Database) -> tuple[Added, int]:
    """A series and the active encoder."""
    with database.transaction() as connection:
        return add_series(connection, "1.2.3", "1.2.3.1"), add_encoder(connection)


def ids(database: Database, encoder_id: int) -> set[uuid.UUID]:
    with database.transaction() as connection:
        return set(embeddings.written(connection, encoder_id).transactions)


def test_what_is_saved_is_loaded(database: Database, one: tuple[Added, int]) -> None:
    added, encoder_id = one
    first, second = random_vectors(DICE, 4), random_vectors(DICE, 2)
    with database.transaction() as connection:
        save(
            connection,
            added.series_id,
            encoder_id,
            new_stack(first, sequence="FLAIR", body_part="KNEE", in_domain=False),
            not_embedded("a localiser"),
            new_stack(second, plane="sagittal"),
        )
    with database.transaction() as connection:
        loaded = list(embeddings.load(connection, encoder_id, ids(database, encoder_id)))
    flair, sagittal = sorted(loaded, key=lambda stack: stack.sequence)
    np.testing.assert_array_equal(flair.vectors, first)
    np.testing.assert_array_equal(sagittal.vectors, second)
    np.testing.assert_array_equal(flair.slices, [0, 1, 2, 3])
    assert (flair.series_id, flair.study_id) == (added.series_id, added.study_id)
    assert (flair.sequence, flair.plane, flair.body_part, flair.in_domain) == ("FLAIR", "axial", "KNEE", False)
    assert (sagittal.plane, sagittal.in_domain) == ("sagittal", True)


def test_vectors_are_little_endian_float32_at_rest(database: Database, one: tuple[Added, int]) -> None:
    added, encoder_id = one
    vectors = unit(np.eye(2, 8))
    with database.transaction() as connection:
        save(connection, added.series_id, encoder_id, new_stack(vectors))
    with database.transaction() as connection:
        stored = connection.scalars(select(embedding_rows.c.vector).order_by(embedding_rows.c.slice)).all()
    assert [bytes(vector) for vector in stored] == [vector.astype("<f4").tobytes() for vector in vectors]


def test_embedding_anew_replaces_all_stacks_of_the_series_alone(database: Database, one: tuple[Added, int]) -> None:
    added, encoder_id = one
    with database.transaction() as connection:
        other = add_series(connection, "1.2.3", "1.2.3.2")
        for series_id in (added.series_id, other.series_id):
            save(connection, series_id, encoder_id, *(new_stack(random_vectors(DICE, 3)) for _ in range(2)))
    before = ids(database, encoder_id)
    with database.transaction() as connection:
        save(connection, added.series_id, encoder_id, new_stack(random_vectors(DICE, 3)))
    after = ids(database, encoder_id)
    assert len(before & after) == 2
    assert len(after - before) == 1
    with database.transaction() as connection:
        assert connection.scalar(text("SELECT count(*) FROM embeddings")) == 3 * 3


def test_an_unfinished_embedding_is_never_seen(database: Database, one: tuple[Added, int]) -> None:
    added, encoder_id = one
    with database.transaction() as connection:
        save(connection, added.series_id, encoder_id, new_stack(random_vectors(DICE, 3)))
    before = ids(database, encoder_id)

    def save_and_die() -> None:
        with database.transaction() as connection:
            save(connection, added.series_id, encoder_id, new_stack(random_vectors(DICE, 3)))
            assert ids(database, encoder_id) == before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        save_and_die()
    assert ids(database, encoder_id) == before


def test_an_emptied_series_goes(database: Database, one: tuple[Added, int]) -> None:
    added, encoder_id = one
    with database.transaction() as connection:
        save(connection, added.series_id, encoder_id)
        assert connection.scalar(select(series.c.id)) == added.series_id, "it still has an instance"
        connection.execute(instances.delete())
        save(connection, added.series_id, encoder_id)
        assert connection.scalar(select(series.c.id)) is None


def test_an_instance_that_arrives_while_its_series_is_dropped_keeps_it(
    database: Database, one: tuple[Added, int]
) -> None:
    added, encoder_id = one
    with database.transaction() as connection:
        moved = dict(connection.execute(select(instances)).mappings().one())
        connection.execute(instances.delete())

    def drop() -> None:
        with database.transaction() as connection:
            save(connection, added.series_id, encoder_id)

    del moved["id"]
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            connection.execute(insert(instances).values(moved))
            dropping = pool.submit(drop)
            wait_for_blocked(database)
        dropping.result(10)
    with database.transaction() as connection:
        assert connection.scalar(select(instances.c.series_id)) == added.series_id


def changes(database: Database, position: int) -> embeddings.Changes:
    with database.transaction() as connection:
        return embeddings.changes_since(connection, position)


def position(database: Database) -> int:
    with database.transaction() as connection:
        return now(connection).position


def test_late_commits_are_not_passed_over(database: Database, one: tuple[Added, int]) -> None:
    """A transaction that began first and commits last has the lower id."""
    added, encoder_id = one
    start = position(database)
    with database.transaction() as early:
        save(early, added.series_id, encoder_id, new_stack(random_vectors(DICE, 2)))
        with database.transaction() as connection:
            quick = add_series(connection, "1.2.4", "1.2.4.1")
            save(connection, quick.series_id, encoder_id, new_stack(random_vectors(DICE, 2)))
        seen = changes(database, start)
        assert seen.stack_ids == ids(database, encoder_id)
    late = changes(database, seen.moment.position)
    assert late.stack_ids >= ids(database, encoder_id) - seen.stack_ids
    assert late.stack_ids - seen.stack_ids
    assert changes(database, late.moment.position).stack_ids == frozenset()


@pytest.mark.parametrize("statement", ["DELETE FROM stacks", "DELETE FROM series", "DELETE FROM studies"])
def test_deletions_are_changes_whoever_cascades(database: Database, one: tuple[Added, int], statement: str) -> None:
    added, encoder_id = one
    with database.transaction() as connection:
        save(connection, added.series_id, encoder_id, new_stack(random_vectors(DICE, 2)))
    there, start = ids(database, encoder_id), position(database)
    with database.transaction() as connection:
        connection.execute(text(statement))
    assert changes(database, start).stack_ids == there
    with database.transaction() as connection:
        assert connection.scalar(text("SELECT count(*) FROM embeddings")) == 0


def test_old_changes_are_forgotten(database: Database, one: tuple[Added, int]) -> None:
    added, encoder_id = one
    start = position(database)
    with database.transaction() as connection:
        save(connection, added.series_id, encoder_id, new_stack(random_vectors(DICE, 2)))
    with database.transaction() as connection:
        embeddings.forget_changes(connection, 60)
    assert len(changes(database, start).stack_ids) == 1
    with database.transaction() as connection:
        connection.execute(stack_changes.update().values(changed_at=text("clock_timestamp() - interval '61 s'")))
        embeddings.forget_changes(connection, 60)
    assert changes(database, start).stack_ids == frozenset()


def test_series_files_are_in_order_of_arrival(database: Database) -> None:
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1", instance_uids=["1.9", "1.10", "1.1"])
        files = embeddings.series_files(connection, added.series_id)
    assert list(files) == ["1.9", "1.10", "1.1"]
    assert files["1.9"] == ("1.2.840.10008.5.1.4.1.1.4", "00/1.9.dcm")


def test_a_series_that_has_lost_pixel_data_has_no_files(database: Database) -> None:
    with database.transaction() as connection:
        added = add_series(connection, "1.2.3", "1.2.3.1", instance_uids=["1.1", "1.2"])
        connection.execute(instances.update().where(instances.c.sop_instance_uid == "1.2").values(file=None))
        with pytest.raises(PixelDataGone, match="TEST sent it"):
            embeddings.series_files(connection, added.series_id)


def slices_of(connection: Connection) -> dict[uuid.UUID, list[int]]:
    rows = connection.execute(
        select(embedding_rows.c.stack_id, embedding_rows.c.slice).order_by(
            embedding_rows.c.stack_id, embedding_rows.c.slice
        )
    )
    return {stack: [row.slice for row in group] for stack, group in groupby(rows, key=lambda row: row.stack_id)}


def test_loading_many_stacks_keeps_them_apart(database: Database, one: tuple[Added, int]) -> None:
    added, encoder_id = one
    with database.transaction() as connection:
        save(
            connection,
            added.series_id,
            encoder_id,
            *(new_stack(random_vectors(DICE, count)) for count in DICE.integers(2, 30, 20)),
        )
        wanted = embeddings.written(connection, encoder_id).transactions
        loaded = {stack.id: list(stack.slices) for stack in embeddings.load(connection, encoder_id, wanted)}
        assert loaded == slices_of(connection)
        assert list(embeddings.load(connection, encoder_id, [])) == []
        some = list(wanted)[:3]
        assert embeddings.written(connection, encoder_id, some).transactions == {id_: wanted[id_] for id_ in some}
