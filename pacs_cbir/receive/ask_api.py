"""Queries by example are the API's to answer, which has the index: asked over HTTP, as everyone asks it."""

from __future__ import annotations

from http import HTTPStatus

import httpx
from pydicom import Dataset

from pacs_cbir.dicom import private_block as ours
from pacs_cbir.errors import (
    ExampleNotEmbedded,
    ExampleNotReady,
    ExampleNotReindexed,
    InvalidQuery,
    PeerError,
    QueryError,
    UnknownExample,
)
from pacs_cbir.receive.identifier import Identifier
from pacs_cbir.store.matching import Level

PATHS = {Level.STUDY: "/similar/studies", Level.SERIES: "/similar/series"}
PARAMETERS = {
    ours.EXAMPLES: "example",
    ours.KEY_LIKE: "like",
    ours.KEY_UNLIKE: "unlike",
    ours.KEY_SEQUENCES: "sequence",
    ours.LABELS: "label",
}
SINGLE = {ours.KEY_LEAST: "min_similarity", ours.KEY_LIMIT: "limit"}
"""A form takes the last of several; which one was meant is not known."""
JOINED = {ours.KEY_WEIGHTS: "weights", ours.KEY_PARTS: "parts"}
"""Lists that are one parameter."""
_YES_OR_NO = {"YES": "true", "NO": "false"}
_ERRORS: dict[tuple[int, str], type[QueryError]] = {
    (400, "urn:pacs-cbir:problem:invalid-query"): InvalidQuery,
    (400, "about:blank"): InvalidQuery,
    (404, "urn:pacs-cbir:problem:unknown-example"): UnknownExample,
    (413, "about:blank"): InvalidQuery,
    (422, "urn:pacs-cbir:problem:example-not-embedded"): ExampleNotEmbedded,
    (422, "urn:pacs-cbir:problem:example-not-reindexed"): ExampleNotReindexed,
}
"""HTTP status and the problem's type → what it is here; a 404 without a type is of a path."""
_NO_API = "what answers at PACS_CBIR_API_URL is no API of this kind"


def ask(api: httpx.Client, identifier: Identifier) -> list[Dataset]:
    """What is similar, best first: return keys and our private block, as the API answers them.

    Args:
        api: whose base URL is the API's.

    Raises:
        InvalidQuery, UnknownExample, ExampleNotReady, ExampleNotEmbedded: as the API says.
        PeerError: it does not answer, or not now.
    """
    try:
        answer = api.post(PATHS[identifier.level], data=_form(identifier), headers={"Accept": "application/dicom+json"})
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return []
        if answer.status_code == HTTPStatus.OK:
            return [Dataset.from_json(found) for found in answer.json()]
        problem = answer.json()
        kind, detail = (answer.status_code, str(problem["type"])), str(problem["detail"])
    except httpx.HTTPError as error:
        raise PeerError(f"the API does not answer ({type(error).__name__})") from error
    except (ValueError, LookupError, TypeError) as error:
        raise PeerError(_NO_API) from error
    if answer.status_code == HTTPStatus.CONFLICT:
        raise ExampleNotReady(detail, float(answer.headers.get("retry-after", "0")))
    if kind in _ERRORS:
        raise _ERRORS[kind](detail)
    raise PeerError(f"the API cannot answer now: {detail}" if answer.is_server_error else _NO_API)


def _form(identifier: Identifier) -> dict[str, str | list[str]]:
    form: dict[str, str | list[str]] = dict(identifier.matching)
    form["includefield"] = ",".join(identifier.returned)
    for number, values in identifier.private.items():
        if number in JOINED:
            form[JOINED[number]] = ",".join(values)
        elif number in PARAMETERS:
            form[PARAMETERS[number]] = values
        elif number in SINGLE and len(values) == 1:
            form[SINGLE[number]] = values
        elif number in SINGLE:
            raise InvalidQuery(f"the private key for {SINGLE[number]} accepts one value")
        elif len(values) == 1 and values[0] in _YES_OR_NO:
            form["own_patient"] = _YES_OR_NO[values[0]]
        else:
            raise InvalidQuery("the private key for the own patient accepts YES and NO")
    return form
