"""Pages of one ranking, while studies arrive and go between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from rows import add_series
from sqlalchemy import text
from stack_rows import add_encoder, new_stack, random_vectors, save

from pacs_cbir.errors import IndexNotReady, InvalidQuery
from pacs_cbir.search.as_of import AsOf
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.query import Answer, Query
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.store.examples import Example
from pacs_cbir.store.moment import Moment
from pacs_cbir.store.session import Connection, Database

PAGE = 7
DICE = np.random.default_rng(20)


class Archive:
    """Studies of one series each, the first of them the example."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self._numbers = itertools.count(1)
        with database.transaction() as connection:
            self._encoder_id = add_encoder(connection)
        self.add(31)
        self.follow()

    def add(self, count: int) -> None:
        with self.database.transaction() as connection:
            self.write(connection, count)

    def write(self, connection: Connection, count: int) -> None:
        for number in itertools.islice(self._numbers, count):
            added = add_series(connection, f"1.{number}", f"1.{number}.1", study={"PatientID": str(number)})
            save(connection, added.series_id, self._encoder_id, new_stack(random_vectors(DICE, 3)))

    def follow(self) -> None:
        """As a process does that starts now."""
        self.follower = Follower(self.database, self.folder)
        self.follower.catch_up()

    def ask(self, offset: int = 0, as_of: AsOf | None = None, limit: int = PAGE) -> Answer:
        searcher = Searcher(self.database, self.follower)
        query = Query((Example("1.1"),), least=-1.0, limit=limit, offset=offset, as_of=as_of)
        return searcher.similar_studies(query)

    def ids(self, answer: Answer) -> list[int]:
        return [match.study_id for match in answer.studies]


@pytest.fixture
def archive(database: Database, tmp_path: Path) -> Archive:
    return Archive(database, tmp_path)


def pages(archive: Archive, as_of: AsOf | None) -> Iterator[Answer]:
    for offset in range(0, 30, PAGE):
        yield archive.ask(offset, as_of)


def test_pages_are_of_the_first_ones_ranking_while_studies_arrive(archive: Archive) -> None:
    whole = archive.ids(archive.ask(limit=100))
    first = archive.ask()
    found = archive.ids(first)
    for offset in range(PAGE, 30, PAGE):
        archive.add(5)
        archive.follower.catch_up()
        page = archive.ask(offset, first.as_of)
        assert (page.total, page.as_of) == (30, first.as_of)
        found += archive.ids(page)
    assert found == whole
    assert archive.ask().total == 50
    assert archive.ids(archive.ask(limit=100)) != whole


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_restarted_process_and_another_answer_the_same_pages(archive: Archive, snapshot: bool) -> None:
    """Its index is of a file or of the rows, and holds what came between."""
    first = archive.ask()
    expected = [archive.ids(page) for page in pages(archive, first.as_of)]
    archive.add(10)
    archive.follower.catch_up()
    if snapshot:
        archive.follower.save()
    archive.follow()
    assert archive.ask().total == 40
    assert [archive.ids(page) for page in pages(archive, first.as_of)] == expected


def test_what_commits_late_is_no_part_of_it(archive: Archive) -> None:
    """Transactions that began before the first page and end after it; one that began later has ended before."""
    with ExitStack() as stack:
        late = [stack.enter_context(archive.database.transaction()) for _ in range(3)]
        for connection in late:
            archive.write(connection, 2)
        archive.add(3)
        archive.follower.catch_up()
        first = archive.ask(limit=100)
        assert first.total == 33
        assert first.as_of is not None
        assert len(first.as_of.moment.running) == 3
    archive.follower.catch_up()
    assert archive.ask().total == 39
    again = archive.ask(as_of=first.as_of, limit=100)
    assert archive.ids(again) == archive.ids(first)
    archive.follow()
    assert archive.ids(archive.ask(as_of=first.as_of, limit=100)) == archive.ids(first)


