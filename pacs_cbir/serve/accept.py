"""Which of the media types on offer a request accepts (RFC 9110 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException

DICOM_JSON = "application/dicom+json"
JSON = "application/json"
JPEG = "image/jpeg"
PNG = "image/png"


def negotiate(accept: str | None, offered: Sequence[str]) -> str:
    """Choose a media type.

    A browser that is led to an address accepts `*/*` too, after pages and pictures, and gets what that chooses.

    Args:
        accept: the Accept field; None and empty accept everything.
        offered: media types, the default first.

    Raises:
        HTTPException: 406, none is accepted.
    """
    ranges = [_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    best, chosen = 0.0, None
    for media_type in offered:
        quality = _quality(media_type, ranges)
        if quality > best:
            best, chosen = quality, media_type
    if chosen is None:
        raise HTTPException(HTTPStatus.NOT_ACCEPTABLE, f"On offer here: {', '.join(offered)}. Name one in Accept.")
    return chosen


def _range(part: str) -> tuple[str, float]:
    """A media range and its quality; its other parameters are not looked at."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                return name, 0.0
    return name, 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """The quality that the most specific range gives a media type."""
    for name in (media_type, media_type.split("/", maxsplit=1)[0] + "/*", "*/*"):
        qualities = [quality for given, quality in ranges if given == name]
        if qualities:
            return max(qualities)
    return 0.0
