"""Rows in, out and compared, against numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from stack_rows import random_vectors

from pacs_cbir.search.faiss_index import FaissIndex


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(-20, 20), min_size=1, max_size=8))
def test_rows_are_those_of_an_array(seed: int, steps: list[int]) -> None:
    """A positive step adds so many rows, a negative one removes some."""
    dice = np.random.default_rng(seed)
    index, expected = FaissIndex(8), np.empty((0, 8), np.float32)
    for step in steps:
        if step > 0:
            added = random_vectors(dice, step)
            index.add(added)
            expected = np.concatenate([expected, added])
        else:
            removed = dice.permutation(len(expected))[:-step]
            index.remove(removed)
            expected = np.delete(expected, removed, axis=0)
        assert len(index) == len(expected)
        np.testing.assert_array_equal(index.get(0, len(index)), expected)
        allowed = dice.random(len(expected)) < dice.random()
        vector = random_vectors(dice, 1)[0]
        cosines, rows = index.cosines(vector, allowed)
        assert sorted(rows) == list(np.flatnonzero(allowed))
        np.testing.assert_allclose(cosines, expected[rows] @ vector, atol=1e-6)


def test_opposite_vectors_are_answered_too() -> None:
    index = FaissIndex(2)
    index.add(np.array([[1, 0], [-1, 0]], np.float32))
    cosines, rows = index.cosines(np.array([1, 0], np.float32), np.ones(2, np.bool_))
    assert dict(zip(rows.tolist(), cosines.tolist(), strict=True)) == {0: 1.0, 1: -1.0}


def test_the_bytes_given_are_not_kept() -> None:
    index, given_ = FaissIndex(2), np.array([[1, 0], [0, 1]], np.float32)
    index.add(given_)
    given_[:] = 9
    got = index.get(0, 2)
    got[:] = 9
    np.testing.assert_array_equal(index.get(0, 2), [[1, 0], [0, 1]])
