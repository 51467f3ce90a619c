"""Rank what is here by its likeness to examples: exactly, whatever the filter leaves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, select

from pacs_cbir.errors import ExampleNotReady
from pacs_cbir.search.example import ExampleVector, ResolvedExample, resolve
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.query import Answer, Example, SeriesMatch, StudyMatch
from pacs_cbir.search.stack_index import UNKNOWN_SEQUENCE, IndexedStack, Mask, StackIndex
from pacs_cbir.store.matching import series_filter
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import series, study_patients

# How many vectors each search takes first; most queries need no more.
FIRST_COUNT = 64
GROWTH = 4
START_SECONDS = 2.0

Match = TypeVar("Match", StudyMatch, SeriesMatch)


@dataclass(frozen=True)
class _Slot:
    """One sequence of one example: what a study's similarity is the mean over."""

    sequence: str
    vectors: tuple[ExampleVector, ...]


@dataclass(frozen=True)
class _Pair:
    vector: ExampleVector
    stack: IndexedStack
    similarity: float

    @property
    def like_with_like(self) -> bool:
        return self.vector.kind == self.stack.kind and self.stack.kind.sequence != UNKNOWN_SEQUENCE


class Searcher:
    """Answers queries by example.

    Args:
        database: holds the examples' vectors and the attributes that keys match.
        follower: keeps the index.
    """

    def __init__(self, database: Database, follower: Follower) -> None:
        self._database, self._follower = database, follower

    @property
    def ready(self) -> bool:
        """Whether the index is loaded; it is, too, where there is nothing to load yet."""
        return self._follower.ready

    @property
    def size(self) -> int:
        """Slices in the index."""
        return self._follower.current.index.slices if self.ready else 0

    def similar_studies(
        self,
        examples: Sequence[Example],
        *,
        keys: Mapping[str, str],
        own_patient: bool,
        limit: int,
        offset: int,
    ) -> Answer:
        """Studies most like the examples, best first.

        A study's similarity is the mean, over the sequences of the examples that it has too, of the best pair's
        cosine. A stack of unknown sequence compares with all, and does not count for the coverage.

        Args:
            examples: at least one; several mean what they have in common.
            keys: DICOM keyword → matching value (PS3.4 C.2.2.2).
            own_patient: whether other studies of the examples' patients may be answered.

        Raises:
            InvalidQuery, UnknownExample, ExampleNotReady, ExampleNotEmbedded, DatabaseUnavailable.
        """
        query = self._prepare(examples, keys, own_patient, whole_study=True)
        with query.index.reading():
            ranked, total, _ = query.rank(limit + offset, lambda match: (match,))
        return Answer(total=total, studies=tuple(ranked[offset:]))

    def similar_series(
        self,
        examples: Sequence[Example],
        *,
        keys: Mapping[str, str],
        own_patient: bool,
        limit: int,
        offset: int,
    ) -> Answer:
        """Series most like the examples, best first; arguments and errors as `similar_studies`."""
        query = self._prepare(examples, keys, own_patient, whole_study=False)
        with query.index.reading():
            ranked, _, total = query.rank(limit + offset, lambda match: match.series)
        return Answer(total=total, series=tuple(ranked[offset:]))

    def _prepare(
        self, examples: Sequence[Example], keys: Mapping[str, str], own_patient: bool, *, whole_study: bool
    ) -> _Query:
        current = self._follower.current
        with self._database.transaction() as connection:
            resolved = [resolve(connection, example, current.encoder_id) for example in examples]
            left_out = _left_out(connection, resolved, own_patient, whole_study)
            condition = series_filter(keys)
            allowed = None if condition is None else frozenset(connection.scalars(condition))
        if not self.ready:
            raise ExampleNotReady("the index is being loaded; ask again", START_SECONDS)
        return _Query(current.index, resolved, allowed, left_out)


def _left_out(
    connection: Connection, resolved: Sequence[ResolvedExample], own_patient: bool, whole_study: bool
) -> frozenset[int]:
    """The series that are no answer: the examples themselves, and their patients' unless asked for."""
    own_studies = [example.study_id for example in resolved]
    if own_patient:
        if not whole_study:
            return frozenset().union(*(example.series_ids for example in resolved))
        return frozenset(connection.scalars(select(series.c.id).where(series.c.study_id.in_(own_studies))))
    own = select(study_patients.c.patient_id).where(study_patients.c.study_id.in_(own_studies))
    theirs = select(study_patients.c.study_id).where(study_patients.c.patient_id.in_(own))
    return frozenset(connection.scalars(select(series.c.id).where(series.c.study_id.in_(theirs))))


