"""The query by example: which studies, or series, look like this one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from pacs_cbir.search import query as search
from pacs_cbir.search.query import SeriesMatch
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.accept import DICOM_JSON, JSON, negotiate
from pacs_cbir.serve.answers import Uids, series_data_set, series_plain, study_data_set, study_plain
from pacs_cbir.serve.dicom_json import model
from pacs_cbir.serve.parameters import (
    FUZZY,
    ReturnKeys,
    example_of,
    matching_keys,
    sequence_weights_of,
    sequences_of,
    weights_of,
)
from pacs_cbir.serve.return_keys import with_availability
from pacs_cbir.serve.schemas import NOTHING_FOUND, SimilarSeries, SimilarStudy, problems
from pacs_cbir.store import catalogue, embeddings
from pacs_cbir.store.catalogue import Attributes
from pacs_cbir.store.examples import Example
from pacs_cbir.store.matching import Level
from pacs_cbir.store.session import Database

MAX_RESULTS = 1000
MAX_EXAMPLES = 100
MAX_CHARACTERS = 1024

RESERVED = frozenset(
    {"example", "like", "unlike", "sequence", "weights", "parts", "min_similarity", "own_patient"}
    | {"limit", "offset", "includefield", "fuzzymatching"}
)
_NAMES = "each as an example"


@dataclass(frozen=True)
class Asked:
    """A query by example, read from a request, and how it is to be answered."""

    query: search.Query
    fields: ReturnKeys
    media_type: str
    base_url: str


def asked(
    *,
    request: Request,
    example: Annotated[
        list[str],
        Query(
            max_length=MAX_EXAMPLES,
            description="What to look for: `{study}`, `{study}/{series}`, `{study}/{series}/{instance}` or "
            "`{study}/{series}/{instance}/{frame}`, by UIDs and frame number. Several: what is like all of them.",
        ),
    ],
    like: Annotated[
        tuple[str, ...],
        Query(max_length=MAX_EXAMPLES, description=f"Answers that were right, {_NAMES}: more like these."),
    ] = (),
    unlike: Annotated[
        tuple[str, ...],
        Query(max_length=MAX_EXAMPLES, description=f"Answers that were wrong, {_NAMES}: none of these, fewer such."),
    ] = (),
    sequence: Annotated[
        tuple[str, ...],
        Query(max_length=MAX_EXAMPLES, description="Look at these MR sequences alone, as `T1CE` or `T1,FLAIR`."),
    ] = (),
    weights: Annotated[
        str,
        Query(
            max_length=MAX_CHARACTERS,
            description="What MR sequences count in a study's similarity, as `FLAIR:2,T1:0.5`; 1 where not named.",
        ),
    ] = "",
    parts: Annotated[
        str,
        Query(
            max_length=MAX_CHARACTERS,
            description="What the embedding's parts count, as `lesion:1,grey:0.2`; parts not named count nothing. "
            "Without it, as the encoder's card says.",
        ),
    ] = "",
    min_similarity: Annotated[
        float, Query(ge=-1, le=1, allow_inf_nan=False, description="Answer nothing that is less similar.")
    ] = -1.0,
    limit: Annotated[int, Query(ge=1, le=MAX_RESULTS, description="How many to answer.")] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_RESULTS * 100, description="How many of the best to skip.")] = 0,
    includefield: Annotated[
        tuple[str, ...],
        Query(description="DICOM keywords or tags to answer with, repeated or with commas between; or `all`."),
    ] = (),
    own_patient: Annotated[bool, Query(description="Whether the example's own patient may be answered.")] = False,
    fuzzymatching: Annotated[bool, Query(description=FUZZY)] = False,
) -> Asked:
    """Read a query by example.

    Raises:
        InvalidQuery: a parameter cannot be understood.
        HTTPException: 406.
    """
    keys = matching_keys(request, RESERVED)
    return Asked(
        query=search.Query(
            examples=_examples(example),
            like=_examples(like),
            unlike=_examples(unlike),
            only=sequences_of(sequence),
            sequence_weights=sequence_weights_of(weights),
            parts=weights_of("parts", parts),
            keys=keys,
            fuzzy=fuzzymatching,
            own_patient=own_patient,
            least=min_similarity,
            limit=limit,
            offset=offset,
        ),
        fields=ReturnKeys(includefield, keys),
        media_type=negotiate(request.headers.get("accept"), (DICOM_JSON, JSON)),
        base_url=str(request.base_url),
    )


def _examples(texts: Sequence[str]) -> tuple[Example, ...]:
    return tuple(example_of(text) for text in dict.fromkeys(texts))


def similar_router(database: Database, searcher: Searcher) -> APIRouter:
    """Routes of the query by example."""
    router = APIRouter(prefix="/similar", tags=["query by example"])

    @router.get("/studies", response_class=Response, responses=_responses(list[SimilarStudy]))
    def similar_studies(query: Annotated[Asked, Depends(asked)]) -> Response:
        """Studies that look like the example, best first.

        Every other parameter is a DICOM keyword (or ggggeeee) and a matching key as in C-FIND, for instance
        `PatientSex=F&StudyDate=20200101-20241231&SeriesDescription=*FLAIR*`. Similarity is of appearance, and no
        probability of a diagnosis. Where nothing matches, the answer is 204.
        """
        answer = searcher.similar_studies(query.query)
        studies = _attributes(database, Level.STUDY, [match.study_id for match in answer.studies], query)
        compared = [match for study in answer.studies for match in study.series]
        series = _attributes(database, Level.SERIES, [match.series_id for match in compared], query)
        uids = _uids(database, compared, series)
        # What was deleted since the search is no answer any more.
        found = [(match, studies[match.study_id]) for match in answer.studies if match.study_id in studies]
        if query.media_type == JSON:
            return _response([study_plain(match, study, uids, query.fields) for match, study in found], query)
        return _response([model(study_data_set(match, study, uids, query.fields)) for match, study in found], query)

    @router.get("/series", response_class=Response, responses=_responses(list[SimilarSeries]))
    def similar_series(query: Annotated[Asked, Depends(asked)]) -> Response:
        """Series that look like the example, best first; parameters as for studies."""
        answer = searcher.similar_series(query.query)
        series = _attributes(database, Level.SERIES, [match.series_id for match in answer.series], query)
        uids = _uids(database, answer.series, series)
        found = [(match, series[match.series_id]) for match in answer.series if match.series_id in series]
        if query.media_type == JSON:
            return _response([series_plain(match, one, uids, query.fields) for match, one in found], query)
        return _response([model(series_data_set(match, one, uids, query.fields)) for match, one in found], query)

    return router


def _attributes(database: Database, level: Level, ids: Sequence[int], query: Asked) -> dict[int, Attributes]:
    with database.transaction() as connection:
        found = catalogue.attributes(connection, level, ids)
    return {id_: with_availability(attributes, level, query.base_url) for id_, attributes in found.items()}


def _uids(database: Database, matches: Sequence[SeriesMatch], series: Mapping[int, Attributes]) -> Uids:
    pictures = [p for match in matches if match.slices for p in (match.slices.example, match.slices.found)]
    with database.transaction() as connection:
        sources = embeddings.sources(connection, {(picture.stack_id, picture.slice) for picture in pictures})
    return Uids({id_: attributes["SeriesInstanceUID"][0] for id_, attributes in series.items()}, sources)


def _response(content: list[dict[str, Any]], query: Asked) -> Response:
    if not content:
        return Response(status_code=HTTPStatus.NO_CONTENT.value)
    return Response(json.dumps(content), media_type=query.media_type)


def _responses(plain: Any) -> dict[int | str, dict[str, Any]]:
    described = {
        "model": plain,
        "description": "A list, best first. The default is the DICOM JSON Model with the similarity in a private block "
        "(group 0075, private creator PACS_CBIR); with `Accept: application/json` it is plain JSON.",
        "content": {DICOM_JSON: {"schema": {"type": "array", "items": {"type": "object"}}}},
    }
    return {200: described, 204: NOTHING_FOUND, **problems(400, 404, 406, 409, 422, 503)}
