"""Bare faiss over the same vectors: what a search costs where nothing else is done."""

from __future__ import annotations

import time
from collections.abc import Sequence

import faiss
import numpy as np
import numpy.typing as npt

from pacs_cbir.bench.cohort import SEQUENCES, SLICES, Cohort
from pacs_cbir.embed.parts import pool

NEAREST = 10
"""A page of answers."""
ROUNDS = 30


class Peer:
    """Flat indexes of a cohort's vectors, one for each sequence, searched in one thread.

    Args:
        slices_of: number of the sequence whose slices are searched too; those of all would need twice the memory.
    """

    def __init__(self, cohort: Cohort, slices_of: int) -> None:
        faiss.omp_set_num_threads(1)
        dimension = cohort.architecture.embedding_dimension
        self._cohort, self._slices_of = cohort, slices_of
        self._whole = [faiss.IndexFlatIP(dimension) for _ in SEQUENCES]
        self._slices = faiss.IndexFlatIP(dimension)
        self._examples: list[npt.NDArray[np.float32]] = []
        for study in range(cohort.studies):
            embeddings = cohort.embeddings(study)
            whole = np.stack([pool(slices, cohort.architecture) for slices in embeddings])
            for index, vector in zip(self._whole, whole, strict=True):
                index.add(vector[None])
            self._slices.add(embeddings[slices_of])

    def milliseconds(self, searched: Sequence[int], left: npt.NDArray[np.bool_] | None, *, whole: bool) -> float:
        """Median time of one search, one example after the other.

        Args:
            searched: numbers of the sequences, in each of which is searched.
            left: which studies a filter leaves; None without one.
            whole: whether whole stacks are searched, or slices.
        """
        rows = 1 if whole else SLICES
        parameters = None
        if left is not None:
            # The selector reads these bytes for as long as it lives. faiss's stubs do not know the keyword, nor arrays.
            bitmap = np.packbits(np.repeat(left, rows), bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))  # type: ignore[call-arg, arg-type, unused-ignore]
        indexes = [self._whole[sequence] if whole else self._slices for sequence in searched]
        seconds = []
        for study in np.random.default_rng(0).integers(self._cohort.studies, size=ROUNDS):
            examples = [index.reconstruct(int(study) * rows)[None] for index in indexes]
            begun = time.perf_counter()
            for index, example in zip(indexes, examples, strict=True):
                index.search(example, NEAREST, params=parameters)
            seconds.append(time.perf_counter() - begun)
        return float(np.median(seconds)) * 1000
