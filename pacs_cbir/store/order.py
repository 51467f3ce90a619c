"""The order in which studies are listed, and the page after one of them.

A page begins after a study and not at a count: what arrives or leaves meanwhile moves no study between pages.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, func, literal_column, select, tuple_

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.store.tables import STUDY_MOMENT, studies
from pacs_cbir.store.value_tests import folded_column, is_uid

# The last character there is: what has no value comes last in rising order, as it does in falling order by having none.
_LAST = literal_column("U&'\\+10FFFF'", String)
_MOMENT: ColumnElement[str] = literal_column(STUDY_MOMENT, String)


class Order(Enum):
    """What comes first. Studies without the value come last; what is alike is ordered by when it first came."""

    NEWEST = "-StudyDate"
    OLDEST = "StudyDate"
    DESCRIPTION = "StudyDescription"
    DESCRIPTION_FALLING = "-StudyDescription"
    LAST_RECEIVED = "-received"
    FIRST_RECEIVED = "received"

    @property
    def falling(self) -> bool:
        """Whether large values come first."""
        return self.value.startswith("-")


def ordered(connection: Connection, query: Select[Any], order: Order, after: str | None = None) -> Select[Any]:
    """A query of studies in an order, from the one behind `after` on, a Study Instance UID.

    Raises:
        InvalidQuery: `after` is no UID, or not here.
    """
    terms = _terms(order)
    query = query.order_by(None).order_by(*(term.desc() if order.falling else term for term in terms))
    if after is None:
        return query
    if not is_uid(after):
        raise InvalidQuery("after accepts a Study Instance UID")
    last = connection.execute(select(*terms).where(studies.c.study_instance_uid == after)).one_or_none()
    if last is None:
        raise InvalidQuery("after accepts the UID of a study that is here; ask for the first page again, without it")
    here = tuple_(*terms)
    return query.where(here < tuple(last) if order.falling else here > tuple(last))


def _terms(order: Order) -> tuple[ColumnElement[Any], ...]:
    if order in {Order.LAST_RECEIVED, Order.FIRST_RECEIVED}:
        return (studies.c.id,)
    if order is Order.NEWEST:
        return (_MOMENT, studies.c.id)
    if order is Order.OLDEST:
        return (func.coalesce(func.nullif(_MOMENT, ""), _LAST, type_=String).collate("C"), studies.c.id)
    missing = "" if order.falling else _LAST
    words = func.nullif(folded_column(studies.c.attributes["StudyDescription"][0].astext), "")
    return (func.coalesce(words, missing, type_=String).collate("C"), studies.c.id)
