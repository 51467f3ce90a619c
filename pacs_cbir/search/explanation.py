"""Why two are alike: of the sequences that both have, the pairs of slices, and in what these agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pacs_cbir.embed import parts
from pacs_cbir.embed.architecture import Part
from pacs_cbir.errors import IndexNotReady, InvalidQuery
from pacs_cbir.search.example import ExampleVector, ResolvedExample
from pacs_cbir.search.faiss_index import Vectors
from pacs_cbir.search.intent import Intent
from pacs_cbir.search.query import SeriesMatch, SliceMatch
from pacs_cbir.search.stack_index import IndexedStack, Kind, StackIndex, comparable


@dataclass(frozen=True)
class Explanation:
    """One sequence of an example and the match's that it is compared with.

    Attributes:
        match: the two, with the pair of slices that they owe most to.
        nearest: of each of the example's slices that is looked at, the match's nearest.
        example, found: embeddings of the pair of slices, shape (dimension,); the example's may be as it is searched
            with (see `parts.weighed`).
    """

    match: SeriesMatch
    nearest: tuple[SliceMatch, ...]
    example: Vectors
    found: Vectors


@dataclass(frozen=True)
class Explained:
    """Why a match is like an example.

    Attributes:
        by_sequence: of every sequence that both have, the most alike first.
        weights: part → what it counted.
    """

    by_sequence: tuple[Explanation, ...]
    weights: Mapping[Part, float]


def explanations(
    index: StackIndex, intent: Intent, example: ResolvedExample, match: ResolvedExample
) -> tuple[Explanation, ...]:
    """Explain every sequence that two have, the most alike first; used inside `index.reading()`.

    Raises:
        IndexNotReady: one of them is embedded and not in the index yet.
        InvalidQuery: there is nothing in them that is compared.
    """
    slots = intent.slots([example])
    found = [
        _explanation(index, intent, searched, theirs)
        for slot in slots
        for searched in slot.vectors
        for theirs in match.vectors
        if comparable(searched.kind, theirs.kind)
    ]
    if not found:
        have = (", ".join(sorted({_described(v.kind) for v in one.vectors})) for one in (example, match))
        raise InvalidQuery(f"like is compared with like: the example has {next(have)}, the match {next(have)}")
    return tuple(sorted(found, key=lambda explained: -explained.match.similarity))


def _explanation(index: StackIndex, intent: Intent, example: ExampleVector, match: ExampleVector) -> Explanation:
    stack, own = _stack(index, match), _stack(index, example) if example.whole else None
    pairs = intent.slice_pairs(index, example, stack, None if match.whole else match.picture.slice)
    pair = pairs.best
    theirs = index.slices_of(stack)[pair.found.slice - 1]
    # A slice may be of no stack, as a region is; each part points where its embedding's does, which is all that counts.
    mine = example.vector if own is None else index.slices_of(own)[pair.example.slice - 1]
    one, other = intent.weighed(mine), theirs
    if example.whole and match.whole:
        one, other = example.vector, index.whole_of(stack)
    return Explanation(
        match=SeriesMatch(
            series_id=stack.series_id,
            study_id=stack.study_id,
            sequence=stack.kind.sequence,
            similarity=min(float(one @ other), 1.0),
            like=example.series_instance_uid,
            in_domain=stack.in_domain,
            parts=parts.cosines(one[None], other[None], intent.architecture)[0],
            slices=pair,
        ),
        nearest=pairs.nearest,
        example=mine,
        found=theirs,
    )


def _stack(index: StackIndex, vector: ExampleVector) -> IndexedStack:
    stack = index.find(vector.picture.stack_id)
    if stack is None:
        raise IndexNotReady("what is named was embedded just now, and is not in the index yet")
    return stack


def _described(kind: Kind) -> str:
    return " ".join(filter(None, (kind.plane.lower(), kind.sequence, f"of {kind.body_part}" if kind.body_part else "")))
