"""How good rankings are: plain arrays in, plain numbers out.

Stacks that a ranking puts at one similarity are taken in every order at once: the figures are expectations over the
orders of tied stacks (McSherry & Najork, ECIR 2008), and so neither depend on the gallery's order nor on chance.
Arrays are of shape (queries, gallery); `allowed` says which of the gallery is ranked for a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RESAMPLES = 2000
RESAMPLING_SEED = 20260101
CONFIDENCE = 0.95


def ndcg(similarities: npt.NDArray[np.floating], gains: Floats, allowed: Mask, n: int) -> Floats:
    """Normalised discounted cumulative gain of the first n (Järvelin & Kekäläinen 2002), gain linear, log2(1 + i).

    Args:
        similarities: the ranking, higher is nearer; -inf is last.
        gains: 0 or more.
        n: 1 or more; all of a gallery that is smaller.

    Returns:
        Shape (queries,), in [0, 1]; NaN where nothing allowed has a gain, so that no order is better than another.

    Raises:
        ValueError: a similarity is NaN.
    """
    return _share_of_ideal(_ranked(similarities, gains, allowed)[0], gains, allowed, n)


def expected_ndcg(gains: Floats, allowed: Mask, n: int) -> Floats:
    """nDCG that a random order has on average, in closed form; shape (queries,), NaN as in `ndcg`."""
    return ndcg(np.zeros(gains.shape), gains, allowed, n)


def skill(score: float, expected: float) -> float:
    """What is gained of what can be gained over chance: 1 for the ideal order, 0 for a random one.

    Taken of means over queries: of single ones it is unbounded where chance is nearly ideal.
    """
    return (score - expected) / (1 - expected) if expected < 1 else float("nan")


def precision(similarities: npt.NDArray[np.floating], relevant: Mask, allowed: Mask, n: int) -> Floats:
    """Share of relevant ones among the first n, shape (queries,); of all allowed, where these are fewer than n."""
    shares, allowed_counts = _ranked(similarities, relevant.astype(np.float64), allowed)[0], allowed.sum(axis=1)
    precisions: Floats = shares[:, :n].sum(axis=1) / np.maximum(np.minimum(allowed_counts, n), 1)
    return precisions


def average_precision(similarities: npt.NDArray[np.floating], relevant: Mask, allowed: Mask) -> Floats:
    """Mean of the precisions at each relevant one; shape (queries,), NaN where none is relevant."""
    shares, first, sizes = _ranked(similarities, relevant.astype(np.float64), allowed)
    places = np.arange(shares.shape[1])
    before = np.concatenate([np.zeros((len(shares), 1)), np.cumsum(shares, axis=1)], axis=1)
    above = np.take_along_axis(before, first, axis=1)  # relevant ones above the tie
    # Given that one of a tie is relevant, each of the others before it is so with this chance.
    others = (shares * sizes - 1) / np.maximum(sizes - 1, 1)
    found = 1 + above + (places - first) * others
    total = (relevant & allowed).sum(axis=1)
    precisions: Floats = (shares * found / (places + 1)).sum(axis=1)
    precisions[total == 0] = np.nan
    precisions[total > 0] /= total[total > 0]
    return precisions


def _ranked(
    similarities: npt.NDArray[np.floating], gains: Floats, allowed: Mask
) -> tuple[Floats, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Expected gains from the first place on, 0 where not allowed; and of each place its tie's first place and size."""
    if np.isnan(similarities[allowed]).any():
        raise ValueError("a similarity is not a number: the ranking has no order")
    order = np.lexsort((-similarities, ~allowed), axis=1)
    ranked = np.take_along_axis(similarities, order, axis=1)
    here = np.take_along_axis(allowed, order, axis=1)
    starts = np.ones(ranked.shape, dtype=bool)
    starts[:, 1:] = (ranked[:, 1:] != ranked[:, :-1]) | (here[:, 1:] != here[:, :-1])
    ties = np.cumsum(starts.ravel()) - 1  # a query's first place starts one, so no tie spans two queries
    sizes = np.bincount(ties)
    sums = np.bincount(ties, np.where(here, np.take_along_axis(gains, order, axis=1), 0).ravel())
    first = np.flatnonzero(starts.ravel())[ties].reshape(ranked.shape) % max(ranked.shape[1], 1)
    return (sums / sizes)[ties].reshape(ranked.shape), first, sizes[ties].reshape(ranked.shape)


def _share_of_ideal(ranked: Floats, gains: Floats, allowed: Mask, n: int) -> Floats:
    ideal = -np.sort(-np.where(allowed, gains, 0), axis=1)
    discounts = 1 / np.log2(np.arange(min(n, gains.shape[1])) + 2)
    best = ideal[:, :n] @ discounts
    shares: Floats = np.where(best > 0, ranked[:, :n] @ discounts / np.where(best > 0, best, 1), np.nan)
    return shares


@dataclass(frozen=True)
class Interval:
    """A figure and between what it lies with 95 % confidence."""

    mean: float
    low: float
    high: float


def mean_of_groups(values: Floats, groups: npt.NDArray[np.generic]) -> float:
    """Mean over groups, such as sequences, of the mean of each; NaN values are left out, and a group without others."""
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    _, group = np.unique(groups[known], return_inverse=True)
    return float((np.bincount(group, values[known]) / np.bincount(group)).mean())


def bootstrap(
    values: Floats, groups: npt.NDArray[np.generic], patients: npt.NDArray[np.generic], *, seed: int = RESAMPLING_SEED
) -> Interval:
    """Mean over groups with its percentile bootstrap interval over patients (Efron & Tibshirani 1993, ch. 13).

    All of a patient's values are drawn together, since they are of one lesion. Given the differences of two rows for
    the same queries, the interval is that of their paired difference.

    Args:
        values: shape (queries,); NaN is left out.
        groups, patients: of each value, shape (queries,).
        seed: the same gives the same interval.
    """
    known = ~np.isnan(values)
    if not known.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    names, patient = np.unique(patients[known], return_inverse=True)
    kinds, group = np.unique(groups[known], return_inverse=True)
    sums, counts = np.zeros((2, len(names), len(kinds)))
    np.add.at(sums, (patient, group), values[known])
    np.add.at(counts, (patient, group), 1)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES).astype(np.float64)
    numbers = drawn @ counts
    # A resample may miss a group that few patients have: the mean of the others stands for it.
    means = np.divide(drawn @ sums, numbers, out=np.full(numbers.shape, np.nan), where=numbers > 0)
    low, high = np.quantile(np.nanmean(means, axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean_of_groups(values, groups), float(low), float(high))
