"""What a query by example asks, and what it is answered with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacs_cbir.embed.architecture import Part
from pacs_cbir.search.as_of import AsOf
from pacs_cbir.store.examples import Example

if TYPE_CHECKING:
    from pacs_cbir.search.example import ResolvedExample


@dataclass(frozen=True)
class Unrelated:
    """What unrelated patients' similarities usually are, as the encoder's card says: MR sequence → cosine.

    Attributes:
        series: of whole series.
        slices: of a slice and the nearest one of a series.
    """

    series: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """What is asked, and which page of the answer.

    Attributes:
        examples: several mean what they have in common.
        resolved: examples whose vectors are no stored rows, beside those; one of the two is not empty.
        like, unlike: answers that were found right and wrong: the examples' vectors move towards the ones and away
            from the others (Rocchio). Studies or series named as unlike are no answers any more.
        only: MR sequences that are looked at; empty: all.
        sequence_weights: MR sequence → what it counts in a study's similarity, 0 or more; 1 where it is not named.
        parts: part of the embedding → what it counts, 0 or more; empty: as the encoder's card says.
        keys: DICOM keyword → matching value (PS3.4 C.2.2.2).
        fuzzy: whether keys match text without regard to case and accents.
        labels: a match's study has one of these; empty: whatever its labels are.
        own_patient: whether other studies of the examples' patients may be answered.
        least: matches below this similarity are no answers. None: as the encoder was calibrated, which is of no use
            for other weights of the parts, nor after feedback.
        limit, offset: of the page.
        as_of: of the first page, for the next ones to be of the same ranking; None: the newest state.
    """

    examples: tuple[Example, ...]
    resolved: tuple[ResolvedExample, ...] = ()
    like: tuple[Example, ...] = ()
    unlike: tuple[Example, ...] = ()
    only: frozenset[str] = frozenset()
    sequence_weights: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    fuzzy: bool = False
    labels: tuple[str, ...] = ()
    own_patient: bool = False
    least: float | None = None
    limit: int = 10
    offset: int = 0
    as_of: AsOf | None = None


@dataclass(frozen=True)
class Picture:
    """One slice of a stack, as the embeddings' rows name it."""

    stack_id: uuid.UUID
    slice: int


@dataclass(frozen=True)
class SliceMatch:
    """The two slices that a match owes its similarity to.

    Attributes:
        example, found: the example's slice and the match's.
        similarity: cosine of the two, at most 1.
    """

    example: Picture
    found: Picture
    similarity: float


@dataclass(frozen=True)
class SeriesMatch:
    """A series that is like one of the example's.

    Attributes:
        similarity: cosine, at most 1, higher is closer.
        like: the example's Series Instance UID.
        in_domain: whether the encoder was trained for such series.
        parts: part of the embedding → its cosine: in what the two are alike.
        slices: where to look; None where the example came too late to be in the index.
    """

    series_id: int
    study_id: int
    sequence: str
    similarity: float
    like: str
    in_domain: bool
    parts: Mapping[Part, float]
    slices: SliceMatch | None


@dataclass(frozen=True)
class StudyMatch:
    """A study that is like the example.

    Attributes:
        similarity: weighted mean over the sequences that both have of the best pair's cosine; higher is closer.
        coverage: share, by weight, of the example's sequences that were compared with the same sequence, 0 to 1.
        series: its series that were compared, best first.
        in_domain: whether the encoder was trained for all of them.
    """

    study_id: int
    similarity: float
    coverage: float
    series: tuple[SeriesMatch, ...]
    in_domain: bool


@dataclass(frozen=True)
class LeftOut:
    """What is less similar than the floor.

    Attributes:
        count: how many.
        similarity: of the most similar one.
        least: the floor that this one is below: a mean over what was compared, where the encoder was calibrated.
        unrelated: whether the floor is the encoder's, what unrelated patients usually reach, and not the query's own.
    """

    count: int
    similarity: float
    least: float
    unrelated: bool


@dataclass(frozen=True)
class Answer:
    """One page of a ranking.

    Attributes:
        total: how many there are in all.
        left_out: what more there would be without the floor; None: nothing.
        as_of: for the next page.
    """

    total: int
    studies: tuple[StudyMatch, ...] = ()
    series: tuple[SeriesMatch, ...] = ()
    left_out: LeftOut | None = None
    as_of: AsOf | None = field(default=None, compare=False)
