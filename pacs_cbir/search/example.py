"""An example's name → the vectors to search with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacs_cbir.errors import ExampleNotReady, UnknownExample
from pacs_cbir.search.faiss_index import Vectors
from pacs_cbir.search.query import Picture
from pacs_cbir.search.stack_index import Kind
from pacs_cbir.store import examples
from pacs_cbir.store.embeddings import VECTOR_TYPE, WHOLE_STACK
from pacs_cbir.store.examples import Example
from pacs_cbir.store.session import Connection

# Added to the time at which a waiting job is due: decoding and embedding one series.
EMBEDDING_SECONDS = 5.0


@dataclass(frozen=True)
class ExampleVector:
    """One stack of an example, or one slice of it.

    Attributes:
        picture: the slice that it stands for and is compared with slices for; slice 0: a whole stack, compared with
            whole stacks.
        vector: float32, shape (dimension,), unit length.
        slices: of a whole stack that is not stored: its slices' vectors, shape (slices, dimension), slice 1 first.
    """

    kind: Kind
    series_instance_uid: str
    picture: Picture
    vector: Vectors
    slices: Vectors | None = None

    @property
    def whole(self) -> bool:
        """Whether it stands for a whole stack."""
        return self.picture.slice == WHOLE_STACK


@dataclass(frozen=True)
class ResolvedExample:
    """An example and its embeddings.

    Attributes:
        study_id, series_ids: its rows, if it has any; all series of a study that is the example.
        same_patients: all series of its study, and of all others of its patients.
    """

    study_id: int | None
    series_ids: frozenset[int]
    same_patients: frozenset[int]
    vectors: tuple[ExampleVector, ...]


def resolve(connection: Connection, example: Example, encoder_id: int | None) -> ResolvedExample:
    """Find an example and its vectors of one encoder.

    Raises:
        UnknownExample: it is not here.
        ExampleNotReady: it is here and will be embedded.
        ExampleNotEmbedded: it is here and has no embeddings; says why.
    """
    named = examples.named_rows(connection, example, encoder_id)
    if named is None:
        raise UnknownExample("the example is not here: no such study, series, instance or frame was received")
    if named.due is not None:
        # Also where other series of the study are ready: half an example would be answered as if it were whole.
        raise ExampleNotReady("the example was received and is not embedded yet", named.due + EMBEDDING_SECONDS)
    if not named.stacks:
        raise examples.why_not_embedded(connection, named.series_ids, encoder_id)
    vectors = tuple(_vector(rows, example) for rows in named.stacks)
    return ResolvedExample(named.study_id, named.series_ids, named.same_patients, vectors)


def _vector(rows: Sequence[Any], example: Example) -> ExampleVector:
    row = _chosen_row(rows, example)
    return ExampleVector(
        kind=Kind(row.plane, row.sequence, row.body_part),
        series_instance_uid=row.series_instance_uid,
        picture=Picture(row.id, row.slice),
        vector=np.frombuffer(row.vector, VECTOR_TYPE),
    )


def _chosen_row(rows: Sequence[Any], example: Example) -> Any:
    """The row that stands for the example: the whole stack, or the slice nearest to the instance or frame.

    Args:
        rows: of one stack, the whole stack first.
    """
    whole, slices = rows[0], rows[1:]
    if example.sop_instance_uid is None:
        return whole
    sources = {(row.sop_instance_uid, row.frame_number) for row in slices}
    if len(slices) > 1 and len(sources) == 1:
        # Resliced: every slice crosses every picture of the stack, none is the example's own.
        return whole
    if example.frame_number is None and len({uid for uid, _ in sources}) == 1 and len(slices) > 1:
        # A multi-frame instance is the stack.
        return whole
    order = {uid: position for position, uid in enumerate(whole.sop_instance_uids)}
    wanted = order[example.sop_instance_uid]

    def distance(row: Any) -> tuple[int, int]:
        return abs(order[row.sop_instance_uid] - wanted), abs(row.frame_number - (example.frame_number or 1))

    return min(slices, key=distance)
