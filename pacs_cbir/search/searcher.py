"""Rank what is here by its likeness to examples: exactly, whatever the filter leaves."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pacs_cbir.errors import IndexNotReady
from pacs_cbir.search.as_of import AsOf
from pacs_cbir.search.encoder_index import Current
from pacs_cbir.search.example import ResolvedExample, resolve
from pacs_cbir.search.explanation import Explained, explanations
from pacs_cbir.search.faiss_index import Ids
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.intent import Intent, Slot
from pacs_cbir.search.query import Answer, LeftOut, Query, SeriesMatch, StudyMatch, Unrelated
from pacs_cbir.search.stack_index import UNKNOWN_SEQUENCE
from pacs_cbir.store.examples import Example, series_of_studies
from pacs_cbir.store.matching import series_filter, series_ids
from pacs_cbir.store.session import Connection, Database

# Cosines span 2: with this added, a pair of one known sequence ranks before every pair with an unknown one.
LIKE_WITH_LIKE = 4.0

ROUNDING = 1e-6
"""Cosines are sums of float32: what is as similar as the floor is not below it."""

Ranks = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Compared:
    """The stacks that were compared with an example's vectors.

    A rank is a cosine, and `LIKE_WITH_LIKE` more where both are of one known sequence; -inf where nothing was compared.

    Attributes:
        stacks: their numbers, shape (n,).
        ranks: of the best pair by sequence of an example, shape (sequences, n).
        best: of the best pair, shape (n,).
        nearest: which of the examples' vectors that pair has, shape (n,).
    """

    stacks: Ids
    ranks: Ranks
    best: Ranks
    nearest: Ids


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

    @property
    def behind_seconds(self) -> float:
        """Seconds since all that was committed by then was in the index."""
        return self._follower.behind_seconds

    def current(self, encoder: str | None = None) -> Current:
        """What answers: an encoder's index by its name, or the active one's; the whole of a request is to use one.

        Raises:
            InvalidQuery: there is no such encoder; says which there are.
            IndexNotReady: it is being loaded.
            DatabaseUnavailable.
        """
        if encoder is not None:
            return self._follower.named(encoder)
        current = self._follower.current
        if not current.loaded:
            # A database that is away is the likelier cause, and says so itself.
            self._database.ping()
            raise IndexNotReady("the index is being loaded")
        return current

    def similar_studies(self, query: Query, current: Current | None = None) -> Answer:
        """Studies most like the examples, best first.

        A study's similarity is the mean, over the sequences of the examples that it has too, of the best pair's
        cosine. A stack of unknown sequence compares with all, and does not count for the coverage.

        Args:
            current: that answers, and whose encoder has embedded what the query brings; None: the active encoder's.

        Raises:
            InvalidQuery, UnknownExample, ExampleNotReady, ExampleNotEmbedded, IndexNotReady, DatabaseUnavailable.
        """
        ranking = self._prepare(query, current or self.current(), whole_study=True)
        with ranking.index.reading():
            return ranking.studies(query)

    def similar_series(self, query: Query, current: Current | None = None) -> Answer:
        """Series most like the examples, best first; errors as `similar_studies`."""
        ranking = self._prepare(query, current or self.current(), whole_study=False)
        with ranking.index.reading():
            return ranking.series(query)

    def explain(self, query: Query, match: Example, current: Current) -> Explained:
        """Why a match is like the query's one example: by sequence, and what the parts counted.

        Raises:
            InvalidQuery, UnknownExample, ExampleNotReady, ExampleNotEmbedded, IndexNotReady, DatabaseUnavailable.
        """
        with self._database.reading() as connection:
            named = [resolve(connection, example, current.encoder_id) for example in query.examples]
            other = resolve(connection, match, current.encoder_id)
        (one,) = (*named, *query.resolved)
        intent = Intent(current.architecture, Unrelated(), query, (), ())
        with current.index.reading():
            by_sequence = explanations(current.index, intent, one, other)
        return Explained(by_sequence, intent.part_weights)

    def _prepare(self, query: Query, current: Current, *, whole_study: bool) -> _Ranking:
        condition = series_filter(query.keys, fuzzy=query.fuzzy, labels=query.labels)
        with self._database.reading() as connection:
            if query.as_of is not None:
                query.as_of.check(connection, current.encoder_id, current.index.moment)
            examples, like, unlike = (
                [resolve(connection, example, current.encoder_id) for example in named]
                for named in (query.examples, query.like, query.unlike)
            )
            examples += query.resolved
            left_out = _left_out(connection, examples, query.own_patient, whole_study)
            left_out |= _own(connection, unlike, whole_study)
            allowed = None if condition is None else series_ids(connection, condition)
        intent = Intent(current.architecture, current.unrelated, query, like, unlike)
        return _Ranking(current, intent, intent.slots(examples), allowed, left_out)


def _left_out(
    connection: Connection, resolved: Sequence[ResolvedExample], own_patient: bool, whole_study: bool
) -> frozenset[int]:
    """The series that are no answer: the examples themselves, and their patients' unless asked for."""
    if not own_patient:
        return frozenset[int]().union(*(example.same_patients for example in resolved))
    return _own(connection, resolved, whole_study)


def _own(connection: Connection, resolved: Sequence[ResolvedExample], whole_study: bool) -> frozenset[int]:
    """The series that examples name, or all of their studies."""
    if whole_study and resolved:
        return series_of_studies(connection, [one.study_id for one in resolved if one.study_id is not None])
    return frozenset[int]().union(*(example.series_ids for example in resolved))


