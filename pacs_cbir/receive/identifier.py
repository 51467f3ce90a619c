"""A C-FIND's identifier (PS3.4 C.4.1.1.3) → what is asked: level, matching keys, return keys, our private keys."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.uid import UID

from pacs_cbir.dicom import private_block as ours
from pacs_cbir.dicom.data_set import NO_TEXT
from pacs_cbir.dicom.elements import Element, MalformedDataSet, encodings_of, read_elements, text_values
from pacs_cbir.errors import InvalidQuery, WrongLevel
from pacs_cbir.store.matching import Level
from pacs_cbir.store.value_tests import is_uid

MAX_IDENTIFIER_BYTES = 2**20
"""More than the longest list of UIDs that is matched."""
MAX_KEYS = 100
"""Matching keys of one query: each is a condition in the database."""

LEVELS = {"STUDY": Level.STUDY, "SERIES": Level.SERIES, "IMAGE": Level.INSTANCE}
UNIQUE_KEYS = {
    Level.STUDY: ("StudyInstanceUID",),
    Level.SERIES: ("StudyInstanceUID", "SeriesInstanceUID"),
    Level.INSTANCE: ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}
"""Of each level and those above it (PS3.4 C.6.2.1)."""

_PRIVATE_VRS = {
    ours.LABELS: "LO",
    **dict.fromkeys((ours.EXAMPLES, ours.KEY_LIKE, ours.KEY_UNLIKE), "UC"),
    **dict.fromkeys((ours.KEY_SEQUENCES, ours.KEY_WEIGHTS, ours.KEY_PARTS), "LO"),
    ours.KEY_LEAST: "DS",
    ours.KEY_LIMIT: "IS",
    ours.KEY_OWN_PATIENT: "CS",
}
_SPECIFIC_CHARACTER_SET = 0x00080005
# What tells how to read the identifier, or is said by every answer.
_NO_KEYS = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC"})


@dataclass
class Identifier:
    """What is asked.

    Attributes:
        level: of the answers.
        matching: keyword → value, of the keys that have one.
        returned: keywords of all keys.
        private: number in our private block → values.
        all_supported: whether every key can be matched and returned.
    """

    level: Level
    matching: dict[str, str] = field(default_factory=dict)
    returned: dict[str, None] = field(default_factory=dict)
    private: dict[int, list[str]] = field(default_factory=dict)
    all_supported: bool = True

    @property
    def by_example(self) -> bool:
        """Whether it asks what is similar."""
        return ours.EXAMPLES in self.private


def read_identifier(encoded: bytes, transfer_syntax: UID) -> Identifier:
    """Read an identifier.

    Raises:
        WrongLevel: the level is none of the Study Root model, or unique keys of the levels above are missing.
        InvalidQuery: it is no data set, too long, or a value is not of its VR.
    """
    if len(encoded) > MAX_IDENTIFIER_BYTES:
        raise InvalidQuery(f"the identifier has more than {MAX_IDENTIFIER_BYTES} bytes")
    try:
        elements = list(
            read_elements(
                io.BytesIO(encoded),
                len(encoded),
                implicit=transfer_syntax.is_implicit_VR,
                little_endian=transfer_syntax.is_little_endian,
                longest=MAX_IDENTIFIER_BYTES,
            )
        )
    except MalformedDataSet as error:
        raise InvalidQuery("the identifier is no data set: it is cut off or damaged") from error
    given = {element.tag: element for element in elements}
    character_set = given.get(_SPECIFIC_CHARACTER_SET)
    encodings = encodings_of((character_set.value if character_set else None) or b"")
    blocks = _our_blocks(elements)
    identifier = Identifier(_level(given))
    for element in given.values():
        if (element.tag >> 16) % 2:
            _add_private(identifier, element, blocks, encodings)
        elif element.tag & 0xFFFF:
            _add_key(identifier, element, encodings)
    if len(identifier.matching) > MAX_KEYS:
        raise InvalidQuery(f"at most {MAX_KEYS} matching keys are accepted")
    _check_keys(identifier)
    return identifier


def _level(given: Mapping[int, Element]) -> Level:
    element = given.get(0x00080052)
    name = (element.value or b"").decode("latin-1").strip(" \0") if element else ""
    if name not in LEVELS:
        raise WrongLevel(f"QueryRetrieveLevel is one of {', '.join(LEVELS)}")
    return LEVELS[name]


def _our_blocks(elements: Sequence[Element]) -> frozenset[int]:
    """The numbers of the blocks that our private creator reserves (PS3.5 7.8.1)."""
    creators = (element for element in elements if ours.PRIVATE_GROUP << 16 | 0x10 <= element.tag <= 0x007500FF)
    return frozenset(
        creator.tag & 0xFF
        for creator in creators
        if (creator.value or b"").decode("latin-1").strip(" \0") == ours.PRIVATE_CREATOR
    )


def _add_private(identifier: Identifier, element: Element, blocks: frozenset[int], encodings: Sequence[str]) -> None:
    if element.tag & 0xFFFF <= 0xFF:
        return
    number = element.tag & 0xFF
    if element.tag >> 16 != ours.PRIVATE_GROUP or (element.tag >> 8) & 0xFF not in blocks:
        identifier.all_supported = False
    elif number in _PRIVATE_VRS:
        # Who does not know the block sends its elements as UN, or in implicit VR.
        values = _values(replace(element, vr=_PRIVATE_VRS[number]), encodings, "a private key")
        if values:
            identifier.private[number] = values


def _add_key(identifier: Identifier, element: Element, encodings: Sequence[str]) -> None:
    keyword = keyword_for_tag(element.tag)
    if keyword in _NO_KEYS:
        return
    if not keyword:
        identifier.all_supported = False
        return
    identifier.returned[keyword] = None
    if dictionary_VR(element.tag).split(" or ")[0] in NO_TEXT:
        identifier.all_supported = False
    elif text := "\\".join(_values(element, encodings, keyword)):
        identifier.matching[keyword] = text


def _values(element: Element, encodings: Sequence[str], name: str) -> list[str]:
    try:
        values = text_values(element, encodings)
    except (ValueError, LookupError, struct.error):
        values = []
    if not values and (element.value is None or element.value.strip(b" \0\\")):
        raise InvalidQuery(f"{name} has a value that is not of its VR")
    return values


def _check_keys(identifier: Identifier) -> None:
    if identifier.by_example:
        if identifier.level is Level.INSTANCE:
            raise WrongLevel("queries by example are answered at STUDY and SERIES level")
        return
    if identifier.private.keys() - {ours.LABELS}:
        raise InvalidQuery("private keys without an example in (0075,xx20)")
    # No relational queries: the levels above are named by one UID each (PS3.4 C.4.1.2.1).
    for keyword in UNIQUE_KEYS[identifier.level][:-1]:
        if not is_uid(identifier.matching.get(keyword, "")):
            raise WrongLevel(f"{keyword} must be one UID at this level")
