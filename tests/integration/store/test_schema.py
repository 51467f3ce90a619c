"""The migrations make exactly what `tables.py` says, and undo it."""

from __future__ import annotations

import pytest
from alembic import command
from rows import add_series
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from pacs_cbir.errors import SchemaOutdated
from pacs_cbir.settings import Settings
from pacs_cbir.store import schema
from pacs_cbir.store.session import Database, open_database


def test_migrations_and_tables_agree(owner_url: str) -> None:
    owner = Database(owner_url, role=None)
    with owner.transaction() as connection:
        command.check(schema._config(connection))
    owner.close()


def test_downgrade_leaves_nothing_and_upgrade_comes_back(owner_url: str, database: Database) -> None:
    owner = Database(owner_url, role=None)
    schema.downgrade(owner, "base")
    assert schema.current(owner) is None
    with owner.transaction() as connection:
        left = connection.scalars(
            text("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')")
        ).all()
    assert left == ["alembic_version"]
    with pytest.raises(SchemaOutdated, match="pacs-cbir db upgrade"):
        schema.check(database)
    schema.upgrade(owner)
    schema.check(database)
    owner.close()


def test_downgrade_has_pixel_data_that_left_sent_again(owner_url: str, database: Database) -> None:
    with database.transaction() as connection:
        add_series(connection, "1", "1.1", instance_uids=["1.1.1", "1.1.2"])
        connection.execute(text("UPDATE instances SET file = NULL"))
    owner = Database(owner_url, role=None)
    schema.downgrade(owner, "0002")
    with owner.transaction() as connection:
        assert len(set(connection.scalars(text("SELECT file FROM instances")))) == 2
    schema.upgrade(owner)
    with owner.transaction() as connection:
        assert set(connection.scalars(text("SELECT file FROM instances"))) == {None}
    owner.close()


def test_services_refuse_an_older_schema(settings: Settings, owner_url: str) -> None:
    owner = Database(owner_url, role=None)
    schema.downgrade(owner, "base")
    owner.close()
    with pytest.raises(SchemaOutdated, match="db upgrade"), open_database(settings):
        pass


def test_services_cannot_change_the_schema(database: Database) -> None:
    with pytest.raises(ProgrammingError, match="must be owner"), database.transaction() as connection:
        connection.execute(text("DROP TABLE jobs"))
    with pytest.raises(ProgrammingError, match="permission denied"), database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'x'"))
