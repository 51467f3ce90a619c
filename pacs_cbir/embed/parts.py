"""Embeddings as what they are made of: slices pooled to a stack, and parts weighed anew. torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pacs_cbir.embed.architecture import Architecture, Part

NO_LESION = 0.05
"""A lesion of this share of a cell of the coarse grid is as much a lesion as none."""
LEAST_AREA = 10.0
"""Cells that each slice counts beside its lesion's, a usual glioma's own area: a stack is never about one slice alone,
and where no lesion is sure it is the plain mean of its slices."""

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


def lesion_areas(lesion: npt.NDArray[np.floating]) -> Floats:
    """About how many cells of the coarse grid a lesion covers, from its part: (n, grid² + 1) → (n,)."""
    squares = np.square(lesion, dtype=np.float64)
    areas: Floats = NO_LESION**2 * squares[:, :-1].sum(axis=1) / np.maximum(squares[:, -1], 1e-12)
    return areas


def slice_weights(embeddings: Vectors, architecture: Architecture) -> Floats:
    """What each slice counts in its stack's embedding, shape (n,), with a sum of 1.

    A stack that shows a lesion is about its lesion: what is the same in all slices of a head would drown it in a plain
    mean.
    """
    weights = np.ones(len(embeddings))
    if architecture.lesion_grid:
        weights = LEAST_AREA + lesion_areas(embeddings[:, architecture.places["lesion"]])
    return weights / weights.sum()  # type: ignore[no-any-return]


def pool(embeddings: Vectors, architecture: Architecture) -> Vectors:
    """The stack's embedding: the weighted mean of its slices', each part scaled to its own length again.

    Args:
        embeddings: shape (n, dimension), n >= 1.

    Returns:
        float32, shape (dimension,), of length 1.
    """
    mean = slice_weights(embeddings, architecture) @ embeddings.astype(np.float64)
    for part, place in architecture.places.items():
        length = np.linalg.norm(mean[place])
        # Opposite vectors leave nothing: any of them stands for the stack as well as another.
        mean[place] = mean[place] / length * architecture.shares[part] ** 0.5 if length > 0 else embeddings[0, place]
    pooled: Vectors = mean.astype(np.float32)
    return pooled


def cosines(ones: Vectors, others: Vectors, architecture: Architecture) -> list[dict[Part, float]]:
    """Row by row, part → cosine of two vectors' parts, at most 1, without those that count nothing in one of the two.

    Args:
        ones, others: shape (n, dimension), each row an embedding or a query as `weighed` gives it.
    """
    starts = [place.start for place in architecture.places.values()]
    first, second = ones.astype(np.float64), others.astype(np.float64)
    # Shape (3, n, parts).
    products, left, right = np.add.reduceat([first * second, first * first, second * second], starts, axis=2)
    lengths = np.sqrt(left * right)
    # Rounding must not make anything more alike than itself.
    return [
        {
            part: min(product / length, 1.0)
            for part, product, length in zip(architecture.places, *row, strict=True)
            if length > 0
        }
        for row in zip(products.tolist(), lengths.tolist(), strict=True)
    ]


def weighed(vectors: Vectors, architecture: Architecture, weights: Mapping[Part, float]) -> Vectors:
    """Query vectors whose products with embeddings are means of the parts' cosines, by these weights.

    Embeddings hold each part at the square root of its share; a query's part is scaled to make up for it, so that one
    index answers all weights.

    Args:
        vectors: shape (..., dimension).
        weights: part → what it counts, 0 or more, one above 0; parts not named count nothing.

    Returns:
        float32, in the shape of `vectors`; products with embeddings are at most 1.
    """
    total = sum(weights.values())
    scaled = np.zeros(vectors.shape)
    for part, place in architecture.places.items():
        own = vectors[..., place].astype(np.float64)
        length = np.linalg.norm(own, axis=-1, keepdims=True)
        share = weights.get(part, 0) / total / architecture.shares[part] ** 0.5
        scaled[..., place] = share * own / np.maximum(length, 1e-12)
    return scaled.astype(np.float32)
