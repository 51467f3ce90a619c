"""Vectors in rows, compared exactly by inner product; the one module that calls faiss."""

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

# Below every inner product of unit vectors: a range search from here on answers all of them.
_LOWEST = -2.0


class FaissIndex:
    """A flat index: a search compares with every allowed row, so its answers are exact.

    Searches may run at once; `add` and `remove` must have it alone.

    Args:
        dimension: of the vectors, which are of unit length, so that the inner product is the cosine.
    """

    def __init__(self, dimension: int) -> None:
        self._index = faiss.IndexFlatIP(dimension)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: Vectors) -> None:
        """Append rows, shape (n, dimension)."""
        self._index.add(np.ascontiguousarray(vectors, np.float32))

    def remove(self, rows: Ids) -> None:
        """Remove rows; the later ones move up and keep their order."""
        self._index.remove_ids(faiss.IDSelectorBatch(np.ascontiguousarray(rows, np.int64)))

    def get(self, first: int, count: int) -> Vectors:
        """A copy of `count` rows, shape (count, dimension)."""
        vectors: Vectors = self._index.reconstruct_n(first, count)
        return vectors

    def cosines(self, vector: Vectors, allowed: npt.NDArray[np.bool_]) -> tuple[Vectors, Ids]:
        """Compare with every allowed row.

        Args:
            vector: shape (dimension,).
            allowed: which rows, shape (len(self),).

        Returns:
            cosines and rows, both of shape (n,), in no order.
        """
        # The selector reads the bitmap's memory for as long as the search runs; `bitmap` keeps it alive.
        bitmap = np.packbits(allowed, bitorder="little")
        # The stubs do not know the keyword, nor the arrays, that the Python wrapper takes.
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))  # type: ignore[call-arg, arg-type, unused-ignore]
        _, similarities, rows = self._index.range_search(
            np.ascontiguousarray(vector[None], np.float32), _LOWEST, params=parameters
        )
        return similarities, rows
