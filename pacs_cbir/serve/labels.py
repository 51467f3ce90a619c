"""Curated labels of a study: read, and replaced as a whole."""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.exceptions import HTTPException

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.serve.limited_body import limited_body
from pacs_cbir.serve.schemas import problems
from pacs_cbir.store import labels
from pacs_cbir.store.session import Database
from pacs_cbir.store.value_tests import is_uid

MAX_BODY_BYTES = 65_536
"""More than the longest list that is accepted."""
PATH = "/studies/{study_uid}/labels"
_SCHEMA = {
    "type": "array",
    "maxItems": labels.MAX_LABELS,
    "items": {"type": "string", "minLength": 1, "maxLength": labels.MAX_CHARACTERS},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The study's labels; an empty list takes all away.",
        "content": {"application/json": {"schema": _SCHEMA, "example": ["glioblastoma", "IDH wild type"]}},
    }
}
_ETAG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The study's labels.",
        "headers": {
            "ETag": {"description": "Of this list, for `If-Match` (RFC 9110 8.8.3).", "schema": {"type": "string"}}
        },
    }
}
IfMatch = Annotated[
    str | None,
    Header(
        description="The ETag of the list that was read: where the labels are others by now, nothing is replaced and "
        "the answer is 412 (RFC 9110 13.1.1)."
    ),
]


def labels_router(database: Database) -> APIRouter:
    """Routes of curated labels."""
    router = APIRouter(tags=["labels"])

    @router.get(PATH, responses=_ETAG | problems(400, 404, 503))
    def labels_of_study(study_uid: str, response: Response) -> list[str]:
        """What a person has said of a study, in alphabetical order; an empty list where nobody said anything."""
        _check(study_uid)
        with database.transaction() as connection:
            found = labels.of_study(connection, study_uid)
        if found is None:
            raise _unknown()
        response.headers["ETag"] = _etag(found)
        return list(found)

    @router.put(PATH, responses=_ETAG | problems(400, 404, 412, 413, 503), openapi_extra=_BODY)
    def replace_labels(
        study_uid: str,
        response: Response,
        given: Annotated[tuple[str, ...], Depends(_labels_in_body)],
        if_match: IfMatch = None,
    ) -> list[str]:
        """Give a study these labels and no others.

        They are trimmed, and those that are given twice kept once; the answer has them as they are kept.
        """
        _check(study_uid)
        with database.transaction() as connection:
            found = labels.of_study(connection, study_uid, lock=True)
            if found is None:
                raise _unknown()
            if if_match is not None and not _matches(if_match, _etag(found)):
                raise _changed()
            labels.replace(connection, study_uid, given)
        response.headers["ETag"] = _etag(given)
        return list(given)

    return router


async def _labels_in_body(request: Request) -> tuple[str, ...]:
    body = await limited_body(request, MAX_BODY_BYTES, "A list of labels")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, list) or not all(isinstance(label, str) for label in given):
        raise InvalidQuery("labels are given as a JSON list of strings")
    return labels.checked(given)


def _etag(kept: tuple[str, ...]) -> str:
    """A strong validator: lists have the same one where they are the same."""
    return f'"{hashlib.sha256(json.dumps(kept).encode()).hexdigest()}"'


def _matches(if_match: str, etag: str) -> bool:
    """RFC 9110 13.1.1; a weak validator matches nothing."""
    return if_match.strip() == "*" or etag in (part.strip() for part in if_match.split(","))


def _check(study_uid: str) -> None:
    if not is_uid(study_uid):
        raise InvalidQuery("the study in the path is no UID")


def _unknown() -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, "There is no such study here; /dicom-web/studies lists them.")


def _changed() -> HTTPException:
    return HTTPException(
        HTTPStatus.PRECONDITION_FAILED,
        "The labels were changed since they were read, and were left as they are. Read them again, then replace them.",
    )
