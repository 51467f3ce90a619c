"""Errors → HTTP, in one table. Every error is answered as a problem detail (RFC 9457), without patients' identities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pacs_cbir.errors import (
    CheckpointError,
    DatabaseUnavailable,
    DiskFull,
    DiskUnavailable,
    EncoderBusy,
    EncoderMismatch,
    ExampleNotEmbedded,
    ExampleNotReady,
    ExampleNotReindexed,
    IndexNotReady,
    InvalidQuery,
    MergeRefused,
    PacsCbirError,
    PixelDataGone,
    SchemaOutdated,
    SeriesChanged,
    UnknownExample,
    UnknownPatient,
    UnknownStudy,
    UnreadableUpload,
    VolumeError,
)

MEDIA_TYPE = "application/problem+json"
DATABASE_RETRY_SECONDS = 5
INDEX_RETRY_SECONDS = 2
ENCODER_RETRY_SECONDS = 5
SERIES_RETRY_SECONDS = 30


@dataclass(frozen=True)
class Problem:
    """How one kind of error is answered.

    Attributes:
        title: the kind, in words that do not change from case to case.
        advice: what to do about it; follows the error's own message in `detail`.
        retry_after: whole seconds for the Retry-After field; an error that knows better says so itself.
    """

    status: HTTPStatus
    title: str
    advice: str
    retry_after: int | None = None


PROBLEMS: dict[type[PacsCbirError], Problem] = {
    InvalidQuery: Problem(
        HTTPStatus.BAD_REQUEST, "The query cannot be understood", "Correct the parameter; /docs lists what is accepted."
    ),
    UnreadableUpload: Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The uploaded picture cannot be read",
        "Send MR images as DICOM files, or pictures as PNG or JPEG.",
    ),
    UnknownExample: Problem(
        HTTPStatus.NOT_FOUND,
        "The example is not here",
        "Send it by C-STORE first, or choose one of /dicom-web/studies.",
    ),
    UnknownPatient: Problem(
        HTTPStatus.NOT_FOUND, "The patient is not here", "There is nothing to correct; go on with the next message."
    ),
    UnknownStudy: Problem(
        HTTPStatus.NOT_FOUND,
        "The study is not here",
        "Correct it once it has come; /dicom-web/studies lists those here.",
    ),
    MergeRefused: Problem(
        HTTPStatus.CONFLICT,
        "The patients cannot be merged",
        "Look at what was merged before; a study that is another patient's is given to them by /corrections/study.",
    ),
    ExampleNotReady: Problem(
        HTTPStatus.CONFLICT, "The example is not embedded yet", "Ask again after the seconds in Retry-After."
    ),
    ExampleNotEmbedded: Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "The example has no embeddings", "Choose another series of the study."
    ),
    ExampleNotReindexed: Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The encoder has not looked at the example",
        "Until then let another encoder answer, or ask with another example.",
    ),
    SeriesChanged: Problem(
        HTTPStatus.CONFLICT,
        "The series has changed",
        "Ask again after the seconds in Retry-After, when it is embedded anew.",
        SERIES_RETRY_SECONDS,
    ),
    VolumeError: Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "The instance cannot be shown", "Look at it in a viewer that reads it."
    ),
    PixelDataGone: Problem(
        HTTPStatus.GONE,
        "The pixel data is no longer here",
        "Look at it in a viewer of the archive, or let the archive send the series again.",
    ),
    DatabaseUnavailable: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The database is away",
        "Ask again after the seconds in Retry-After; /health/ready tells when it is back.",
        DATABASE_RETRY_SECONDS,
    ),
    IndexNotReady: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The index is being loaded",
        "Ask again after the seconds in Retry-After; /health/ready tells when it is there.",
        INDEX_RETRY_SECONDS,
    ),
    DiskFull: Problem(
        HTTPStatus.INSUFFICIENT_STORAGE,
        "The disk is full",
        "Make room, or set PACS_CBIR_RETENTION; what is sent again then is taken.",
    ),
    DiskUnavailable: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "The disk is away", "Make room or mend the data directory, then ask again."
    ),
    SchemaOutdated: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "The database's schema is another version's", "Then ask again."
    ),
    EncoderMismatch: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "This process cannot embed with the encoder", "Then ask again."
    ),
    EncoderBusy: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The encoder is busy",
        "Ask again after the seconds in Retry-After.",
        ENCODER_RETRY_SECONDS,
    ),
    CheckpointError: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The encoder cannot be loaded",
        "Copy it again with `pacs-cbir encoder add`.",
    ),
}


def problem_of(error: PacsCbirError) -> Problem | None:
    """The table's row for an error; None for one that HTTP does not expect."""
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)


def respond(
    status: int,
    detail: str,
    *,
    title: str | None = None,
    kind: str = "about:blank",
    headers: dict[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """A problem detail; `members` are extension members (RFC 9457 3.2)."""
    status = int(status)
    body = {"type": kind, "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def internal_error() -> JSONResponse:
    """The answer to what nobody foresaw; the cause is in the log alone."""
    return respond(HTTPStatus.INTERNAL_SERVER_ERROR, "An error that was not foreseen; the service's log has its cause.")


def install(app: FastAPI) -> None:
    """Answer this package's errors, FastAPI's and Starlette's as problem details."""
    app.add_exception_handler(PacsCbirError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PacsCbirError)  # noqa: S101 - installed for these alone
    problem = problem_of(error)
    if problem is None:
        raise error
    seconds = math.ceil(error.retry_after) if isinstance(error, ExampleNotReady) else problem.retry_after
    return respond(
        problem.status,
        f"{str(error).rstrip('.')}. {problem.advice}",
        title=problem.title,
        kind=f"urn:pacs-cbir:problem:{_kind(error)}",
        headers=None if seconds is None else {"Retry-After": str(max(1, seconds))},
    )


def _kind(error: PacsCbirError) -> str:
    known = next(kind for kind in type(error).__mro__ if kind in PROBLEMS).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in known).lstrip("-")


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - installed for these alone
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if any(problem["loc"][:1] == ("body",) for problem in error.errors()) and not content_type.endswith("json"):
        # FastAPI takes any other for a text, and complains of that.
        return respond(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json, and say so in Content-Type."
        )
    # The message says what is accepted; the value that was given stays out.
    found = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
    problem = PROBLEMS[InvalidQuery]
    kind = f"urn:pacs-cbir:problem:{_kind(InvalidQuery())}"
    return respond(problem.status, f"{found}. {problem.advice}", title=problem.title, kind=kind)


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - installed for these alone
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "There is no such path; /docs lists those that are."
    headers = None if error.headers is None else dict(error.headers)
    return respond(error.status_code, detail, headers=headers)