class _Ranking:
    """One query over one state of the index; used inside `index.reading()`."""

    def __init__(
        self,
        current: Current,
        intent: Intent,
        slots: Sequence[Slot],
        allowed: Ids | None,
        left_out: frozenset[int],
    ) -> None:
        self.index, self._current = current.index, current
        self._intent, self._slots = intent, slots
        self._vectors = [vector for slot in slots for vector in slot.vectors]
        self._filter = allowed, left_out

    def studies(self, query: Query) -> Answer:
        """A page of studies."""
        as_of = query.as_of or self._current.as_of
        found = self._compare(as_of)
        study_ids, place = np.unique(self.index.study_of[found.stacks], return_inverse=True)
        ranks = np.full((len(self._slots), len(study_ids)), -np.inf)
        for slot, of_stacks in enumerate(found.ranks):
            np.maximum.at(ranks[slot], place, of_stacks)
        weights = np.array([slot.weight for slot in self._slots])
        compared = ranks > -np.inf
        counting = weights @ compared
        similarity = weights @ np.where(compared, _cosine(ranks), 0) / counting
        least = (weights * [slot.least for slot in self._slots]) @ compared / counting
        coverage = weights @ _alike(ranks) / weights.sum()
        ranked = np.lexsort((study_ids, -similarity))
        similar, left_out = _above(query, ranked, similarity, least)
        page = similar[query.offset : query.offset + query.limit]
        places = [self._ranked_series(found, np.flatnonzero(place == study)) for study in page]
        series = iter(self._matches(found, itertools.chain(*places)))
        matches = []
        for study, of_study in zip(page, places, strict=True):
            series_matches = tuple(itertools.islice(series, len(of_study)))
            matches.append(
                StudyMatch(
                    study_id=int(study_ids[study]),
                    similarity=float(similarity[study]),
                    coverage=float(coverage[study]),
                    series=series_matches,
                    in_domain=all(match.in_domain for match in series_matches),
                )
            )
        return Answer(len(similar), studies=tuple(matches), left_out=left_out, as_of=as_of)

    def series(self, query: Query) -> Answer:
        """A page of series."""
        as_of = query.as_of or self._current.as_of
        found = self._compare(as_of)
        ranked = self._ranked_series(found, np.arange(len(found.stacks)))
        least = np.array([slot.least for slot in self._slots for _ in slot.vectors])[found.nearest]
        similar, left_out = _above(query, ranked, _cosine(found.best), least)
        matches = self._matches(found, similar[query.offset : query.offset + query.limit])
        return Answer(len(similar), series=tuple(matches), left_out=left_out, as_of=as_of)

    def _compare(self, as_of: AsOf | None) -> _Compared:
        allowed = self.index.mask(*self._filter, None if as_of is None else as_of.moment)
        ranks = np.full((len(self._slots), len(allowed)), -np.inf)
        best = np.full(len(allowed), -np.inf)
        nearest = np.zeros(len(allowed), np.int64)
        number = 0
        for slot, of_slot in enumerate(self._slots):
            for vector in of_slot.vectors:
                for kind in self.index.kinds_like(vector.kind):
                    rank = self.index.similarities(kind, vector.vector, allowed, whole=vector.whole).astype(np.float64)
                    if kind.sequence == vector.kind.sequence != UNKNOWN_SEQUENCE:
                        rank += LIKE_WITH_LIKE
                    ranks[slot] = np.maximum(ranks[slot], rank)
                    nearest[rank > best] = number
                    best = np.maximum(best, rank)
                number += 1
        stacks = np.flatnonzero(best > -np.inf)
        return _Compared(stacks, ranks[:, stacks], best[stacks], nearest[stacks])

    def _ranked_series(self, found: _Compared, places: Ids) -> Ids:
        """The best stack's place of each series among some places, best first."""
        series_ids = self.index.series_of[found.stacks[places]]
        by_series = np.lexsort((-found.best[places], series_ids))
        places = places[by_series[np.unique(series_ids[by_series], return_index=True)[1]]]
        ranked: Ids = places[np.lexsort((self.index.series_of[found.stacks[places]], -_cosine(found.best[places])))]
        return ranked

    def _matches(self, found: _Compared, places: Iterable[np.int64]) -> list[SeriesMatch]:
        """The series of a page, in the order of their places."""
        chosen = list(places)
        if not chosen:
            return []
        stacks = [self.index[number] for number in found.stacks[chosen].tolist()]
        examples = [self._vectors[number] for number in found.nearest[chosen].tolist()]
        slices = [self._intent.slice_match(self.index, *pair) for pair in zip(examples, stacks, strict=True)]
        alike = self._intent.part_cosines(self.index, examples, stacks, slices)
        similarities = _cosine(found.best[chosen]).tolist()
        return [
            SeriesMatch(
                series_id=stack.series_id,
                study_id=stack.study_id,
                sequence=stack.kind.sequence,
                similarity=similarity,
                like=example.series_instance_uid,
                in_domain=stack.in_domain,
                parts=parts,
                slices=pair,
            )
            for stack, example, pair, parts, similarity in zip(
                stacks, examples, slices, alike, similarities, strict=True
            )
        ]


def _above(query: Query, ranked: Ids, similarity: Ranks, least: Ranks) -> tuple[Ids, LeftOut | None]:
    """Of a ranking those that reach their floor, and what is said of the others."""
    reached = similarity[ranked] >= least[ranked] - ROUNDING
    others = ranked[~reached]
    if len(others) == 0:
        return ranked, None
    best = others[0]
    left_out = LeftOut(len(others), float(similarity[best]), float(least[best]), unrelated=query.least is None)
    return ranked[reached], left_out


def _alike(ranks: Ranks) -> npt.NDArray[np.bool_]:
    return ranks > LIKE_WITH_LIKE / 2


def _cosine(ranks: Ranks) -> Ranks:
    # Rounding must not make anything more alike than itself.
    return np.minimum(ranks - LIKE_WITH_LIKE * _alike(ranks), 1.0)
