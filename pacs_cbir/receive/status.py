"""Errors → DIMSE status, in one table (PS3.4 Table B.2-1, PS3.7 Annex C)."""

from __future__ import annotations

from pacs_cbir.errors import (
    DatabaseUnavailable,
    DiskUnavailable,
    InvalidIdentifier,
    NotDicom,
    PacsCbirError,
    WrongIdentifier,
)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110

STATUS: dict[type[PacsCbirError], int] = {
    DatabaseUnavailable: OUT_OF_RESOURCES,
    DiskUnavailable: OUT_OF_RESOURCES,
    WrongIdentifier: DOES_NOT_MATCH_SOP_CLASS,
    NotDicom: CANNOT_UNDERSTAND,
    InvalidIdentifier: CANNOT_UNDERSTAND,
}


def status_of(error: BaseException) -> int:
    """The DIMSE status that answers an error; one that the table lacks is a processing failure (PS3.7 C.5.21)."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), PROCESSING_FAILURE)
