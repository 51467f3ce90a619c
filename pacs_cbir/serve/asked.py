"""A query by example, read from a URL or from a form in a body that says the same at more length."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Query, Request
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from pacs_cbir.embed.region import Box
from pacs_cbir.errors import InvalidQuery
from pacs_cbir.search import query as search
from pacs_cbir.serve.accept import DICOM_JSON, JSON, negotiate
from pacs_cbir.serve.multipart import DICOM, FORM_DATA, RELATED, media_type, receive_multipart
from pacs_cbir.serve.parameters import (
    FUZZY,
    ReturnKeys,
    example_of,
    matching_keys,
    region_of,
    sequence_weights_of,
    sequences_of,
    weights_of,
)
from pacs_cbir.settings import Settings
from pacs_cbir.store.embeddings import Source
from pacs_cbir.store.examples import Example
from pacs_cbir.store.uploads import upload_folder

MAX_RESULTS = 1000
MAX_EXAMPLES = 100
MAX_CHARACTERS = 1024
MAX_QUERY_BYTES = 8192
"""Of a URL's query; what is longer comes as a form, since proxies cut URLs off from here on."""
MAX_FORM_BYTES = 262_144
"""More than the longest query that is understood."""
MAX_FIELDS = 1000
FORM = "application/x-www-form-urlencoded"
_NAMES = "each as an example"


class Parameters(BaseModel):
    """The parameters that are no matching keys; all others are."""

    model_config = ConfigDict(extra="allow")

    example: list[str] = Field(
        max_length=MAX_EXAMPLES,
        description="What to look for: `{study}`, `{study}/{series}`, `{study}/{series}/{instance}` or "
        "`{study}/{series}/{instance}/{frame}`, by UIDs and frame number. Several: what is like all of them.",
    )
    like: list[str] = Field(
        [], max_length=MAX_EXAMPLES, description=f"Answers that were right, {_NAMES}: more like these."
    )
    unlike: list[str] = Field(
        [], max_length=MAX_EXAMPLES, description=f"Answers that were wrong, {_NAMES}: none of these, fewer such."
    )
    region: str = Field(
        "",
        max_length=MAX_CHARACTERS,
        description="`x0,y0,x1,y1`: ask for what is like a box in the example's frame, in its pixels: columns x0 to "
        "x1 - 1 and rows y0 to y1 - 1, counted from 0. Exactly one example, which names an instance or frame. Without "
        "`parts` it is compared by lesion and shape, and nothing is left out as unrelated.",
    )
    sequence: list[str] = Field(
        [], max_length=MAX_EXAMPLES, description="Look at these MR sequences alone, as `T1CE` or `T1,FLAIR`."
    )
    weights: str = Field(
        "",
        max_length=MAX_CHARACTERS,
        description="What MR sequences count in a study's similarity, as `FLAIR:2,T1:0.5`; 1 where not named.",
    )
    parts: str = Field(
        "",
        max_length=MAX_CHARACTERS,
        description="What the embedding's parts count, as `lesion:1,grey:0.2`; parts not named count nothing. "
        "Without it, as the encoder's card says.",
    )
    min_similarity: float | None = Field(
        None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="Answer nothing that is less similar; -1 answers all. Without it nothing is answered that is less "
        "similar than unrelated patients usually are, as the encoder was calibrated; the Warning field counts it.",
    )
    limit: int = Field(10, ge=1, le=MAX_RESULTS, description="How many to answer.")
    offset: int = Field(0, ge=0, le=MAX_RESULTS * 100, description="How many of the best to skip.")
    includefield: list[str] = Field(
        [], description="DICOM keywords or tags to answer with, repeated or with commas between; or `all`."
    )
    own_patient: bool = Field(False, description="Whether the example's own patient may be answered.")
    fuzzymatching: bool = Field(False, description=FUZZY)


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
        "A PNG or JPEG is taken for a whole field of view; `sequence` says what it is.",
        json_schema_extra={"items": {"type": "string", "format": "binary"}},
    )


_SEVERAL = frozenset({"example", "like", "unlike", "sequence", "includefield"})

