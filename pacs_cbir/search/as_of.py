"""The state that an answer is taken from, so that its next pages are taken from the same, whatever arrives."""

from __future__ import annotations

from dataclasses import dataclass

from pacs_cbir.errors import IndexNotReady, InvalidQuery
from pacs_cbir.store.moment import Moment, now
from pacs_cbir.store.session import Connection


@dataclass(frozen=True)
class AsOf:
    """The stacks of one encoder that were there at a moment.

    It means the same to every API process of a database, and after a restart. What was deleted or embedded anew since
    is gone all the same.
    """

    encoder_id: int
    moment: Moment

    def __str__(self) -> str:
        return ".".join(map(str, (self.encoder_id, self.moment.below, *self.moment.running)))

    @classmethod
    def of_text(cls, text: str) -> AsOf:
        """What `str` made: numbers with points between them.

        Raises:
            InvalidQuery: it is no such text.
        """
        numbers = text.split(".")
        if len(numbers) < 2 or not all(n.isascii() and n.isdecimal() and len(n) <= _DIGITS for n in numbers):
            raise InvalidQuery("as_of accepts what an earlier answer said in Pacs-Cbir-As-Of")
        encoder_id, below, *running = map(int, numbers)
        return cls(encoder_id, Moment(below, tuple(running)))

    def check(self, connection: Connection, encoder_id: int | None, reached: Moment | None) -> None:
        """Make sure that an index holds all of it.

        Args:
            encoder_id, reached: of the index.

        Raises:
            InvalidQuery: nobody can answer it any more, or could ever.
            IndexNotReady: another process is ahead of this one.
        """
        if self.encoder_id != encoder_id:
            raise InvalidQuery("as_of is of another encoder than answers now: ask for the first page again, without it")
        if reached is None or not reached.covers(self.moment):
            if not now(connection).covers(self.moment):
                raise InvalidQuery("as_of is of no state of this database: ask for the first page again, without it")
            raise IndexNotReady("the index has not reached the state that as_of names")


_DIGITS = 18
"""Fewer than an int64 has."""
