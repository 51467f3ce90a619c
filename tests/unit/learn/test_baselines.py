"""Rows that were not trained, on lesions of known places and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from lesions import disc, lesion_stack

from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.baselines import (
    EncoderMethod,
    GreyHistogram,
    OracleIou,
    OracleIouHistogram,
    Pixels,
    RandomOrder,
)
from pacs_cbir.learn.metrics import expected_ndcg, ndcg
from pacs_cbir.learn.relevance import relevance
from pacs_cbir.learn.stacks import Stack

UNTRAINED = (RandomOrder(), GreyHistogram(), Pixels(), OracleIou(), OracleIouHistogram())


@pytest.fixture(scope="module")
def method() -> EncoderMethod:
    return EncoderMethod("as shipped", Encoder(load_checkpoint(default_checkpoint_path()), "cpu"))


def patients() -> list[Stack]:
    places = [(12, 50, 50), (14, 52, 51), (9, 80, 70), (20, 60, 90)]
    return [lesion_stack(str(k), disc(*place), grey=0.5 + 0.1 * k, slices=3) for k, place in enumerate(places)]


@pytest.mark.parametrize("row", UNTRAINED, ids=lambda row: row.name)
def test_everyone_is_like_himself(row: GreyHistogram) -> None:
    stacks = patients()
    for found in (row.similarities(stacks, stacks), row.series_similarities(stacks, stacks)):
        assert found.shape == (4, 4)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found.max(axis=1), np.diag(found))
        np.testing.assert_allclose(found, found.T)
        np.testing.assert_allclose(row.similarities(stacks[:1], stacks[1:]), row.similarities(stacks, stacks)[:1, 1:])


def test_random_order_has_chance_itself() -> None:
    stacks, allowed = patients(), ~np.eye(4, dtype=bool)
    gains = relevance(stacks, stacks, 2.0).mean
    found = ndcg(RandomOrder().similarities(stacks, stacks), gains, allowed, 2)
    np.testing.assert_allclose(found, expected_ndcg(gains, allowed, 2))
    drawn = [ndcg(np.random.default_rng(k).random((4, 4)), gains, allowed, 2) for k in range(4000)]
    np.testing.assert_allclose(found, np.mean(drawn, axis=0), atol=0.01)


def test_the_oracles_are_the_relevances_components() -> None:
    stacks = patients()
    known = relevance(stacks, stacks, 2.0)
    np.testing.assert_allclose(OracleIou().similarities(stacks, stacks), known.iou)
    np.testing.assert_allclose(GreyHistogram().similarities(stacks, stacks), known.histogram)
    both = OracleIouHistogram().similarities(stacks, stacks)
    np.testing.assert_allclose(both, (known.iou + known.histogram) / 2)


def test_whole_series_rows_see_no_mask_and_every_slice() -> None:
    stacks = patients()
    blind = [lesion_stack(s.patient, pixels=s.pixels, levels=s.levels) for s in stacks]
    for row in (GreyHistogram(), Pixels()):
        np.testing.assert_array_equal(
            row.series_similarities(blind, blind), row.series_similarities(stacks, stacks), err_msg=row.name
        )
    more = lesion_stack("0", pixels=np.concatenate([stacks[0].pixels, stacks[0].pixels[:1]]), levels=np.arange(4))
    assert GreyHistogram().series_similarities([more], stacks[:1])[0, 0] < 1


def test_pixels_see_the_place() -> None:
    one, near, far = (lesion_stack("a", disc(12, row, 64), grey=1.0) for row in (40, 44, 90))
    found = Pixels().similarities([one], [near, far])[0]
    assert found[0] > found[1] + 0.1


def test_a_black_picture_is_like_nothing() -> None:
    black = lesion_stack("b", disc(5), picture=np.zeros((128, 128), np.float32))
    for row in (Pixels(), GreyHistogram()):
        assert row.similarities([black], patients()).max() == 0


@pytest.mark.parametrize("row", [OracleIou(), GreyHistogram(), Pixels()], ids=lambda row: row.name)
def test_what_a_row_needs_it_says(row: OracleIou) -> None:
    with pytest.raises(NotMeasurable, match="no"):
        row.similarities([lesion_stack("a", picture=None)], patients())


def test_an_encoder_compares_best_slices(method: EncoderMethod) -> None:
    stacks = patients()
    vectors = method.encoder.embed(np.stack([stack.pixels[1] for stack in stacks]))
    np.testing.assert_allclose(method.similarities(stacks, stacks), vectors @ vectors.T, atol=1e-5)
    np.testing.assert_allclose(method.similarities(stacks, list(stacks)), vectors @ vectors.T, atol=1e-5)
    np.testing.assert_allclose(method.similarities(stacks[:1], stacks[1:]), (vectors @ vectors.T)[:1, 1:], atol=1e-5)


def test_an_encoder_takes_the_only_slice_and_guesses_no_other(method: EncoderMethod) -> None:
    assert method.similarities([lesion_stack("a")], [lesion_stack("b")])[0, 0] == pytest.approx(1, abs=1e-5)
    with pytest.raises(NotMeasurable, match="3 slices, and no mask"):
        method.similarities([lesion_stack("a", slices=3)], [lesion_stack("b")])


def test_an_encoder_ranks_series_as_the_service_does(method: EncoderMethod) -> None:
    stacks = patients()
    pooled = np.stack([method.encoder.pool(method.encoder.embed(stack.pixels)) for stack in stacks])
    found = method.series_similarities(stacks[:2], stacks)
    np.testing.assert_allclose(found, pooled[:2] @ pooled.T, atol=1e-5)
    np.testing.assert_allclose(method.series_similarities(stacks, stacks), pooled @ pooled.T, atol=1e-5)


def test_the_service_does_not_compare_planes_or_sequences(method: EncoderMethod) -> None:
    one, sagittal, other, unknown = (
        lesion_stack(str(k), disc(9), **fields)
        for k, fields in enumerate([{}, {"plane": "SAGITTAL"}, {"sequence": "T1"}, {"sequence": "unknown"}])
    )
    found = method.series_similarities([one], [sagittal, other, unknown, one])[0]
    assert found[:2].tolist() == [-np.inf, -np.inf]
    np.testing.assert_allclose(found[2:], 1, atol=1e-5)
