"""What an export is asked for: a query, as the REST listings have it in their URLs, and the options of the profile."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.store import labels
from pacs_cbir.store.matching import conditions, matching_keys

_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        keys: keyword → value.
        fuzzy: text without regard to case and accents.
        labels: a study has one of them; none: whatever its labels are.
        retain_longitudinal: dates are moved, not removed (PS3.15 E.3.6).
        clean_pixel: what is not picture becomes black, where the header says what is (PS3.15 E.3.1).
    """

    keys: dict[str, str]
    fuzzy: bool
    labels: tuple[str, ...]
    retain_longitudinal: bool
    clean_pixel: bool


def read_order(query: str, *, retain_longitudinal: bool, clean_pixel: bool) -> Order:
    """Read `Modality=MR&StudyDate=20200101-&label=glioma`; an empty query means everything that is here.

    Raises:
        InvalidQuery: names what cannot be understood.
    """
    try:
        items = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query.strip() else []
    except ValueError as error:
        raise InvalidQuery("a query is names and values, as Modality=MR&StudyDate=20200101-&label=glioma") from error
    fuzzy = [value for name, value in items if name == "fuzzymatching"]
    if any(value not in _FLAGS for value in fuzzy):
        raise InvalidQuery("fuzzymatching accepts true and false")
    keys = matching_keys(items, {"label", "fuzzymatching"})
    order = Order(
        keys=keys,
        fuzzy=any(_FLAGS[value] for value in fuzzy),
        labels=labels.checked(value for name, value in items if name == "label"),
        retain_longitudinal=retain_longitudinal,
        clean_pixel=clean_pixel,
    )
    conditions(order.keys, fuzzy=order.fuzzy)
    return order
