"""Statements that Postgres gets ready once for each connection: planning one takes longer than a few lookups by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

_READY = "prepared"


class Prepared:
    """A statement that is prepared on a connection when it is first asked there.

    After a few times Postgres keeps the plan, until the tables' statistics or columns change.

    Args:
        name: that no other one has; Postgres refuses a second statement of that name.
        statement: with $1, $2, … in the places of what is given.
        types: of what is given.
    """

    def __init__(self, name: str, statement: str, *types: str) -> None:
        self._name = name
        self._prepare = f"PREPARE {name} ({', '.join(types)}) AS {statement}"
        self._execute = f"EXECUTE {name} ({', '.join(['%s'] * len(types))})"

    def rows(self, connection: Connection, *given: object) -> Sequence[Row[Any]]:
        """All rows for what is given."""
        # Of the connection to Postgres, and gone with it. What is rolled back stays prepared.
        ready = connection.info.setdefault(_READY, set())
        if self._prepare not in ready:
            connection.exec_driver_sql(self._prepare)
            ready.add(self._prepare)
        return connection.exec_driver_sql(self._execute, given).all()
