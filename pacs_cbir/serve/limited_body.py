"""Bodies that are read by ourselves, no further than their limit."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from starlette.exceptions import HTTPException


async def limited_body(request: Request, most: int, what: str) -> bytes:
    """A request's body.

    Args:
        most: bytes.
        what: the body's name at the beginning of a sentence.

    Raises:
        HTTPException: 413.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{what} may have {most} bytes.")
    return bytes(body)
