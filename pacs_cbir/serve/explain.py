"""Why a match is like the example: scores by sequence, part and slice, and heat maps over the two slices."""

from __future__ import annotations

import io
import json
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from pacs_cbir.embed.heat_picture import heat_picture
from pacs_cbir.search import query as search
from pacs_cbir.search.encoder_index import Current
from pacs_cbir.search.explanation import Explained, Explanation
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.accept import JSON, PNG, negotiate
from pacs_cbir.serve.answers import Uids, explained_plain
from pacs_cbir.serve.asked import MAX_CHARACTERS
from pacs_cbir.serve.embedder import Embedder
from pacs_cbir.serve.encoder_field import ENCODER_DESCRIBED, encoder_field
from pacs_cbir.serve.parameters import check_once, example_of, region_of, sequences_of, weights_of
from pacs_cbir.serve.region import RegionExample, drawn_region
from pacs_cbir.serve.schemas import ExplainedSeries, problems
from pacs_cbir.store import catalogue, embeddings
from pacs_cbir.store.session import Database

EDGE = 384
"""Of each of the two slices in the picture, in pixels."""

_NAMED = "`{study}`, `{study}/{series}`, `{study}/{series}/{instance}` or `{study}/{series}/{instance}/{frame}`"


class ExplainParameters(BaseModel):
    """What is to be explained; any other parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    example: str = Field(max_length=MAX_CHARACTERS, description=f"What was looked for: {_NAMED}.")
    match: str = Field(max_length=MAX_CHARACTERS, description=f"What was found, named likewise: {_NAMED}.")
    region: str = Field(
        "",
        max_length=MAX_CHARACTERS,
        description="`x0,y0,x1,y1`, a box in the example's frame, as in the query: the heat of the example lies in it.",
    )
    sequence: str = Field(
        "", max_length=MAX_CHARACTERS, description="Look at these MR sequences alone, as `T1CE` or `T1,FLAIR`."
    )
    parts: str = Field("", max_length=MAX_CHARACTERS, description="What the embedding's parts count, as in the query.")
    encoder: str = Field("", max_length=MAX_CHARACTERS, description="Whose answer is explained, as in the query.")


def explain_router(database: Database, searcher: Searcher, embedder: Embedder) -> APIRouter:
    """The route of explanations."""
    router = APIRouter(prefix="/similar", tags=["query by example"])

    @router.get("/explain", response_class=Response, responses=_RESPONSES)
    def explain(request: Request, asked: Annotated[ExplainParameters, Query()]) -> Response:
        """Why a match is like the example.

        With `Accept: image/png` (the default) the two slices of the sequence that is most alike, the example's left:
        the hotter a place, the more it adds to the similarity. With `Accept: application/json` the scores of every
        sequence that both have, the most alike first, by part and by slice.
        """
        media_type = negotiate(request.headers.get("accept"), (PNG, JSON))
        check_once(request.query_params.multi_items(), ExplainParameters.model_fields)
        example = example_of(asked.example)
        box = region_of(asked.region, (example,))
        current = searcher.current(asked.encoder or None)
        region = None if box is None else drawn_region(example, box, current, database, embedder)
        query = search.Query((example,), only=sequences_of([asked.sequence]), parts=weights_of("parts", asked.parts))
        asked_for = query if region is None else region.asked(query)
        explained = searcher.explain(asked_for, example_of(asked.match), current)
        headers = encoder_field(current)
        if media_type == PNG:
            return Response(_picture(embedder, current, explained, region), media_type=PNG, headers=headers)
        uids = _uids(database, explained.by_sequence, region)
        content = json.dumps([explained_plain(one, uids) for one in explained.by_sequence])
        return Response(content, media_type=JSON, headers=headers)

    return router


def _picture(embedder: Embedder, current: Current, explained: Explained, region: RegionExample | None) -> bytes:
    best = explained.by_sequence[0]
    slices = best.match.slices
    assert slices is not None  # noqa: S101  # an explanation is of a pair of slices
    with embedder.turn(current.encoder) as encoder:
        preprocessing = encoder.card.preprocessing
        found, inside = embedder.slice_pixels(slices.found.stack_id, slices.found.slice, preprocessing), None
        if region is None:
            example = embedder.slice_pixels(slices.example.stack_id, slices.example.slice, preprocessing)
        else:
            box = region.slices[slices.example.stack_id]
            example, inside = box.pixels, np.stack([box.inside, np.ones_like(box.inside)])
        drawn = np.stack([example, found])
        heat = encoder.heat(drawn, np.stack([best.found, best.example]), explained.weights, inside)
    encoded = io.BytesIO()
    shown = np.hstack([heat_picture(pixels, of_slice, edge=EDGE) for pixels, of_slice in zip(drawn, heat, strict=True)])
    Image.fromarray(shown).save(encoded, "PNG")
    return encoded.getvalue()


def _uids(database: Database, explained: tuple[Explanation, ...], region: RegionExample | None) -> Uids:
    pairs = [pair for one in explained for pair in (one.match.slices, *one.nearest) if pair is not None]
    pictures = [picture for pair in pairs for picture in (pair.example, pair.found)]
    with database.reading() as connection:
        series = catalogue.series_uids(connection, [one.match.series_id for one in explained])
        sources = embeddings.sources(connection, {(picture.stack_id, picture.slice) for picture in pictures})
    return Uids(series, sources if region is None else {**sources, **region.sources})


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": list[ExplainedSeries],
        "description": "The picture, or the scores.",
        "content": {PNG: {"schema": {"type": "string", "format": "binary"}}},
        "headers": ENCODER_DESCRIBED,
    },
    **problems(400, 404, 406, 409, 410, 422, 503),
}
