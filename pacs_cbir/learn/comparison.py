"""Row against row, and row against itself with changed queries: differences on the same queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.metrics import bootstrap
from pacs_cbir.learn.results import Figure, Frozen, Result, figure_of, has_no_more, merge

_Key = tuple[str, str, str, str]
"""Fold, patient, study, sequence."""


class Difference(Frozen):
    """Row minus row on the queries that both have, with its 95 % bootstrap interval over patients.

    Attributes:
        by_sequence: the same for each sequence alone; empty within.
        queries: how many both have.
        unpaired: how many only one has.
    """

    ndcg5: Figure
    interval: tuple[Figure, Figure]
    by_sequence: dict[str, Difference]
    queries: int
    unpaired: int


def paired(row: Result, other: Result) -> Difference:
    """nDCG@5 of a row minus another's, query by query; seeds are averaged first.

    Raises:
        NotMeasurable: they have no query in common.
    """
    one, two = _by_query(row), _by_query(other)
    both = sorted(one.keys() & two.keys())
    if not both:
        raise NotMeasurable(f"{row.name} and {other.name} have no query in common: measure both on the same split")
    apart = np.array([one[key] - two[key] for key in both])
    unpaired = [key[3] for key in one.keys() ^ two.keys()]
    sequences = np.array([key[3] for key in both])
    by_sequence = {
        str(s): _difference(
            [key for key in both if key[3] == s], apart[sequences == s], {}, sum(key == s for key in unpaired)
        )
        for s in np.unique(sequences)
    }
    return _difference(both, apart, by_sequence, len(unpaired))


def _by_query(result: Result) -> dict[_Key, float]:
    scores: defaultdict[_Key, list[float]] = defaultdict(list)
    for query, small in zip(result.queries, has_no_more(result.queries, 5), strict=True):
        if query.ndcg5 is not None:
            score = float("nan") if small else query.ndcg5
            scores[query.fold, query.patient, query.study, query.sequence].append(score)
    return {key: float(np.mean(values)) for key, values in scores.items()}


def _difference(
    keys: Sequence[_Key], apart: npt.NDArray[np.float64], by_sequence: dict[str, Difference], unpaired: int
) -> Difference:
    cells, patients = np.array([f"{key[0]}\n{key[3]}" for key in keys]), np.array([key[1] for key in keys])
    found = bootstrap(apart, cells, patients)
    return Difference(
        ndcg5=figure_of(found.mean),
        interval=(figure_of(found.low), figure_of(found.high)),
        by_sequence=by_sequence,
        queries=len(keys),
        unpaired=unpaired,
    )


class Robustness(Frozen):
    """A row under the poster's protocol with the query's picture changed.

    Attributes:
        unchanged: the row as it is.
        changed: name of a change → the row with it.
        falls: name of a change → nDCG@5 unchanged minus changed on the queries it can be made to; above 0 is a fall.
    """

    unchanged: Result
    changed: dict[str, Result]
    falls: dict[str, Difference]


def compare_changes(unchanged: Result, changed: Mapping[str, Result]) -> Robustness:
    """The falls from the results."""
    falls = {change: paired(unchanged, result) for change, result in changed.items()}
    return Robustness(unchanged=unchanged, changed=dict(changed), falls=falls)


def merge_robustness(results: Sequence[Robustness]) -> Robustness:
    """One row from its folds and seeds.

    Raises:
        NotMeasurable: results of several rows, with several changes, or one fold and seed twice.
    """
    if len({frozenset(result.changed) for result in results}) != 1:
        raise NotMeasurable("results with several sets of changes are not one row")
    changed = {change: merge([result.changed[change] for result in results]) for change in results[0].changed}
    return compare_changes(merge([result.unchanged for result in results]), changed)
