"""What a query means: the examples' vectors as they are searched with, and what each sequence of theirs counts."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from pacs_cbir.embed import parts
from pacs_cbir.embed.architecture import Architecture, Part
from pacs_cbir.errors import InvalidQuery
from pacs_cbir.search.example import ExampleVector, ResolvedExample
from pacs_cbir.search.faiss_index import Vectors
from pacs_cbir.search.query import Picture, Query, SliceMatch, Unrelated
from pacs_cbir.search.stack_index import ANYTHING, IndexedStack, Kind, StackIndex, comparable

LOWEST = -1.0
"""No cosine is below it: nothing is left out."""
TOWARDS, AWAY = 0.75, 0.15
"""Rocchio's weights of what was found right and wrong, the example's being 1 (Manning et al. 2008, section 9.1)."""


@dataclass(frozen=True)
class Slot:
    """What an example has of one sequence: a study's similarity is the mean over these.

    Attributes:
        weight: in that mean, above 0.
        least: the similarity of what is no answer any more.
    """

    vectors: tuple[ExampleVector, ...]
    weight: float
    least: float


@dataclass(frozen=True)
class SlicePairs:
    """Each of an example's slices beside each of a stack's.

    A stack's embedding is a weighted mean of its slices', so that the similarity of two is a weighted sum over these.

    Attributes:
        example, found: the first slice of each.
        cosines: shape (slices of the example, slices of the stack).
        shares: what a pair counts in the sum, same shape; of an example that is a slice, all the same.
    """

    example: Picture
    found: Picture
    cosines: Vectors
    shares: parts.Floats

    @property
    def best(self) -> SliceMatch:
        """The pair with the largest share of the similarity."""
        # Cosines from -1 to 1: of two pairs that are unlike, the one that matters more is not the better one.
        first, second = divmod(int(np.argmax((self.cosines + 1) * self.shares)), self.cosines.shape[1])
        return self._pair(first, second)

    @property
    def nearest(self) -> tuple[SliceMatch, ...]:
        """Of each of the example's slices the nearest one."""
        return tuple(self._pair(first, int(second)) for first, second in enumerate(self.cosines.argmax(axis=1)))

    def _pair(self, first: int, second: int) -> SliceMatch:
        return SliceMatch(
            Picture(self.example.stack_id, self.example.slice + first),
            Picture(self.found.stack_id, self.found.slice + second),
            # Rounding must not make anything more alike than itself.
            min(float(self.cosines[first, second]), 1.0),
        )


