"""How a row of the table is measured: which stacks are queries, what they are compared with, and what is relevant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.comparison import Robustness, compare_changes, merge_robustness, paired
from pacs_cbir.learn.labelled import check_labels, labelled, merge_labelled
from pacs_cbir.learn.method import Method, SeriesMethod
from pacs_cbir.learn.metrics import expected_ndcg, ndcg
from pacs_cbir.learn.relevance import parameter_relevance, relevance
from pacs_cbir.learn.results import Query, Result, Scores, figure_of, merge, summarise
from pacs_cbir.learn.stacks import Stack

__all__ = [
    "Method",
    "SeriesMethod",
    "labelled",
    "merge",
    "merge_labelled",
    "merge_robustness",
    "paired",
    "poster",
    "robustness",
    "service",
]

Floats = npt.NDArray[np.float64]

POSTER = (
    "poster: the best slice of each stack, chosen with the lesion's mask for queries and gallery alike (rows of whole "
    "volumes: all slices); gallery: the other patients' stacks of the same sequence"
)
SERVICE = (
    "service: whole series, no slice chosen, ranked by encoders as the service embeds and searches (late interaction, "
    "histogram, pixels and oracles: by their own comparison); gallery: the other patients' series of the same "
    "sequence; relevance between the best slices"
)
_OTHERS = "measure by the poster's or the service's protocol"


def check_measurable(protocol: str, measured: Sequence[Stack], database: Sequence[Stack]) -> None:
    """Whether a protocol finds what it needs in a fold, whatever the row.

    Args:
        protocol: "poster", "service", "robustness" or "labelled".
        measured: stacks of the fold that is measured.
        database: those of the other folds.

    Raises:
        NotMeasurable: says what is missing.
    """
    if protocol == "labelled":
        check_labels(measured, database)
        return
    with_mask = [stack for stack in measured if _is_measurable(stack)]
    if not with_mask:
        raise NotMeasurable(f"{protocol}: no stack has a lesion mask: add masks to the manifest, or measure by label")
    if all(len({stack.patient for stack in alike}) < 2 for alike in _by_sequence(with_mask)):
        raise NotMeasurable(
            f"{protocol}: no two patients have a mask of the same sequence, to be compared with: measure more patients"
        )
    if protocol == "robustness" and all(len(stack.pixels) == 1 for stack in with_mask):
        raise NotMeasurable(f"{protocol}: stacks of one slice have no neighbours to change it to: {_OTHERS}")


def poster(method: Method, stacks: Sequence[Stack], d95: float, *, fold: str = "", seed: int = 0) -> Result:
    """The poster's protocol inside one fold: each stack is a query, and in the gallery of the other patients'.

    Args:
        stacks: of one fold; those without a mask are left out and counted.
        d95: of `gfd_d95` over the whole data set, not the fold.
        fold, seed: names of this part of an experiment, for `merge`.

    Raises:
        NotMeasurable: no stack has a mask.
    """
    return _measure(method.name, POSTER, method.similarities, stacks, d95, fold=fold, seed=seed)


def service(method: SeriesMethod, stacks: Sequence[Stack], d95: float, *, fold: str = "", seed: int = 0) -> Result:
    """The service's protocol inside one fold: whole series in, ranked as the service ranks; the rest as `poster`."""
    return _measure(method.name, SERVICE, method.series_similarities, stacks, d95, fold=fold, seed=seed)


def robustness(
    method: Method,
    stacks: Sequence[Stack],
    changed: Mapping[str, Sequence[Stack | None]],
    d95: float,
    *,
    fold: str = "",
    seed: int = 0,
) -> Robustness:
    """The poster's protocol with the query's picture changed; the gallery and all relevance stay as they are.

    Args:
        changed: name of a change → the changed stack of each of `stacks`, None where it cannot be made.

    Raises:
        NotMeasurable: no stack has a mask, or a change can be made to none.
        ValueError: a change has another number of stacks than there are.
    """
    unchanged = poster(method, stacks, d95, fold=fold, seed=seed)
    queries: dict[str, list[Query]] = {change: [] for change in changed}
    for gallery in _by_sequence([stack for stack in stacks if _is_measurable(stack)]):
        shown = [
            (change, stack, query)
            for change, of_stacks in changed.items()
            for stack, query in zip(stacks, of_stacks, strict=True)
            if query is not None and any(stack is other for other in gallery)
        ]
        # All changes at once, so that the gallery is embedded once.
        similarities = method.similarities([query for _, _, query in shown], gallery)
        for change in changed:
            rows = [row for row, (name, _, _) in enumerate(shown) if name == change]
            if rows:
                originals = [shown[row][1] for row in rows]
                queries[change] += _score(originals, gallery, similarities[rows], d95, fold=fold, seed=seed)
    if impossible := [change for change, found in queries.items() if not found]:
        raise NotMeasurable(
            f"{method.name}: no query could be changed as in {', '.join(impossible)}: its slice is gone then; {_OTHERS}"
        )
    results = {
        change: summarise(method.name, f"{POSTER}; the query's picture changed: {change}", found, 0)
        for change, found in queries.items()
    }
    return compare_changes(unchanged, results)


def _measure(
    name: str,
    protocol: str,
    compare: Callable[[Sequence[Stack], Sequence[Stack]], Floats],
    stacks: Sequence[Stack],
    d95: float,
    *,
    fold: str,
    seed: int,
) -> Result:
    measurable = [stack for stack in stacks if _is_measurable(stack)]
    queries = [
        query
        for alike in _by_sequence(measurable)
        for query in _score(alike, alike, compare(alike, alike), d95, fold=fold, seed=seed)
    ]
    return summarise(name, protocol, queries, len(stacks) - len(measurable))


def _is_measurable(stack: Stack) -> bool:
    return stack.picture is not None and stack.truth is not None and bool(stack.truth.any())


def _by_sequence(stacks: Sequence[Stack]) -> list[list[Stack]]:
    sequences = sorted({stack.sequence for stack in stacks})
    return [[stack for stack in stacks if stack.sequence == sequence] for sequence in sequences]


def _score(
    queries: Sequence[Stack], gallery: Sequence[Stack], similarities: Floats, d95: float, *, fold: str, seed: int
) -> list[Query]:
    """Each query's figures; `similarities` of shape (queries, gallery), of one sequence."""
    relevant = relevance(queries, gallery, d95)
    gains = {"iou": relevant.iou, "histogram": relevant.histogram, "gfd": relevant.gfd}
    gains |= parameter_relevance(queries, gallery)
    patients, others = (np.array([stack.patient for stack in stacks]) for stacks in (queries, gallery))
    allowed = patients[:, None] != others
    five, ten, twenty = (ndcg(similarities, relevant.mean, allowed, n) for n in (5, 10, 20))
    random = expected_ndcg(relevant.mean, allowed, 5)
    components = {
        name: (ndcg(similarities, gain, allowed, 5), expected_ndcg(gain, allowed, 5)) for name, gain in gains.items()
    }
    return [
        Query(
            patient=stack.patient,
            study=stack.study,
            sequence=stack.sequence,
            fold=fold,
            seed=seed,
            gallery=int(allowed[i].sum()),
            ndcg5=figure_of(five[i]),
            ndcg10=figure_of(ten[i]),
            ndcg20=figure_of(twenty[i]),
            random5=figure_of(random[i]),
            components={
                name: Scores(ndcg5=figure_of(score[i]), random5=figure_of(chance[i]))
                for name, (score, chance) in components.items()
            },
        )
        for i, stack in enumerate(queries)
    ]
