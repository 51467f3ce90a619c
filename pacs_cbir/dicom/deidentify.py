"""An instance → the same picture of nobody: the Basic Application Level Confidentiality Profile (PS3.15 E.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path as FilePath
from typing import Any

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs_cbir import __version__
from pacs_cbir.dicom.confidentiality import EDITION, Action, Path, action_of, is_standard_uid, type_of
from pacs_cbir.dicom.data_set import UNFIT
from pacs_cbir.dicom.frames import Frame, value_of
from pacs_cbir.dicom.identity import (
    bytes_name_someone,
    elements_of,
    identity_of,
    is_several,
    names_someone,
    number_names_someone,
    text_of,
)
from pacs_cbir.dicom.plain_pixels import Box, add_plain_pixels
from pacs_cbir.dicom.sequence import classify_sequence
from pacs_cbir.dicom.sequence_header import Sequence
from pacs_cbir.dicom.stack import b_value

REMOVED = "REMOVED"
_DUMMIES: dict[str, Any] = {
    "AS": "000D",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "SQ": [],
    "TM": "000000",
    "UI": "2.25.0",
    **dict.fromkeys(("FD", "FL"), 0.0),
    **dict.fromkeys(("AT", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),
}
_CONTRAST = "CONTRAST"
"""In the place of an agent's name: it says that there was one, without which T1 with and without it would be alike."""
_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?")
_CS = re.compile(r"[A-Z0-9_ ]{0,16}")
_PLAIN = re.compile(r"[ -\[\]-~]{1,64}")
_DA, _TM = re.compile(r"[0-9]{8}"), re.compile(r"[0-9]{2,6}(\.[0-9]{1,6})?")
_DT = re.compile(r"([0-9]{8})([0-9]{0,6}(?:\.[0-9]{1,6})?)([+-][0-9]{4})?")
_CODED = frozenset(
    {"CodeMeaning", "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "LongCodeValue", "URNCodeValue"}
)
_PUBLIC_SCHEMES = frozenset(
    {"DCM", "FMA", "LN", "MDC", "NCIt", "RADLEX", "SCT", "SNM3", "SRT", "UBERON", "UCUM", "UMLS"}
)


@dataclass(frozen=True)
class Disguise:
    """Whom a patient's instances are of from now on.

    Attributes:
        patient: the pseudonym, which becomes PatientID and PatientName.
        uid: any UID → the one in its place, the same every time.
        days_back: by how many days dates are moved into the past; None: they are removed.
        visible: the parts of the picture that are kept, everything else becomes black; None: all of it.
    """

    patient: str
    uid: Callable[[str], str]
    days_back: int | None = None
    visible: tuple[Box, ...] | None = None


def deidentify(ds: Dataset, disguise: Disguise) -> FileDataset:
    """De-identify one instance, file meta information and pixels included.

    Beyond the table, whose alternatives are decided by each attribute's type in the instance's IOD, it removes every
    private attribute, overlays and curves, bulk data, text and dates that the table does not name, coded terms of no
    public scheme, text in which a name, identifier or day of the instance comes again, and what is not of its VR.
    Pixel data is decoded and written plain, since compressed streams can hold comments.

    Args:
        ds: as read from a file; its SOP class is known to `confidentiality`.

    Returns:
        a data set in Explicit VR Little Endian that shares nothing with `ds`.

    Raises:
        DecodingError: the pixel data cannot be decoded.
    """
    with config.disable_value_validation():
        walk = _Walk(text_of(ds.SOPClassUID), disguise, identity_of(ds))
        made = FileDataset("", walk.data_set(ds, ()), file_meta=_meta(ds, disguise), preamble=b"\0" * 128)
        add_plain_pixels(ds, made, disguise.visible)
        _say_what_was_done(ds, made, disguise)
    return made


class _Walk:
    """All levels of one instance."""

    def __init__(self, sop_class_uid: str, disguise: Disguise, identity: frozenset[str]) -> None:
        self._sop_class_uid = sop_class_uid
        self._disguise = disguise
        self._identity = identity

    def data_set(self, ds: Dataset, path: Path) -> Dataset:
        """One level; items of coded terms of a private scheme lose their terms."""
        made = Dataset()
        own_terms = not _CODED.isdisjoint(map(keyword_for_tag, ds.keys())) and not _is_public(ds)
        for tag in list(ds.keys()):
            element = None if own_terms and keyword_for_tag(tag) in _CODED else self._element(ds, tag, path)
            if element is not None:
                made.add(element)
        return made

    def _element(self, ds: Dataset, tag: BaseTag, path: Path) -> DataElement | None:
        shift = self._disguise.days_back is not None
        action = action_of(tag, path, self._sop_class_uid, shift_dates=shift)
        keyword = keyword_for_tag(tag)
        if action is Action.REMOVE or keyword == "PixelData":
            return None
        vr = _readable_vr(ds, tag)
        if action is Action.DUMMY:
            return _element(tag, "SQ", self._references(ds[tag].value)) if vr == "SQ" else _dummy(tag)
        if action is Action.EMPTY:
            return _element(tag, _vrs(tag)[0], None)
        value = self._kept(ds[tag].value, vr, action, (*path, keyword)) if vr else None
        if value is None or (value == [] and vr != "SQ"):
            return self._without(tag, path)
        try:
            return _element(tag, vr, value)
        except UNFIT:
            return self._without(tag, path)

    def _kept(self, value: Any, vr: str, action: Action, path: Path) -> Any:
        """The value as it may stay; None where it may not."""
        if vr == "SQ":
            items = [self.data_set(item, path) for item in value or ()]
            return [item for item in items if len(item)]
        if value is None or value == "" or (isinstance(value, list) and not value):
            return "" if vr not in {"OB", "OW"} else None
        values = list(value) if is_several(value) else [value]
        if action is Action.UIDS:
            kept: list[Any] = [uid if is_standard_uid(uid) else self._disguise.uid(uid) for uid in map(text_of, values)]
        elif action is Action.SHIFT:
            kept = [_shifted(text_of(one), vr, self._disguise.days_back or 0) for one in values]
        else:
            kept = values if all(self._may_stay(one, vr) for one in values) else [None]
        if None in kept:
            return None
        return kept if len(kept) > 1 else kept[0]

    def _references(self, items: Any) -> list[Dataset]:
        """What stands for a sequence that must not be empty: the UIDs in it, which others stand for."""
        made = []
        for item in items or ():
            uids = [element for element in elements_of(item) if element.VR == "UI"]
            made.append(Dataset())
            for element in uids:
                made[-1].add(_element(element.tag, "UI", self._kept(element.value, "UI", Action.UIDS, ())))
        return made or [Dataset()]

    def _may_stay(self, value: Any, vr: str) -> bool:
        if isinstance(value, bytes):
            return vr in {"OB", "OW"} and not bytes_name_someone(value, self._identity)
        text = text_of(value)
        if vr in {"DS", "IS"}:
            return _NUMBER.fullmatch(text) is not None and not number_names_someone(text, self._identity)
        if vr not in {"CS", "LO", "SH", "UC"}:
            return True
        shape = _CS if vr == "CS" else _PLAIN
        return shape.fullmatch(text) is not None and not names_someone(text, self._identity, term=vr == "CS")

    def _without(self, tag: BaseTag, path: Path) -> DataElement | None:
        """What the IOD asks for in the place of a value that may not stay."""
        match type_of(keyword_for_tag(tag), path, self._sop_class_uid):
            case "1":
                return _dummy(tag)
            case "2":
                return _element(tag, _vrs(tag)[0], None)
            case _:
                return None


def _say_what_was_done(ds: Dataset, made: Dataset, disguise: Disguise) -> None:
    """PS3.15 E.1.1 steps 6 to 9, PS3.3 C.7.1.1, C.12.1."""
    made.PatientID = made.PatientName = disguise.patient
    made.SpecificCharacterSet = "ISO_IR 192"
    if classify_sequence(ds).sequence is Sequence.T1CE and "ContrastBolusAgentSequence" not in made:
        made.ContrastBolusAgent = _CONTRAST
    b = b_value(Frame(FilePath(), 1, ds))
    if b is not None and "PerFrameFunctionalGroupsSequence" not in made:
        # Many devices have it in a private attribute alone, and without it a series' stacks cannot be told apart.
        made.DiffusionBValue = b
    made.PatientIdentityRemoved = "YES"
    made.LongitudinalTemporalInformationModified = "REMOVED" if disguise.days_back is None else "MODIFIED"
    made.DeidentificationMethod = [f"pacs-cbir {__version__}", f"PS3.15 {EDITION} Table E.1-1"]
    used = [codes.DCM.BasicApplicationConfidentialityProfile]
    if disguise.days_back is not None:
        used.append(codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption)
    if disguise.visible is not None:
        used.append(codes.DCM.CleanPixelDataOption)
        made.BurnedInAnnotation = "NO"
    # Who took the face out before it came here has said so, and it stays true.
    if codes.DCM.CleanRecognizableVisualFeaturesOption in _earlier(ds):
        used.append(codes.DCM.CleanRecognizableVisualFeaturesOption)
    made.DeidentificationMethodCodeSequence = [_code_item(code) for code in used]


def _earlier(ds: Dataset) -> Iterator[Code]:
    for item in value_of(ds, "DeidentificationMethodCodeSequence") or ():
        yield Code(text_of(value_of(item, "CodeValue")), text_of(value_of(item, "CodingSchemeDesignator")), "")


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _meta(ds: Dataset, disguise: Disguise) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(text_of(ds.SOPClassUID))
    meta.MediaStorageSOPInstanceUID = UID(disguise.uid(text_of(ds.SOPInstanceUID)))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _readable_vr(ds: Dataset, tag: BaseTag) -> str:
    """The VR of an element; empty where its value cannot be read, or it is not the attribute's."""
    try:
        vr = str(ds[tag].VR)
    except MemoryError:
        raise
    except Exception:
        return ""
    return vr if vr in _vrs(tag) else ""


def _vrs(tag: BaseTag) -> list[str]:
    return dictionary_VR(tag).split(" or ")


def _element(tag: BaseTag, vr: str, value: Any) -> DataElement:
    if vr == "SQ":
        value = Items(value or ())
    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


def _dummy(tag: BaseTag) -> DataElement:
    vr = _vrs(tag)[0]
    return _element(tag, vr, _DUMMIES.get(vr, REMOVED))


def _shifted(text: str, vr: str, days: int) -> str | None:
    """A date, moved into the past, or a time as it is (PS3.15 E.3.6); None where it is neither."""
    if vr == "TM":
        digits = text.replace(":", "")
        return digits if _TM.fullmatch(digits) else None
    found = _DT.fullmatch(text) if vr == "DT" else _DA.fullmatch(text.replace(".", ""))
    if found is None:
        return None
    try:
        moved = datetime.strptime(found[0][:8], "%Y%m%d") - timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved:%Y%m%d}".rjust(8, "0") + (found[2] if vr == "DT" else "")


def _is_public(item: Dataset) -> bool:
    return text_of(value_of(item, "CodingSchemeDesignator")) in _PUBLIC_SCHEMES
