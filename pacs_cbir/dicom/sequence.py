"""Which MR sequence an image is, and whether it is one to embed at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID

from pacs_cbir.dicom.acquisition import FLAIR_MIN_TR, T1_INVERSION, by_acquisition
from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES
from pacs_cbir.dicom.sequence_header import Header, Sequence, header_of, looked_at, number_of, values_of, words_of
from pacs_cbir.dicom.words import (
    CONTRAST,
    LOCALISER,
    NO_CONTRAST,
    NO_WEIGHTING,
    OTHER_CONTRASTS,
    WEIGHTINGS,
    spaced,
)


@dataclass(frozen=True)
class SequenceEvidence:
    """A sequence and why it was taken for that.

    Attributes:
        sequence: what it is.
        evidence: the header values that were looked at, by keyword, and under `rule` the one that decided.
    """

    sequence: Sequence
    evidence: dict[str, str]


_DIFFUSION_COEFFICIENT = re.compile(r"\badc\b|(?<!exponential )apparent diff")
_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
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


def classify_header(header: Header) -> SequenceEvidence:
    """`classify_sequence` from what is kept of a header: of an earlier evidence the same sequence comes out."""
    values = looked_at(header)
    sequence, rule = _classify(values)
    return SequenceEvidence(sequence, values | {"rule": rule})


def _classify(header: Header) -> tuple[Sequence, str]:
    words = words_of(header, _DESCRIPTIONS)
    types = values_of(header, "ImageType")
    if types & {"LOCALIZER", "SCOUT"} or LOCALISER.search(words):
        return Sequence.LOCALISER, "localiser by image type or description"
    if types & {"ADC", "ADC_UNSPECIFIED"} or ("ORIGINAL" not in types and _DIFFUSION_COEFFICIENT.search(words)):
        return Sequence.ADC, "apparent diffusion coefficient by image type or description"
    if other := _derived(header, types) or _other_contrast(header, types, words):
        return Sequence.UNKNOWN, other
    played, played_rule = by_acquisition(header, types)
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
    if 0 < (number_of(header, "InversionTime") or 0) < T1_INVERSION[0] and "GR" not in values_of(
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
    if contrast := values_of(header, "AcquisitionContrast") & _OTHER_ACQUISITION_CONTRASTS:
        return f"acquisition contrast {min(contrast)}"
    if found := OTHER_CONTRASTS.search(words):
        return f"'{found.group().strip()}' in the description"
    return None


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
        and (number_of(header, "RepetitionTime") or 0) >= FLAIR_MIN_TR
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
    types = values_of(told.evidence, "ImageType")
    found = types & (_SCREENS | (_REFORMATS if "DERIVED" in types else set()))
    maps = types & _MAPS | ({"ADC"} if told.sequence is Sequence.ADC else set())
    if told.sequence is Sequence.LOCALISER:
        return "not embedded: localiser"
    if maps:
        return f"not embedded: derived map {min(maps)}"
    return f"not embedded: derived image {min(found)}" if found else None
