"""The MR sequence by what was played out: pulse sequence, times, and what the scanner says of the contrast."""

from __future__ import annotations

import re

from pacs_cbir.dicom.sequence_header import Header, Sequence, number_of, values_of

# Milliseconds and degrees, for clinical field strengths. Between the ranges the header alone decides nothing.
T1_MAX_TR, T1_MAX_TE = 1200.0, 30.0
LONG_TR = 1500.0
T2_MIN_TE, PD_MAX_TE = 60.0, 45.0
FLAIR_MIN_TI, FLAIR_MIN_TE, FLAIR_MIN_TR = 1500.0, 60.0, 4000.0
T1_INVERSION = (400.0, 1400.0)
T2STAR_MIN_TE = 12.0
SPOILED_T1_MAX_TE, SPOILED_T1_MIN_FLIP, SPOILED_T1_MAX_TR = 8.0, 8.0, 350.0

# Siemens' names of turbo and SPACE sequences with an inversion: *tir2d1_15, *tirB2d1, *spcir_200.
_INVERTED = re.compile(r"tirB?[23]d|spcir")
_ACQUISITION_CONTRASTS = {
    "T1": Sequence.T1,
    "T2": Sequence.T2,
    "T2_STAR": Sequence.T2STAR,
    "PROTON_DENSITY": Sequence.PD,
    "FLUID_ATTENUATED": Sequence.FLAIR,
    "DIFFUSION": Sequence.DWI,
}
Vote = tuple[Sequence | None, str]


def by_acquisition(header: Header, types: set[str]) -> Vote:
    """The sequence by what was played out, and the rule that told it; None where that decides nothing.

    Args:
        types: values of ImageType.
    """
    played, rule = _by_times(header, types)
    for contrast in sorted(values_of(header, "AcquisitionContrast") & set(_ACQUISITION_CONTRASTS)):
        # A FLAIR is weighted by T2, and some scanners say that of it.
        if played is not Sequence.FLAIR or contrast != "T2":
            return _ACQUISITION_CONTRASTS[contrast], f"acquisition contrast {contrast}"
    return played, rule


def _by_times(header: Header, types: set[str]) -> Vote:
    if (number_of(header, "DiffusionBValue") or 0) > 0 or types & {"DIFFUSION", "TRACEW", "TRACE"}:
        return Sequence.DWI, "diffusion weighting"
    echo, repetition = number_of(header, "EchoTime"), number_of(header, "RepetitionTime")
    if echo is None or repetition is None:
        return None, "no echo or repetition time"
    played = values_of(header, "ScanningSequence")
    pulse = header.get("EchoPulseSequence")
    inversion = number_of(header, "InversionTime") or 0.0
    inverted = inversion > 0 or "IR" in played or header.get("InversionRecovery") == "YES"
    inverted = inverted or _INVERTED.search(header.get("SequenceName", "")) is not None
    if "GR" in played or pulse == "GRADIENT":
        return _gradient_echo(header, echo, repetition, inverted)
    planar = "EP" in played or header.get("EchoPlanarPulseSequence") == "YES"
    if not planar and (played & {"SE", "RM", "IR"} or pulse in {"SPIN", "BOTH"}):
        return _inversion_recovery(echo, inversion) if inverted else _spin_echo(echo, repetition)
    return None, "no spin or gradient echo that is not planar"


def _inversion_recovery(echo: float, inversion: float) -> Vote:
    if inversion >= FLAIR_MIN_TI and echo >= FLAIR_MIN_TE:
        return Sequence.FLAIR, "inversion recovery spin echo with long TI and TE"
    if T1_INVERSION[0] <= inversion <= T1_INVERSION[1] and echo <= T1_MAX_TE:
        return Sequence.T1, "inversion recovery spin echo with medium TI and short TE"
    return None, "inversion recovery spin echo of no typical TI and TE"


def _spin_echo(echo: float, repetition: float) -> Vote:
    if repetition <= T1_MAX_TR and echo <= T1_MAX_TE:
        return Sequence.T1, "spin echo with short TR and TE"
    if repetition >= LONG_TR and echo >= T2_MIN_TE:
        return Sequence.T2, "spin echo with long TR and TE"
    if repetition >= LONG_TR and echo <= PD_MAX_TE:
        return Sequence.PD, "spin echo with long TR and short TE"
    return None, "spin echo of no typical TR and TE"


def _gradient_echo(header: Header, echo: float, repetition: float, inverted: bool) -> Vote:
    if echo >= T2STAR_MIN_TE:
        return Sequence.T2STAR, "gradient echo with long TE"
    if inverted and echo <= SPOILED_T1_MAX_TE:
        return Sequence.T1, "magnetisation-prepared gradient echo with short TE"
    spoiled = "SP" in values_of(header, "SequenceVariant") or "RF" in header.get("Spoiling", "")
    short = echo <= SPOILED_T1_MAX_TE and repetition <= SPOILED_T1_MAX_TR
    if spoiled and short and (number_of(header, "FlipAngle") or 0.0) >= SPOILED_T1_MIN_FLIP:
        return Sequence.T1, "spoiled gradient echo with short TR and TE"
    return None, "gradient echo of no typical times"
