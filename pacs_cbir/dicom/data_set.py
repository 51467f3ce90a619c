"""Attributes as text → elements and data sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import IS

NO_TEXT = frozenset({"AT", "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"})
"""VRs whose values no attribute is kept of."""
TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
"""VRs whose values are shown as they were stored."""
_INTEGERS = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_FLOATS = frozenset({"FD", "FL"})
NUMBERS = _INTEGERS | _FLOATS | {"DS", "IS"}
UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What pydicom raises over values that are not their VR's."""


def data_set(attributes: Mapping[str, list[str]], keywords: Iterable[str]) -> Dataset:
    """A data set of some attributes; those that are not there are empty, those that are no value of their VR left out.

    Args:
        attributes: keyword → values as text.
        keywords: which of them.
    """
    ds = Dataset()
    for keyword in keywords:
        made = element(keyword, attributes.get(keyword, []))
        if made is not None:
            ds.add(made)
    return ds


def element(keyword: str, values: list[str]) -> DataElement | None:
    """One attribute's element; None where it is none that text makes, or its values are not its VR's."""
    tag, vr = tag_and_vr(keyword)
    if tag is None or vr in NO_TEXT:
        return None
    try:
        # pydicom's JSON knows no empty value among several of these.
        present = [value for value in values if is_value(value)] if vr in NUMBERS | {"PN"} else values
        given = [_typed(vr, value) for value in present]
        # What came is shown as it came: a PACS is full of values that are not quite their VR's.
        return DataElement(tag, vr, given[0] if len(given) == 1 else given, validation_mode=config.IGNORE)
    except UNFIT:
        return None


def is_value(text: str) -> bool:
    """Whether a number's or name's text says anything; component groups of a name may all be empty."""
    return bool(text.strip("="))


@cache
def tag_and_vr(keyword: str) -> tuple[BaseTag | None, str]:
    """What the dictionary says of a keyword, the first where it leaves a choice of VRs; None and "" of no keyword."""
    tag = tag_for_keyword(keyword)
    return (None, "") if tag is None else (Tag(tag), dictionary_VR(tag).split(" or ")[0])


def number_of(vr: str, text: str) -> int | float:
    """The value of a number's text.

    Raises:
        one of UNFIT: it is no finite number, or a whole one is asked for.
    """
    if vr in _INTEGERS:
        return int(text)
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("JSON has no such number")
    return IS(text, validation_mode=config.IGNORE) if vr == "IS" else found


def _typed(vr: str, text: str) -> str | int | float:
    if vr not in NUMBERS:
        return text
    found = number_of(vr, text)
    # Decimal and integer strings go out as they came.
    return text if vr in {"DS", "IS"} else found
