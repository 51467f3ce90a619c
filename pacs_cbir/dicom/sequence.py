"""Which MR sequence an image is, and whether it is one to embed at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as PydicomSequence
from pydicom.uid import UID

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES, first_number, flattened_header, value_of
from pacs_cbir.dicom.words import (
    CONTRAST,
    LOCALISER,
    NO_CONTRAST,
    NO_WEIGHTING,
    OTHER_CONTRASTS,
    WEIGHTINGS,
    spaced,
)


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


@dataclass(frozen=True)
class SequenceEvidence:
    """A sequence and why it was taken for that.

    Attributes:
        sequence: what it is.
        evidence: the header values that were looked at, by keyword, and under `rule` the one that decided.
    """

    sequence: Sequence
    evidence: dict[str, str]


# Milliseconds and degrees, for clinical field strengths. Between the ranges the header alone decides nothing.
T1_MAX_TR, T1_MAX_TE = 1200.0, 30.0
LONG_TR = 1500.0
T2_MIN_TE, PD_MAX_TE = 60.0, 45.0
FLAIR_MIN_TI, FLAIR_MIN_TE, FLAIR_MIN_TR = 1500.0, 60.0, 4000.0
T1_INVERSION = (400.0, 1400.0)
T2STAR_MIN_TE = 12.0
SPOILED_T1_MAX_TE, SPOILED_T1_MIN_FLIP, SPOILED_T1_MAX_TR = 8.0, 8.0, 350.0

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
# Siemens' names of turbo and SPACE sequences with an inversion: *tir2d1_15, *tirB2d1, *spcir_200.
_INVERTED = re.compile(r"tirB?[23]d|spcir")
_DIFFUSION_COEFFICIENT = re.compile(r"\badc\b|(?<!exponential )apparent diff")
_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
_ACQUISITION_CONTRASTS = {
    "T1": Sequence.T1,
    "T2": Sequence.T2,
    "T2_STAR": Sequence.T2STAR,
    "PROTON_DENSITY": Sequence.PD,
    "FLUID_ATTENUATED": Sequence.FLAIR,
    "DIFFUSION": Sequence.DWI,
}
_OTHER_ACQUISITION_CONTRASTS = {"ANGIO", "FLOW_ENCODED", "PERFUSION", "TAGGING", "TEMPERATURE", "STIR"}
_MAPS = {
    "ADC", "ADC_UNSPECIFIED", "EADC", "FA", "COLFA", "TENSOR", "TRACE_MAP", "T1_MAP", "T2_MAP", "T2_STAR_MAP",
    "T1 MAP", "T2 MAP", "T2STAR MAP", "T2_STAR MAP",
    "PROTON_DENSITY_MAP", "B0_MAP", "B0 MAP", "PERFUSION_MAP", "CBF", "CBV", "MTT", "TTP", "TMAX", "RELCBF", "RELCBV",
    "RELMTT", "GBP", "PBP", "T0", "R2", "R2STAR", "EXPONENTIAL", "VELOCITY_MAP", "FF", "SUB", "SUBTRACTION",
}  # fmt: skip
_REFORMATS = {
    "MIP",
    "MINIP",
    "MIN_IP",
    "MAX_IP",
    "MPR",
    "CSA MPR",
    "PROJECTION IMAGE",
    "MNIP",
    "CPR",
    "CURVED",
    "VRT",
    "SSD",
}
_PROJECTIONS = {"MIP", "MNIP", "MINIP", "MIN_IP", "MAX_IP", "PROJECTION IMAGE"}
_SCREENS = {"SCREEN SAVE", "SCREEN", "FUSED", "CSA REPORT", "OTHER_FUSED"}


def classify_sequence(ds: Dataset) -> SequenceEvidence:
    """Tell an image's sequence from its header (PS3.3 C.8.3.1, C.8.13.3): what was played out decides, the
    descriptions decide where that is missing, and where the two disagree the sequence is unknown.

    Args:
        ds: of a classic or enhanced MR instance; of an enhanced one the first frame counts.
    """
    return classify_header(header_of(ds))


def header_of(ds: Dataset) -> dict[str, str]:
    """What of a header a sequence is told from."""
    flat = flattened_header(ds)
    return {keyword: text for keyword in LOOKED_AT if (text := _as_text(value_of(flat, keyword)))}


def classify_header(header: Header) -> SequenceEvidence:
    """`classify_sequence` from what is kept of a header: of an earlier evidence the same sequence comes out."""
    values = looked_at(header)
    sequence, rule = _classify(values)
    return SequenceEvidence(sequence, values | {"rule": rule})


def looked_at(header: Header) -> dict[str, str]:
    """What of a header, or of an earlier evidence, a sequence is told from."""
    return {keyword: header[keyword] for keyword in LOOKED_AT if keyword in header}


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, PydicomSequence):
        return str(len(value)) if value else ""
    values = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return "\\".join(str(one) for one in values).replace("\0", "").strip()


def _classify(header: Header) -> tuple[Sequence, str]:
    words = _words(header, _DESCRIPTIONS)
    types = _values(header, "ImageType")
    if types & {"LOCALIZER", "SCOUT"} or LOCALISER.search(words):
        return Sequence.LOCALISER, "localiser by image type or description"
    if types & {"ADC", "ADC_UNSPECIFIED"} or ("ORIGINAL" not in types and _DIFFUSION_COEFFICIENT.search(words)):
        return Sequence.ADC, "apparent diffusion coefficient by image type or description"
    if other := _derived(header, types) or _other_contrast(header, types, words):
        return Sequence.UNKNOWN, other
    played, played_rule = _by_acquisition(header, types)
    spoken = NO_WEIGHTING.sub(" ", words)
    named = {sequence for sequence, pattern in WEIGHTINGS if pattern.search(spoken)}
    weighting, rule = _agree(header, played, played_rule, {Sequence(name) for name in named})
    return _with_contrast(header, words, rule) if weighting is Sequence.T1 else (weighting, rule)


def _derived(header: Header, types: set[str]) -> str | None:
    """What is no picture of a weighting any more, or one that water does not make."""
    if maps := types & (_MAPS - {"ADC", "ADC_UNSPECIFIED"}):
        return f"derived map {min(maps)}"
    if projections := types & _PROJECTIONS:
        return f"projection {min(projections)}"
    if types & {"FAT", "FAT_IMAGE", "OPP_PHASE", "OUT_PHASE"} and "IN_PHASE" not in types:
        return "fat or opposed phase by image type"
    if 0 < (_number(header, "InversionTime") or 0) < T1_INVERSION[0] and "GR" not in _values(
        header, "ScanningSequence"
    ):
        return "inversion recovery with short TI"
    return None


def _other_contrast(header: Header, types: set[str], words: str) -> str | None:
    """What is none of the sequences, though its times may look like one's: angiography, perfusion, phase, ..."""
    if header.get("AngioFlag") == "Y" or header.get("TimeOfFlightContrast") == "YES":
        return "angiography"
    if header.get("PhaseContrast") == "YES" or types & {"P", "PHASE", "PHASE MAP", "REAL", "IMAGINARY", "R", "I"}:
        return "phase, real or imaginary part"
    if (component := header.get("ComplexImageComponent")) in {"PHASE", "REAL", "IMAGINARY"}:
        return f"complex component {component}"
    if contrast := _values(header, "AcquisitionContrast") & _OTHER_ACQUISITION_CONTRASTS:
        return f"acquisition contrast {min(contrast)}"
    if found := OTHER_CONTRASTS.search(words):
        return f"'{found.group().strip()}' in the description"
    return None


