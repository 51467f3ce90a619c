"""How alike two patients' lesions and pictures truly are: what a ranking is measured against.

Read by whoever knows the masks; a query in a hospital has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist, pdist

from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.stacks import Stack

Floats = npt.NDArray[np.float64]

HISTOGRAM_BINS = 64
FOREGROUND = 0.05
"""Grey levels above this share of the scale belong to the head."""
RADIAL_FREQUENCIES = 5
"""0 … 4."""
ANGULAR_FREQUENCIES = 9
"""0 … 8."""
CENTRE_RADIUS = 1e-9
"""Pixels; nearer to the centroid than this is at it."""
SMALLEST_RADIUS = 0.5
"""Of a mask of one pixel, in pixels, whose centre is 0 from its centroid."""
DISTANCE_PERCENTILE = 95
PLACE_SCALE_MM = 20.0
SIZE_SCALE = 0.5
"""Of the radius' natural logarithm."""
ENHANCEMENT_SCALE = 0.25
"""In mmol/L of contrast agent."""


@dataclass(frozen=True)
class Relevance:
    """Of every gallery stack to every query.

    Attributes:
        iou, histogram, gfd: the components, float64, shape (queries, gallery), in [0, 1].
    """

    iou: Floats
    histogram: Floats
    gfd: Floats

    @property
    def mean(self) -> Floats:
        """The relevance: the mean of the three, shape (queries, gallery), in [0, 1]."""
        return (self.iou + self.histogram + self.gfd) / 3


def relevance(queries: Sequence[Stack], gallery: Sequence[Stack], d95: float) -> Relevance:
    """Compare the best slices of stacks, each with each.

    Args:
        queries, gallery: stacks with `picture` and `truth`.
        d95: the GFD distance at which two shapes are wholly unlike; of `gfd_d95` over the whole data set, so that it
            is the same for every fold and sequence.

    Raises:
        NotMeasurable: a stack has no mask.
    """
    masks, others = masks_of(queries), masks_of(gallery)
    distances = cdist(np.stack([gfd(m) for m in masks]), np.stack([gfd(m) for m in others]), "cityblock")
    return Relevance(
        iou=iou(masks, others),
        histogram=intersection(histograms_of(queries), histograms_of(gallery)),
        gfd=1 - np.minimum(distances / d95, 1),
    )


def gfd_d95(stacks: Sequence[Stack]) -> float:
    """95th percentile of the GFD distances between the patients of a data set, one mask each.

    A patient's mask is that of the first of the stacks that has one. The largest distance would be no scale: one odd
    mask decides it.

    Raises:
        NotMeasurable: fewer than two patients have a mask, or all masks are of one shape.
    """
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for stack in stacks:
        if stack.truth is not None and stack.truth.any():
            masks.setdefault(stack.patient, stack.truth)
    if len(masks) < 2:
        raise NotMeasurable(
            f"{len(masks)} patients have a lesion mask, and relevance is between two: add masks to the manifest, or "
            "measure by label"
        )
    distances = pdist(np.stack([gfd(mask) for mask in masks.values()]), "cityblock")
    d95 = float(np.percentile(distances, DISTANCE_PERCENTILE))
    if not d95 > 0:
        raise NotMeasurable("all lesion masks are of one shape: the distance between shapes has no scale")
    return d95


def masks_of(stacks: Sequence[Stack]) -> npt.NDArray[np.bool_]:
    """The masks of the best slices, shape (n, 128, 128).

    Raises:
        NotMeasurable: a stack has none, or an empty one.
    """
    masks = [stack.truth for stack in stacks if stack.truth is not None and stack.truth.any()]
    if len(masks) < len(stacks):
        raise NotMeasurable(f"{len(stacks) - len(masks)} of {len(stacks)} stacks have no lesion mask: leave them out")
    return np.stack(masks)


def histograms_of(stacks: Sequence[Stack]) -> Floats:
    """The grey-level histograms of the stacks' pictures, shape (n, 64).

    Raises:
        NotMeasurable: a stack has no picture.
    """
    pictures = [stack.picture for stack in stacks if stack.picture is not None]
    if len(pictures) < len(stacks):
        raise NotMeasurable(f"{len(stacks) - len(pictures)} of {len(stacks)} stacks have no picture: leave them out")
    return np.stack([grey_histogram(picture) for picture in pictures])


