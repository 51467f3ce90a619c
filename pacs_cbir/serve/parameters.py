"""A request's query parameters → examples, matching keys and return keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from collections.abc import Sequence as Several

from pacs_cbir.dicom.sequence_header import Sequence
from pacs_cbir.embed.region import Box
from pacs_cbir.errors import InvalidQuery
from pacs_cbir.store.examples import Example
from pacs_cbir.store.matching import keyword_of
from pacs_cbir.store.value_tests import is_uid

FUZZY = "Match text without regard to case and accents, and names by the beginnings of their words."
"""PS3.18 8.3.4.2."""
LABEL = "The study has this label, letter by letter; repeated: one of these."

# As many digits as an IS, which is what NumberOfFrames is, has at most (PS3.5 6.2).
_FRAME = re.compile(r"[1-9][0-9]{0,9}")
_BOX = re.compile(r"([0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5})")
_WEIGHT_DIGITS = 4
_WEIGHT = re.compile(rf"[0-9]{{1,{_WEIGHT_DIGITS}}}(\.[0-9]{{1,6}})?")


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


def region_of(text: str, examples: Several[Example]) -> Box | None:
    """`x0,y0,x1,y1`: columns x0 to x1 - 1 and rows y0 to y1 - 1 of the one example's frame; None where empty.

    Raises:
        InvalidQuery: something else, or the examples are not one instance or frame.
    """
    if not text:
        return None
    found = _BOX.fullmatch(text.strip())
    box = Box(*map(int, found.groups())) if found else None
    if box is None or box.left >= box.right or box.top >= box.bottom:
        raise InvalidQuery(
            "region accepts x0,y0,x1,y1 in pixels of the example's frame: columns x0 to x1 - 1 and rows y0 to y1 - 1, "
            "counted from 0, with x0 below x1 and y0 below y1"
        )
    if len(examples) != 1 or examples[0].sop_instance_uid is None:
        raise InvalidQuery("region needs exactly one example, which names an instance or a frame, and no uploaded file")
    return box


def sequences_of(texts: Iterable[str]) -> frozenset[str]:
    """`T1CE`, `T1,T2` and several of them: MR sequences in their usual spelling.

    Raises:
        InvalidQuery: a name is none.
    """
    return frozenset(_sequence("sequence", name) for text in texts for name in text.split(",") if name.strip())


def sequence_weights_of(text: str) -> dict[str, float]:
    """`FLAIR:2,T1:0.5`: MR sequence → weight.

    Raises:
        InvalidQuery: something else.
    """
    return {_sequence("weights", name): weight for name, weight in weights_of("weights", text).items()}


def weights_of(parameter: str, text: str) -> dict[str, float]:
    """`lesion:1,grey:0.2`: name → weight.

    Raises:
        InvalidQuery: something else, or a name is given twice.
    """
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.rpartition(":"))
        if not name or name in weights or not _WEIGHT.fullmatch(number):
            raise InvalidQuery(
                f"{parameter} accepts names with a weight each, as name:2,other:0.5: decimal numbers from 0 to "
                f"{10**_WEIGHT_DIGITS - 1}, each name once"
            )
        weights[name] = float(number)
    return weights


def _sequence(parameter: str, name: str) -> str:
    known = {sequence.value.upper(): sequence.value for sequence in Sequence if sequence is not Sequence.LOCALISER}
    found = known.get(name.strip().upper())
    if found is None:
        raise InvalidQuery(f"{parameter} accepts the MR sequences {', '.join(known.values())}")
    return found


def check_once(items: Iterable[tuple[str, str]], names: Collection[str]) -> None:
    """Refuse parameters that have one value each and come with two, of which one would be lost.

    Args:
        items: all parameters.
        names: those that are looked at.

    Raises:
        InvalidQuery: names those that are repeated.
    """
    given = [name for name, _ in items]
    if repeated := sorted(name for name in names if given.count(name) > 1):
        raise InvalidQuery(f"{', '.join(repeated)}: given more than once, and accepts one value")


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

    def ask_for(self, keywords: Collection[str]) -> bool:
        """Whether one of these is asked for."""
        return self._all or any(keyword in keywords for keyword in self.requested)

    def of(self, attributes: Collection[str], default: Several[str] = ()) -> tuple[str, ...]:
        """The keywords to answer with: the default ones, and of what is there those that are asked for."""
        wanted = attributes if self._all else [keyword for keyword in self.requested if keyword in attributes]
        return tuple(dict.fromkeys([*default, *wanted]))
