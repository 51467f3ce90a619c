"""Pictures that come with a question, in a multipart body → fields, and files in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from pacs_cbir.serve.multipart import DICOM, RELATED, header, media_type, read_multipart
from pacs_cbir.settings import Settings
from pacs_cbir.store.files import disk_errors
from pacs_cbir.store.room import require_room

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


async def receive_upload(request: Request, folder: Path, settings: Settings) -> Received:
    """Read a body of multipart/form-data (RFC 7578) or multipart/related (PS3.18 8.6.1.2).

    Args:
        folder: for the files; they are called by their numbers.
        settings: say how many bytes the whole body may have, and what stays free on the disk.

    Raises:
        HTTPException: 400, 408, 413, 415.
        DiskFull, DiskUnavailable.
    """
    kind, _ = media_type(request)
    parts = _Parts(folder, settings, related=kind == RELATED)
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            await read_multipart(request, _within(request, settings.upload_megabytes << 20), parts)
    except TimeoutError as error:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"A body may take {RECEIVE_SECONDS:g} s.") from error
    except ClientDisconnect as error:
        # Nobody is there to read it; the log has a line all the same.
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body was cut off.") from error
    finally:
        parts.close()
    return parts.received


async def _within(request: Request, most_bytes: int) -> AsyncIterator[bytes]:
    """The body, no further than its limit."""
    too_long = HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body may have {most_bytes} bytes. Send fewer or smaller pictures; PACS_CBIR_UPLOAD_MEGABYTES sets it.",
    )
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > most_bytes:
        raise too_long
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > most_bytes:
            raise too_long
        yield chunk


class _Parts:
    """Each part becomes a file or a field."""

    def __init__(self, folder: Path, settings: Settings, *, related: bool) -> None:
        self.received = Received()
        self._folder, self._settings, self._related = folder, settings, related
        self._parts = self._field_bytes = 0
        self._field = ""
        self._file: BinaryIO | None = None
        self._content = bytearray()

    def close(self) -> None:
        """Leave no file open, whatever happened."""
        if self._file is not None:
            self._file.close()

    def begin(self, headers: Mapping[str, str]) -> None:
        """Find out what the part is."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body may have {MAX_PARTS} parts.")
        if self._related:
            kind, _ = header(headers.get("content-type", DICOM))
            if kind != DICOM:
                raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Each part is of type {DICOM}.")
            self._field = FILE_FIELD
        else:
            _, disposition = header(headers.get("content-disposition", ""))
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

    def write(self, data: memoryview) -> None:
        """Keep more of it."""
        if self._file is not None:
            require_room(self._settings)
            with disk_errors():
                self._file.write(data)
            return
        self._field_bytes += len(data)
        if self._field_bytes > MAX_FIELD_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"What is no file may have {MAX_FIELD_BYTES} bytes in all."
            )
        self._content += data

    def end(self) -> None:
        """Close the file, or read the field."""
        if self._file is not None:
            with disk_errors():
                self._file.close()
            self._file = None
            return
        self.received.fields.append((self._field, self._content.decode("utf-8")))
        self._content.clear()
