"""The MR sequences that are told apart, and what of a header they are told from."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as PydicomSequence

from pacs_cbir.dicom.frames import first_number, flattened_header, value_of
from pacs_cbir.dicom.words import spaced


class Sequence(StrEnum):
    """The MR sequences that are told apart; like is compared with like."""

    T1 = "T1"
    T1CE = "T1CE"
    T2 = "T2"
    FLAIR = "FLAIR"
    T2STAR = "T2*"
    PD = "PD"
    DWI = "DWI"
    ADC = "ADC"
    LOCALISER = "localiser"
    UNKNOWN = "unknown"


LOOKED_AT = (
    "Manufacturer",
    "ManufacturerModelName",
    "MRAcquisitionType",
    "ImageType",
    "AcquisitionContrast",
    "ScanningSequence",
    "SequenceVariant",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "InversionRecovery",
    "Spoiling",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "DiffusionBValue",
    "AngioFlag",
    "TimeOfFlightContrast",
    "PhaseContrast",
    "ComplexImageComponent",
    "ContrastBolusAgent",
    "ContrastBolusAgentPhase",
    "ContrastBolusAgentSequence",
    "SequenceName",
    "PulseSequenceName",
    "SeriesDescription",
    "ProtocolName",
)
"""What a sequence is told from, and all of it: it can be told again from what is kept of these."""
NUMBERS = ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "DiffusionBValue")
"""Those of them that are numbers: times in ms, an angle in degrees, s/mm²."""
Header = Mapping[str, str]
"""Keyword → value as text, several parted by backslashes as in DICOM; of a sequence the number of its items."""


def header_of(ds: Dataset) -> dict[str, str]:
    """What of a header a sequence is told from."""
    flat = flattened_header(ds)
    return {keyword: text for keyword in LOOKED_AT if (text := _as_text(value_of(flat, keyword)))}


def looked_at(header: Header) -> dict[str, str]:
    """What of a header, or of an earlier evidence, a sequence is told from."""
    return {keyword: header[keyword] for keyword in LOOKED_AT if keyword in header}


def values_of(header: Header, keyword: str) -> set[str]:
    """The values of a header's attribute, upper case."""
    return {value.strip().upper() for value in header.get(keyword, "").split("\\")} - {""}


def number_of(header: Header, keyword: str) -> float | None:
    """The first value of a header's attribute; None where it is no number."""
    return first_number(header[keyword].split("\\")[0]) if keyword in header else None


def words_of(header: Header, keywords: tuple[str, ...]) -> str:
    """The words of several of a header's attributes, as `spaced` has them."""
    return " ; ".join(spaced(header.get(keyword, "")) for keyword in keywords)


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, PydicomSequence):
        return str(len(value)) if value else ""
    values = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return "\\".join(str(one) for one in values).replace("\0", "").strip()
