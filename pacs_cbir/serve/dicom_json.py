"""Attributes as text → the DICOM JSON Model (PS3.18 F) and plain JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs_cbir.store.catalogue import Attributes

_INTEGERS = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_FLOATS = frozenset({"FD", "FL"})
_NO_TEXT = frozenset({"AT", "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"})
_NUMBERS = _INTEGERS | _FLOATS | {"DS", "IS"}
# What pydicom raises over values that are not their VR's.
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def data_set(attributes: Attributes, keywords: Iterable[str]) -> Dataset:
    """A data set of some attributes; those that are not there are empty, those that are no value of their VR left out.

    Args:
        attributes: keyword → values as text.
        keywords: which of them.
    """
    ds = Dataset()
    for keyword in keywords:
        element = _element(keyword, attributes.get(keyword, []))
        if element is not None:
            ds.add(element)
    return ds


def model(ds: Dataset) -> dict[str, Any]:
    """The DICOM JSON Model of a data set; elements that have none are left out, so that one spoils no answer."""
    found: dict[str, Any] = {}
    for element in ds:
        try:
            found[f"{int(element.tag):08X}"] = element.to_json_dict(None, 0)
        except _UNFIT:
            continue
    return found


def plain(attributes: Attributes, keywords: Iterable[str]) -> dict[str, Any]:
    """Keyword → value: numbers as numbers, all else as text, several values as a list."""
    found: dict[str, Any] = {}
    for keyword in keywords:
        element = _element(keyword, attributes.get(keyword, []))
        if element is None or element.is_empty:
            continue
        values = element.value if element.VM > 1 else [element.value]
        given = [_number(value) if element.VR in _NUMBERS else str(value) for value in values]
        found[keyword] = given if element.VM > 1 else given[0]
    return found


def _element(keyword: str, values: list[str]) -> DataElement | None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        return None
    vr = dictionary_VR(tag).split(" or ")[0]
    if vr in _NO_TEXT:
        return None
    try:
        # pydicom's JSON knows no empty value among several of these.
        present = [value for value in values if value.strip("=")] if vr in _NUMBERS | {"PN"} else values
        given = [_typed(vr, value) for value in present]
        # What came is shown as it came: a PACS is full of values that are not quite their VR's.
        return DataElement(tag, vr, given[0] if len(given) == 1 else given, validation_mode=config.IGNORE)
    except _UNFIT:
        return None


def _typed(vr: str, value: str) -> str | int | float:
    if vr in _INTEGERS:
        return int(value)
    if vr in _NUMBERS and not math.isfinite(float(value)):
        raise ValueError("JSON has no such number")
    return float(value) if vr in _FLOATS else value


def _number(value: Any) -> int | float | None:
    if value is None or value == "":
        return None
    return int(value) if isinstance(value, int) else float(value)
