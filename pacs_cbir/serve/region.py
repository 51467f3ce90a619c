"""A region of a stored frame as the example: drawn and embedded, for a query or for its explanation."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pacs_cbir.embed.region import Box, DrawnRegion
from pacs_cbir.errors import ExampleNotEmbedded
from pacs_cbir.search.encoder_index import Current
from pacs_cbir.search.example import ResolvedExample, resolve
from pacs_cbir.search.query import Picture, Query
from pacs_cbir.serve.embedder import Embedder
from pacs_cbir.store.embeddings import Source
from pacs_cbir.store.examples import Example
from pacs_cbir.store.session import Database

REGION_PARTS = {"lesion": 1.0, "grey": 0.5, "shape": 0.25, "appearance": 0.1}
"""What a region is compared by where the question says nothing else. The grey levels are the whole slice's: they count
as far as they tell the level in the head, and what is in the region decides."""


@dataclass(frozen=True)
class RegionExample:
    """A box in a frame, embedded.

    Attributes:
        example: the frame's, with a vector of the box for each stack that it is in.
        slices: stack of the box's own → its one slice.
        sources: (stack, slice) → the frame.
        parts: what the parts count where the question says nothing else.
    """

    example: ResolvedExample
    slices: Mapping[uuid.UUID, DrawnRegion]
    sources: Mapping[tuple[uuid.UUID, int], Source]
    parts: Mapping[str, float]

    def asked(self, query: Query) -> Query:
        """The question with the box for its example."""
        parts = query.parts or self.parts
        return replace(query, examples=(), resolved=(self.example,), parts=parts)


def drawn_region(example: Example, box: Box, current: Current, database: Database, embedder: Embedder) -> RegionExample:
    """Draw and embed a box.

    Args:
        example: names an instance or a frame.
        box: in the pixels of that frame.
        current: that is to be searched.

    Raises:
        InvalidQuery: the box is not in the frame.
        UnknownExample, ExampleNotReady, ExampleNotEmbedded, SeriesChanged, PixelDataGone, VolumeError: of the frame.
        EncoderBusy, EncoderMismatch, CheckpointError, DatabaseUnavailable.
    """
    with database.transaction() as connection:
        stored = resolve(connection, example, current.encoder_id)
    assert example.sop_instance_uid is not None  # noqa: S101 - a region without one is not let in
    vectors, slices, sources = [], {}, {}
    with embedder.turn(current.encoder) as encoder:
        for vector in stored.vectors:
            picture = example.sop_instance_uid, example.frame_number
            drawn = embedder.region(vector.picture.stack_id, picture, box, encoder.card.preprocessing)
            if drawn is not None:
                # A slice of its own: the frame that was asked about may lie between those that are embedded.
                own = Picture(uuid.uuid4(), 1)
                embedding = encoder.embed(drawn.pixels[np.newaxis], drawn.inside[np.newaxis])[0]
                vectors.append(replace(vector, picture=own, vector=embedding))
                slices[own.stack_id] = drawn
                sources[own.stack_id, own.slice] = Source(example.sop_instance_uid, example.frame_number or 1)
    if not vectors:
        raise ExampleNotEmbedded("the frame is of no stack that was embedded")
    known = encoder.card.architecture.sizes
    parts: dict[str, float] = {part: weight for part, weight in REGION_PARTS.items() if part in known}
    return RegionExample(replace(stored, vectors=tuple(vectors)), slices, sources, parts)
