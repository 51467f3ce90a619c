"""All embedded stacks in memory: which series and study each belongs to, and its vectors, parted by what compares.

Like is compared with like: a partition holds the stacks of one plane, sequence and body part.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import fasteners
import numpy as np
import numpy.typing as npt

from pacs_cbir.search.faiss_index import FaissIndex, Ids, Vectors
from pacs_cbir.store.embeddings import WHOLE_STACK, StoredStack
from pacs_cbir.store.moment import Moment

UNKNOWN_SEQUENCE = "unknown"
ANYTHING = "*"
"""The plane and the body part of a picture that does not tell them."""
# Stacks that are copied for a snapshot while changes wait.
STORED_BATCH = 500
Mask = npt.NDArray[np.bool_]


class Kind(NamedTuple):
    """What must be equal for two stacks to be compared."""

    plane: str
    sequence: str
    body_part: str


def comparable(example: Kind, other: Kind) -> bool:
    """Whether like is compared with like: the same plane, body part and sequence, or one that is not known."""
    return (
        example.plane in {other.plane, ANYTHING}
        and example.body_part in {other.body_part, ANYTHING}
        and (example.sequence == other.sequence or UNKNOWN_SEQUENCE in {example.sequence, other.sequence})
    )


@dataclass(frozen=True)
class IndexedStack:
    """A stack in the index.

    Attributes:
        number: its place in masks and arrays; never used again after it was removed.
    """

    number: int
    id: uuid.UUID
    series_id: int
    study_id: int
    kind: Kind
    in_domain: bool


class _Rows:
    """Vectors of one kind and level; a row is a vector, `stack_of[row]` the number of its stack, in rising order."""

    def __init__(self, dimension: int) -> None:
        self.index = FaissIndex(dimension)
        self.stack_of: Ids = np.empty(0, np.int64)

    def add(self, stacks: list[int], vectors: list[Vectors]) -> None:
        """Many stacks at once, numbered above all that are here: growing an array for each would be quadratic."""
        numbers = np.repeat(np.array(stacks, np.int64), [len(part) for part in vectors])
        self.stack_of = np.concatenate([self.stack_of, numbers])
        self.index.add(np.concatenate(vectors))

    def remove(self, stacks: list[int]) -> None:
        removed = np.isin(self.stack_of, stacks)
        self.index.remove(np.flatnonzero(removed))
        self.stack_of = self.stack_of[~removed]

    def vectors_of(self, stack: int) -> Vectors:
        first, end = self.stack_of.searchsorted((stack, stack + 1))
        return self.index.get(int(first), int(end - first))

    def similarities(self, vector: Vectors, allowed: Mask) -> Vectors:
        cosines, rows = self.index.cosines(vector, allowed[self.stack_of])
        best = np.full(len(allowed), -np.inf, np.float32)
        np.maximum.at(best, self.stack_of[rows], cosines)
        return best


class _Partition:
    def __init__(self, dimension: int) -> None:
        self.whole = _Rows(dimension)
        self.slices = _Rows(dimension)


class StackIndex:
    """Every embedded stack of one encoder.

    Many threads may read at once, inside `reading`; a change waits until they are done. One thread makes the changes.

    Args:
        dimension: of the encoder's embeddings.

    Attributes:
        series_of, study_of: the rows that stacks belong to, by stack number, of stacks that are gone too.
        slices: how many are here.
        moment: of the table, of which nothing is missing here; what came later is not searched. None: search all.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = fasteners.ReaderWriterLock()
        self._stacks: list[IndexedStack | None] = []
        self._numbers: dict[uuid.UUID, int] = {}
        self._of_study: defaultdict[int, set[int]] = defaultdict(set)
        self._partitions: dict[Kind, _Partition] = {}
        # By stack number.
        self.series_of: Ids = np.empty(0, np.int64)
        self.study_of: Ids = np.empty(0, np.int64)
        self._transactions: Ids = np.empty(0, np.int64)
        self._here: Mask = np.empty(0, np.bool_)
        self.moment: Moment | None = None
        self.slices = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, stack_id: uuid.UUID) -> bool:
        return stack_id in self._numbers

    @property
    def ids(self) -> set[uuid.UUID]:
        """The stacks that are here."""
        return set(self._numbers)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the index still."""
        with self._lock.read_lock():
            yield

    def update(
        self,
        added: Iterable[StoredStack],
        removed: Iterable[uuid.UUID],
        transactions: Mapping[uuid.UUID, int] = MappingProxyType({}),
        moment: Moment | None = None,
    ) -> None:
        """Take stacks in and out, in one step that no reader sees half of.

        Args:
            transactions: of stacks, as `Written` has them; others are of old.
            moment: that is reached by it; None: as before.

        Raises:
            ValueError: a stack of another dimension.
        """
        new = [stack for stack in added if stack.id not in self._numbers]
        for stack in new:
            if stack.vectors.shape[1] != self.dimension:
                raise ValueError(f"stack {stack.id} has vectors of another dimension than {self.dimension}")
        with self._lock.write_lock():
            self._remove([number for id_ in removed if (number := self._numbers.pop(id_, None)) is not None])
            self._add(new)
            known = {self._numbers[id_]: number for id_, number in transactions.items() if id_ in self._numbers}
            self._transactions[list(known)] = list(known.values())
            self.moment = moment or self.moment

    def _add(self, new: list[StoredStack]) -> None:
        batches: defaultdict[Kind, list[tuple[int, StoredStack]]] = defaultdict(list)
        for stack in new:
            kind = Kind(stack.plane, stack.sequence, stack.body_part)
            number = len(self._stacks)
            self._stacks.append(IndexedStack(number, stack.id, stack.series_id, stack.study_id, kind, stack.in_domain))
            self._numbers[stack.id] = number
            self._of_study[stack.study_id].add(number)
            self.slices += len(stack.vectors) - 1
            batches[kind].append((number, stack))
        self.series_of = np.append(self.series_of, np.array([stack.series_id for stack in new], np.int64))
        self.study_of = np.append(self.study_of, np.array([stack.study_id for stack in new], np.int64))
        self._transactions = np.append(self._transactions, np.zeros(len(new), np.int64))
        self._here = np.append(self._here, np.ones(len(new), np.bool_))
        for kind, batch in batches.items():
            partition = self._partitions.setdefault(kind, _Partition(self.dimension))
            numbers = [number for number, _ in batch]
            partition.whole.add(numbers, [stack.vectors[stack.slices == WHOLE_STACK] for _, stack in batch])
            partition.slices.add(numbers, [stack.vectors[stack.slices != WHOLE_STACK] for _, stack in batch])

    def _remove(self, numbers: list[int]) -> None:
        batches: defaultdict[Kind, list[int]] = defaultdict(list)
        for number in numbers:
            stack = self[number]
            batches[stack.kind].append(number)
            self._of_study[stack.study_id].discard(number)
            if not self._of_study[stack.study_id]:
                del self._of_study[stack.study_id]
            self._stacks[number] = None
            self._here[number] = False
        for kind, batch in batches.items():
            partition = self._partitions[kind]
            before = len(partition.slices.index)
            partition.whole.remove(batch)
            partition.slices.remove(batch)
            self.slices -= before - len(partition.slices.index)
            if not len(partition.whole.index):
                del self._partitions[kind]

    def __getitem__(self, number: int) -> IndexedStack:
        stack = self._stacks[number]
        if stack is None:
            raise KeyError(number)
        return stack

    def find(self, stack_id: uuid.UUID) -> IndexedStack | None:
        """The stack of that id, if it is here."""
        number = self._numbers.get(stack_id)
        return None if number is None else self[number]

    def whole_of(self, stack: IndexedStack) -> Vectors:
        """A copy of a whole stack's vector, shape (dimension,)."""
        whole: Vectors = self._partitions[stack.kind].whole.vectors_of(stack.number)[0]
        return whole

    def slices_of(self, stack: IndexedStack) -> Vectors:
        """A copy of a stack's slices' vectors, shape (slices, dimension): slice 1 first."""
        return self._partitions[stack.kind].slices.vectors_of(stack.number)

    def stacks_of(self, study_id: int) -> list[IndexedStack]:
        """A study's stacks."""
        return [self[number] for number in sorted(self._of_study.get(study_id, ()))]

    def kinds_like(self, kind: Kind) -> list[Kind]:
        """The kinds here that compare with one: the same sequence or an unknown one; all, for an unknown one."""
        return [other for other in self._partitions if comparable(kind, other)]

    def mask(self, series_ids: Ids | None, without_series: Collection[int], moment: Moment | None = None) -> Mask:
        """mask[number] says whether a stack is here, of one of these series (None: of any), and of none of those.

        Args:
            moment: stacks that were not there yet are left out; None: of the index.
        """
        allowed = self._here.copy()
        moment = moment or self.moment
        if moment is not None:
            allowed &= moment.includes(self._transactions)
        if series_ids is not None:
            allowed &= np.isin(self.series_of, series_ids)
        if without_series:
            allowed &= ~np.isin(self.series_of, list(without_series))
        return allowed

    def stored(self) -> Iterator[StoredStack]:
        """What is here, for a snapshot; readers and changes come in between."""
        with self.reading():
            numbers = sorted(self._numbers.values())
        for start in range(0, len(numbers), STORED_BATCH):
            with self.reading():
                batch = [self._stored(number) for number in numbers[start : start + STORED_BATCH] if self._here[number]]
            yield from batch

    def _stored(self, number: int) -> StoredStack:
        stack = self[number]
        partition = self._partitions[stack.kind]
        vectors = np.concatenate([partition.whole.vectors_of(number), partition.slices.vectors_of(number)])
        return StoredStack(
            id=stack.id,
            series_id=stack.series_id,
            study_id=stack.study_id,
            sequence=stack.kind.sequence,
            plane=stack.kind.plane,
            body_part=stack.kind.body_part,
            in_domain=stack.in_domain,
            vectors=vectors,
            slices=np.arange(len(vectors), dtype=np.int16),
        )

    def similarities(self, kind: Kind, vector: Vectors, allowed: Mask, *, whole: bool) -> Vectors:
        """Compare a vector with every allowed stack of a kind: with the whole stack, or with its best slice.

        Returns:
            cosines by stack number, shape as `allowed`; -inf for stacks that were not compared.
        """
        partition = self._partitions[kind]
        return (partition.whole if whole else partition.slices).similarities(vector, allowed)
