"""Rows of the table that were not trained: chance, grey levels, pixels, and oracles that know the query's mask.

Each ranks pictures by `similarities` (the best slice of each stack) and whole series by `series_similarities`, both of
shape (queries, gallery), higher is nearer.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.relevance import grey_histogram, histograms_of, intersection, iou, masks_of
from pacs_cbir.learn.stacks import Stack
from pacs_cbir.search.stack_index import Kind, StackIndex
from pacs_cbir.store.embeddings import StoredStack

Floats = npt.NDArray[np.float64]

PIXELS_EDGE = 16
BODY_PART = "BRAIN"
"""Of all stacks: the data sets are of one organ, and the service compares like with like."""


@dataclass(frozen=True)
class RandomOrder:
    """All alike: since the measure takes ties in every order at once, its figures are those of a random order."""

    name: str = "random order"

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Zeros."""
        return np.zeros((len(queries), len(gallery)))

    series_similarities = similarities


@dataclass(frozen=True)
class GreyHistogram:
    """Histogram intersection: of the best slices' pictures; of all the drawn slices' pixels for whole series."""

    name: str = "grey histogram"

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Exactly the relevance's own grey-level component, unless the query's picture was changed."""
        return intersection(histograms_of(queries), histograms_of(gallery))

    def series_similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """No slice is chosen."""
        one, two = (np.stack([grey_histogram(stack.pixels) for stack in stacks]) for stacks in (queries, gallery))
        return intersection(one, two)


@dataclass(frozen=True)
class Pixels:
    """Cosine of pictures averaged to 16 × 16; of the mean of all drawn slices for whole series."""

    name: str = "16×16 pixels"

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Raises NotMeasurable where a stack has no picture."""
        if any(stack.picture is None for stack in [*queries, *gallery]):
            raise NotMeasurable("a stack has no picture: its best slice is not known")
        one, two = ([s.picture for s in stacks if s.picture is not None] for stacks in (queries, gallery))
        return _thumbnails(one) @ _thumbnails(two).T

    def series_similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """No slice is chosen."""
        one, two = ([s.pixels.mean(axis=0, dtype=np.float32) for s in stacks] for stacks in (queries, gallery))
        return _thumbnails(one) @ _thumbnails(two).T


def _thumbnails(pictures: Sequence[npt.NDArray[np.float32]]) -> Floats:
    size = (PIXELS_EDGE, PIXELS_EDGE)
    small = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX), np.float64).ravel() for p in pictures]
    return _unit(np.stack(small))


@dataclass(frozen=True)
class OracleIou:
    """The overlap of the true masks of the best slices, for whole series too."""

    name: str = "oracle IoU"

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Raises NotMeasurable where a stack has no mask."""
        return iou(masks_of(queries), masks_of(gallery))

    series_similarities = similarities


@dataclass(frozen=True)
class OracleIouHistogram:
    """The mean of the true masks' overlap and the histogram intersection of the best slices, for whole series too."""

    name: str = "oracle IoU + histogram"

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Raises NotMeasurable where a stack has no mask or picture."""
        return (OracleIou().similarities(queries, gallery) + GreyHistogram().similarities(queries, gallery)) / 2

    series_similarities = similarities


@dataclass(frozen=True)
class EncoderMethod:
    """Cosine of an encoder's embeddings: of the best slices; of whole series as the service compares them.

    Attributes:
        basis: float32, shape (dimension, fewer), of orthonormal columns that all embeddings are projected to; None for
            the embeddings themselves.
    """

    name: str
    encoder: Encoder
    basis: npt.NDArray[np.float32] | None = None

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Raises NotMeasurable where a stack has several slices and none is the best."""
        one = self._embed_best(queries)
        two = one if queries is gallery else self._embed_best(gallery)
        return one @ two.T

    def _embed_best(self, stacks: Sequence[Stack]) -> Floats:
        embeddings = self.encoder.embed(np.stack([_best_slice(stack) for stack in stacks]))
        return self._projected(embeddings).astype(np.float64)

    def _projected(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Of length 1 again, shape (n, fewer)."""
        return (
            embeddings if self.basis is None else _unit((embeddings @ self.basis).astype(np.float64)).astype(np.float32)
        )

    def series_similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Every slice embedded and pooled as the worker does, ranked by the service's own index.

        -inf where the service does not compare, as between two planes.
        """
        index = StackIndex(self.encoder.dimension if self.basis is None else self.basis.shape[1])
        stored = [self._stored(stack, number) for number, stack in enumerate(gallery)]
        index.update(stored, ())
        examples = stored if queries is gallery else [self._stored(stack, 0) for stack in queries]
        similarities = np.full((len(queries), len(gallery)), -np.inf)
        with index.reading():
            allowed = index.mask(None, ())
            for row, example in zip(similarities, examples, strict=True):
                for kind in index.kinds_like(Kind(example.plane, example.sequence, example.body_part)):
                    found = index.similarities(kind, example.vectors[0], allowed, whole=True)
                    row[index.series_of] = np.maximum(row[index.series_of], found)
        return similarities

    def _stored(self, stack: Stack, number: int) -> StoredStack:
        slices = self.encoder.embed(stack.pixels)
        return StoredStack(
            id=uuid.uuid4(),
            series_id=number,
            study_id=number,
            sequence=stack.sequence,
            plane=stack.plane,
            body_part=BODY_PART,
            in_domain=True,
            vectors=self._projected(np.concatenate([self.encoder.pool(slices)[None], slices])),
            slices=np.arange(len(slices) + 1, dtype=np.int16),
        )


def _best_slice(stack: Stack) -> npt.NDArray[np.float16]:
    if stack.best is None and len(stack.pixels) > 1:
        raise NotMeasurable(f"a {stack.sequence} stack has {len(stack.pixels)} slices, and no mask that says which")
    best: npt.NDArray[np.float16] = stack.pixels[stack.best or 0]
    return best


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
