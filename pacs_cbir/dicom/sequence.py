"""Which MR sequence an image is, which part of the body it shows, and whether it is one to embed at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset
from pydicom.uid import UID

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES, first_number, flattened, value_of
from pacs_cbir.dicom.words import BODY_PARTS, CONTRAST, LOCALISER, NO_CONTRAST, OTHER_CONTRASTS, WEIGHTINGS, spaced


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

_LOOKED_AT = (
    "ImageType",
    "AcquisitionContrast",
    "ScanningSequence",
    "SequenceVariant",
    "EchoPulseSequence",
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
    "SequenceName",
    "PulseSequenceName",
    "SeriesDescription",
    "ProtocolName",
)
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
    "PROTON_DENSITY_MAP", "B0_MAP", "B0 MAP", "PERFUSION_MAP", "CBF", "CBV", "MTT", "TTP", "TMAX", "RELCBF", "RELCBV",
    "RELMTT", "GBP", "PBP", "T0", "R2", "R2STAR", "EXPONENTIAL", "VELOCITY_MAP", "FF", "SUB", "SUBTRACTION",
}  # fmt: skip
_REFORMATS = {"MIP", "MINIP", "MIN_IP", "MAX_IP", "MPR", "CSA MPR", "PROJECTION IMAGE", "CPR", "CURVED", "VRT", "SSD"}
_SCREENS = {"SCREEN SAVE", "SCREEN", "FUSED", "CSA REPORT", "OTHER_FUSED"}


def classify_sequence(ds: Dataset) -> SequenceEvidence:
    """Tell an image's sequence from its header (PS3.3 C.8.3.1, C.8.13.3): what was played out decides, the
    descriptions decide where that is missing, and where the two disagree the sequence is unknown.

    Args:
        ds: of a classic or enhanced MR instance; of an enhanced one the first frame counts.
    """
    flat = _flat(ds)
    evidence = {k: str(v).replace("\0", "") for k in _LOOKED_AT if (v := value_of(flat, k)) is not None}
    sequence, rule = _classify(flat)
    return SequenceEvidence(sequence, evidence | {"rule": rule})


def _classify(ds: Dataset) -> tuple[Sequence, str]:
    words = _words(ds, _DESCRIPTIONS)
    types = _values(ds, "ImageType")
    if types & {"LOCALIZER", "SCOUT"} or LOCALISER.search(words):
        return Sequence.LOCALISER, "localiser by image type or description"
    if types & {"ADC", "ADC_UNSPECIFIED"} or ("ORIGINAL" not in types and re.search(r"\badc\b|apparent diff", words)):
        return Sequence.ADC, "apparent diffusion coefficient by image type or description"
    if other := _other_contrast(ds, types, words):
        return Sequence.UNKNOWN, other
    played, played_rule = _by_acquisition(ds, types)
    named = {sequence for sequence, pattern in WEIGHTINGS if pattern.search(words)}
    weighting, rule = _agree(ds, played, played_rule, {Sequence(name) for name in named})
    return _with_contrast(ds, words, rule) if weighting is Sequence.T1 else (weighting, rule)


def _other_contrast(ds: Dataset, types: set[str], words: str) -> str | None:
    """What is none of the sequences, though its times may look like one's: angiography, perfusion, phase, ..."""
    if value_of(ds, "AngioFlag") == "Y" or value_of(ds, "TimeOfFlightContrast") == "YES":
        return "angiography"
    if value_of(ds, "PhaseContrast") == "YES" or types & {"P", "PHASE", "PHASE MAP", "REAL", "IMAGINARY", "R", "I"}:
        return "phase, real or imaginary part"
    if (component := value_of(ds, "ComplexImageComponent")) in {"PHASE", "REAL", "IMAGINARY"}:
        return f"complex component {component}"
    if contrast := _values(ds, "AcquisitionContrast") & _OTHER_ACQUISITION_CONTRASTS:
        return f"acquisition contrast {min(contrast)}"
    if found := OTHER_CONTRASTS.search(words):
        return f"'{found.group().strip()}' in the description"
    return None


_Vote = tuple[Sequence | None, str]


def _by_acquisition(ds: Dataset, types: set[str]) -> _Vote:
    for contrast in sorted(_values(ds, "AcquisitionContrast") & set(_ACQUISITION_CONTRASTS)):
        return _ACQUISITION_CONTRASTS[contrast], f"acquisition contrast {contrast}"
    if (_number(ds, "DiffusionBValue") or 0) > 0 or types & {"DIFFUSION", "TRACEW", "TRACE"}:
        return Sequence.DWI, "diffusion weighting"
    echo, repetition = _number(ds, "EchoTime"), _number(ds, "RepetitionTime")
    if echo is None or repetition is None:
        return None, "no echo or repetition time"
    played = _values(ds, "ScanningSequence")
    pulse = value_of(ds, "EchoPulseSequence")
    inversion = _number(ds, "InversionTime") or 0.0
    inverted = inversion > 0 or "IR" in played or value_of(ds, "InversionRecovery") == "YES"
    if "GR" in played or pulse == "GRADIENT":
        return _gradient_echo(ds, echo, repetition, inverted)
    planar = "EP" in played or value_of(ds, "EchoPlanarPulseSequence") == "YES"
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


