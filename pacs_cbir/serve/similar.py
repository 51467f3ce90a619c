"""The query by example: which studies, or series, look like this one."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from pacs_cbir.search.encoder_index import Current
from pacs_cbir.search.query import Answer, LeftOut, SeriesMatch
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.accept import DICOM_JSON, JSON
from pacs_cbir.serve.answers import Uids, series_model, series_plain, study_model, study_plain
from pacs_cbir.serve.asked import IN_URL, Asked, asked_in_url
from pacs_cbir.serve.body import BODY, MAX_UPLOADS, asked_in_body
from pacs_cbir.serve.embedder import Embedder
from pacs_cbir.serve.encoder_field import ENCODER_DESCRIBED, encoder_field
from pacs_cbir.serve.next_page import DESCRIBED, page_fields
from pacs_cbir.serve.outcome import Outcome, days_between, report_url, with_age
from pacs_cbir.serve.outside import resolved
from pacs_cbir.serve.places import Places
from pacs_cbir.serve.return_keys import with_url
from pacs_cbir.serve.schemas import NOTHING_FOUND, SimilarSeries, SimilarStudy, problems
from pacs_cbir.serve.warning import warning
from pacs_cbir.settings import Settings
from pacs_cbir.store import catalogue, embeddings, encoders, labels
from pacs_cbir.store.catalogue import Attributes
from pacs_cbir.store.matching import COUNTED, Level
from pacs_cbir.store.session import Connection, Database

UNRELATED_WARNING = (
    "{count} more were left out: they are no more like the example than unrelated patients are. "
    "The most similar of them reaches {similarity:.3f} of the {least:.3f} that count. "
    "min_similarity=-1 answers them too."
)
FLOOR_WARNING = (
    "{count} more were left out: the most similar of them reaches {similarity:.3f} of the {least:.3f} that "
    "min_similarity asks for."
)
LACKING_WARNING = (
    "{count} series that the active encoder has looked at are not in this answer: {name} has not looked at them. "
    "`pacs-cbir reindex --encoder {name}` embeds them."
)


def similar_router(settings: Settings, database: Database, searcher: Searcher, embedder: Embedder) -> APIRouter:
    """Routes of the query by example."""
    router = APIRouter(prefix="/similar", tags=["query by example"])
    uploads = Places(MAX_UPLOADS, "uploads")

    async def asked(request: Request) -> AsyncIterator[Asked]:
        async with asked_in_body(request, settings, uploads) as query:
            yield query

    def resolve(query: Asked) -> tuple[Asked, Current]:
        # Taken once: a switch of the encoder meanwhile concerns the next request.
        current = searcher.current(query.encoder)
        return resolved(query, current, database, embedder), current

    answers = _Answers(settings, database, searcher)
    for answer, plain in ((answers.similar_studies, SimilarStudy), (answers.similar_series, SimilarSeries)):
        _add_routes(router, answer, _responses(list[plain]), asked, resolve)  # type: ignore[valid-type]  # made at run time
    return router


class _Answers:
    """What a question is answered with; the docstrings of its methods are the API's documentation."""

    def __init__(self, settings: Settings, database: Database, searcher: Searcher) -> None:
        self._settings, self._database, self._searcher = settings, database, searcher

    def similar_studies(self, query: Asked, current: Current) -> Response:
        """Studies that look like the example, best first.

        Every other parameter is a DICOM keyword (or ggggeeee) and a matching key as in C-FIND, for instance
        `PatientSex=F&StudyDate=20200101-20241231&SeriesDescription=*FLAIR*`. Similarity is of appearance, and no
        probability of a diagnosis. Where nothing matches, the answer is 204.
        """
        answer = self._searcher.similar_studies(query.query, current)
        compared = [match for study in answer.studies for match in study.series]
        with self._database.reading() as connection:
            studies = _attributes(connection, Level.STUDY, [match.study_id for match in answer.studies], query)
            names = catalogue.series_uids(connection, [match.series_id for match in compared])
            uids = _uids(connection, compared, names, query)
            lacking = _lacking(connection, query, current)
            outcomes = self._outcomes(connection, studies, query)
        # What was deleted since the search is no answer any more.
        found = [
            (match, studies[match.study_id], uids, query.fields, outcomes[match.study_id])
            for match in answer.studies
            if match.study_id in studies
        ]
        if query.media_type == JSON:
            return _response([study_plain(*one) for one in found], query, answer, current, lacking)
        return _response([study_model(*one) for one in found], query, answer, current, lacking)

    def similar_series(self, query: Asked, current: Current) -> Response:
        """Series that look like the example, best first; parameters as for studies."""
        answer = self._searcher.similar_series(query.query, current)
        with self._database.reading() as connection:
            series = _attributes(connection, Level.SERIES, [match.series_id for match in answer.series], query)
            names = {id_: attributes["SeriesInstanceUID"][0] for id_, attributes in series.items()}
            uids = _uids(connection, answer.series, names, query)
            lacking = _lacking(connection, query, current)
        found = [
            (match, series[match.series_id], uids, query.fields) for match in answer.series if match.series_id in series
        ]
        if query.media_type == JSON:
            return _response([series_plain(*one) for one in found], query, answer, current, lacking)
        return _response([series_model(*one) for one in found], query, answer, current, lacking)

    def _outcomes(self, connection: Connection, studies: Mapping[int, Attributes], query: Asked) -> dict[int, Outcome]:
        example = {} if query.example_study is None else catalogue.header(connection, query.example_study)
        labelled = labels.of_studies(connection, studies)
        return {
            id_: Outcome(
                days_between(example, study), report_url(self._settings.report_url, study), labelled.get(id_, ())
            )
            for id_, study in studies.items()
        }


