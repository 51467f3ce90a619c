from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from painted_stacks import painted_stacks

from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import NotMeasurable, RecipeError
from pacs_cbir.learn.baselines import GreyHistogram, Pixels
from pacs_cbir.learn.methods import BySequence, EncoderMethod, LateMethod, MeanMethod, ranking
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.train import train

STACKS = painted_stacks(4)
FLAIR = [stack for stack in STACKS if stack.sequence == "FLAIR"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    architecture = {"appearance": 16, "weights": {"appearance": 1}}
    recipe = Recipe.model_validate({"size": 32, "epochs": 0, "architecture": architecture})
    return Encoder(train(recipe, STACKS, seed=0, out=tmp_path_factory.mktemp("encoder") / "it")[""], "cpu")


def test_late_interaction_is_the_mean_of_each_slices_nearest(encoder: Encoder) -> None:
    found = LateMethod("late", encoder).similarities(FLAIR[:2], FLAIR)
    slices = [encoder.embed(stack.pixels).astype(np.float64) for stack in FLAIR]
    expected = [[np.mean([max(a @ b for b in two) for a in one]) for two in slices] for one in slices[:2]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pooled_stacks_are_compared_as_the_service_compares_them(encoder: Encoder) -> None:
    method = MeanMethod("mean", encoder)
    found = method.similarities(FLAIR, FLAIR)
    np.testing.assert_allclose(found, method.series_similarities(FLAIR, FLAIR), atol=1e-5)
    assert not np.allclose(found, EncoderMethod("best", encoder).similarities(FLAIR, FLAIR), atol=1e-3)


def test_each_sequence_is_ranked_by_its_own_method_and_with_itself_alone() -> None:
    histogram, pixels = GreyHistogram("a"), Pixels("b")
    found = BySequence("own", {"T1": histogram, "FLAIR": pixels}).similarities(STACKS, STACKS)
    for i, one in enumerate(STACKS):
        for j, two in enumerate(STACKS):
            method = histogram if one.sequence == "T1" else pixels
            expected = method.similarities([one], [two])[0, 0] if one.sequence == two.sequence else -np.inf
            assert found[i, j] == pytest.approx(expected)


def test_a_sequence_without_a_network_is_said_so() -> None:
    with pytest.raises(NotMeasurable, match="FLAIR"):
        BySequence("own", {"T1": Pixels("b")}).series_similarities(FLAIR, FLAIR)


def test_what_training_gives_becomes_a_row_of_its_pooling(tmp_path: Path) -> None:
    architecture = {"grey_levels": 8, "weights": {"grey": 1}}
    settings = {"size": 32, "epochs": 0, "a_network_a_sequence": True, "architecture": architecture}
    trained = train(Recipe.model_validate(settings), STACKS, seed=0, out=tmp_path / "it")
    row = ranking("own", trained, Recipe(pooling="late"))
    assert isinstance(row, BySequence)
    assert {type(method) for method in row.methods.values()} == {LateMethod}
    assert isinstance(ranking("one", {"": trained["T1"]}, Recipe()), EncoderMethod)


def test_a_projection_to_all_numbers_changes_no_similarity(encoder: Encoder) -> None:
    plain = EncoderMethod("plain", encoder)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((encoder.dimension, encoder.dimension)))[0]
    turned = EncoderMethod("turned", encoder, turn.astype(np.float32))
    for one, two in (
        (plain.similarities(FLAIR, FLAIR), turned.similarities(FLAIR, FLAIR)),
        (plain.series_similarities(FLAIR, FLAIR), turned.series_similarities(FLAIR, FLAIR)),
    ):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_projection_compares_what_it_keeps(encoder: Encoder) -> None:
    basis = np.eye(encoder.dimension, 2, dtype=np.float32)
    kept = encoder.embed(np.stack([s.pixels[s.best or 0] for s in FLAIR]))[:, :2]
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    np.testing.assert_allclose(
        EncoderMethod("two", encoder, basis).similarities(FLAIR, FLAIR), kept @ kept.T, atol=1e-5
    )


def test_parts_that_do_not_count_change_nothing(tmp_path: Path) -> None:
    architecture = {"appearance": 8, "grey_levels": 8, "weights": {"appearance": 1, "grey": 1}}
    recipe = Recipe.model_validate({"size": 32, "epochs": 0, "architecture": architecture})
    trained = train(recipe, STACKS, seed=0, out=tmp_path / "it")
    grey = ranking("grey", trained, recipe.changed({"parts": {"grey": 2.0}})).similarities(FLAIR, FLAIR)
    place = trained[""].card.architecture.places["grey"]
    vectors = Encoder(trained[""]).embed(np.stack([s.pixels[s.best or 0] for s in FLAIR]))[:, place]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(grey, vectors @ vectors.T, atol=1e-4)
    with pytest.raises(RecipeError, match="1000"):
        ranking("wide", trained, recipe.changed({"dimension": 1000}), STACKS)
