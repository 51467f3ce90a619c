"""Statements that are prepared once for each connection, whatever becomes of transactions, connections and tables."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from pacs_cbir.errors import DatabaseUnavailable
from pacs_cbir.store.prepared import Prepared
from pacs_cbir.store.session import Connection, Database

DOUBLED = Prepared("doubled", "SELECT $1 * 2 AS doubled, $2 AS said", "integer", "text")
ENCODERS = Prepared("encoder_names", "SELECT name FROM encoders WHERE id = ANY($1)", "bigint[]")
KEPT_PLAN = 8
"""Times after which Postgres has a plan of its own for whatever is given."""


def prepared(connection: Connection) -> int:
    found: int = connection.scalar(text("SELECT count(*) FROM pg_prepared_statements WHERE name = 'doubled'"))
    return found


def test_it_is_prepared_once_and_answers_what_is_given(database: Database) -> None:
    with database.reading() as connection:
        assert prepared(connection) == 0
        for number in range(KEPT_PLAN):
            (row,) = DOUBLED.rows(connection, number, "it's %s" if number else None)
            assert (row.doubled, row.said) == (2 * number, "it's %s" if number else None)
    with database.reading() as connection:
        assert [row.doubled for row in DOUBLED.rows(connection, 4, "")] == [8]
        assert prepared(connection) == 1


def test_of_two_statements_of_one_name_the_second_is_refused(database: Database) -> None:
    tripled = Prepared("doubled", "SELECT $1 * 3 AS doubled, $2 AS said", "integer", "text")
    with database.reading() as connection:
        DOUBLED.rows(connection, 1, "")
        with pytest.raises(ProgrammingError, match="already exists"):
            tripled.rows(connection, 1, "")


def test_it_outlives_a_transaction_that_is_rolled_back(database: Database) -> None:
    with database.engine.connect() as connection:
        DOUBLED.rows(connection, 1, "")
        connection.rollback()
        assert prepared(connection) == 1
        assert [row.doubled for row in DOUBLED.rows(connection, 2, "")] == [4]


def test_it_is_prepared_anew_where_the_connection_was_lost(database: Database, owner_url: str) -> None:
    with database.reading() as connection:
        DOUBLED.rows(connection, 1, "")
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    as_owner(owner_url, f"SELECT pg_terminate_backend({pid}, 5000)")
    with pytest.raises(DatabaseUnavailable), database.reading() as connection:
        DOUBLED.rows(connection, 2, "")
    with database.reading() as connection:
        assert prepared(connection) == 0
        assert [row.doubled for row in DOUBLED.rows(connection, 3, "")] == [6]


def test_it_follows_a_migration(database: Database, owner_url: str) -> None:
    with database.reading() as connection:
        for _ in range(KEPT_PLAN):
            assert ENCODERS.rows(connection, [1]) == []
        as_owner(owner_url, "ALTER TABLE encoders ADD COLUMN later integer")
        assert ENCODERS.rows(connection, [1]) == []


def as_owner(owner_url: str, statement: str) -> None:
    owner = Database(owner_url, role=None)
    with owner.transaction() as connection:
        connection.execute(text(statement))
    owner.close()