def test_what_was_deleted_vanishes(archive: Archive) -> None:
    first = archive.ask(limit=100)
    gone = archive.ids(first)[3]
    with archive.database.transaction() as connection:
        connection.execute(text("DELETE FROM studies WHERE id = :gone"), {"gone": gone})
    archive.follower.catch_up()
    left = archive.ids(archive.ask(as_of=first.as_of, limit=100))
    assert left == [study for study in archive.ids(first) if study != gone]


def test_a_process_that_lags_says_so(archive: Archive) -> None:
    lagging = archive.follower
    archive.add(1)
    archive.follow()
    first = archive.ask(limit=100)
    archive.follower, ahead = lagging, archive.follower
    with pytest.raises(IndexNotReady):
        archive.ask(as_of=first.as_of)
    lagging.catch_up()
    assert archive.ids(archive.ask(as_of=first.as_of, limit=100)) == archive.ids(first)
    assert ahead.current.as_of == first.as_of


def test_a_state_that_cannot_be_answered_is_named(archive: Archive) -> None:
    as_of = archive.ask().as_of
    assert as_of is not None
    assert AsOf.of_text(str(as_of)) == as_of
    with pytest.raises(InvalidQuery, match="another encoder"):
        archive.ask(as_of=AsOf(as_of.encoder_id + 1, as_of.moment))
    with pytest.raises(InvalidQuery, match="no state of this database"):
        archive.ask(as_of=AsOf(as_of.encoder_id, Moment(10**17)))
    for text_ in ("", "1", "1.", "1.-2", "1.2.x", "1.²", "1." + "9" * 19):
        with pytest.raises(InvalidQuery, match="as_of accepts"):
            AsOf.of_text(text_)


def test_a_series_embedded_anew_is_never_away(archive: Archive) -> None:
    """Its new stack came later than pages under way; who asks for the first page finds it at once."""
    first = archive.ask(limit=100)
    with archive.database.transaction() as connection:
        series_id = connection.execute(text("SELECT id FROM series WHERE series_instance_uid = '1.5.1'")).scalar_one()
        save(connection, series_id, archive._encoder_id, new_stack(random_vectors(DICE, 3)))
    archive.follower.catch_up()
    assert archive.ask().total == 30
    assert archive.ask(as_of=first.as_of).total == 29


@pytest.mark.parametrize("seed", range(3))
def test_a_moment_includes_what_postgres_sees(database: Database, seed: int) -> None:
    """Random transactions, some of which are open at the moment, against pg_visible_in_snapshot."""
    dice = np.random.default_rng(seed)
    with ExitStack() as stack:
        numbers = []
        for _ in range(20):
            connection = (
                stack.enter_context(database.transaction()) if dice.random() < 0.3 and len(numbers) < 8 else None
            )
            statement = text("SELECT pg_current_xact_id()::text::bigint")
            if connection is not None:
                numbers.append(connection.execute(statement).scalar_one())
            else:
                with database.transaction() as quick:
                    numbers.append(quick.execute(statement).scalar_one())
        with database.reading() as connection:
            row = connection.execute(
                text(
                    "SELECT pg_current_snapshot()::text AS snapshot, array(SELECT pg_visible_in_snapshot("
                    "n::text::xid8, pg_current_snapshot()) FROM unnest(CAST(:numbers AS bigint[])) AS n) AS seen"
                ),
                {"numbers": [*numbers, max(numbers) + 5]},
            ).one()
    moment = Moment.of_snapshot(row.snapshot)
    assert moment.includes(np.array([*numbers, max(numbers) + 5])).tolist() == row.seen
    assert moment.covers(moment)
    earlier = Moment(moment.below - 1, (*moment.running, moment.below - 2))
    assert moment.covers(earlier)
    assert not earlier.covers(moment)
    if moment.running:
        assert not moment.covers(Moment(moment.below))
