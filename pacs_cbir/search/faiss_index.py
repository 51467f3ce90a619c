"""Vectors under integer ids, searched exactly by inner product; the one module that calls faiss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pacs_cbir.errors import SettingsError

try:
    import faiss
except ImportError as error:  # pragma: no cover - an installation without either extra
    raise SettingsError(
        "faiss is not installed: `pip install 'pacs-cbir[cpu]'`, or `'pacs-cbir[gpu]'` on a machine with a GPU; "
        "never both, they overwrite each other"
    ) from error

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class FaissIndex:
    """A flat index: every search compares with every allowed vector, so its answers are exact.

    Searches may run at once; `add` and `remove` must have it alone.

    Args:
        dimension: of the vectors, which are of unit length, so that the inner product is the cosine.
    """

    def __init__(self, dimension: int) -> None:
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors, shape (n, dimension), under ids that are not in use."""
        self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: Ids) -> None:
        """Remove what has one of these ids."""
        self._index.remove_ids(faiss.IDSelectorBatch(np.ascontiguousarray(ids, np.int64)))

    def get(self, ids: Ids) -> Vectors:
        """The vectors of ids that are here, shape (n, dimension)."""
        vectors: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(ids, np.int64))
        return vectors

    def search(self, vector: Vectors, count: int, allowed: npt.NDArray[np.bool_] | None = None) -> tuple[Vectors, Ids]:
        """The nearest vectors, best first.

        Args:
            vector: shape (dimension,).
            count: how many at most.
            allowed: allowed[id] says whether an id may be answered; None allows all.

        Returns:
            cosines and ids, both of shape (n,), n ≤ count.
        """
        parameters = None
        if allowed is not None:
            # The selector reads the bitmap's memory for as long as the search runs; `bitmap` keeps it alive.
            bitmap = np.packbits(allowed, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
        similarities, ids = self._index.search(vector[None], min(count, len(self)) or 1, params=parameters)
        found = ids[0] >= 0
        return similarities[0][found], ids[0][found]
