"""What a query by example is answered with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SeriesMatch:
    """A series that is like one of the example's.

    Attributes:
        similarity: cosine, at most 1, higher is closer.
        like: the example's Series Instance UID.
        in_domain: whether the encoder was trained for such series.
    """

    series_id: int
    study_id: int
    sequence: str
    similarity: float
    like: str
    in_domain: bool


@dataclass(frozen=True)
class StudyMatch:
    """A study that is like the example.

    Attributes:
        similarity: mean over the sequences that both have of the best pair's cosine; higher is closer.
        coverage: share of the example's sequences that were compared with the same sequence, 0 to 1.
        series: its series that were compared, best first.
        in_domain: whether the encoder was trained for all of them.
    """

    study_id: int
    similarity: float
    coverage: float
    series: tuple[SeriesMatch, ...]
    in_domain: bool


@dataclass(frozen=True)
class Answer:
    """One page of a ranking, and how many there are in all."""

    total: int
    studies: tuple[StudyMatch, ...] = ()
    series: tuple[SeriesMatch, ...] = ()
