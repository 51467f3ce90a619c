"""Studies of no patient, whose embeddings lie as real ones do: by sequence, kind of finding, patient and place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pacs_cbir.embed.architecture import Architecture

SEQUENCES = ("T1", "T1CE", "T2", "FLAIR")
SLICES = 24
"""Of a stack: a head at the encoder's spacing of 5 mm."""
DAYS = 1000
"""Studies are dated evenly over so many days, so that a range of dates leaves a share of them."""
FIRST_DAY = date(2020, 1, 1)
KINDS = 64
"""Kinds of finding, the commonest 64 times as frequent as the rarest."""
SHARES = {"sequence": 0.74, "kind": 0.08, "patient": 0.05, "place": 0.08, "noise": 0.05}
"""Of a slice's squared length. Stacks of unrelated patients then have a cosine of about 0.84, which is what the shipped
encoder was calibrated to, and those of one kind 0.93."""

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cohort:
    """Numbered studies of one stack of each sequence; the same seed gives the same embeddings.

    Args:
        slices: embeddings of slices that there are at least.
    """

    architecture: Architecture
    slices: int
    seed: int = 0

    @property
    def studies(self) -> int:
        """How many there are, numbered from 0."""
        return -(-self.slices // (len(SEQUENCES) * SLICES))

    def date_of(self, study: int) -> date:
        """Its StudyDate."""
        return FIRST_DAY + timedelta(days=study * DAYS // self.studies)

    def dates_that_leave(self, share: float) -> tuple[date, date]:
        """The first and last day of a range that leaves this share of the studies, at least one."""
        first = self.date_of(self.studies // 2)
        return (FIRST_DAY if share == 1 else first), first + timedelta(days=DAYS * share - 1)

    def embeddings(self, study: int) -> Vectors:
        """The slices' embeddings, shape (sequences, slices, dimension): each part has its share of the length."""
        dice = np.random.default_rng([self.seed, study])
        sequences, kinds = self._centres
        kind = dice.choice(KINDS, p=self._frequencies)
        dimension = self.architecture.embedding_dimension
        turns = np.linspace(0, np.pi, SLICES)[:, None]
        # From the lowest slice to the highest along a half circle, which is the same for all heads.
        place = np.cos(turns) * self._ends[0] + np.sin(turns) * self._ends[1]
        of = {
            "sequence": sequences[:, None],
            "kind": kinds[:, None, kind],
            "patient": dice.standard_normal((len(SEQUENCES), 1, dimension), np.float32),
            "place": place[None],
            "noise": dice.standard_normal((len(SEQUENCES), SLICES, dimension), np.float32),
        }
        mixed = sum(share**0.5 * of[name] for name, share in SHARES.items())
        for part, where in self.architecture.places.items():
            lengths = np.linalg.norm(mixed[..., where], axis=-1, keepdims=True)
            mixed[..., where] *= self.architecture.shares[part] ** 0.5 / lengths
        embeddings: Vectors = mixed.astype(np.float32)
        return embeddings

    @cached_property
    def _centres(self) -> tuple[Floats, Floats]:
        dice = np.random.default_rng([self.seed])
        dimension = self.architecture.embedding_dimension
        return dice.standard_normal((len(SEQUENCES), dimension)), dice.standard_normal(
            (len(SEQUENCES), KINDS, dimension)
        )

    @cached_property
    def _ends(self) -> Floats:
        return np.random.default_rng([self.seed, 0, 0]).standard_normal((2, self.architecture.embedding_dimension))

    @cached_property
    def _frequencies(self) -> Floats:
        weights = 1 / np.arange(1, KINDS + 1)
        frequencies: Floats = weights / weights.sum()
        return frequencies


def study_uid(study: int) -> str:
    """Study Instance UID."""
    return f"2.25.{study + 1}"


def series_uid(study: int, sequence: int) -> str:
    """Series Instance UID."""
    return f"{study_uid(study)}.{sequence + 1}"


def instance_uid(study: int, sequence: int, slice_: int) -> str:
    """SOP Instance UID; slices count from 1."""
    return f"{series_uid(study, sequence)}.{slice_}"
