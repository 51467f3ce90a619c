"""What was measured of one row of the table, query by query: folds, seeds and rows can be put together later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.metrics import bootstrap, mean_of_groups, skill

RANKS = (5, 10, 20)
Figure = float | None
"""None where there was nothing to measure."""
_SMALL = "queries with a gallery of {n} or fewer"


class Frozen(BaseModel):
    """Base of what is written to `results/`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Origin(Frozen):
    """How a row under one protocol came about; empty or None where it is not known.

    Attributes:
        commit, device: of the program and the machine that measured it; several where folds or seeds were measured
            apart.
        measured: patients that it was measured on.
        trained_on: how many of them its weights, or those it started from, were trained on, as their card says; None
            where that is not known.
    """

    commit: tuple[str, ...]
    device: tuple[str, ...]
    measured: int
    trained_on: int | None

    def warning(self, name: str) -> str | None:
        """What must be known of the row's figures, for people; None where there is nothing."""
        if self.trained_on is None:
            return (
                f"{name}: whether it was trained on the patients it is measured on is not known: its card says nothing"
            )
        if not self.trained_on:
            return None
        return (
            f"{name} was trained on {self.trained_on} of the {self.measured} patients it is measured on, by name: it "
            "may remember them, and other patients tell how well it finds"
        )


class Scores(Frozen):
    """nDCG@5 of one query against one notion of relevance, and that of a random order."""

    ndcg5: Figure
    random5: Figure


class Query(Frozen):
    """One query of one fold and seed.

    Attributes:
        patient, study: pseudonyms.
        gallery: how many stacks are ranked, of other patients.
        ndcg5, ndcg10, ndcg20: None where nothing in the gallery is relevant.
        random5: nDCG@5 that a random order has on average.
        components: the same against each component of relevance, and against simulated lesions' true parameters.
    """

    patient: str
    study: str
    sequence: str
    fold: str
    seed: int
    gallery: int
    ndcg5: Figure
    ndcg10: Figure
    ndcg20: Figure
    random5: Figure
    components: dict[str, Scores]


class Part(Frozen):
    """Means over queries; `left_out` queries have nothing relevant in the gallery, or five stacks at most, and are not
    among `queries`.
    """

    ndcg5: Figure
    random5: Figure
    skill5: Figure
    queries: int
    left_out: int


class Component(Part):
    """Against one component of relevance, or one true parameter; `by_sequence` is nDCG@5."""

    by_sequence: dict[str, Figure]


class Result(Frozen):
    """A row under one protocol. Figures are means over sequences and folds of the mean over queries and seeds.

    Attributes:
        protocol: what was compared with what, in words.
        skill5: (ndcg5 - random5) / (1 - random5).
        interval: 95 % bootstrap interval of ndcg5 over patients.
        left_out: stacks without a mask, neither query nor gallery; queries with nothing relevant in the gallery; and,
            where there are any, queries that are left out of nDCG@n since their gallery has no more than n.
    """

    name: str
    protocol: str
    ndcg5: Figure
    ndcg10: Figure
    ndcg20: Figure
    random5: Figure
    skill5: Figure
    interval: tuple[Figure, Figure]
    by_sequence: dict[str, Part]
    by_component: dict[str, Component]
    left_out: dict[str, int]
    queries: tuple[Query, ...]


def summarise(name: str, protocol: str, queries: Sequence[Query], without_mask: int) -> Result:
    """All figures of a row from its queries.

    Raises:
        NotMeasurable: there is no query.
    """
    if not queries:
        raise NotMeasurable(f"{name}: no stack has a lesion mask: add masks to the manifest, or measure by label")
    cells, patients = _cells(queries), np.array([query.patient for query in queries])
    five = _column(queries, lambda query: query.ndcg5, 5)
    interval = bootstrap(five, cells, patients)
    whole = _part(queries, lambda query: query)
    sequences = sorted({query.sequence for query in queries})
    components = [name for name in queries[0].components if all(name in query.components for query in queries)]
    return Result(
        name=name,
        protocol=protocol,
        ndcg5=whole.ndcg5,
        ndcg10=figure_of(mean_of_groups(_column(queries, lambda query: query.ndcg10, 10), cells)),
        ndcg20=figure_of(mean_of_groups(_column(queries, lambda query: query.ndcg20, 20), cells)),
        random5=whole.random5,
        skill5=whole.skill5,
        interval=(figure_of(interval.low), figure_of(interval.high)),
        by_sequence={s: _part([q for q in queries if q.sequence == s], lambda query: query) for s in sequences},
        by_component={component: _component(queries, component) for component in components},
        left_out={
            "stacks without mask": without_mask,
            "queries without relevant stacks": sum(query.ndcg5 is None for query in queries),
            **{_SMALL.format(n=n): count for n in RANKS if (count := int(has_no_more(queries, n).sum()))},
        },
        queries=tuple(queries),
    )