class Intent:
    """How examples become slots, and slots' matches the slices to look at.

    Args:
        architecture, unrelated: of the encoder whose embeddings are searched.
        like, unlike: what `query` names so.

    Attributes:
        architecture: the same.
        part_weights: part → what it counts.

    Raises:
        InvalidQuery: the encoder has no such part, or no part counts.
    """

    def __init__(
        self,
        architecture: Architecture,
        unrelated: Unrelated,
        query: Query,
        like: Sequence[ResolvedExample],
        unlike: Sequence[ResolvedExample],
    ) -> None:
        self.architecture, self._query = architecture, query
        self._unrelated = Unrelated() if query.parts or query.like or query.unlike else unrelated
        self.part_weights = _part_weights(architecture, query)
        self._like, self._unlike = _means(like), _means(unlike)
        # Of the examples' stacks: their slices as they are compared, and what each counts.
        self._slices: dict[uuid.UUID, tuple[Vectors, parts.Floats]] = {}

    def slots(self, examples: Sequence[ResolvedExample]) -> list[Slot]:
        """The slots that count, as they are searched with.

        Raises:
            InvalidQuery: none of the examples has a sequence that counts.
        """
        found = []
        for example in examples:
            by_sequence: defaultdict[str, list[ExampleVector]] = defaultdict(list)
            for vector in example.vectors:
                by_sequence[vector.kind.sequence].append(replace(vector, vector=self._searched(vector)))
            found += [
                Slot(tuple(of), self._weight(sequence), self._least(sequence, of))
                for sequence, of in by_sequence.items()
            ]
        counting = [slot for slot in found if slot.weight > 0]
        if not counting:
            have = sorted({vector.kind.sequence for example in examples for vector in example.vectors})
            raise InvalidQuery(f"the example has {', '.join(have)}, and none of it counts by sequence and weights")
        return counting

    def part_cosines(
        self,
        index: StackIndex,
        examples: Sequence[ExampleVector],
        stacks: Sequence[IndexedStack],
        slices: Sequence[SliceMatch | None],
    ) -> list[dict[Part, float]]:
        """In what examples and their matches are alike: whole stacks, or the slice and the one nearest to it."""
        theirs = [
            index.whole_of(stack) if example.whole or pair is None else index.slices_of(stack)[pair.found.slice - 1]
            for example, stack, pair in zip(examples, stacks, slices, strict=True)
        ]
        return parts.cosines(np.stack([one.vector for one in examples]), np.stack(theirs), self.architecture)

    def slice_match(self, index: StackIndex, example: ExampleVector, stack: IndexedStack) -> SliceMatch | None:
        """The pair of slices that two stacks owe their similarity to; None where the example's are not known."""
        if example.whole and self._slices_of(index, example) is None:
            return None
        return self.slice_pairs(index, example, stack).best

    def slice_pairs(
        self, index: StackIndex, example: ExampleVector, stack: IndexedStack, only: int | None = None
    ) -> SlicePairs:
        """The slices of two stacks compared, or of a stack with the slice that is the example.

        Args:
            only: look at this slice of the stack alone.

        Raises:
            KeyError: the example is a whole stack, and that is not in the index.
        """
        theirs = index.slices_of(stack)
        found = Picture(stack.id, 1 if only is None else only)
        theirs = theirs[found.slice - 1 :][: None if only is None else 1]
        if not example.whole:
            cosines = example.vector[None] @ theirs.T
            return SlicePairs(example.picture, found, cosines, np.ones(cosines.shape))
        own = self._slices_of(index, example)
        if own is None:
            raise KeyError(example.picture.stack_id)
        mine, weights = own
        shares = np.outer(weights, parts.slice_weights(theirs, self.architecture))
        return SlicePairs(Picture(example.picture.stack_id, 1), found, mine @ theirs.T, shares)

    def weighed(self, vectors: Vectors) -> Vectors:
        """Embeddings as they are searched with; see `parts.weighed`."""
        return parts.weighed(vectors, self.architecture, self.part_weights)

    def _slices_of(self, index: StackIndex, example: ExampleVector) -> tuple[Vectors, parts.Floats] | None:
        stack_id = example.picture.stack_id
        if stack_id not in self._slices:
            slices = example.slices
            if slices is None:
                stack = index.find(stack_id)
                if stack is None:
                    return None
                slices = index.slices_of(stack)
            compared = parts.weighed(slices, self.architecture, self.part_weights)
            self._slices[stack_id] = compared, parts.slice_weights(slices, self.architecture)
        return self._slices[stack_id]

    def _weight(self, sequence: str) -> float:
        if self._query.only and sequence not in self._query.only:
            return 0.0
        return self._query.sequence_weights.get(sequence, 1.0)

    def _least(self, sequence: str, vectors: Sequence[ExampleVector]) -> float:
        if self._query.least is not None:
            return self._query.least
        calibrated = self._unrelated.series if all(v.whole for v in vectors) else self._unrelated.slices
        # Of a sequence that the encoder was not trained on the others' mean is the best guess.
        known = calibrated.get(sequence)
        return known if known is not None else float(np.mean(list(calibrated.values()) or [LOWEST]))

    def _searched(self, example: ExampleVector) -> Vectors:
        moved = example.vector.astype(np.float64)
        for weight, means in ((TOWARDS, self._like), (-AWAY, self._unlike)):
            mean = means.get(example.kind) if example.kind.plane != ANYTHING else _mean_like(means, example.kind)
            if mean is not None:
                moved = moved + weight * mean
        return parts.weighed(moved.astype(np.float32), self.architecture, self.part_weights)


def _means(examples: Sequence[ResolvedExample]) -> dict[Kind, Vectors]:
    by_kind: defaultdict[Kind, list[Vectors]] = defaultdict(list)
    for example in examples:
        for vector in example.vectors:
            by_kind[vector.kind].append(vector.vector)
    return {kind: np.mean(vectors, axis=0) for kind, vectors in by_kind.items()}


def _mean_like(means: Mapping[Kind, Vectors], kind: Kind) -> Vectors | None:
    """What moves a picture that tells neither plane nor body part: all that it could be compared with."""
    alike = [mean for other, mean in means.items() if comparable(kind, other)]
    return np.mean(alike, axis=0) if alike else None


def _part_weights(architecture: Architecture, query: Query) -> dict[Part, float]:
    if not query.parts:
        return architecture.shares
    if unknown := sorted(set(query.parts) - set(architecture.sizes)):
        raise InvalidQuery(f"parts: the encoder has {', '.join(architecture.sizes)}, and not {', '.join(unknown)}")
    if not any(query.parts.values()):
        raise InvalidQuery("parts: one of them must count more than 0")
    return {cast("Part", part): weight for part, weight in query.parts.items()}
