"""Frames of received instances: one way to ask for an attribute, whether classic or enhanced multi-frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from pacs_cbir.dicom.data_set import UNFIT
from pacs_cbir.errors import DecodingError

MR_IMAGE_SOP_CLASSES = frozenset({MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage})
_FUNCTIONAL_GROUPS = {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"}
DEFERRED_BYTES = 64 * 2**10
"""Longer header values stay on disk."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of an instance; the header without pixels.

    Attributes:
        path: the instance's file.
        number: the frame's number in it, counted from 1 (PS3.3 C.7.6.6).
        instance: the instance's data set.
        groups: values of the shared and per-frame functional groups that hold for this frame, by keyword (PS3.3
            C.7.6.16); empty for a classic instance.
        tile: the rows and columns of a mosaic that are this frame; None for the whole image.
    """

    path: Path
    number: int
    instance: Dataset
    groups: dict[str, Any] = field(default_factory=dict)
    tile: tuple[slice, slice] | None = None

    def get(self, keyword: str) -> Any:
        """The frame's value of an attribute; None where it is absent, empty or unreadable."""
        return self.groups[keyword] if keyword in self.groups else value_of(self.instance, keyword)

    def number_of(self, keyword: str) -> float | None:
        """The first value of an attribute as a number, likewise."""
        return first_number(self.get(keyword))

    def numbers_of(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """All values of an attribute as numbers; None where they are not `count` finite ones."""
        return finite_numbers(self.get(keyword), count)

    def header(self) -> Dataset:
        """The data set as a classic instance would have it: the functional groups' values at its top level."""
        return flattened(self.instance, self.groups)

    @property
    def sop_class_uid(self) -> UID:
        return UID(str(self.get("SOPClassUID") or ""))

    @property
    def sop_instance_uid(self) -> str:
        return str(self.get("SOPInstanceUID") or "")


def value_of(ds: Dataset, keyword: str) -> Any:
    """A value of a data set; None where it is absent, empty or unreadable."""
    try:
        value = ds.get(keyword)
    except MemoryError:
        raise
    except Exception:
        # pydicom converts on access, and raises what its converters do. An unreadable value is as good as none.
        return None
    if isinstance(value, str):
        # Postgres keeps no NUL in a text.
        value = value.replace("\0", "")
    return None if value is None or value == "" else value


def private_value_of(ds: Dataset, group: int, creator: str, element: int) -> Any:
    """A value of a vendor's private block (PS3.5 7.8); None where it is absent or unreadable."""
    try:
        return ds.private_block(group, creator)[element].value
    except Exception:
        return None


def first_number(value: Any) -> float | None:
    """A value, or the first of several, as a finite number."""
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    found = finite_numbers(value[:1] if several else [value], 1)
    return found[0] if found else None


def finite_numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Several values as finite numbers; None where they are not `count`."""
    try:
        numbers = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(abs(n) < float("inf") for n in numbers) else None


def read_frames(path: Path) -> list[Frame]:
    """The frames of one instance, in its own order.

    Raises:
        DecodingError: the header cannot be read.
    """
    try:
        ds = dcmread(path, stop_before_pixels=True, defer_size=DEFERRED_BYTES)
        return list(_frames(path, ds))
    except MemoryError:
        raise
    except Exception as error:
        raise DecodingError(f"an instance's header cannot be read ({type(error).__name__})") from error


def _frames(path: Path, ds: Dataset) -> Iterator[Frame]:
    per_frame = value_of(ds, "PerFrameFunctionalGroupsSequence")
    if per_frame:
        shared = _shared_groups(ds)
        for number, item in enumerate(per_frame, start=1):
            yield Frame(path, number, ds, shared | _group_values(item))
    else:
        # Frames without functional groups have no position of their own: the first stands for all.
        yield Frame(path, 1, ds)


def _shared_groups(ds: Dataset) -> dict[str, Any]:
    shared = value_of(ds, "SharedFunctionalGroupsSequence")
    return _group_values(shared[0]) if shared else {}


def _group_values(functional_groups: Dataset) -> dict[str, Any]:
    """The values in the first item of each functional group. A group's own sequences are kept as they are."""
    values: dict[str, Any] = {}
    for tag in list(functional_groups.keys()):
        macro = value_of(functional_groups, keyword_for_tag(tag) or "")
        if not isinstance(macro, DicomSequence) or not macro:
            continue
        for inner in list(macro[0].keys()):
            keyword = keyword_for_tag(inner)
            value = value_of(macro[0], keyword) if keyword else None
            if value is not None:
                values[keyword] = value
    # One name for what classic and enhanced instances call differently.
    for enhanced, classic in (
        ("EffectiveEchoTime", "EchoTime"),
        ("InversionTimes", "InversionTime"),
        ("FrameType", "ImageType"),
        ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    ):
        if enhanced in values:
            values[classic] = values[enhanced]
    return values


def flattened(ds: Dataset, groups: dict[str, Any] | None = None) -> Dataset:
    """A data set with its functional groups' values at its top level, without private elements and what is unreadable.

    Args:
        ds: of a classic or enhanced instance.
        groups: the values; those of the first frame where None is given.
    """
    if groups is None:
        per_frame = value_of(ds, "PerFrameFunctionalGroupsSequence")
        groups = _shared_groups(ds) | (_group_values(per_frame[0]) if per_frame else {})
    flat = Dataset()
    for tag in list(ds.keys()):
        keyword = keyword_for_tag(tag)
        value = None if keyword in _FUNCTIONAL_GROUPS or not keyword else value_of(ds, keyword)
        if value is not None:
            _set(flat, keyword, value)
    for keyword, value in groups.items():
        _set(flat, keyword, value)
    return flat


def _set(ds: Dataset, keyword: str, value: Any) -> None:
    # A number's text that is none is read as it came, and refused here: as good as no value.
    with contextlib.suppress(*UNFIT):
        setattr(ds, keyword, value)


def flattened_header(ds: Dataset) -> Dataset:
    """`flattened` where an instance has functional groups, else the instance itself."""
    return flattened(ds) if "PerFrameFunctionalGroupsSequence" in ds else ds
