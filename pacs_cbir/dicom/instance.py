"""A received file → a frozen record of its header. No pixels are decoded, and memory does not grow with the file."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacs_cbir.dicom.elements import Element, MalformedDataSet, encodings_of, read_elements, text_values
from pacs_cbir.dicom.keywords import PATIENT_STUDY_KEYWORDS, SERIES_KEYWORDS
from pacs_cbir.errors import InvalidIdentifier, NotDicom

MAX_INFLATED_HEADER = 16 * 2**20
"""Bytes of a deflated data set that are inflated in search of its pixel data: a bomb ends here."""
MAX_META_ELEMENTS = 1000
"""Of the file meta information; PS3.10 7.1 has about a dozen."""
MAX_VALUE_CHARACTERS = 1024
"""Longer values are no matching or return keys."""

_CHUNK = 2**20
_TRANSFER_SYNTAX_UID = 0x00020010
_SPECIFIC_CHARACTER_SET = 0x00080005
_ENCAPSULATED_DOCUMENT = 0x00420011
# SOP Class UID, SOP Instance UID, Study Instance UID, Series Instance UID.
_IDENTITY = frozenset({0x00080016, 0x00080018, 0x0020000D, 0x0020000E})
# Float Pixel Data, Double Float Pixel Data, Pixel Data.
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

_NO_TEXT = frozenset({"AT", "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"})
# PS3.5 9.1, save that components may begin with a zero, as some devices write them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAX_UID_LENGTH = 64


@dataclass(frozen=True)
class Identity:
    """Which instance a file holds: valid UIDs (PS3.5 9.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True)
class Instance:
    """The header of one composite instance.

    The attribute dictionaries map DICOM keywords to values as text, split where the VR is multi-valued: person names
    as `alphabetic=ideographic=phonetic`, dates, times and numbers as they were written. They leave out sequences,
    binary values, private and empty elements, values longer than `MAX_VALUE_CHARACTERS`, and values that
    cannot be read. No text holds a NUL.

    Attributes:
        sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid: valid UIDs (PS3.5 9.1).
        transfer_syntax_uid: how the file is encoded.
        patient_id, issuer_of_patient_id: trimmed; empty where absent.
        modality: trimmed; empty where absent.
        instance_number, rows, columns, number_of_frames: None where absent or unreadable.
        samples_per_pixel, bits_allocated, bits_stored, high_bit, pixel_representation: likewise (PS3.3 C.7.6.3).
        photometric_interpretation: trimmed; empty where absent.
        has_pixels: whether there is Pixel Data, Float Pixel Data or Double Float Pixel Data at the top level.
        file_sha256: of the whole file.
        pixel_sha256: of the encoded bytes from the value of the pixel data (or encapsulated document) to the end of
            the file; where there is neither, or the data set is deflated, of the whole file.
        file_size: in bytes.
        study_attributes: Patient and Study levels.
        series_attributes: Series level: series, equipment, frame of reference, and how it was acquired.
        instance_attributes: all others.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    patient_id: str
    issuer_of_patient_id: str
    modality: str
    instance_number: int | None
    rows: int | None
    columns: int | None
    number_of_frames: int | None
    samples_per_pixel: int | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    pixel_representation: int | None
    photometric_interpretation: str
    has_pixels: bool
    file_sha256: bytes
    pixel_sha256: bytes
    file_size: int
    study_attributes: dict[str, list[str]]
    series_attributes: dict[str, list[str]]
    instance_attributes: dict[str, list[str]]


def read_instance(path: Path) -> Instance:
    """Read the header of a DICOM file (PS3.10 7), whatever the file is called.

    Raises:
        NotDicom: no DICOM file, or cut off, or its elements claim more bytes than there are.
        InvalidIdentifier: a Study, Series or SOP Instance UID or the SOP Class UID is missing or malformed.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        header = _read_header(file)
        file_sha256, pixel_sha256 = _hashes(file, header.pixels_at)
        file_size = file.tell()
    found = header.attributes
    return Instance(
        sop_class_uid=_identifier(found, "SOPClassUID"),
        sop_instance_uid=_identifier(found, "SOPInstanceUID"),
        study_instance_uid=_identifier(found, "StudyInstanceUID"),
        series_instance_uid=_identifier(found, "SeriesInstanceUID"),
        transfer_syntax_uid=header.transfer_syntax_uid,
        patient_id=_text(found, "PatientID"),
        issuer_of_patient_id=_text(found, "IssuerOfPatientID"),
        modality=_text(found, "Modality"),
        instance_number=_integer(found, "InstanceNumber"),
        rows=_integer(found, "Rows"),
        columns=_integer(found, "Columns"),
        number_of_frames=_integer(found, "NumberOfFrames"),
        samples_per_pixel=_integer(found, "SamplesPerPixel"),
        bits_allocated=_integer(found, "BitsAllocated"),
        bits_stored=_integer(found, "BitsStored"),
        high_bit=_integer(found, "HighBit"),
        pixel_representation=_integer(found, "PixelRepresentation"),
        photometric_interpretation=_text(found, "PhotometricInterpretation"),
        has_pixels=header.has_pixels,
        file_sha256=file_sha256,
        pixel_sha256=pixel_sha256,
        file_size=file_size,
        study_attributes={k: v for k, v in found.items() if k in PATIENT_STUDY_KEYWORDS},
        series_attributes={k: v for k, v in found.items() if k in SERIES_KEYWORDS},
        instance_attributes={
            k: v for k, v in found.items() if k not in PATIENT_STUDY_KEYWORDS and k not in SERIES_KEYWORDS
        },
    )