FORM_BODY: dict[str, Any] = {
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


@dataclass(frozen=True)
class Asked:
    """A query by example, and how it is to be answered.

    Attributes:
        example_study: Study Instance UID of the first example; None where that is a picture.
        files: pictures that are examples too; they are gone once the request is answered.
        region: of the one example's frame.
        sources: where slices that are not stored come from: SOP Instance UID and frame number, or no UID and the
            number of the file in the upload.
        warnings: values of the Warning field.
    """

    query: search.Query
    fields: ReturnKeys
    media_type: str
    base_url: str
    example_study: str | None
    files: tuple[Path, ...] = ()
    region: Box | None = None
    sources: Mapping[tuple[uuid.UUID, int], Source] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def asked_in_url(request: Request, parameters: Annotated[Parameters, Query()]) -> Asked:
    """Read a GET request.

    Raises:
        InvalidQuery: a parameter cannot be understood.
        HTTPException: 406, 414.
    """
    _check_url(request)
    return _asked(request, parameters, request.query_params.multi_items())


def _check_url(request: Request) -> None:
    if len(request.scope["query_string"]) > MAX_QUERY_BYTES:
        raise HTTPException(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"A URL's query may have {MAX_QUERY_BYTES} bytes. Send the same parameters by POST, as {FORM}.",
        )


@asynccontextmanager
async def asked_in_body(request: Request, settings: Settings) -> AsyncIterator[Asked]:
    """Read a POST request; its pictures are on disk until the block ends.

    Raises:
        InvalidQuery: a parameter cannot be understood.
        HTTPException: 400, 406, 408, 413, 414, 415.
        DiskUnavailable: pictures cannot be received.
    """
    kind, _ = media_type(request)
    if kind not in {FORM, FORM_DATA, RELATED}:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {FORM}, or pictures as {FORM_DATA} or {RELATED}.")
    _check_url(request)
    if kind != RELATED and request.scope["query_string"]:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Send all parameters in the body: the URL's are not read.")
    if kind == FORM:
        yield await _asked_in_form(request)
        return
    async with contextmanager_in_threadpool(upload_folder(settings)) as folder:
        received = await receive_multipart(request, folder, settings.upload_megabytes << 20)
        items = request.query_params.multi_items() if kind == RELATED else received.fields
        if not received.files:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"The body brings no picture; without one, send {FORM}.")
        asked = _asked(request, _validated(UploadParameters, items), items)
        if asked.region is not None:
            raise InvalidQuery("region is of a stored frame: it goes with no uploaded file")
        yield replace(asked, files=tuple(received.files))


async def _asked_in_form(request: Request) -> Asked:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A query may have {MAX_FORM_BYTES} bytes.")
    try:
        items = parse_qsl(bytes(body).decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:  # UnicodeDecodeError is one
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"The body is no form, or has more than {MAX_FIELDS} parameters."
        ) from error
    return _asked(request, _validated(Parameters, items), items)


def _validated(model: type[Parameters], items: Sequence[tuple[str, str]]) -> Parameters:
    given: dict[str, Any] = {}
    for name, value in items:
        if name in _SEVERAL:
            given.setdefault(name, []).append(value)
        elif name in Parameters.model_fields:
            given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _asked(request: Request, parameters: Parameters, items: Sequence[tuple[str, str]]) -> Asked:
    keys = matching_keys(items, Parameters.model_fields)
    examples = _examples(parameters.example)
    return Asked(
        query=search.Query(
            examples=examples,
            like=_examples(parameters.like),
            unlike=_examples(parameters.unlike),
            only=sequences_of(parameters.sequence),
            sequence_weights=sequence_weights_of(parameters.weights),
            parts=weights_of("parts", parameters.parts),
            keys=keys,
            fuzzy=parameters.fuzzymatching,
            own_patient=parameters.own_patient,
            least=parameters.min_similarity,
            limit=parameters.limit,
            offset=parameters.offset,
        ),
        fields=ReturnKeys(parameters.includefield, keys),
        media_type=negotiate(request.headers.get("accept"), (DICOM_JSON, JSON)),
        base_url=str(request.base_url),
        example_study=examples[0].study_instance_uid if examples else None,
        region=region_of(parameters.region, examples),
    )


def _examples(texts: Sequence[str]) -> tuple[Example, ...]:
    return tuple(example_of(text) for text in dict.fromkeys(texts))
