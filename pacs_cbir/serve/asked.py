"""A query by example, read from a URL or from a form in a body that says the same at more length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import URL
from starlette.exceptions import HTTPException

from pacs_cbir.search import query as search
from pacs_cbir.search.as_of import AsOf
from pacs_cbir.serve.accept import DICOM_JSON, JSON, negotiate
from pacs_cbir.serve.limited_body import limited_body
from pacs_cbir.serve.parameters import (
    FUZZY,
    LABEL,
    ReturnKeys,
    example_of,
    matching_keys,
    sequence_weights_of,
    sequences_of,
    weights_of,
)
from pacs_cbir.store import labels
from pacs_cbir.store.examples import Example

MAX_RESULTS = 1000
MAX_OFFSET = MAX_RESULTS * 100
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


_SEVERAL = frozenset({"example", "like", "unlike", "sequence", "includefield", "label"})

FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The parameters of the GET request, which are too long for a URL.",
        "content": {FORM: {"schema": Parameters.model_json_schema()}},
    }
}
"""OpenAPI's words for the form."""


@dataclass(frozen=True)
class Asked:
    """A query by example, and how it is to be answered.

    Attributes:
        url: that asks it; None where a body does.
    """

    query: search.Query
    fields: ReturnKeys
    media_type: str
    base_url: str
    url: URL | None


async def asked_in_url(request: Request, parameters: Annotated[Parameters, Query()]) -> Asked:
    """Read a GET request; async, since FastAPI would hand a plain function to another thread.

    Raises:
        InvalidQuery: a parameter cannot be understood.
        HTTPException: 406, 414.
    """
    if len(request.scope["query_string"]) > MAX_QUERY_BYTES:
        raise HTTPException(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"A URL's query may have {MAX_QUERY_BYTES} bytes. Send the same parameters by POST, as {FORM}.",
        )
    return _asked(request, parameters, request.query_params.multi_items())


async def asked_in_form(request: Request) -> Asked:
    """Read a POST request.

    Raises:
        InvalidQuery: a parameter cannot be understood.
        HTTPException: 400, 406, 413, 415.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send the parameters as {FORM}.")
    if request.scope["query_string"]:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Send all parameters in the body: the URL's are not read.")
    body = await limited_body(request, MAX_FORM_BYTES, "A query")
    try:
        items = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:  # UnicodeDecodeError is one
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"The body is no form, or has more than {MAX_FIELDS} parameters."
        ) from error
    given: dict[str, Any] = {}
    for name, value in items:
        if name in _SEVERAL:
            given.setdefault(name, []).append(value)
        elif name in Parameters.model_fields:
            given[name] = value
    try:
        parameters = Parameters.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    return _asked(request, parameters, items)


def _asked(request: Request, parameters: Parameters, items: Sequence[tuple[str, str]]) -> Asked:
    keys = matching_keys(items, Parameters.model_fields)
    return Asked(
        query=search.Query(
            examples=_examples(parameters.example),
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
        url=request.url if request.method == "GET" else None,
    )


def _examples(texts: Sequence[str]) -> tuple[Example, ...]:
    return tuple(example_of(text) for text in dict.fromkeys(texts))
