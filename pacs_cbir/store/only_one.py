"""One backfill a PACS at once, whichever process runs it."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import Self

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from pacs_cbir.errors import BackfillRuns
from pacs_cbir.store.session import Database

# A process that was killed holds its lock until Postgres has noticed.
LOCK_ATTEMPTS = 10
LOCK_SECONDS = 0.5


class OnlyOne:
    """One backfill a PACS at once, whichever process runs it; a context manager.

    Raises:
        BackfillRuns: another one does.
        DatabaseUnavailable.
    """

    def __init__(self, database: Database, peer: str) -> None:
        self._database, self._peer = database, peer
        self._opened = ExitStack()
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def hold(self) -> None:
        """To be called before each step: what is held ends with its connection, and then is taken anew.

        Raises:
            BackfillRuns: another one was faster.
            DatabaseUnavailable.
        """
        if self._connection is not None:
            with suppress(DBAPIError):
                self._connection.execute(text("SELECT 1"))
                return
        self._let_go()
        key = {"key": f"backfill {self._peer}"}
        with ExitStack() as opened:
            connection = opened.enter_context(self._database.reading())
            for _ in range(LOCK_ATTEMPTS):
                if connection.execute(text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))"), key).scalar_one():
                    self._connection, self._opened = connection, opened.pop_all()
                    return
                time.sleep(LOCK_SECONDS)
        raise BackfillRuns(f"another backfill from {self._peer} is running; stop it first (Ctrl-C or SIGTERM)")

    def _let_go(self) -> None:
        if self._connection is not None:
            # Closed, and not given back: the lock ends with it, whatever became of the server.
            self._connection.invalidate()
            self._connection = None
        self._opened.close()
