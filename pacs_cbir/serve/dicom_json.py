"""Attributes as text → the DICOM JSON Model (PS3.18 F) and plain JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from pacs_cbir.dicom.data_set import NUMBERS, TEXT, UNFIT, element, is_value, tag_and_vr
from pacs_cbir.dicom.private_block import PRIVATE_CREATOR, PRIVATE_GROUP
from pacs_cbir.store.catalogue import Attributes

PRIVATE_BLOCK = 0x10
"""Where the private creator stands; nothing else of the group is in an answer."""

Model = dict[str, Any]


def model(attributes: Attributes, keywords: Iterable[str], private: Model | None = None) -> Model:
    """The DICOM JSON Model of some attributes: those that are not there are empty, those that have none left out.

    An empty value among several is null (PS3.18 F.2.5).

    Args:
        private: elements to have beside them, as `private_block` makes them.
    """
    found = dict(private or {})
    for keyword in keywords:
        tag, vr = tag_and_vr(keyword)
        values = attributes.get(keyword, [])
        if tag is not None and vr in TEXT:
            # pydicom's elements of a page of answers would take longer than the search.
            found[f"{tag:08X}"] = (
                {"vr": vr, "Value": [value or None for value in values]} if any(values) else {"vr": vr}
            )
        elif (made := element(keyword, values)) is not None:
            with contextlib.suppress(*UNFIT):
                found[f"{made.tag:08X}"] = _with_nulls(made.to_json_dict(None, 0), values)
    return dict(sorted(found.items()))


def _with_nulls(found: Model, values: list[str]) -> Model:
    """An element of numbers or names with null in the place of each of the text's values that `element` left out."""
    if "Value" in found and not all(map(is_value, values)):
        present = iter(found["Value"])
        found["Value"] = [next(present) if is_value(value) else None for value in values]
    return found


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
        made = element(keyword, attributes.get(keyword, []))
        if made is None or made.is_empty:
            continue
        values = made.value if made.VM > 1 else [made.value]
        given = [_number(value) if made.VR in NUMBERS else str(value) for value in values]
        found[keyword] = given if made.VM > 1 else given[0]
    return found


def _number(value: Any) -> int | float | None:
    if value is None or value == "":
        return None
    return int(value) if isinstance(value, int) else float(value)
