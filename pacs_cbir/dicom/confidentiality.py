"""What the Basic Application Level Confidentiality Profile does with an attribute (PS3.15 Table E.1-1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import cache

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.tag import BaseTag
from pydicom.uid import UID

EDITION = "2026c"
"""Of the standard, whose table is read."""

Path = tuple[str, ...]
"""Keywords of the sequences that an attribute stands in, outermost first; empty at the top level."""


class Action(Enum):
    """What becomes of an attribute; names and meaning as in Table E.1-1a."""

    KEEP = "K"
    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UIDS = "U"
    SHIFT = "C"
    """Clean, as the option for modified dates does it: moved by the patient's days."""


_LISTS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "X": table.X_TAGS,
    "Z": table.Z_TAGS,
    "D": table.D_TAGS,
    "U": table.U_TAGS,
    "ZD": table.Z_D_TAGS,
    "XZ": table.X_Z_TAGS,
    "XD": table.X_D_TAGS,
    "XZD": table.X_Z_D_TAGS,
    "XZU": table.X_Z_U_STAR_TAGS,
}
_BASIC = {tag[0] << 16 | tag[1]: actions for actions, tags in _LISTS.items() for tag in tags if len(tag) == 2}
# Of an overlay or curve without its data nothing would be left that anyone could show.
_REPEATED_GROUPS = {0x5000, 0x6000}
# No dates of an examination, and so of no option for these.
_OF_BIRTH = frozenset({"PatientBirthDate", "PatientBirthTime"})
DATES = frozenset({"DA", "DT", "TM"})

# What is in none of the table's rows is kept where its values can say nothing but numbers and defined terms.
_NUMBERS = frozenset({"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_KEPT_TEXT = frozenset(
    {
        "CodeMeaning", "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "ConvolutionKernel",
        "DimensionDescriptionLabel", "ImagedNucleus", "LongCodeValue", "Manufacturer", "ManufacturerModelName",
        "PulseSequenceName", "ReceiveCoilManufacturerName", "ReceiveCoilName", "RescaleType", "SequenceName",
        "SoftwareVersions", "StackID", "TransmitCoilManufacturerName", "TransmitCoilName",
        "WindowCenterWidthExplanation",
    }
)  # fmt: skip
"""Free text that devices fill in, of what was measured and by which type of device."""
_WITHOUT = {"1": Action.DUMMY, "2": Action.EMPTY, "3": Action.REMOVE}
"""What stands in the place of a value that is not kept, by the attribute's type."""
_LOOKUP_TABLES = re.compile(r"(Red|Green|Blue|Alpha)PaletteColorLookupTableData|LUTData")


def action_of(tag: BaseTag, path: Path, sop_class_uid: str, *, shift_dates: bool) -> Action:
    """What becomes of an attribute of an instance; the alternatives of the table are decided by its type in the IOD.

    Args:
        shift_dates: whether the option Retain Longitudinal Temporal Information with Modified Dates is used.
    """
    keyword = keyword_for_tag(tag)
    if not keyword or tag.element == 0 or tag.group < 0x0008:
        return Action.REMOVE
    if tag.group & 0xFF00 in _REPEATED_GROUPS:
        return Action.REMOVE
    vr = dictionary_VR(tag)
    if vr in DATES and shift_dates and keyword not in _OF_BIRTH:
        return Action.SHIFT
    actions = _BASIC.get(int(tag), "")
    needed = type_of(keyword, path, sop_class_uid)
    if not actions:
        return _unlisted(keyword, vr, needed)
    if len(actions) > 1:
        wanted = {"1": "UDZX", "2": "UZDX", "3": "XZD"}[needed]
        actions = next(action for action in wanted if action in actions)
    return Action(actions)


def _unlisted(keyword: str, vr: str, needed: str) -> Action:
    if vr == "UI":
        return Action.UIDS
    kinds = set(vr.split(" or "))
    kept = kinds <= _NUMBERS | {"CS", "SQ"} or keyword in _KEPT_TEXT or _LOOKUP_TABLES.fullmatch(keyword)
    return Action.KEEP if kept else _WITHOUT[needed]


def type_of(keyword: str, path: Path, sop_class_uid: str) -> str:
    """An attribute's type in the IOD (PS3.5 7.4): `1`, `2`, or `3` where it may be missing.

    What is conditional is as if its condition held, since the attribute is there.
    """
    return _types(sop_class_uid).get((path, keyword), "3")


def is_standard_uid(uid: str) -> bool:
    """Whether a UID names something of the standard, as a SOP class, and no one's object."""
    return UID(uid).name != uid


@cache
def _types(sop_class_uid: str) -> dict[tuple[Path, str], str]:
    iod = get_sop_class_iod_map()[sop_class_uid]
    modules, attributes = get_iod_module_map(), get_module_attribute_map()
    found: dict[tuple[Path, str], str] = {}
    for module in modules[iod]:
        for attribute in attributes.get(module["key"], ()):
            key = tuple(attribute["path"]), attribute["keyword"]
            # Of two modules with one attribute the stricter holds.
            found[key] = min(found.get(key, "3"), attribute["type"][0])
    return found
