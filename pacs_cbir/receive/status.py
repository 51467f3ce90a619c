"""Errors → DIMSE status, in one table (PS3.4 Tables B.2-1 and C.4-1, PS3.7 Annex C)."""

from __future__ import annotations

from textwrap import shorten

from pydicom import Dataset

from pacs_cbir.errors import (
    DatabaseUnavailable,
    DiskUnavailable,
    ExampleNotReady,
    InvalidIdentifier,
    NotDicom,
    PacsCbirError,
    PeerError,
    QueryError,
    WrongIdentifier,
    WrongLevel,
)

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITHOUT_SOME_KEYS = 0xFF01
CANCELLED = 0xFE00
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
# ErrorComment is an LO (PS3.7 Table C.5-1).
COMMENT_LENGTH = 64

STATUS: dict[type[PacsCbirError], int] = {
    DatabaseUnavailable: OUT_OF_RESOURCES,
    DiskUnavailable: OUT_OF_RESOURCES,
    WrongIdentifier: DOES_NOT_MATCH_SOP_CLASS,
    NotDicom: CANNOT_UNDERSTAND,
    InvalidIdentifier: CANNOT_UNDERSTAND,
    # A700 says to ask again later; what no waiting mends is C000.
    ExampleNotReady: OUT_OF_RESOURCES,
    PeerError: OUT_OF_RESOURCES,
    WrongLevel: DOES_NOT_MATCH_SOP_CLASS,
    QueryError: CANNOT_UNDERSTAND,
}


def status_of(error: BaseException) -> int:
    """The DIMSE status that answers an error; one that the table lacks is a processing failure (PS3.7 C.5.21)."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), PROCESSING_FAILURE)


def answer(code: int, comment: str = "") -> Dataset:
    """A response's status, and what is wrong in an Error Comment of at most 64 characters (PS3.7 C.4.2)."""
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = shorten(comment.encode("ascii", "replace").decode(), COMMENT_LENGTH, placeholder="...")
    return status