_Vote = tuple[Sequence | None, str]


def _by_acquisition(header: Header, types: set[str]) -> _Vote:
    played, rule = _by_times(header, types)
    for contrast in sorted(_values(header, "AcquisitionContrast") & set(_ACQUISITION_CONTRASTS)):
        # A FLAIR is weighted by T2, and some scanners say that of it.
        if played is not Sequence.FLAIR or contrast != "T2":
            return _ACQUISITION_CONTRASTS[contrast], f"acquisition contrast {contrast}"
    return played, rule


def _by_times(header: Header, types: set[str]) -> _Vote:
    if (_number(header, "DiffusionBValue") or 0) > 0 or types & {"DIFFUSION", "TRACEW", "TRACE"}:
        return Sequence.DWI, "diffusion weighting"
    echo, repetition = _number(header, "EchoTime"), _number(header, "RepetitionTime")
    if echo is None or repetition is None:
        return None, "no echo or repetition time"
    played = _values(header, "ScanningSequence")
    pulse = header.get("EchoPulseSequence")
    inversion = _number(header, "InversionTime") or 0.0
    inverted = inversion > 0 or "IR" in played or header.get("InversionRecovery") == "YES"
    inverted = inverted or _INVERTED.search(header.get("SequenceName", "")) is not None
    if "GR" in played or pulse == "GRADIENT":
        return _gradient_echo(header, echo, repetition, inverted)
    planar = "EP" in played or header.get("EchoPlanarPulseSequence") == "YES"
    if not planar and (played & {"SE", "RM", "IR"} or pulse in {"SPIN", "BOTH"}):
        return _inversion_recovery(echo, inversion) if inverted else _spin_echo(echo, repetition)
    return None, "no spin or gradient echo that is not planar"


def _inversion_recovery(echo: float, inversion: float) -> _Vote:
    if inversion >= FLAIR_MIN_TI and echo >= FLAIR_MIN_TE:
        return Sequence.FLAIR, "inversion recovery spin echo with long TI and TE"
    if T1_INVERSION[0] <= inversion <= T1_INVERSION[1] and echo <= T1_MAX_TE:
        return Sequence.T1, "inversion recovery spin echo with medium TI and short TE"
    return None, "inversion recovery spin echo of no typical TI and TE"