def _slots(example: ResolvedExample) -> list[_Slot]:
    by_sequence: defaultdict[str, list[ExampleVector]] = defaultdict(list)
    for vector in example.vectors:
        by_sequence[vector.kind.sequence].append(vector)
    return [_Slot(sequence, tuple(vectors)) for sequence, vectors in sorted(by_sequence.items())]


class _Query:
    """One query over one state of the index; used inside `index.reading()`."""

    def __init__(
        self,
        index: StackIndex,
        examples: Sequence[ResolvedExample],
        allowed: frozenset[int] | None,
        left_out: frozenset[int],
    ) -> None:
        self.index = index
        self._slots = [slot for example in examples for slot in _slots(example)]
        self._vectors = [vector for slot in self._slots for vector in slot.vectors]
        self._filter = allowed, left_out

    def rank(self, count: int, flatten: Callable[[StudyMatch], Iterable[Match]]) -> tuple[list[Match], int, int]:
        """The best matches, and how many studies and series could be ranked at all.

        Exact by the threshold algorithm (Fagin, Lotem, Naor 2001): what no search has returned yet is at most as
        similar as the worst that one of them has; when the last wanted match is at least that good, it is done.

        Args:
            flatten: a study's matches at the level that is ranked.
        """
        allowed = self.index.mask(*self._filter)
        searches = [(vector, kind) for vector in self._vectors for kind in self.index.kinds_like(vector.kind)]
        scores: dict[int, StudyMatch] = {}
        taken = max(FIRST_COUNT, GROWTH * count)
        while True:
            bound = -math.inf
            for vector, kind in searches:
                found, numbers = self.index.search(kind, vector.vector, taken, allowed, whole=vector.whole)
                if len(found) == taken:
                    bound = max(bound, float(found[-1]))
                for study_id in {self.index[number].study_id for number in numbers} - scores.keys():
                    scores[study_id] = self._score(study_id, allowed)
            ranked = sorted((match for study in scores.values() for match in flatten(study)), key=_best_first)
            if bound == -math.inf or (len(ranked) >= count and ranked[count - 1].similarity >= bound):
                return ranked[:count], *self.index.count({kind for _, kind in searches}, allowed)
            taken *= GROWTH

    def _score(self, study_id: int, allowed: Mask) -> StudyMatch:
        pairs = [
            _Pair(vector, stack, self.index.similarity(stack, vector.vector, whole=vector.whole))
            for stack in self.index.stacks_of(study_id)
            if allowed[stack.number]
            for vector in self._vectors
            if stack.kind in self.index.kinds_like(vector.kind)
        ]
        similarities, alike = [], 0
        for slot in self._slots:
            comparable = [pair for pair in pairs if pair.vector in slot.vectors]
            best = [pair for pair in comparable if pair.like_with_like]
            alike += bool(best)
            if comparable:
                similarities.append(max(pair.similarity for pair in best or comparable))
        series_matches = _series_matches(study_id, pairs)
        return StudyMatch(
            study_id=study_id,
            similarity=sum(similarities) / len(similarities),
            coverage=alike / len(self._slots),
            series=series_matches,
            in_domain=all(match.in_domain for match in series_matches),
        )


def _series_matches(study_id: int, pairs: Sequence[_Pair]) -> tuple[SeriesMatch, ...]:
    best: dict[int, _Pair] = {}
    for pair in pairs:
        other = best.get(pair.stack.series_id)
        if other is None or (pair.like_with_like, pair.similarity) > (other.like_with_like, other.similarity):
            best[pair.stack.series_id] = pair
    matches = [
        SeriesMatch(
            series_id=series_id,
            study_id=study_id,
            sequence=pair.stack.kind.sequence,
            similarity=pair.similarity,
            like=pair.vector.series_instance_uid,
            in_domain=pair.stack.in_domain,
        )
        for series_id, pair in best.items()
    ]
    return tuple(sorted(matches, key=_best_first))


def _best_first(match: StudyMatch | SeriesMatch) -> tuple[float, int]:
    return -match.similarity, match.study_id if isinstance(match, StudyMatch) else match.series_id
