"""The schema's version: Alembic's migrations, run as the owner, checked by every service at its start."""

from __future__ import annotations

from pathlib import Path

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from pacs_cbir.errors import DatabaseUnavailable, SchemaOutdated
from pacs_cbir.store import embedded
from pacs_cbir.store.session import SERVICE_ROLE, Database, reason_of

# Two processes that start at once must not both migrate.
MIGRATION_LOCK = 0x70616373
# By default Postgres logs a statement that failed, with the names and IDs in it, and the rows that it was about.
LOGGING = {"log_min_messages": "log", "log_min_error_statement": "panic", "log_error_verbosity": "terse"}


def _config(connection: Connection | None = None) -> Config:
    # A wheel carries the migrations inside the package; a clone has them beside it.
    package = Path(__file__).resolve().parents[1]
    folder = package / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder if folder.is_dir() else package.parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def latest() -> str:
    """The revision that this version of the code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise SchemaOutdated("the installation carries no migrations; install pacs-cbir again")
    return head


def current(database: Database) -> str | None:
    """The database's revision; None where there is no schema."""
    with database.transaction() as connection:
        if not connection.execute(text("SELECT to_regclass('alembic_version')")).scalar():
            return None
        return MigrationContext.configure(connection).get_current_revision()


def check(database: Database) -> None:
    """Refuse a database whose schema is not this version's.

    Raises:
        SchemaOutdated: with the command that mends it.
    """
    found, needed = current(database), latest()
    if found != needed:
        raise SchemaOutdated(
            f"the database's schema is {found or 'missing'}, this version needs {needed}: "
            "run `pacs-cbir db upgrade` with PACS_CBIR_DATABASE_OWNER_URL set to the schema's owner"
        )


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision, as its owner; safe to call from several processes at once."""
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        command.upgrade(_config(connection), revision)


def downgrade(database: Database, revision: str) -> None:
    """Bring the schema back to an earlier revision, as its owner."""
    with database.transaction() as connection:
        command.downgrade(_config(connection), revision)


def prepare_embedded(server: embedded.EmbeddedPostgres) -> None:
    """Make the embedded server's database, its newest schema, and the login that the services use."""
    try:
        raw = psycopg2.connect(server.url(embedded.OWNER, "postgres").replace("+psycopg2", ""), connect_timeout=10)
    except psycopg2.Error as error:
        raise DatabaseUnavailable(f"the embedded Postgres does not answer: {reason_of(error)}") from error
    raw.autocommit = True
    with raw.cursor() as cursor:
        # Session level: CREATE DATABASE cannot run inside a transaction. The connection's end releases it.
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        _log_no_values(cursor)
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [embedded.DATABASE])
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE DATABASE {embedded.DATABASE}")
        owner = Database(server.url(embedded.OWNER), role=None, pool_size=1)
        try:
            if current(owner) != latest():
                upgrade(owner)
        finally:
            owner.close()
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [embedded.SERVICE_LOGIN])
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE ROLE {embedded.SERVICE_LOGIN} LOGIN IN ROLE {SERVICE_ROLE}")
    raw.close()


def _log_no_values(cursor: psycopg2.extensions.cursor) -> None:
    """Keep what the services say to the embedded server out of its log."""
    cursor.execute("SELECT name, setting FROM pg_settings")
    in_force = dict(cursor.fetchall())
    changed = {name: value for name, value in LOGGING.items() if in_force[name] != value}
    for name, value in changed.items():
        cursor.execute(f"ALTER SYSTEM SET {name} = {value}")
    if changed:
        cursor.execute("SELECT pg_reload_conf()")