def _spin_echo(echo: float, repetition: float) -> _Vote:
    if repetition <= T1_MAX_TR and echo <= T1_MAX_TE:
        return Sequence.T1, "spin echo with short TR and TE"
    if repetition >= LONG_TR and echo >= T2_MIN_TE:
        return Sequence.T2, "spin echo with long TR and TE"
    if repetition >= LONG_TR and echo <= PD_MAX_TE:
        return Sequence.PD, "spin echo with long TR and short TE"
    return None, "spin echo of no typical TR and TE"


def _gradient_echo(header: Header, echo: float, repetition: float, inverted: bool) -> _Vote:
    if echo >= T2STAR_MIN_TE:
        return Sequence.T2STAR, "gradient echo with long TE"
    if inverted and echo <= SPOILED_T1_MAX_TE:
        return Sequence.T1, "magnetisation-prepared gradient echo with short TE"
    spoiled = "SP" in _values(header, "SequenceVariant") or "RF" in header.get("Spoiling", "")
    short = echo <= SPOILED_T1_MAX_TE and repetition <= SPOILED_T1_MAX_TR
    if spoiled and short and (_number(header, "FlipAngle") or 0.0) >= SPOILED_T1_MIN_FLIP:
        return Sequence.T1, "spoiled gradient echo with short TR and TE"
    return None, "gradient echo of no typical times"


def _agree(header: Header, played: Sequence | None, rule: str, named: set[Sequence]) -> tuple[Sequence, str]:
    if played is None:
        if len(named) == 1:
            return next(iter(named)), f"the description; the acquisition decides nothing: {rule}"
        if named:
            return Sequence.UNKNOWN, f"the description names {' and '.join(sorted(named))}"
        return Sequence.UNKNOWN, rule
    if not named or played in named:
        return played, rule
    if (
        played is Sequence.T2
        and named == {Sequence.FLAIR}
        and header.get("InversionTime") is None
        and (_number(header, "RepetitionTime") or 0) >= FLAIR_MIN_TR
    ):
        return Sequence.FLAIR, "the description; TR and TE fit, and the header has no inversion time"
    return Sequence.UNKNOWN, f"conflict: {played} by {rule}, {' and '.join(sorted(named))} by description"


def _with_contrast(header: Header, words: str, rule: str) -> tuple[Sequence, str]:
    agent = spaced(header.get("ContrastBolusAgent", ""))
    phase = header.get("ContrastBolusAgentPhase", "")
    given = agent not in {"", "0", "n", "none", "nil", "n a", "false"} and not NO_CONTRAST.match(agent)
    given = given or (bool(header.get("ContrastBolusAgentSequence")) and phase not in {"", "PRE_CONTRAST"})
    without = NO_CONTRAST.search(words)
    named = CONTRAST.search(NO_CONTRAST.sub(" ", words))
    if given and without and not named:
        return Sequence.UNKNOWN, f"conflict: contrast agent in the header, '{without.group().strip()}' by description"
    if given:
        return Sequence.T1CE, f"{rule}; contrast agent in the header"
    if named and without:
        return Sequence.UNKNOWN, f"the description says '{without.group().strip()}' and '{named.group().strip()}'"
    if named and phase != "PRE_CONTRAST":
        return Sequence.T1CE, f"{rule}; '{named.group().strip()}' in the description"
    return Sequence.T1, rule


def not_embeddable(sop_class_uid: str, told: SequenceEvidence) -> str | None:
    """Why an image is deliberately not embedded, by what it was taken for and from what; None where it is."""
    sop_class = UID(sop_class_uid)
    if sop_class not in MR_IMAGE_SOP_CLASSES:
        return f"not embedded: {sop_class.name or 'no SOP class'}"
    types = _values(told.evidence, "ImageType")
    found = types & (_SCREENS | (_REFORMATS if "DERIVED" in types else set()))
    maps = types & _MAPS | ({"ADC"} if told.sequence is Sequence.ADC else set())
    if told.sequence is Sequence.LOCALISER:
        return "not embedded: localiser"
    if maps:
        return f"not embedded: derived map {min(maps)}"
    return f"not embedded: derived image {min(found)}" if found else None


def _values(header: Header, keyword: str) -> set[str]:
    return {value.strip().upper() for value in header.get(keyword, "").split("\\")} - {""}


def _number(header: Header, keyword: str) -> float | None:
    return first_number(header[keyword].split("\\")[0]) if keyword in header else None


def _words(header: Header, keywords: tuple[str, ...]) -> str:
    return " ; ".join(spaced(header.get(keyword, "")) for keyword in keywords)
