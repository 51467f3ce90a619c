"""What a row of the table is: something that ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pacs_cbir.learn.stacks import Stack

Floats = npt.NDArray[np.float64]


class Method(Protocol):
    """A row of the table that ranks pictures: baselines, oracles and encoders alike."""

    @property
    def name(self) -> str:
        """The row's name in the table."""

    def similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Compare best slices, each with each: shape (queries, gallery), higher is nearer."""


class SeriesMethod(Protocol):
    """A row of the table that ranks whole series."""

    @property
    def name(self) -> str:
        """The row's name in the table."""

    def series_similarities(self, queries: Sequence[Stack], gallery: Sequence[Stack]) -> Floats:
        """Compare whole series, each with each: shape (queries, gallery), higher is nearer; -inf is not compared."""
