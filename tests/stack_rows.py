"""Stacks as a worker saves them, for tests that need vectors and no pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, update

from pacs_cbir.settings import Settings
from pacs_cbir.store import claims, embeddings, encoders
from pacs_cbir.store.embeddings import NewStack, SliceEmbedding
from pacs_cbir.store.encoders import EncoderRow, NewEncoder
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import encoders as encoder_rows

DIMENSION = 8


def card(dimension: int = DIMENSION) -> dict[str, Any]:
    """What the follower reads of a checkpoint's card."""
    return {"name": "test", "architecture": {"appearance": dimension, "weights": {"appearance": 1.0}}}


def new_encoder(identity: str = "a" * 64, described: dict[str, Any] | None = None) -> NewEncoder:
    """An encoder that has no checkpoint: its rows are all that is looked at."""
    return NewEncoder(f"test-{identity[:8]}", identity, "float32", identity, described or card())


def make_active(connection: Connection, new: NewEncoder) -> EncoderRow:
    """Let an encoder answer, whatever it lacks; it is added where it is not here yet, and its card is replaced."""
    there = next((row for row in encoders.listed(connection) if row.identity == new.identity), None)
    name = (there or encoders.add(connection, new)).name
    if there is not None:
        connection.execute(update(encoder_rows).where(encoder_rows.c.id == there.id).values(card=new.card))
    return encoders.activate(connection, name, incomplete=True)


def add_encoder(connection: Connection, identity: str = "a" * 64, dimension: int = DIMENSION, **described: Any) -> int:
    """The active encoder; its card says a dimension, and what else is given."""
    return make_active(connection, new_encoder(identity, card(dimension) | described)).id


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Vectors of unit length, along the last axis."""
    array = np.asarray(vectors, np.float64)
    scaled: npt.NDArray[np.float32] = (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def random_vectors(dice: np.random.Generator, count: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    """Shape (count, dimension), unit length."""
    return unit(dice.standard_normal((count, dimension)))


def new_stack(
    vectors: npt.NDArray[np.float32],
    *,
    sequence: str = "T1",
    plane: str = "axial",
    body_part: str = "BRAIN",
    in_domain: bool = True,
    instance_uids: Sequence[str] = (),
    frames: Sequence[tuple[str, int]] = (),
) -> NewStack:
    """An embedded stack.

    Args:
        vectors: shape (1 + slices, dimension), the whole stack first.
        frames: (SOP Instance UID, frame number) of each slice; by default the instances, one slice each.
    """
    uids = list(instance_uids) or [f"9.9.{number}" for number in range(1, len(vectors))]
    sources = [("", 0), *(frames or [(uid, 1) for uid in uids])]
    return NewStack(
        sequence=sequence,
        plane=plane,
        body_part=body_part,
        in_domain=in_domain,
        not_embedded=None,
        separated_by={},
        evidence={},
        sop_instance_uids=tuple(uids),
        embeddings=tuple(
            SliceEmbedding(number, uid, frame, float(number), vector)
            for number, ((uid, frame), vector) in enumerate(zip(sources, vectors, strict=True))
        ),
    )


def not_embedded(reason: str, *instance_uids: str) -> NewStack:
    """A stack that was left out."""
    return NewStack(
        sequence="unknown",
        plane=None,
        body_part="",
        in_domain=False,
        not_embedded=reason,
        separated_by={},
        evidence={},
        sop_instance_uids=instance_uids,
        embeddings=(),
    )


def save(connection: Connection, series_id: int, encoder_id: int, *found: NewStack) -> None:
    """As a worker does at the end of its job."""
    embeddings.save(connection, series_id, {encoder_id: list(found)})
    if not found:
        embeddings.drop_empty(connection, series_id)


def do_jobs(database: Database, settings: Settings, stacks_of: Callable[..., Sequence[NewStack]]) -> list[int]:
    """Do what is due as a worker of the active encoder does.

    Args:
        stacks_of: a series' SOP Instance UIDs → its stacks.

    Returns:
        how many instances each series had.
    """
    counts = []
    with database.transaction() as connection:
        encoder_id = add_encoder(connection)
    while True:
        with database.transaction() as connection:
            job = claims.claim(connection, "worker", settings, [])
            if job is None:
                return counts
            named = tuple(embeddings.series_files(connection, job.series_id))
            counts.append(len(named))
            claims.finish(connection, job, [encoder_id])
            save(connection, job.series_id, encoder_id, *stacks_of(*named))
