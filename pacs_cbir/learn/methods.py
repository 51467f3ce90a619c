"""Encoders as rows of the table, by what of a stack they compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pacs_cbir.embed.architecture import Part
from pacs_cbir.embed.checkpoint import Checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import NotMeasurable, RecipeError
from pacs_cbir.learn.baselines import EncoderMethod
from pacs_cbir.learn.method import Method, SeriesMethod
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.stacks import Stack

Floats = npt.NDArray[np.float64]

NO_WEIGHT = 1e-9
"""Of a part that does not count; none may weigh 0, since it would have no direction."""


class Ranking(Method, SeriesMethod, Protocol):
    """What can be measured under every protocol."""


@dataclass(frozen=True)
class MeanMethod:
    """Cosine of the stacks' pooled embeddings, as the service pools them: no slice is chosen under any protocol."""

    name: str
    encoder: Encoder

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Whole stacks in the place of best slices."""
        one = self._pool(queries)
        two = one if queries is gallery else self._pool(gallery)
        return one @ two.T

    def series_similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """By the service's own index."""
        return EncoderMethod(self.name, self.encoder).series_similarities(queries, gallery)

    def _pool(self, stacks: Sequence[Stack]) -> Floats:
        return np.stack([self.encoder.pool(self.encoder.embed(s.pixels)) for s in stacks]).astype(np.float64)


@dataclass(frozen=True)
class LateMethod:
    """Late interaction (Khattab & Zaharia, SIGIR 2020): the mean over a query's slices of the nearest one's cosine."""

    name: str
    encoder: Encoder

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Each slice with each."""
        slices = [self.encoder.embed(stack.pixels).astype(np.float64) for stack in gallery]
        asked = slices if queries is gallery else [self.encoder.embed(s.pixels).astype(np.float64) for s in queries]
        starts = np.cumsum([0, *(len(vectors) for vectors in slices[:-1])])
        everything = np.concatenate(slices).T
        return np.stack([np.maximum.reduceat(one @ everything, starts, axis=1).mean(axis=0) for one in asked])

    series_similarities = similarities


@dataclass(frozen=True)
class BySequence:
    """One method for each sequence; stacks of different sequences are not compared: -inf."""

    name: str
    methods: Mapping[str, Ranking]

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Raises NotMeasurable for a sequence that none was trained for."""
        return self._compare(queries, gallery, lambda method, one, two: method.similarities(one, two))

    def series_similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """The same for whole series."""
        return self._compare(queries, gallery, lambda method, one, two: method.series_similarities(one, two))

    def _compare(
        self,
        queries: Sequence[Stack],
        gallery: Sequence[Stack],
        compare: Callable[[Ranking, Sequence[Stack], Sequence[Stack]], Floats],
    ) -> Floats:
        similarities = np.full((len(queries), len(gallery)), -np.inf)
        for sequence in sorted({stack.sequence for stack in queries}):
            if sequence not in self.methods:
                raise NotMeasurable(f"{self.name} has no network for {sequence}: none of it was trained on")
            rows = [i for i, stack in enumerate(queries) if stack.sequence == sequence]
            columns = [i for i, stack in enumerate(gallery) if stack.sequence == sequence]
            if columns:
                found = compare(self.methods[sequence], [queries[i] for i in rows], [gallery[i] for i in columns])
                similarities[np.ix_(rows, columns)] = found
        return similarities


def ranking(name: str, trained: Mapping[str, Checkpoint], recipe: Recipe, stacks: Sequence[Stack] = ()) -> Ranking:
    """The row of what `train` returns, measured as the recipe says.

    Args:
        stacks: that it was trained on.

    Raises:
        RecipeError: `parts` names one that the encoder has not, or there are too few stacks for `dimension`.
    """
    kinds: dict[str, Callable[[str, Encoder], Ranking]]
    kinds = {"best": EncoderMethod, "mean": MeanMethod, "late": LateMethod}
    make = kinds[recipe.pooling]
    methods: dict[str, Ranking] = {}
    for key, checkpoint in trained.items():
        encoder = Encoder(_weighed(checkpoint, recipe.parts))
        if recipe.dimension:
            alike = [stack for stack in stacks if key in {"", stack.sequence}]
            methods[key] = EncoderMethod(name, encoder, _components(encoder, alike, recipe.dimension))
        else:
            methods[key] = make(name, encoder)
    return methods[""] if "" in methods else BySequence(name, methods)


def _components(encoder: Encoder, stacks: Sequence[Stack], dimension: int) -> npt.NDArray[np.float32]:
    """Principal components of the stacks' best slices, or middle ones: orthonormal columns (d, dimension)."""
    shown = np.stack([s.pixels[len(s.pixels) // 2 if s.best is None else s.best] for s in stacks])
    # Not centred: what is to be kept is the products.
    components = np.linalg.svd(encoder.embed(shown), full_matrices=False)[2]
    if len(components) < dimension:
        raise RecipeError(
            f"dimension = {dimension}: {len(stacks)} stacks tell no more than {len(components)} components"
        )
    return components[:dimension].T.astype(np.float32)


def _weighed(checkpoint: Checkpoint, parts: Mapping[Part, float]) -> Checkpoint:
    architecture = checkpoint.card.architecture
    if unknown := sorted(set(parts) - set(architecture.sizes)):
        raise RecipeError(f"the encoder has no part {', '.join(unknown)}; it has {', '.join(architecture.sizes)}")
    weights = (
        {part: max(parts.get(part, 0), NO_WEIGHT) for part in architecture.sizes} if parts else architecture.weights
    )
    card = checkpoint.card.model_copy(update={"architecture": architecture.model_copy(update={"weights": weights})})
    return replace(checkpoint, card=card)
