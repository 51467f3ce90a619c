"""QIDO-RS: studies, series and instances that are here (PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.serve.accept import DICOM_JSON, JSON, negotiate
from pacs_cbir.serve.dicom_json import model
from pacs_cbir.serve.parameters import FUZZY, LABEL, ReturnKeys, check_once
from pacs_cbir.serve.return_keys import INSTANCE_KEYS, SERIES_KEYS, STUDY_KEYS, with_url
from pacs_cbir.serve.schemas import NOTHING_FOUND, problems
from pacs_cbir.serve.warning import warning
from pacs_cbir.store import catalogue, labels
from pacs_cbir.store.matching import Level, matching_keys
from pacs_cbir.store.session import Database
from pacs_cbir.store.value_tests import is_uid

MAX_RESULTS = 5000
MORE_WARNING = (
    "The number of results exceeded the maximum supported by the server. Additional results can be requested."
)
"""PS3.18 8.3.4.4."""

SEVERAL = frozenset({"includefield", "label"})
RESERVED = SEVERAL | {"limit", "offset", "fuzzymatching"}
# A study's counts are its own level's alone.
_STUDY_ABOVE = tuple(key for key in STUDY_KEYS if "InStudy" not in key and "StudyRelated" not in key)
_SERIES_ABOVE = tuple(key for key in SERIES_KEYS if "SeriesRelated" not in key)
# A result repeats of the levels above what the path does not say.
SEARCHES: dict[str, tuple[Level, Sequence[str]]] = {
    "/studies": (Level.STUDY, STUDY_KEYS),
    "/series": (Level.SERIES, (*_STUDY_ABOVE, *SERIES_KEYS)),
    "/studies/{study}/series": (Level.SERIES, ("StudyInstanceUID", *SERIES_KEYS)),
    "/instances": (Level.INSTANCE, (*_STUDY_ABOVE, *_SERIES_ABOVE, *INSTANCE_KEYS)),
    "/studies/{study}/instances": (Level.INSTANCE, ("StudyInstanceUID", *_SERIES_ABOVE, *INSTANCE_KEYS)),
    "/studies/{study}/series/{series}/instances": (
        Level.INSTANCE,
        ("StudyInstanceUID", "SeriesInstanceUID", *INSTANCE_KEYS),
    ),
}
_PATH_KEYS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}


def search_router(database: Database) -> APIRouter:
    """Routes of QIDO-RS."""
    router = APIRouter(prefix="/dicom-web", tags=["QIDO-RS"])
    for path, (level, default) in SEARCHES.items():
        router.add_api_route(
            path,
            _search(database, level, default),
            response_class=Response,
            responses=_RESPONSES,
            name=f"search for {path.rsplit('/', 1)[-1]}",
            operation_id=f"search{path.translate(str.maketrans('/', '_', '{}'))}",
        )
    return router


def _search(database: Database, level: Level, default: Sequence[str]) -> Any:
    def search(
        *,
        request: Request,
        limit: Annotated[int, Query(ge=0, description=f"How many; at most {MAX_RESULTS}.")] = MAX_RESULTS,
        offset: Annotated[int, Query(ge=0, le=2**31, description="How many to skip.")] = 0,
        includefield: Annotated[
            tuple[str, ...], Query(description="DICOM keywords or tags to answer with; or `all`.")
        ] = (),
        fuzzymatching: Annotated[bool, Query(description=FUZZY)] = False,
        label: Annotated[tuple[str, ...], Query(max_length=labels.MAX_LABELS, description=LABEL)] = (),
    ) -> Response:
        """What is here and meets all matching keys: every other parameter is a DICOM keyword or ggggeeee.

        Results come in the order in which they were received. Where there are none, the answer is 204.
        """
        items = request.query_params.multi_items()
        check_once(items, RESERVED - SEVERAL)
        keys = matching_keys(items, RESERVED)
        fields = ReturnKeys(includefield, keys)
        media_type = negotiate(request.headers.get("accept"), (DICOM_JSON, JSON))
        for part, uid in request.path_params.items():
            if not is_uid(uid):
                raise InvalidQuery(f"the {part} in the path is no UID")
            if keys.setdefault(_PATH_KEYS[part], uid) != uid:
                raise InvalidQuery(f"{_PATH_KEYS[part]} is in the path already")
        count = min(limit, MAX_RESULTS)
        any_of = labels.checked(label)
        with database.transaction() as connection:
            found = catalogue.find(
                connection, level, keys, limit=count + 1, offset=offset, fuzzy=fuzzymatching, labels=any_of
            )
        base_url = str(request.base_url)
        content = []
        for attributes in found[:count]:
            shown = with_url(attributes, level, base_url)
            content.append(model(shown, fields.of(shown, default)))
        headers = {"Warning": warning(MORE_WARNING)} if len(found) > count == MAX_RESULTS else None
        if not content:
            return Response(status_code=HTTPStatus.NO_CONTENT.value, headers=headers)
        return Response(json.dumps(content), media_type=media_type, headers=headers)

    return search


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A list of data sets in the DICOM JSON Model (PS3.18 F).",
        "content": {DICOM_JSON: {"schema": {"type": "array", "items": {"type": "object"}}}},
    },
    204: NOTHING_FOUND,
    **problems(400, 406, 503),
}
