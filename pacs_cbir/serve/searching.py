"""What HTTP needs of the search, so that this room imports no faiss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pacs_cbir.search.query import Answer, Example


class Searching(Protocol):
    """`pacs_cbir.search.searcher.Searcher` is one."""

    @property
    def ready(self) -> bool:
        """Whether the index is loaded."""

    @property
    def size(self) -> int:
        """Embedded slices in the index."""

    def similar_studies(
        self, examples: Sequence[Example], *, keys: Mapping[str, str], own_patient: bool, limit: int, offset: int
    ) -> Answer:
        """Studies most like the examples, best first."""

    def similar_series(
        self, examples: Sequence[Example], *, keys: Mapping[str, str], own_patient: bool, limit: int, offset: int
    ) -> Answer:
        """Series most like the examples, best first."""
