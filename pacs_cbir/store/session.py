"""Connections: one Database a process, whose transactions translate what psycopg2 raises into our errors."""

from __future__ import annotations

import re
import select
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import psycopg2.sql
import sqlalchemy
import structlog
from sqlalchemy import Connection, create_engine, event, make_url, text

from pacs_cbir.errors import DatabaseUnavailable, SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store import embedded

# Connection is here for the rooms that run their reads in one transaction and know no sqlalchemy.
__all__ = ["SERVICE_ROLE", "Connection", "Database", "Listener", "open_database", "open_owner", "without_password"]

SERVICE_ROLE = "pacs_cbir_service"
CONNECT_SECONDS = 5
RECOVERY_SECONDS = 0.2
# A statement that waits longer than this for a lock or a result is answered as an unavailable database.
STATEMENT_SECONDS = 60
# SQLSTATE classes: connection, rollback (deadlock), resources, lock not available, operator's intervention, system.
TRANSIENT_CLASSES = {"08", "40", "53", "55", "57", "58"}

log = structlog.get_logger()


class Listener:
    """A connection that receives notifications; see `Database.listen`."""

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        self._connection = connection
        self._told = ""

    def tell(self, name: str) -> None:
        """Let other processes read a name in pg_stat_activity, for as long as this connection lives.

        Raises:
            DatabaseUnavailable: the connection was lost.
        """
        if name == self._told:
            return
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT set_config('application_name', %s, false)", [name])
        except psycopg2.Error as error:
            raise DatabaseUnavailable("the connection to Postgres was lost") from error
        self._told = name

    def wait(self, seconds: float) -> set[str]:
        """The channels that notified since the last call; waits for the first, at most so long.

        Raises:
            DatabaseUnavailable: the connection was lost.
        """
        # Not select(), which takes no file descriptor above 1023.
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        try:
            # What came with the answer to `tell` is not on the socket any more.
            if not self._connection.notifies and poll.poll(seconds * 1000):
                self._connection.poll()
        except psycopg2.Error as error:
            raise DatabaseUnavailable("the connection to Postgres was lost") from error
        channels = {notification.channel for notification in self._connection.notifies}
        self._connection.notifies.clear()
        return channels


class Database:
    """Two pools of connections as one role, for transactions and for reads.

    Args:
        url: postgresql:// URL.
        role: the role that every connection takes on, so that a service has no more rights than it needs.
        server: the embedded server behind the URL, which a failing connection starts again.
        pool_size: connections that may be open at once in each.
        name: of the process, for pg_stat_activity.
    """

    def __init__(
        self,
        url: str,
        *,
        role: str | None = SERVICE_ROLE,
        server: embedded.EmbeddedPostgres | None = None,
        pool_size: int = 10,
        name: str = "pacs-cbir",
    ) -> None:
        try:
            parsed = make_url(url).set(drivername="postgresql+psycopg2")
        except sqlalchemy.exc.ArgumentError:
            raise SettingsError("PACS_CBIR_DATABASE_URL is no postgresql:// URL") from None
        options = f"-c statement_timeout={STATEMENT_SECONDS}s -c timezone=UTC"
        if role is not None:
            options += f" -c role={role}"
        self.url = parsed
        self._server = server
        shared: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": CONNECT_SECONDS * 2,
            "pool_use_lifo": True,
            # Parameters carry names and IDs, and an error's text goes to the log.
            "hide_parameters": True,
            "connect_args": {"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": name},
        }
        self.engine = create_engine(parsed, **shared)
        # Connections of its own: to switch one between the two costs as much as it saves.
        self._reading = create_engine(parsed, isolation_level="AUTOCOMMIT", **shared)
        if server is not None:
            for engine in (self.engine, self._reading):
                event.listen(engine, "do_connect", self._connect_embedded)

    def _connect_embedded(
        self, dialect: object, record: object, arguments: list[Any], parameters: dict[str, Any]
    ) -> object:
        del dialect, record
        assert self._server is not None  # noqa: S101 - this listener is set for an embedded server alone
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                return psycopg2.connect(*arguments, **parameters)
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
            log.warning("the embedded Postgres does not answer; starting it")
            try:
                self._server.ensure_running()
            except DatabaseUnavailable:
                # Also while it recovers from a crash.
                if time.monotonic() > deadline:
                    raise
            time.sleep(RECOVERY_SECONDS)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back by any exception.

        Raises:
            DatabaseUnavailable: the server is away, went away, or did not answer in time. Whether a commit under
                way took place is then unknown; everything that is written here may be written twice.
        """
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Reads, each of which sees what is committed when it starts, as in a transaction at Postgres' default level,
        without the round trips that begin and end one.

        Raises:
            DatabaseUnavailable: the server is away, went away, or did not answer in time.
        """
        with _translated(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def listen(self, *channels: str) -> Iterator[Listener]:
        """A connection of its own, outside the pool, that receives the channels' notifications.

        Raises:
            DatabaseUnavailable: the server is away.
        """
        try:
            raw = psycopg2.connect(
                self.url.set(drivername="postgresql").render_as_string(hide_password=False),
                connect_timeout=CONNECT_SECONDS,
                application_name="pacs-cbir",
            )
            raw.autocommit = True
            with raw.cursor() as cursor:
                for channel in channels:
                    cursor.execute(psycopg2.sql.SQL("LISTEN {}").format(psycopg2.sql.Identifier(channel)))
        except psycopg2.Error as error:
            raise DatabaseUnavailable(f"Postgres does not answer: {reason_of(error)}") from error
        with closing(raw):
            yield Listener(raw)

    def notify(self, channel: str) -> None:
        """Notify every process that listens.

        Raises:
            DatabaseUnavailable: the server is away.
        """
        with self.transaction() as connection:
            connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})

    def ping(self) -> None:
        """One round trip.

        Raises:
            DatabaseUnavailable: the server is away.
        """
        with self.transaction() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()
        self._reading.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError) as error:
        raise DatabaseUnavailable(f"Postgres does not answer: {reason_of(error)}") from error
    except sqlalchemy.exc.DBAPIError as error:
        if error.connection_invalidated or _may_go_away(error):
            raise DatabaseUnavailable(f"Postgres does not answer: {reason_of(error)}") from error
        raise


