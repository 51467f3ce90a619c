"""The kinds of query that are timed, as URLs, and what bare faiss searches for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from pacs_cbir.bench.cohort import SEQUENCES, SLICES, Cohort, instance_uid, series_uid, study_uid

JSON, DICOM_JSON = "application/json", "application/dicom+json"
SEQUENCE = SEQUENCES.index("FLAIR")
"""Of the examples that are a series or a slice."""
DIFFERENT = 200
"""Questions of a kind, each with another example."""
ALL = 1.0


@dataclass(frozen=True)
class Kind:
    """One kind of query.

    Attributes:
        route: below /similar; empty: a request that asks nothing, which is what HTTP costs.
        example: study → the parameters that name it.
        searched: numbers of the sequences that are searched.
        whole: whether whole stacks are searched, or slices.
        share: of the studies that a filter on StudyDate leaves; None: no filter.
    """

    name: str
    route: str
    example: Callable[[int, np.random.Generator], dict[str, str]]
    searched: tuple[int, ...] = (SEQUENCE,)
    whole: bool = True
    share: float | None = None
    accept: str = JSON

    def paths(self, cohort: Cohort) -> list[str]:
        """The questions; the floor is off, so that each page is full where there is enough to fill it."""
        if not self.route:
            return ["/health/live"]
        dice = np.random.default_rng(1)
        dates = {}
        if self.share is not None:
            first, last = cohort.dates_that_leave(self.share)
            dates = {"StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}"}
        examples = [self.example(int(dice.integers(cohort.studies)), dice) for _ in range(DIFFERENT)]
        return [f"/similar/{self.route}?{urlencode(one | dates | {'min_similarity': '-1'})}" for one in examples]

    def left(self, cohort: Cohort) -> npt.NDArray[np.bool_] | None:
        """Which studies the filter leaves; None without one."""
        if self.share is None:
            return None
        first, last = cohort.dates_that_leave(self.share)
        return np.array([first <= cohort.date_of(study) <= last for study in range(cohort.studies)])


def _study(study: int, _: np.random.Generator) -> dict[str, str]:
    return {"example": study_uid(study)}


def _series(study: int, _: np.random.Generator) -> dict[str, str]:
    return {"example": f"{study_uid(study)}/{series_uid(study, SEQUENCE)}"}


def _slice(study: int, dice: np.random.Generator) -> dict[str, str]:
    number = int(dice.integers(1, SLICES + 1))
    return {"example": f"{_series(study, dice)['example']}/{instance_uid(study, SEQUENCE, number)}/1"}


def _with_feedback(study: int, dice: np.random.Generator) -> dict[str, str]:
    # Any other study will do; those next to it are the same patient's.
    other, another = (max(study - step, study % 5) for step in (5, 10))
    named = {name: _series(of, dice)["example"] for name, of in (("like", other), ("unlike", another))}
    return _series(study, dice) | named


def _with_parts(study: int, dice: np.random.Generator) -> dict[str, str]:
    return _series(study, dice) | {"parts": "lesion:1,grey:0.2"}


EVERY_SEQUENCE = tuple(range(len(SEQUENCES)))
KINDS = (
    Kind("no query (/health/live)", "", _study, searched=()),
    Kind("series", "series", _series),
    Kind("series, DICOM JSON", "series", _series, accept=DICOM_JSON),
    Kind("series, filter leaves 100 %", "series", _series, share=ALL),
    Kind("series, filter leaves 10 %", "series", _series, share=0.1),
    Kind("series, filter leaves 0.1 %", "series", _series, share=0.001),
    Kind("series, like and unlike", "series", _with_feedback),
    Kind("series, parts weighed", "series", _with_parts),
    Kind("study of four sequences", "studies", _study, searched=EVERY_SEQUENCE),
    Kind("slice", "series", _slice, whole=False),
    Kind("slice, filter leaves 100 %", "series", _slice, whole=False, share=ALL),
    Kind("slice, filter leaves 10 %", "series", _slice, whole=False, share=0.1),
    Kind("slice, filter leaves 0.1 %", "series", _slice, whole=False, share=0.001),
)
