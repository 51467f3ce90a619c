"""A query by example in a body: as a form that says the same as a URL at more length, or with pictures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool
from pydantic import Field
from starlette.exceptions import HTTPException

from pacs_cbir.embed.preprocess import MAX_SLICES
from pacs_cbir.errors import InvalidQuery
from pacs_cbir.serve.asked import FORM, MAX_EXAMPLES, Asked, Parameters, asked_of, check_url, validated
from pacs_cbir.serve.limited_body import limited_body
from pacs_cbir.serve.multipart import DICOM, FORM_DATA, RELATED, media_type
from pacs_cbir.serve.places import Places
from pacs_cbir.serve.upload import receive_upload
from pacs_cbir.settings import Settings
from pacs_cbir.store.uploads import upload_folder

MAX_FORM_BYTES = 262_144
"""More than the longest query that is understood."""
MAX_FIELDS = 1000
MAX_UPLOADS = 16
"""Under way at once, from a body's first byte to its answer: what trickles in lies on the disk."""


class UploadParameters(Parameters):
    """The same where pictures are the example."""

    example: list[str] = Field(
        [], max_length=MAX_EXAMPLES, description="Stored examples beside the pictures, named as in the GET request."
    )


class UploadForm(UploadParameters):
    """A form that brings pictures."""

    file: list[bytes] = Field(
        min_length=1,
        description="DICOM files, PNG or JPEG: decoded, embedded, answered, and not kept. "
        "A PNG or JPEG is taken for a whole field of view; `sequence` says what it is. "
        f"Pictures and stacks of DICOM files may be {MAX_EXAMPLES} in all, "
        f"and {MAX_SLICES} slices are drawn of them at most.",
        json_schema_extra={"items": {"type": "string", "format": "binary"}},
    )


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The parameters of the GET request, which are too long for a URL, or pictures from outside with "
        f'such parameters. {RELATED} has the type "{DICOM}", as in STOW-RS (PS3.18 8.6.1.2), and its parameters are in '
        "the URL.",
        "content": {
            FORM: {"schema": Parameters.model_json_schema()},
            FORM_DATA: {"schema": UploadForm.model_json_schema()},
            RELATED: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""OpenAPI's words for the bodies."""


@asynccontextmanager
async def asked_in_body(request: Request, settings: Settings, places: Places) -> AsyncIterator[Asked]:
    """Read a POST request; its pictures are on disk until the block ends.

    Args:
        places: one for each upload that may be under way.

    Raises:
        InvalidQuery: a parameter cannot be understood.
        HTTPException: 400, 406, 408, 413, 414, 415, 503.
        DiskUnavailable: pictures cannot be received.
    """
    kind, _ = media_type(request)
    if kind not in {FORM, FORM_DATA, RELATED}:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {FORM}, or pictures as {FORM_DATA} or {RELATED}.")
    check_url(request)
    if kind != RELATED and request.scope["query_string"]:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Send all parameters in the body: the URL's are not read.")
    if kind == FORM:
        yield await _asked_in_form(request)
        return
    async with places.one(), contextmanager_in_threadpool(upload_folder(settings)) as folder:
        received = await receive_upload(request, folder, settings)
        items = request.query_params.multi_items() if kind == RELATED else received.fields
        if not received.files:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"The body brings no picture; without one, send {FORM}.")
        asked = asked_of(request, validated(UploadParameters, items), items)
        if asked.region is not None:
            raise InvalidQuery("region is of a stored frame: it goes with no uploaded file")
        yield replace(asked, files=tuple(received.files))


async def _asked_in_form(request: Request) -> Asked:
    body = await limited_body(request, MAX_FORM_BYTES, "A query")
    try:
        items = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:  # UnicodeDecodeError is one
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"The body is no form, or has more than {MAX_FIELDS} parameters."
        ) from error
    return asked_of(request, validated(Parameters, items), items)