def has_no_more(queries: Sequence[Query], n: int) -> npt.NDArray[np.bool_]:
    """Which queries are ranked over no more than n stacks: any order has all of them among its first n."""
    return np.array([query.gallery for query in queries]) <= n


def small_galleries(result: Result) -> str | None:
    """What must be known of figures that miss queries since their galleries are small; None where there is nothing."""
    found = [(n, result.left_out[_SMALL.format(n=n)]) for n in RANKS if _SMALL.format(n=n) in result.left_out]
    if not found:
        return None
    figures = ", ".join(f"nDCG@{n} {count}" for n, count in found)
    return (
        f"of {len(result.queries)} queries left out of {figures}: their galleries have no more, and every order has "
        "all of them; measure more patients"
    )


def merge(results: Sequence[Result]) -> Result:
    """One row from its folds and seeds.

    Raises:
        NotMeasurable: results of several rows or protocols, or one fold and seed twice.
    """
    if len({(result.name, result.protocol) for result in results}) != 1:
        raise NotMeasurable("results of several rows or protocols are not one row")
    runs = [run for result in results for run in {(query.fold, query.seed) for query in result.queries}]
    if len(runs) != len(set(runs)):
        raise NotMeasurable(f"{results[0].name}: a fold and seed is there twice")
    queries = [query for result in results for query in result.queries]
    # The stacks of a fold are the same for each of its seeds.
    by_folds = {
        frozenset(query.fold for query in result.queries): result.left_out["stacks without mask"] for result in results
    }
    return summarise(results[0].name, results[0].protocol, queries, sum(by_folds.values()))


def _component(queries: Sequence[Query], name: str) -> Component:
    part = _part(queries, lambda query: query.components[name])
    five, cells = _column(queries, lambda query: query.components[name].ndcg5, 5), _cells(queries)
    sequence = np.array([query.sequence for query in queries])
    by_sequence = {
        str(s): figure_of(mean_of_groups(five[sequence == s], cells[sequence == s])) for s in np.unique(sequence)
    }
    return Component(**part.model_dump(), by_sequence=by_sequence)


def _part(queries: Sequence[Query], scores: Callable[[Query], Query | Scores]) -> Part:
    cells = _cells(queries)
    five, random = (
        _column(queries, lambda query: scores(query).ndcg5, 5),
        _column(queries, lambda query: scores(query).random5, 5),
    )
    score, expected = mean_of_groups(five, cells), mean_of_groups(random, cells)
    left_out = int(np.isnan(five).sum())
    return Part(
        ndcg5=figure_of(score),
        random5=figure_of(expected),
        skill5=figure_of(skill(score, expected)),
        queries=len(queries) - left_out,
        left_out=left_out,
    )


def _cells(queries: Sequence[Query]) -> npt.NDArray[np.str_]:
    return np.array([f"{query.fold}\n{query.sequence}" for query in queries])


def _column(queries: Sequence[Query], figure: Callable[[Query], Figure], n: int) -> npt.NDArray[np.float64]:
    """A figure over the first n; NaN where the gallery has no more."""
    figures = np.array([figure(query) for query in queries], dtype=np.float64)
    return np.where(has_no_more(queries, n), np.nan, figures)


def figure_of(value: float) -> Figure:
    """None for NaN, which JSON has no word for."""
    return None if np.isnan(value) else value