def read_identity(path: Path) -> Identity:
    """Which instance a file says that it holds; what follows the last of the UIDs is not looked at.

    Raises:
        NotDicom, InvalidIdentifier, OSError: as `read_instance`.
    """
    kept: dict[int, Element] = {}
    with path.open("rb") as file:
        try:
            _, elements, _ = _data_set(file)
            for element in elements:
                if element.tag in _IDENTITY and element.value:
                    kept[element.tag] = element
                if len(kept) == len(_IDENTITY):
                    break
        except MalformedDataSet as error:
            raise NotDicom(str(error)) from error
    found = _attributes(list(kept.values()))
    return Identity(
        sop_class_uid=_identifier(found, "SOPClassUID"),
        sop_instance_uid=_identifier(found, "SOPInstanceUID"),
        study_instance_uid=_identifier(found, "StudyInstanceUID"),
        series_instance_uid=_identifier(found, "SeriesInstanceUID"),
    )


@dataclass(frozen=True)
class _Header:
    transfer_syntax_uid: str
    attributes: dict[str, list[str]]
    has_pixels: bool
    pixels_at: int
    """Where the value of the pixel data or document begins in the file; 0 where the whole file counts."""


def _read_header(file: BinaryIO) -> _Header:
    transfer_syntax_uid, elements, whole = _data_set(file)
    deflated = transfer_syntax_uid == DeflatedExplicitVRLittleEndian
    try:
        kept, has_pixels, pixels_at = _collect(elements, whole)
    except MalformedDataSet as error:
        raise NotDicom(str(error)) from error
    return _Header(transfer_syntax_uid, _attributes(kept), has_pixels, 0 if deflated else pixels_at)


def _data_set(file: BinaryIO) -> tuple[str, Iterator[Element], bool]:
    """The transfer syntax, the elements up to the pixels, and whether these are all that there are."""
    end = file.seek(0, io.SEEK_END)
    transfer_syntax_uid = seek_data_set(file)
    data_set, whole = file, True
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        data_set, end, whole = inflate(file)
    elements = read_elements(
        data_set,
        end,
        implicit=transfer_syntax_uid == ImplicitVRLittleEndian,
        little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
        until=_PIXELS,
    )
    return transfer_syntax_uid, elements, whole


