"""Data sets and attributes as text → the DICOM JSON Model (PS3.18 F) and plain JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom import Dataset

from pacs_cbir.dicom.data_set import NUMBERS, UNFIT, element
from pacs_cbir.store.catalogue import Attributes


def model(ds: Dataset) -> dict[str, Any]:
    """The DICOM JSON Model of a data set; elements that have none are left out, so that one spoils no answer."""
    found: dict[str, Any] = {}
    for one in ds:
        try:
            found[f"{int(one.tag):08X}"] = one.to_json_dict(None, 0)
        except UNFIT:
            continue
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
