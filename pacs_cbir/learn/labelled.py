"""Retrieval by label, for data sets whose pictures have a class and no relevance of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.method import SeriesMethod
from pacs_cbir.learn.metrics import average_precision, bootstrap, precision
from pacs_cbir.learn.results import Frozen
from pacs_cbir.learn.stacks import Stack

LABELLED = (
    "labelled: whole series, no slice chosen; database: the training folds; queries: the test fold; relevant: other "
    "patients' series of the same label"
)


class LabelledQuery(Frozen):
    """One query: average precision over the whole database, and the shares of its label among the first 5 and 10."""

    patient: str
    study: str
    label: str
    fold: str
    seed: int
    average_precision: float
    precision5: float
    precision10: float


class LabelledFigures(Frozen):
    """Means over queries."""

    map: float
    precision5: float
    precision10: float
    queries: int


class LabelledResult(LabelledFigures):
    """A row measured by label; means over folds of the mean over queries and seeds.

    Attributes:
        intervals: of each figure, 95 % bootstrap over patients.
        left_out: stacks without a label, and queries whose label no other patient in the database has.
    """

    name: str
    protocol: str
    intervals: dict[str, tuple[float, float]]
    by_label: dict[str, LabelledFigures]
    left_out: dict[str, int]
    per_query: tuple[LabelledQuery, ...]


def check_labels(queries: Sequence[Stack], database: Sequence[Stack]) -> None:
    """Whether there is a query whose label another patient in the database has.

    Raises:
        NotMeasurable: there is none; says what is missing.
    """
    asked, known = (
        {(stack.label, stack.patient) for stack in stacks if stack.label is not None} for stacks in (queries, database)
    )
    if not asked or not known:
        raise NotMeasurable(f"no labels among the {'queries' if known else 'database'}: add a label column")
    if not any(label == other and patient != their for label, patient in asked for other, their in known):
        raise NotMeasurable("no query has a label that another patient in the database has: split otherwise")


def labelled(
    method: SeriesMethod, queries: Sequence[Stack], database: Sequence[Stack], *, fold: str = "", seed: int = 0
) -> LabelledResult:
    """Rank the database for each query of the test fold.

    Args:
        queries: of the test split; those without a label are left out and counted.
        database: of the training splits; likewise.

    Raises:
        NotMeasurable: no query has a label that another patient in the database has.
    """
    check_labels(queries, database)
    asked = [stack for stack in queries if stack.label is not None]
    known = [stack for stack in database if stack.label is not None]
    labels, others = (np.array([stack.label for stack in stacks]) for stacks in (asked, known))
    patients, their = (np.array([stack.patient for stack in stacks]) for stacks in (asked, known))
    relevant, allowed = labels[:, None] == others, patients[:, None] != their
    similarities = method.series_similarities(asked, known)
    found = average_precision(similarities, relevant, allowed)
    five, ten = (precision(similarities, relevant, allowed, n) for n in (5, 10))
    measured = tuple(
        LabelledQuery(
            patient=stack.patient,
            study=stack.study,
            label=str(stack.label),
            fold=fold,
            seed=seed,
            average_precision=float(found[i]),
            precision5=float(five[i]),
            precision10=float(ten[i]),
        )
        for i, stack in enumerate(asked)
        if not np.isnan(found[i])
    )
    left_out = {
        "stacks without label": len(queries) + len(database) - len(asked) - len(known),
        "queries without relevant series": len(asked) - len(measured),
    }
    return _summarise(method.name, measured, left_out)


def merge_labelled(results: Sequence[LabelledResult]) -> LabelledResult:
    """One row from its folds and seeds; what was left out of a fold is the same for each of its seeds.

    Raises:
        NotMeasurable: results of several rows, or one fold and seed twice.
    """
    runs = [run for result in results for run in {(query.fold, query.seed) for query in result.per_query}]
    if len({result.name for result in results}) != 1 or len(runs) != len(set(runs)):
        raise NotMeasurable("these are results of several rows, or one fold and seed is there twice")
    of_folds = {frozenset(query.fold for query in result.per_query): result.left_out for result in results}
    left_out = {name: sum(counts[name] for counts in of_folds.values()) for name in results[0].left_out}
    return _summarise(results[0].name, tuple(query for result in results for query in result.per_query), left_out)


def _summarise(name: str, queries: tuple[LabelledQuery, ...], left_out: dict[str, int]) -> LabelledResult:
    patients, folds = (np.array([getattr(query, key) for query in queries]) for key in ("patient", "fold"))
    columns = {
        "map": np.array([query.average_precision for query in queries]),
        "precision5": np.array([query.precision5 for query in queries]),
        "precision10": np.array([query.precision10 for query in queries]),
    }
    found = {figure: bootstrap(values, folds, patients) for figure, values in columns.items()}
    labels = np.array([query.label for query in queries])
    return LabelledResult(
        name=name,
        protocol=LABELLED,
        map=found["map"].mean,
        precision5=found["precision5"].mean,
        precision10=found["precision10"].mean,
        queries=len(queries),
        intervals={figure: (interval.low, interval.high) for figure, interval in found.items()},
        by_label={str(label): _of_label(columns, labels == label) for label in np.unique(labels)},
        left_out=left_out,
        per_query=queries,
    )


def _of_label(columns: dict[str, npt.NDArray[np.float64]], chosen: npt.NDArray[np.bool_]) -> LabelledFigures:
    return LabelledFigures(
        map=float(columns["map"][chosen].mean()),
        precision5=float(columns["precision5"][chosen].mean()),
        precision10=float(columns["precision10"][chosen].mean()),
        queries=int(chosen.sum()),
    )
