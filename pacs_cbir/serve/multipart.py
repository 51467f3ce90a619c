"""Multipart bodies (RFC 2046 5.1), as they come in: memory does not grow with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Protocol

from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

FORM_DATA, RELATED, DICOM = "multipart/form-data", "multipart/related", "application/dicom"


class Parts(Protocol):
    """Takes a body's parts, one after the other, in a thread that may wait for the disk."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """A part begins; the names of its header fields are in lower case."""

    def write(self, data: memoryview) -> None:
        """More of its content, which is not there any longer after the call."""

    def end(self) -> None:
        """The part is whole."""


def media_type(request: Request) -> tuple[str, dict[str, str]]:
    """The body's media type in lower case, and its parameters."""
    return header(request.headers.get("content-type", ""))


def header(value: str) -> tuple[str, dict[str, str]]:
    """A header field's value in lower case, and its parameters."""
    kind, parameters = parse_options_header(value)
    return kind.decode("latin-1"), {key.decode("latin-1"): text.decode("latin-1") for key, text in parameters.items()}


async def read_multipart(request: Request, body: AsyncIterator[bytes], parts: Parts) -> None:
    """Take apart a body of multipart/form-data (RFC 7578) or multipart/related (PS3.18 8.6.1.2).

    Args:
        request: its Content-Type says how the parts are told apart.
        body: the body as it comes in.

    Raises:
        HTTPException: 400, 415; what `body` and `parts` raise.
    """
    kind, parameters = media_type(request)
    if kind == RELATED and parameters.get("type", "").lower() != DICOM:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f'{RELATED} is read with type="{DICOM}" alone.')
    boundary = parameters.get("boundary")
    if not boundary:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{kind} needs its boundary in Content-Type.")
    calls = _Calls(parts)
    try:
        parser = MultipartParser(boundary, calls.callbacks)  # type: ignore[arg-type]  # a TypedDict of theirs
        async for chunk in body:
            await run_in_threadpool(parser.write, chunk)
    except (MultipartParseError, ValueError) as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"The body is no {kind} with this boundary.") from error
    if not calls.ended:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body is cut off: its last boundary is missing.")


class _Calls:
    """The parser's calls → a part's."""

    def __init__(self, parts: Parts) -> None:
        self.ended = False
        self._parts = parts
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self.callbacks = {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": lambda: self._parts.begin(self._headers),
            "on_part_data": lambda data, start, end: self._parts.write(memoryview(data)[start:end]),
            "on_part_end": self._parts.end,
            "on_end": self._end,
        }

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.ended = True