def _add_routes(
    router: APIRouter,
    answer: Callable[[Asked, Current], Response],
    responses: dict[int | str, Any],
    asked: Callable[[Request], AsyncIterator[Asked]],
    resolve: Callable[[Asked], tuple[Asked, Current]],
) -> None:
    """The same answer to a question in a URL and to one in a body."""

    def in_url(query: Annotated[Asked, Depends(asked_in_url)]) -> Response:
        return answer(*resolve(query))

    # As a default, since FastAPI finds no local name in an annotation; pictures are gone before the answer is sent.
    def in_body(query: Asked = Depends(asked, scope="function")) -> Response:  # noqa: B008
        return answer(*resolve(query))

    path = f"/{answer.__name__.removeprefix('similar_')}"
    shared: dict[str, Any] = {"response_class": Response, "description": inspect.getdoc(answer)}
    router.add_api_route(
        path,
        in_url,
        name=answer.__name__,
        responses={**responses, **problems(414)},
        openapi_extra=IN_URL,
        **shared,
    )
    router.add_api_route(
        path,
        in_body,
        methods=["POST"],
        name=f"{answer.__name__}_by_form",
        responses={**responses, **problems(408, 413, 414, 415, 507)},
        openapi_extra=BODY,
        **shared,
    )


def _attributes(connection: Connection, level: Level, ids: Sequence[int], query: Asked) -> dict[int, Attributes]:
    # Counting takes as long as all else, and plain JSON has counts where they are asked for alone.
    counted = query.media_type != JSON or query.fields.ask_for(COUNTED)
    found = catalogue.attributes(connection, level, ids, counted=counted)
    return {id_: with_age(with_url(attributes, level, query.base_url)) for id_, attributes in found.items()}


def _uids(connection: Connection, matches: Sequence[SeriesMatch], names: Mapping[int, str], query: Asked) -> Uids:
    pictures = [p for match in matches if match.slices for p in (match.slices.example, match.slices.found)]
    sources = embeddings.sources(connection, {(picture.stack_id, picture.slice) for picture in pictures})
    return Uids(names, {**sources, **query.sources})


def _response(
    content: list[dict[str, Any]], query: Asked, answer: Answer, current: Current, lacking: list[str]
) -> Response:
    headers = page_fields(query, answer) | encoder_field(current)
    warnings = [*query.warnings, *_left_out(answer.left_out), *lacking]
    if warnings:
        headers["Warning"] = ", ".join(map(warning, warnings))
    if not content:
        return Response(status_code=HTTPStatus.NO_CONTENT.value, headers=headers)
    return Response(json.dumps(content), media_type=query.media_type, headers=headers)


def _left_out(found: LeftOut | None) -> list[str]:
    if found is None:
        return []
    text = UNRELATED_WARNING if found.unrelated else FLOOR_WARNING
    return [text.format(count=found.count, similarity=found.similarity, least=found.least)]


def _lacking(connection: Connection, query: Asked, current: Current) -> list[str]:
    """What an encoder that was named cannot have found."""
    active = None if query.encoder is None else encoders.active(connection)
    if active is None or current.encoder is None or active.id == current.encoder_id:
        return []
    count = encoders.lacking(connection, current.encoder).series
    return [LACKING_WARNING.format(count=count, name=current.encoder.name)] if count else []


def _responses(plain: Any) -> dict[int | str, dict[str, Any]]:
    described = {
        "model": plain,
        "description": "A list, best first. The default is the DICOM JSON Model with the similarity in a private block "
        "(group 0075, private creator PACS_CBIR); with `Accept: application/json` it is plain JSON.",
        "content": {DICOM_JSON: {"schema": {"type": "array", "items": {"type": "object"}}}},
        "headers": {**DESCRIBED, **ENCODER_DESCRIBED},
    }
    return {200: described, 204: NOTHING_FOUND, **problems(400, 404, 406, 409, 410, 422, 503)}
