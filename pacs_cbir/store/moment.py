"""A state of the database that can be named later, by the transactions that had been committed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, text

SNAPSHOT = "pg_current_snapshot()::text"


@dataclass(frozen=True)
class Moment:
    """What a reading statement sees: transactions below `below`, but for those `running`, which may commit late.

    Transactions are numbered for as long as a Postgres cluster lives, whoever restarts.
    """

    below: int
    running: tuple[int, ...] = ()

    @classmethod
    def of_snapshot(cls, snapshot: str) -> Moment:
        """From a pg_snapshot as text, `xmin:xmax:running,…`."""
        _, below, running = snapshot.split(":")
        return cls(int(below), tuple(int(number) for number in running.split(",") if number))

    @property
    def position(self) -> int:
        """Everything below it is final."""
        return min(self.running, default=self.below)

    def includes(self, transactions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of some transactions had been committed, given that all of them are by now."""
        return (transactions < self.below) & ~np.isin(transactions, self.running)

    def covers(self, earlier: Moment) -> bool:
        """Whether all that had been committed at an earlier moment had been at this one."""
        return earlier.below <= self.below and all(
            number >= earlier.below or number in earlier.running for number in self.running
        )


def now(connection: Connection) -> Moment:
    """What the connection's next statement sees at least."""
    return Moment.of_snapshot(connection.execute(text(f"SELECT {SNAPSHOT}")).scalar_one())