_WHERE = re.compile(r"connection to server (at|on socket) .*? failed: ")
# To the last mark: a password may hold one.
_QUOTED = re.compile(r'".*"')


def reason_of(error: Exception) -> str:
    """What the driver says of a failure, in one line and without where it happened or anything that it quotes.

    A password that is not escaped in a URL is part of the host's name to the driver, which quotes it.
    """
    # Of a failure in the pool itself there is no driver's error below.
    told = str(getattr(error, "orig", None) or error).strip().splitlines() or [""]
    return _QUOTED.sub('"…"', _WHERE.sub("", told[0])) or type(error).__name__


def _may_go_away(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether the same statement may succeed later; a limit that the data exceed is no such thing."""
    if not isinstance(error, sqlalchemy.exc.OperationalError):
        return False
    state = getattr(error.orig, "pgcode", None)
    return state is None or state[:2] in TRANSIENT_CLASSES


def without_password(url: str) -> str:
    """A database URL as it may be shown; a text that is no URL is not shown at all."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "***"


@contextmanager
def open_database(
    settings: Settings,
    *,
    pool_size: int = 10,
    check: bool = True,
    role: str | None = SERVICE_ROLE,
    name: str = "pacs-cbir",
) -> Iterator[Database]:
    """The services' database: the server that the settings name, or the embedded one, started and upgraded.

    Args:
        check: whether the schema has to be this version's.
        pool_size, role, name: see `Database`.

    Raises:
        SchemaOutdated: a server database's schema is not this version's.
        DatabaseUnavailable: the server is away.
    """
    from pacs_cbir.store import schema  # noqa: PLC0415 - Alembic takes 0.3 s, and `--help` needs none of it

    if settings.database_url is not None:
        database = Database(settings.database_url.get_secret_value(), role=role, pool_size=pool_size, name=name)
        try:
            if check:
                schema.check(database)
            yield database
        finally:
            database.close()
        return
    with embedded.EmbeddedPostgres(settings.postgres_dir) as server:
        schema.prepare_embedded(server)
        url = server.url(embedded.SERVICE_LOGIN)
        database = Database(url, role=role, server=server, pool_size=pool_size, name=name)
        try:
            yield database
        finally:
            database.close()


@contextmanager
def open_owner(settings: Settings) -> Iterator[Database]:
    """The schema's owner, for migrations alone."""
    if settings.database_url is not None or settings.database_owner_url is not None:
        secret = settings.database_owner_url or settings.database_url
        assert secret is not None  # noqa: S101 - one of the two is set
        database = Database(secret.get_secret_value(), role=None, pool_size=2)
        try:
            yield database
        finally:
            database.close()
        return
    with embedded.EmbeddedPostgres(settings.postgres_dir) as server:
        from pacs_cbir.store import schema  # noqa: PLC0415 - see open_database

        schema.prepare_embedded(server)
        database = Database(server.url(embedded.OWNER), role=None, server=server, pool_size=2)
        try:
            yield database
        finally:
            database.close()
