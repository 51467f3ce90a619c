"""Attributes as text → the DICOM JSON Model (PS3.18 F) and plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pacs_cbir.dicom.data_set import NO_TEXT, NUMBERS, TEXT, UNFIT, is_value, number_of, tag_and_vr
from pacs_cbir.dicom.private_block import PRIVATE_CREATOR, PRIVATE_GROUP
from pacs_cbir.store.catalogue import Attributes

PRIVATE_BLOCK = 0x10
"""Where the private creator stands; nothing else of the group is in an answer."""

NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
"""Component groups of a person's name, in their order (PS3.18 F.2.2)."""

Model = dict[str, Any]


def model(attributes: Attributes, keywords: Iterable[str], private: Model | None = None) -> Model:
    """The DICOM JSON Model of some attributes: those that are not there are empty, those that have none left out.

    An empty value among several is null (PS3.18 F.2.5).

    Args:
        private: elements to have beside them, as `private_block` makes them.
    """
    found = dict(private or {})
    for keyword in keywords:
        tag, vr = _tag_and_vr(keyword)
        if not tag:
            continue
        # pydicom's elements of a page of answers would take longer than the search.
        try:
            values = [_value(vr, text) for text in attributes.get(keyword, [])]
        except UNFIT:
            continue
        found[tag] = {"vr": vr, "Value": values} if values.count(None) < len(values) else {"vr": vr}
    return dict(sorted(found.items()))


@cache
def _tag_and_vr(keyword: str) -> tuple[str, str]:
    """As the model has them; "" and "" of what has no value in text."""
    tag, vr = tag_and_vr(keyword)
    return ("", "") if tag is None or vr in NO_TEXT else (f"{tag:08X}", vr)


def _value(vr: str, text: str) -> dict[str, str] | str | int | float | None:
    """A value in the DICOM JSON Model (PS3.18 F.2.2, F.2.3); None of an empty one."""
    if vr in TEXT:
        return text or None
    if not is_value(text):
        return None
    if vr == "PN":
        if "\\" in text:
            raise ValueError("no name has the delimiter of values")
        return dict(zip(NAME_GROUPS, text.rstrip("=").split("="), strict=False))
    found = number_of(vr, text)
    return int(found) if vr == "IS" else found


def private_block(values: Mapping[tuple[int, str], Any]) -> Model:
    """Our private elements and their creator.

    Args:
        values: (element within the block, VR) → value, or several as a list; None is left out.
    """
    found: Model = {f"{PRIVATE_GROUP:04X}{PRIVATE_BLOCK:04X}": {"vr": "LO", "Value": [PRIVATE_CREATOR]}}
    for (number, vr), value in values.items():
        if value is not None:
            given = value if isinstance(value, list) else [value]
            found[f"{PRIVATE_GROUP:04X}{PRIVATE_BLOCK:02X}{number:02X}"] = (
                {"vr": vr, "Value": given} if given else {"vr": vr}
            )
    return found


def plain(attributes: Attributes, keywords: Iterable[str]) -> dict[str, Any]:
    """Keyword → value: numbers as numbers, all else as text, several values as a list."""
    found: dict[str, Any] = {}
    for keyword in keywords:
        tag, vr = _tag_and_vr(keyword)
        if not tag:
            continue
        try:
            values = [_plain_value(vr, text) for text in attributes.get(keyword, []) if vr in TEXT or is_value(text)]
        except UNFIT:
            continue
        if values not in ([], [""]):
            found[keyword] = values[0] if len(values) == 1 else values
    return found


def _plain_value(vr: str, text: str) -> str | int | float:
    if vr in NUMBERS:
        return number_of(vr, text)
    return text.rstrip("=") if vr == "PN" else text
