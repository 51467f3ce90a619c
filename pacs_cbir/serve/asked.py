"""A query by example, as its parameters say it, and read from a URL."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import URL
from starlette.exceptions import HTTPException

from pacs_cbir.embed.region import Box
from pacs_cbir.search import query as search
from pacs_cbir.search.as_of import AsOf
from pacs_cbir.serve.accept import DICOM_JSON, JSON, negotiate
from pacs_cbir.serve.parameters import (
    FUZZY,
    LABEL,
    ReturnKeys,
    check_once,
    example_of,
    region_of,
    sequence_weights_of,
    sequences_of,
    weights_of,
)
from pacs_cbir.store import labels
from pacs_cbir.store.embeddings import Source
from pacs_cbir.store.examples import Example
from pacs_cbir.store.matching import matching_keys

MAX_RESULTS = 1000
MAX_OFFSET = MAX_RESULTS * 100
MAX_EXAMPLES = 100
MAX_CHARACTERS = 1024
MAX_QUERY_BYTES = 8192
"""Of a URL's query; what is longer comes as a form, since proxies cut URLs off from here on."""
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
        "`parts` it is compared by its lesion most of all, and nothing is left out as unrelated.",
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
    encoder: str = Field(
        "",
        max_length=MAX_CHARACTERS,
        description="The name of the encoder that is to answer, to compare it; without it the active one does. Its "
        "index is loaded when it is asked for first: 503 with Retry-After until then.",
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
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="How many of the best to skip.")
    as_of: str = Field(
        "",
        max_length=MAX_CHARACTERS,
        description="What the first page's Pacs-Cbir-As-Of field said, for later pages to be of the same ranking: what "
        "came since is left out, what was deleted since is gone. Without it the newest state is answered.",
    )
    includefield: list[str] = Field(
        [], description="DICOM keywords or tags to answer with, repeated or with commas between; or `all`."
    )
    own_patient: bool = Field(False, description="Whether the example's own patient may be answered.")
    fuzzymatching: bool = Field(False, description=FUZZY)
    label: list[str] = Field([], max_length=labels.MAX_LABELS, description=LABEL)


_SCHEMA = Parameters.model_json_schema()
IN_URL: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": name in _SCHEMA["required"],
            "description": schema["description"],
            "schema": schema,
        }
        for name, schema in _SCHEMA["properties"].items()
    ]
}
"""OpenAPI's words for the parameters."""

_SEVERAL = frozenset(name for name, field in Parameters.model_fields.items() if get_origin(field.annotation) is list)


@dataclass(frozen=True)
class Asked:
    """A query by example, and how it is to be answered.

    Attributes:
        example_study: Study Instance UID of the first example; None where that is a picture.
        url: that asks it; None where a body does.
        files: pictures that are examples too; they are gone once the request is answered.
        region: of the one example's frame.
        encoder: name of the one that is to answer; None: the active one.
        sources: where slices that are not stored come from: SOP Instance UID and frame number, or no UID and the
            number of the file in the upload.
        warnings: texts for the Warning field.
    """

    query: search.Query
    fields: ReturnKeys
    media_type: str
    base_url: str
    example_study: str | None
    url: URL | None
    files: tuple[Path, ...] = ()
    region: Box | None = None
    encoder: str | None = None
    sources: Mapping[tuple[uuid.UUID, int], Source] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


async def asked_in_url(request: Request) -> Asked:
    """Read a GET request; async, since FastAPI would hand a plain function to another thread.

    FastAPI itself would look for each parameter by name, which takes several times as long.

    Raises:
        RequestValidationError, InvalidQuery: a parameter cannot be understood.
        HTTPException: 406, 414.
    """
    check_url(request)
    items = request.query_params.multi_items()
    return asked_of(request, validated(Parameters, items), items)


def check_url(request: Request) -> None:
    """Refuse a query that proxies may cut off, with HTTPException 414."""
    if len(request.scope["query_string"]) > MAX_QUERY_BYTES:
        raise HTTPException(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"A URL's query may have {MAX_QUERY_BYTES} bytes. Send the same parameters by POST, as {FORM}.",
        )


def validated(model: type[Parameters], items: Sequence[tuple[str, str]]) -> Parameters:
    """Parameters from their names and values.

    Raises:
        RequestValidationError: a value is not accepted.
    """
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


def asked_of(request: Request, parameters: Parameters, items: Sequence[tuple[str, str]]) -> Asked:
    """The question that parameters ask; `items` has the matching keys among them.

    Raises:
        InvalidQuery: a parameter cannot be understood.
        HTTPException: 406.
    """
    check_once(items, Parameters.model_fields.keys() - _SEVERAL)
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
            labels=labels.checked(parameters.label),
            own_patient=parameters.own_patient,
            least=parameters.min_similarity,
            limit=parameters.limit,
            offset=parameters.offset,
            as_of=AsOf.of_text(parameters.as_of) if parameters.as_of else None,
        ),
        fields=ReturnKeys(parameters.includefield, keys),
        media_type=negotiate(request.headers.get("accept"), (DICOM_JSON, JSON)),
        base_url=str(request.base_url),
        example_study=examples[0].study_instance_uid if examples else None,
        url=request.url if request.method == "GET" else None,
        region=region_of(parameters.region, examples),
        encoder=parameters.encoder or None,
    )


def _examples(texts: Sequence[str]) -> tuple[Example, ...]:
    return tuple(example_of(text) for text in dict.fromkeys(texts))
