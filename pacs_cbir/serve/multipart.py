"""Multipart bodies (RFC 2046 5.1) → fields and files in a folder, as they come in: memory does not grow with them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from pacs_cbir.store.files import disk_errors
from pacs_cbir.store.uploads import require_room

FORM_DATA, RELATED, DICOM = "multipart/form-data", "multipart/related", "application/dicom"
FILE_FIELD = "file"
MAX_PARTS = 2000
MAX_FIELD_BYTES = 262_144
"""Of all fields that are no files together."""
RECEIVE_SECONDS = 600.0
"""A body that trickles in for longer is not waited for."""


@dataclass
class Received:
    """What a multipart body held, in its order."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def media_type(request: Request) -> tuple[str, dict[str, str]]:
    """The body's media type in lower case, and its parameters."""
    return _header(request.headers.get("content-type", ""))


async def receive_multipart(request: Request, folder: Path, most_bytes: int) -> Received:
    """Read a body of multipart/form-data (RFC 7578) or multipart/related (PS3.18 8.6.1.2).

    Args:
        folder: for the files; they are called by their numbers.
        most_bytes: of the whole body.

    Raises:
        HTTPException: 400, 408, 413, 415.
        DiskUnavailable.
    """
    kind, parameters = media_type(request)
    if kind == RELATED and parameters.get("type", "").lower() != DICOM:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f'{RELATED} is read with type="{DICOM}" alone.')
    boundary = parameters.get("boundary")
    if not boundary:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{kind} needs its boundary in Content-Type.")
    too_long = HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body may have {most_bytes} bytes. Send fewer or smaller pictures; PACS_CBIR_UPLOAD_MEGABYTES sets it.",
    )
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > most_bytes:
        raise too_long
    parts = _Parts(folder, related=kind == RELATED)
    length = 0
    try:
        parser = MultipartParser(boundary, parts.callbacks)  # type: ignore[arg-type]  # a TypedDict of theirs
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for chunk in request.stream():
                length += len(chunk)
                if length > most_bytes:
                    raise too_long
                await run_in_threadpool(parser.write, chunk)
    except (MultipartParseError, ValueError) as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"The body is no {kind} with this boundary.") from error
    except TimeoutError as error:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"A body may take {RECEIVE_SECONDS:g} s.") from error
    except ClientDisconnect as error:
        # Nobody is there to read it; the log has a line all the same.
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body was cut off.") from error
    finally:
        parts.close()
    if not parts.ended:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body is cut off: its last boundary is missing.")
    return parts.received


class _Parts:
    """Takes the parser's calls: each part becomes a file or a field."""

    def __init__(self, folder: Path, *, related: bool) -> None:
        self.received, self.ended = Received(), False
        self._folder, self._related = folder, related
        self._parts = self._field_bytes = 0
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self._field = ""
        self._file: BinaryIO | None = None
        self._content = bytearray()
        self.callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._write,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def close(self) -> None:
        """Leave no file open, whatever happened."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body may have {MAX_PARTS} parts.")
        self._headers.clear()

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _open(self) -> None:
        if self._related:
            kind, _ = _header(self._headers.get("content-type", DICOM))
            if kind != DICOM:
                raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Each part is of type {DICOM}.")
            self._field = FILE_FIELD
        else:
            _, disposition = _header(self._headers.get("content-disposition", ""))
            self._field = disposition.get("name", "")
            if not self._field or ("filename" in disposition and self._field != FILE_FIELD):
                raise HTTPException(
                    HTTPStatus.BAD_REQUEST, f"Each part has a name; files come under the name {FILE_FIELD}."
                )
        if self._field == FILE_FIELD:
            path = self._folder / f"{len(self.received.files) + 1:06d}"
            self.received.files.append(path)
            with disk_errors():
                self._file = path.open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            require_room(self._folder)
            with disk_errors():
                self._file.write(memoryview(data)[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > MAX_FIELD_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"What is no file may have {MAX_FIELD_BYTES} bytes in all."
            )
        self._content += data[start:end]

    def _end_part(self) -> None:
        if self._file is not None:
            with disk_errors():
                self._file.close()
            self._file = None
            return
        self.received.fields.append((self._field, self._content.decode("utf-8")))
        self._content.clear()

    def _end(self) -> None:
        self.ended = True


def _header(value: str) -> tuple[str, dict[str, str]]:
    """A header's value in lower case, and its parameters."""
    kind, parameters = parse_options_header(value)
    return kind.decode("latin-1"), {key.decode("latin-1"): text.decode("latin-1") for key, text in parameters.items()}