def iou(masks: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_]) -> Floats:
    """Intersection over union of masks (n, …) and others (m, …), shape (n, m); 0 where both are empty."""
    one, two = masks.reshape(len(masks), -1).astype(np.float32), others.reshape(len(others), -1).astype(np.float32)
    shared = (one @ two.T).astype(np.float64)
    union = one.sum(axis=1, dtype=np.float64)[:, None] + two.sum(axis=1, dtype=np.float64) - shared
    shares: Floats = shared / np.where(union > 0, union, 1)
    return shares


def grey_histogram(grey: npt.NDArray[np.floating]) -> Floats:
    """Histogram of the foreground's grey levels.

    Args:
        grey: any shape, in [0, 1].

    Returns:
        Shape (64,), of sum 1; all 0 where nothing is above `FOREGROUND`.
    """
    counts, _ = np.histogram(grey[grey > FOREGROUND], bins=HISTOGRAM_BINS, range=(0, 1))
    shares: Floats = counts / max(int(counts.sum()), 1)
    return shares


def intersection(histograms: Floats, others: Floats) -> Floats:
    """Histogram intersection, the sum of minima (Swain & Ballard 1991), shape (n, m), in [0, 1]."""
    shared: Floats = (histograms.sum(axis=1)[:, None] + others.sum(axis=1) - cdist(histograms, others, "cityblock")) / 2
    return shared


def gfd(mask: npt.NDArray[np.bool_]) -> Floats:
    """Generic Fourier descriptor of a shape (Zhang & Lu, Signal Process Image Commun 2002;17:825).

    The polar Fourier transform about the centroid of all pixels, in several pieces or in one, with the radius in
    units of the distance of the farthest pixel. It does not change with the shape's place, size and rotation.

    Args:
        mask: shape (rows, columns), not empty, of square pixels.

    Returns:
        Shape (45,), radial frequency by angular frequency: first |PF(0,0)| / (π R²), which is the share of the
        circle round the shape that it fills, then |PF(ρ,φ)| / |PF(0,0)|.
    """
    rows, columns = (axis - axis.mean() for axis in np.nonzero(mask))
    radii, angles = np.hypot(rows, columns), np.arctan2(rows, columns)
    radius = max(float(radii.max()), SMALLEST_RADIUS)
    radial = np.exp(-2j * np.pi * np.outer(np.arange(RADIAL_FREQUENCIES), radii / radius))
    angular = np.exp(-1j * np.outer(np.arange(ANGULAR_FREQUENCIES), angles))
    # The pixel at the centroid lies in every direction, and so in none.
    angular[1:, radii < CENTRE_RADIUS] = 0
    magnitudes = np.abs(radial @ angular.T).ravel()
    descriptor: Floats = magnitudes / magnitudes[0]
    descriptor[0] = magnitudes[0] / (np.pi * radius**2)
    return descriptor


def parameter_relevance(queries: Sequence[Stack], gallery: Sequence[Stack]) -> dict[str, Floats]:
    """How alike simulated lesions are in each of their true parameters.

    Returns:
        For place, size and enhancement float64, shape (queries, gallery), in (0, 1]: exp(-distance / scale), with the
        distance of the places, of the radii's logarithms, and of the enhancements. Empty where a stack is not
        simulated.
    """
    if not all(stack.parameters for stack in [*queries, *gallery]):
        return {}

    def compare(columns: Callable[[Stack], list[float]], scale: float) -> Floats:
        one, two = np.array([columns(stack) for stack in queries]), np.array([columns(stack) for stack in gallery])
        alike: Floats = np.exp(-cdist(one, two) / scale)
        return alike

    return {
        "place": compare(lambda stack: [stack.parameters[f"place_{axis}_mm"] for axis in "xyz"], PLACE_SCALE_MM),
        "size": compare(lambda stack: [np.log(stack.parameters["radius_mm"])], SIZE_SCALE),
        "enhancement": compare(lambda stack: [stack.parameters["enhancement"]], ENHANCEMENT_SCALE),
    }