def _gradient_echo(ds: Dataset, echo: float, repetition: float, inverted: bool) -> _Vote:
    if echo >= T2STAR_MIN_TE:
        return Sequence.T2STAR, "gradient echo with long TE"
    if inverted and echo <= SPOILED_T1_MAX_TE:
        return Sequence.T1, "magnetisation-prepared gradient echo with short TE"
    spoiled = "SP" in _values(ds, "SequenceVariant") or "RF" in str(value_of(ds, "Spoiling"))
    short = echo <= SPOILED_T1_MAX_TE and repetition <= SPOILED_T1_MAX_TR
    if spoiled and short and (_number(ds, "FlipAngle") or 0.0) >= SPOILED_T1_MIN_FLIP:
        return Sequence.T1, "spoiled gradient echo with short TR and TE"
    return None, "gradient echo of no typical times"


def _agree(ds: Dataset, played: Sequence | None, rule: str, named: set[Sequence]) -> tuple[Sequence, str]:
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
        and value_of(ds, "InversionTime") is None
        and (_number(ds, "RepetitionTime") or 0) >= FLAIR_MIN_TR
    ):
        return Sequence.FLAIR, "the description; TR and TE fit, and the header has no inversion time"
    return Sequence.UNKNOWN, f"conflict: {played} by {rule}, {' and '.join(sorted(named))} by description"


def _with_contrast(ds: Dataset, words: str, rule: str) -> tuple[Sequence, str]:
    agent = str(value_of(ds, "ContrastBolusAgent") or "").strip()
    phase = str(value_of(ds, "ContrastBolusAgentPhase") or "")
    given = bool(agent) and agent.upper() not in {"NO", "N", "NONE", "0", "WITHOUT", "OHNE", "SANS", "NATIV"}
    given = given or (bool(value_of(ds, "ContrastBolusAgentSequence")) and phase not in {"", "PRE_CONTRAST"})
    without = NO_CONTRAST.search(words)
    named = CONTRAST.search(NO_CONTRAST.sub(" ", words))
    if given and without and not named:
        return Sequence.UNKNOWN, f"conflict: contrast agent in the header, '{without.group().strip()}' by description"
    if given:
        return Sequence.T1CE, f"{rule}; contrast agent in the header"
    if named and not without and phase != "PRE_CONTRAST":
        return Sequence.T1CE, f"{rule}; '{named.group().strip()}' in the description"
    return Sequence.T1, rule


def body_part(ds: Dataset) -> str:
    """The part of the body in upper case, HEAD, SKULL and their like as BRAIN; empty where it cannot be told.

    Body Part Examined decides (PS3.16 Annex L), then the coded region, then words of the descriptions and the coil.
    """
    flat = _flat(ds)
    examined = str(value_of(flat, "BodyPartExamined") or "").strip()
    if examined:
        known = _named_part(spaced(examined))
        return known or re.sub(r"[^A-Z0-9]", "", examined.upper())
    for keyword in ("AnatomicRegionSequence", "ProcedureCodeSequence"):
        for item in value_of(flat, keyword) or ():
            if part := _named_part(spaced(str(value_of(item, "CodeMeaning") or ""))):
                return part
    for keyword in (
        "SeriesDescription",
        "ProtocolName",
        "StudyDescription",
        "PerformedProcedureStepDescription",
        "RequestedProcedureDescription",
        "ReceiveCoilName",
    ):
        if part := _named_part(spaced(str(value_of(flat, keyword) or ""))):
            return part
    return ""


def _named_part(words: str) -> str:
    """The one body part that the words name; none where they name several."""
    found = {part for part, pattern in BODY_PARTS if pattern.search(words)}
    return found.pop() if len(found) == 1 else ""


def not_embeddable(ds: Dataset) -> str | None:
    """Why an image is deliberately not embedded; None where it is."""
    flat = _flat(ds)
    sop_class = UID(str(value_of(flat, "SOPClassUID") or ""))
    if sop_class not in MR_IMAGE_SOP_CLASSES:
        return f"not embedded: {sop_class.name or 'no SOP class'}"
    types = _values(flat, "ImageType")
    sequence = classify_sequence(flat).sequence
    found = types & (_SCREENS | (_REFORMATS if "DERIVED" in types else set()))
    maps = types & _MAPS | ({"ADC"} if sequence is Sequence.ADC else set())
    if sequence is Sequence.LOCALISER:
        return "not embedded: localiser"
    if maps:
        return f"not embedded: derived map {min(maps)}"
    return f"not embedded: derived image {min(found)}" if found else None


def _flat(ds: Dataset) -> Dataset:
    return flattened(ds) if "PerFrameFunctionalGroupsSequence" in ds else ds


def _values(ds: Dataset, keyword: str) -> set[str]:
    value = value_of(ds, keyword)
    values = [value] if isinstance(value, str) else value or []
    return {str(v).strip().upper() for v in values}


def _number(ds: Dataset, keyword: str) -> float | None:
    return first_number(value_of(ds, keyword))


def _words(ds: Dataset, keywords: tuple[str, ...]) -> str:
    return " ; ".join(spaced(str(value_of(ds, keyword) or "")) for keyword in keywords)