def seek_data_set(file: BinaryIO) -> str:
    """Read the file meta information (PS3.10 7.1); the file then stands where the data set begins.

    Returns:
        the UID of the transfer syntax.

    Raises:
        NotDicom: no DICOM file, or without a transfer syntax.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(128)
    if file.read(4) != b"DICM":
        raise NotDicom("no DICOM prefix at byte 128")
    found = ""
    try:
        # The group's length element is not relied on: there are files in which it is wrong.
        meta = read_elements(file, end, implicit=False, little_endian=True, only_group=0x0002)
        for count, element in enumerate(meta, start=1):
            if count > MAX_META_ELEMENTS:
                raise NotDicom(f"the file meta information has more than {MAX_META_ELEMENTS} elements")
            uid = (element.value or b"").decode("latin-1").strip(" \0")
            if element.tag == _TRANSFER_SYNTAX_UID and not found and _is_uid(uid):
                found = uid
    except MalformedDataSet as error:
        raise NotDicom(str(error)) from error
    if not found:
        raise NotDicom("the file meta information names no transfer syntax")
    return found


def inflate(file: BinaryIO) -> tuple[BinaryIO, int, bool]:
    """A deflated data set's beginning, its length, and whether that is all of it (PS3.5 A.5).

    Raises:
        NotDicom: it is damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    while not inflater.eof and len(inflated) < MAX_INFLATED_HEADER:
        chunk = inflater.unconsumed_tail or file.read(_CHUNK)
        if not chunk:
            raise NotDicom("the deflated data set is cut off")
        try:
            inflated += inflater.decompress(chunk, MAX_INFLATED_HEADER - len(inflated))
        except zlib.error as error:
            raise NotDicom("the deflated data set is damaged") from error
    return io.BytesIO(inflated), len(inflated), inflater.eof


def _collect(elements: Iterator[Element], whole: bool) -> tuple[list[Element], bool, int]:
    """The elements worth keeping, whether there are pixels, and where they or a document begin (0: nowhere)."""
    kept: dict[int, Element] = {}
    document_at = 0
    for element in elements:
        if element.tag in _PIXELS:
            # Of a long deflated data set the pixels' end has not been inflated.
            if whole:
                next(elements, None)
            return list(kept.values()), element.length > 0, element.value_at
        if element.tag == _ENCAPSULATED_DOCUMENT:
            document_at = element.value_at
        if element.value and not (element.tag >> 16) & 1:
            kept[element.tag] = element
    if not whole:
        raise MalformedDataSet(f"no pixel data in the first {MAX_INFLATED_HEADER} bytes of the deflated data set")
    return list(kept.values()), False, document_at


def _attributes(elements: list[Element]) -> dict[str, list[str]]:
    encodings = encodings_of(b"")
    attributes: dict[str, list[str]] = {}
    for element in elements:
        if element.tag == _SPECIFIC_CHARACTER_SET:
            # The values are decoded; whoever encodes them again chooses a character set.
            encodings = encodings_of(element.value or b"")
            continue
        keyword = keyword_for_tag(element.tag)
        if not keyword or element.tag & 0xFFFF == 0 or dictionary_VR(element.tag).split(" or ")[0] in _NO_TEXT:
            # Whatever VR the file gives it: a sequence written as text is no text.
            continue
        try:
            values = text_values(element, encodings)
        except (ValueError, LookupError, struct.error):
            # One unreadable attribute is no reason to refuse an instance.
            continue
        if values and max(map(len, values)) <= MAX_VALUE_CHARACTERS:
            attributes[keyword] = values
    return attributes


def _hashes(file: BinaryIO, pixels_at: int) -> tuple[bytes, bytes]:
    """SHA-256 of the file, and of its bytes from `pixels_at` on."""
    whole, pixels = hashlib.sha256(), hashlib.sha256()
    file.seek(0)
    before = pixels_at
    while chunk := file.read(_CHUNK):
        whole.update(chunk)
        pixels.update(memoryview(chunk)[min(before, len(chunk)) :])
        before = max(0, before - len(chunk))
    return whole.digest(), pixels.digest()


def _is_uid(text: str) -> bool:
    return len(text) <= _MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def _identifier(attributes: dict[str, list[str]], keyword: str) -> str:
    uid = _text(attributes, keyword)
    if not uid:
        raise InvalidIdentifier(f"{keyword} is missing")
    if not _is_uid(uid):
        raise InvalidIdentifier(f"{keyword} is no UID")
    return uid


def _text(attributes: dict[str, list[str]], keyword: str) -> str:
    return "\\".join(attributes.get(keyword, ()))


def _integer(attributes: dict[str, list[str]], keyword: str) -> int | None:
    try:
        return int(attributes[keyword][0])
    except (KeyError, ValueError):
        return None
