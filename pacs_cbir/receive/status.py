"""Errors → DIMSE status, in one table (PS3.4 Tables B.2-1 and C.4-1, PS3.7 Annex C), and failure reasons."""

from __future__ import annotations

from textwrap import shorten

from pydicom import Dataset

from pacs_cbir.errors import (
    DatabaseUnavailable,
    DiskUnavailable,
    ExampleNotReady,
    InvalidCommitment,
    InvalidIdentifier,
    NotDicom,
    PacsCbirError,
    PeerError,
    QueryError,
    WrongIdentifier,
    WrongLevel,
)
from pacs_cbir.store.commitments import Refusal

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITHOUT_SOME_KEYS = 0xFF01
CANCELLED = 0xFE00
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
NO_SUCH_ACTION = 0x0123
NO_SUCH_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
CLASS_INSTANCE_CONFLICT = 0x0119
RESOURCE_LIMITATION = 0x0213
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
STORE_STATUSES = frozenset({SUCCESS, OUT_OF_RESOURCES, DOES_NOT_MATCH_SOP_CLASS, CANNOT_UNDERSTAND, PROCESSING_FAILURE})
"""All that a C-STORE is answered with."""

ACTION_STATUS: dict[type[PacsCbirError], int] = {
    InvalidCommitment: INVALID_ARGUMENT,
    DatabaseUnavailable: RESOURCE_LIMITATION,
}
"""Of an N-ACTION (PS3.7 10.1.4.1.10)."""

FAILURE_REASONS: dict[Refusal, int] = {
    Refusal.NO_SUCH_INSTANCE: NO_SUCH_INSTANCE,
    Refusal.OTHER_SOP_CLASS: CLASS_INSTANCE_CONFLICT,
    Refusal.NOT_POSSIBLE: PROCESSING_FAILURE,
}
"""Of an instance that is not committed (PS3.3 C.14.1.1)."""


def status_of(error: BaseException) -> int:
    """The DIMSE status that answers an error; one that the table lacks is a processing failure (PS3.7 C.5.21)."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), PROCESSING_FAILURE)


def action_status_of(error: BaseException) -> int:
    """The same for an N-ACTION."""
    return next((ACTION_STATUS[kind] for kind in type(error).__mro__ if kind in ACTION_STATUS), PROCESSING_FAILURE)


def answer(code: int, comment: str = "") -> Dataset:
    """A response's status, and what is wrong in an Error Comment of at most 64 characters (PS3.7 C.4.2)."""
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = shorten(comment.encode("ascii", "replace").decode(), COMMENT_LENGTH, placeholder="...")
    return status
