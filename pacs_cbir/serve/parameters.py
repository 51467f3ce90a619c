"""A request's query parameters → examples, matching keys and return keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from fastapi import Request

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.store.examples import Example
from pacs_cbir.store.matching import keyword_of
from pacs_cbir.store.value_tests import is_uid

FUZZY_WARNING = (
    '299 pacs-cbir "The fuzzymatching parameter is not supported. Only literal matching has been performed."'
)
"""PS3.18 8.3.4.2."""

# As many digits as an IS, which is what NumberOfFrames is, has at most (PS3.5 6.2).
_FRAME = re.compile(r"[1-9][0-9]{0,9}")


def example_of(text: str) -> Example:
    """`{study}`, `{study}/{series}`, `{study}/{series}/{instance}` or `{study}/{series}/{instance}/{frame}`.

    Raises:
        InvalidQuery: something else.
    """
    study, *below = text.strip().split("/")
    series, instance, frame = (*below, None, None, None)[:3]
    uids = [uid for uid in (study, series, instance) if uid is not None]
    if len(below) > 3 or not all(map(is_uid, uids)) or not (frame is None or _FRAME.fullmatch(frame)):
        raise InvalidQuery(
            "example accepts {study}, {study}/{series}, {study}/{series}/{instance} and "
            "{study}/{series}/{instance}/{frame}: UIDs, and a frame number counted from 1"
        )
    return Example(study, series, instance, None if frame is None else int(frame))


def matching_keys(request: Request, reserved: Collection[str]) -> dict[str, str]:
    """All parameters that are not `reserved`: keyword → value.

    Raises:
        InvalidQuery: a name is no attribute's, or is given twice.
    """
    keys: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in reserved:
            continue
        keyword = keyword_of(name)
        if keyword in keys:
            raise InvalidQuery(f"{keyword} is given twice; a list of UIDs has a comma between them")
        keys[keyword] = value
    return keys


class ReturnKeys:
    """Which attributes an answer holds (PS3.18 8.3.4.3).

    Attributes:
        requested: keywords of `includefield` and of the matching keys, each once, as they came.

    Raises:
        InvalidQuery: a name is no attribute's.
    """

    def __init__(self, includefield: Iterable[str], keys: Iterable[str]) -> None:
        names = [name.strip() for part in includefield for name in part.split(",") if name.strip()]
        self._all = "all" in names
        self.requested = tuple(dict.fromkeys([*(keyword_of(name) for name in names if name != "all"), *keys]))

    def of(self, attributes: Collection[str], default: Sequence[str] = ()) -> tuple[str, ...]:
        """The keywords to answer with: the default ones, and of what is there those that are asked for."""
        wanted = attributes if self._all else [keyword for keyword in self.requested if keyword in attributes]
        return tuple(dict.fromkeys([*default, *wanted]))
