"""Figures of rankings against every order written out, and intervals against what is known of them."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_cbir.learn.metrics import (
    average_precision,
    bootstrap,
    expected_ndcg,
    mean_of_groups,
    ndcg,
    precision,
    skill,
)

ALL = np.ones((1, 5), dtype=bool)


def orders(similarities: list[int], allowed: list[bool]) -> list[list[int]]:
    """Every order of what is allowed in which nothing precedes what is nearer."""
    here = [i for i, yes in enumerate(allowed) if yes]
    return [
        list(order)
        for order in permutations(here)
        if all(similarities[a] >= similarities[b] for a, b in pairwise(order))
    ]


def dcg(gains: list[float], n: int) -> float:
    return sum(gain / np.log2(1 + i) for i, gain in enumerate(gains[:n], start=1))


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[int], list[float], list[bool]]:
    size = draw(st.integers(1, 6))
    similarities = draw(st.lists(st.integers(-1, 2), min_size=size, max_size=size))
    gains = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=size, max_size=size))
    allowed = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    return similarities, gains, allowed


def arrays(similarities: list[int], gains: list[float], allowed: list[bool]) -> tuple[np.ndarray, ...]:
    return np.array([similarities], float), np.array([gains]), np.array([allowed])


@settings(deadline=None)
@given(rankings(), st.integers(1, 7))
def test_ndcg_is_the_mean_over_the_orders_of_ties(ranking: tuple[list[int], list[float], list[bool]], n: int) -> None:
    similarities, gains, allowed = ranking
    ideal = dcg(sorted((g for g, yes in zip(gains, allowed, strict=True) if yes), reverse=True), n)
    found = ndcg(*arrays(*ranking), n)[0]
    if ideal == 0:
        assert np.isnan(found)
        return
    assert found == pytest.approx(
        np.mean([dcg([gains[i] for i in order], n) / ideal for order in orders(similarities, allowed)])
    )
    chance = [dcg([gains[i] for i in order], n) / ideal for order in orders([0] * len(gains), allowed)]
    assert expected_ndcg(*arrays(*ranking)[1:], n)[0] == pytest.approx(np.mean(chance))


@settings(deadline=None)
@given(rankings(), st.integers(1, 7))
def test_precisions_are_means_over_the_orders_of_ties(
    ranking: tuple[list[int], list[float], list[bool]], n: int
) -> None:
    similarities, gains, allowed = ranking
    relevant = [gain > 0.3 for gain in gains]
    ranks, _, here = arrays(*ranking)
    hits = [[relevant[i] for i in order] for order in orders(similarities, allowed)]
    expected = np.mean([np.mean(order[:n]) for order in hits])
    assert precision(ranks, np.array([relevant]), here, n)[0] == pytest.approx(expected)
    found = average_precision(ranks, np.array([relevant]), here)[0]
    if not any(hits[0]):
        assert np.isnan(found)
        return
    each = [np.mean([np.mean(order[: i + 1]) for i, hit in enumerate(order) if hit]) for order in hits]
    assert found == pytest.approx(np.mean(each))


def test_ndcg_by_hand() -> None:
    gains = np.array([[0.2, 0.9, 0.0, 0.5, 0.4]])
    best = 0.9 + 0.5 / np.log2(3) + 0.4 / 2
    got = 0.2 + 0.9 / np.log2(3) + 0.0 / 2
    assert ndcg(np.array([[5.0, 4, 3, 2, 1]]), gains, ALL, 3)[0] == pytest.approx(got / best)
    assert ndcg(gains, gains, ALL, 3)[0] == 1
    assert ndcg(-gains, gains, ALL, 50)[0] < 1


def test_several_queries_do_not_mix() -> None:
    rng = np.random.default_rng(0)
    similarities, gains = rng.integers(0, 4, (7, 9)).astype(float), rng.random((7, 9))
    allowed = rng.random((7, 9)) < 0.7
    each = [ndcg(similarities[i : i + 1], gains[i : i + 1], allowed[i : i + 1], 5)[0] for i in range(7)]
    np.testing.assert_allclose(ndcg(similarities, gains, allowed, 5), each)


def test_what_is_not_compared_is_last_and_still_before_what_is_not_allowed() -> None:
    similarities = np.array([[-np.inf, 0.0, 9.0, -np.inf]])
    allowed = np.array([[True, True, False, False]])
    gains = np.array([[1.0, 0.0, 1.0, 1.0]])
    assert ndcg(similarities, gains, allowed, 2)[0] == pytest.approx(1 / np.log2(3))


def test_a_similarity_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        ndcg(np.array([[np.nan, 1.0]]), np.ones((1, 2)), np.ones((1, 2), bool), 5)


def test_skill_goes_from_chance_to_ideal() -> None:
    assert skill(0.71, 0.71) == 0
    assert skill(1.0, 0.71) == 1
    assert skill(0.95, 0.675) == pytest.approx(0.846, abs=5e-4)
    assert np.isnan(skill(1.0, 1.0))


def test_groups_count_alike() -> None:
    values, groups = np.array([1.0, 1, 1, 0, np.nan]), np.array(["a", "a", "a", "b", "b"])
    assert mean_of_groups(values, groups) == 0.5
    assert np.isnan(mean_of_groups(np.array([np.nan]), np.array(["a"])))


def test_a_patients_queries_move_together() -> None:
    """The same values thrice, for three sequences of each patient: no narrower than once; of other patients: √3."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.8, 0.1, 50)
    once = bootstrap(values, np.full(50, "a"), np.arange(50))
    thrice = bootstrap(np.tile(values, 3), np.repeat(["a", "b", "c"], 50), np.tile(np.arange(50), 3))
    more = bootstrap(np.tile(values, 3), np.repeat(["a", "b", "c"], 50), np.arange(150))
    assert (thrice.mean, thrice.low, thrice.high) == pytest.approx((once.mean, once.low, once.high))
    assert (once.high - once.low) / (more.high - more.low) == pytest.approx(np.sqrt(3), rel=0.1)


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(2).normal(0.8, 0.1, 400)
    found = bootstrap(values, np.full(400, "a"), np.arange(400))
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.1)


def test_the_interval_is_the_same_again_and_covers() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        values = rng.normal(0.8, 0.1, 60)
        found = bootstrap(values, np.full(60, "a"), np.arange(60))
        assert found == bootstrap(values, np.full(60, "a"), np.arange(60))
        covered += found.low <= 0.8 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_group_that_a_resample_misses_is_left_out_of_it() -> None:
    values, groups = np.array([0.2, 0.4, 1.0]), np.array(["a", "a", "b"])
    found = bootstrap(values, groups, np.array(["p", "q", "r"]))
    assert found.mean == pytest.approx((0.3 + 1.0) / 2)
    assert 0.2 <= found.low <= found.mean <= found.high <= 1.0


def test_nothing_measured_is_no_figure() -> None:
    found = bootstrap(np.array([np.nan]), np.array(["a"]), np.array(["p"]))
    assert np.isnan([found.mean, found.low, found.high]).all()


@pytest.mark.parametrize(("size", "n"), list(product((1, 3), (1, 5))))
def test_small_galleries(size: int, n: int) -> None:
    gains = np.linspace(0.1, 1, size)[None]
    assert ndcg(gains, gains, np.ones_like(gains, dtype=bool), n)[0] == pytest.approx(1)
