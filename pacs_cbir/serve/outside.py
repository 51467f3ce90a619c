"""Examples that are no stored rows: pictures that came with the question, or a region of a stored frame."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pacs_cbir.embed.outside import OutsideStack, draw_outside, format_of
from pacs_cbir.errors import ExampleNotEmbedded, InvalidQuery, UnreadableUpload
from pacs_cbir.search.encoder_index import Current
from pacs_cbir.search.example import ExampleVector, ResolvedExample
from pacs_cbir.search.query import Picture, Query
from pacs_cbir.search.stack_index import ANYTHING, UNKNOWN_SEQUENCE, Kind
from pacs_cbir.serve.asked import MAX_EXAMPLES, Asked
from pacs_cbir.serve.embedder import Embedder
from pacs_cbir.serve.region import drawn_region
from pacs_cbir.store import examples
from pacs_cbir.store.embeddings import WHOLE_STACK, Source
from pacs_cbir.store.examples import Example
from pacs_cbir.store.session import Connection, Database

if TYPE_CHECKING:
    from pacs_cbir.embed.encoder import Encoder

PICTURE_WARNING = (
    "A PNG or JPEG tells neither plane nor scale, and the MR sequence only where sequence= does: it was taken as the "
    "whole field of view. That is outside what the encoder was trained for."
)
LEFT_OUT_WARNING = "Not all that was uploaded was compared: {}."


@dataclass(frozen=True)
class _Uploaded:
    """One embedded stack of an upload, and where its slices come from."""

    study_instance_uid: str
    vector: ExampleVector
    sources: Mapping[tuple[uuid.UUID, int], Source]


def resolved(asked: Asked, current: Current, database: Database, embedder: Embedder) -> Asked:
    """The question with its examples embedded, where they are no stored rows.

    Args:
        current: that is to be searched.

    Raises:
        UnreadableUpload, VolumeError: a file cannot be drawn.
        InvalidQuery: a region that is not there; a picture's sequence that several names are given for.
        ExampleNotEmbedded: nothing that was uploaded can be embedded; says why.
        UnknownExample, ExampleNotReady, SeriesChanged: of a region's frame.
        EncoderBusy, EncoderMismatch, CheckpointError, DatabaseUnavailable.
    """
    if asked.files:
        return _with_files(asked, current, database, embedder)
    if asked.region is None:
        return asked
    (example,) = asked.query.examples
    drawn = drawn_region(example, asked.region, current, database, embedder)
    return replace(asked, query=drawn.asked(asked.query), sources=drawn.sources)


def _with_files(asked: Asked, current: Current, database: Database, embedder: Embedder) -> Asked:
    # Before one's turn: what is nothing at all does not wait for the encoder.
    pictures = [format_of(path, number) != "DICOM" for number, path in enumerate(asked.files, start=1)]
    if any(pictures) and len(asked.query.only) > 1:
        raise InvalidQuery("sequence: a picture that does not tell its MR sequence is compared as one, or as any")
    if sum(pictures) > MAX_EXAMPLES:
        raise UnreadableUpload(f"the files are more than {MAX_EXAMPLES} pictures; send fewer")
    with embedder.turn(current.encoder) as encoder:
        drawn = embedder.decoder.run(
            draw_outside, list(asked.files), encoder.card.preprocessing, embedder.rules, MAX_EXAMPLES
        )
        uploaded = [_embedded(stack, encoder, asked.query) for stack in drawn if stack.stack.slices is not None]
    reasons = sorted({stack.stack.not_embedded for stack in drawn if stack.stack.not_embedded})
    if not uploaded:
        raise ExampleNotEmbedded(f"nothing of what was uploaded can be embedded: {'; '.join(reasons)}")
    with database.transaction() as connection:
        found = _by_study(connection, uploaded)
    warnings = [PICTURE_WARNING] if any(pictures) else []
    if reasons:
        warnings.append(LEFT_OUT_WARNING.format("; ".join(reasons)))
    return replace(
        asked,
        query=replace(asked.query, resolved=found),
        sources={key: source for one in uploaded for key, source in one.sources.items()},
        warnings=tuple(warnings),
    )


def _embedded(outside: OutsideStack, encoder: Encoder, query: Query) -> _Uploaded:
    stack, stack_id = outside.stack, uuid.uuid4()
    assert stack.slices is not None  # noqa: S101 - the caller's choice
    vectors = encoder.embed(stack.slices.pixels)
    kind = Kind(stack.slices.plane.value, stack.sequence, stack.body_part)
    if not outside.series_instance_uid:
        kind = Kind(ANYTHING, next(iter(query.only), UNKNOWN_SEQUENCE), ANYTHING)
    # One slice alone is asked for as a picture is: which slice is like it, not which stack.
    alone = len(vectors) == 1
    return _Uploaded(
        outside.study_instance_uid,
        ExampleVector(
            kind=kind,
            series_instance_uid=outside.series_instance_uid,
            picture=Picture(stack_id, 1 if alone else WHOLE_STACK),
            vector=vectors[0] if alone else encoder.pool(vectors),
            slices=None if alone else vectors,
        ),
        {
            (stack_id, number): Source(frame.sop_instance_uid, frame.frame_number)
            for number, frame in enumerate(stack.slices.frames, start=1)
        },
    )


def _by_study(connection: Connection, uploaded: Sequence[_Uploaded]) -> tuple[ResolvedExample, ...]:
    """An upload's studies are an example each, and each picture is: several mean what they have in common.

    Studies that are here too are their own rows: they, or their patients, are no answers.
    """
    by_study: defaultdict[str, list[ExampleVector]] = defaultdict(list)
    pictures = []
    for one in uploaded:
        if one.study_instance_uid:
            by_study[one.study_instance_uid].append(one.vector)
        else:
            pictures.append(ResolvedExample(None, frozenset(), frozenset(), (one.vector,)))
    found = []
    for study_uid, vectors in by_study.items():
        here = examples.named_rows(connection, Example(study_uid), None)
        series_ids = frozenset[int]()
        for series_uid in {vector.series_instance_uid for vector in vectors}:
            named = examples.named_rows(connection, Example(study_uid, series_uid), None)
            series_ids |= named.series_ids if named else frozenset()
        found.append(
            ResolvedExample(
                here.study_id if here else None,
                series_ids,
                here.same_patients if here else frozenset(),
                tuple(vectors),
            )
        )
    return (*found, *pictures)
