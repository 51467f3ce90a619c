"""A short real run on small simulated patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pacs_cbir.embed.checkpoint import load_checkpoint, save_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.learn import train as training
from pacs_cbir.learn.cohort import Study, simulate_study
from pacs_cbir.learn.figures import measure
from pacs_cbir.learn.phantom import SEQUENCES
from pacs_cbir.learn.train import RECIPE, Recipe, first_checkpoint, train

SMALL = Preprocessing(size=48)


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return [simulate_study(5, number, SMALL) for number in range(4)]


def weights(studies: list[Study], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    return {name: weight.numpy() for name, weight in train(studies, epochs=2, seed=seed).state_dict().items()}


def test_a_study_has_each_sequence_with_and_without_skull(studies: list[Study]) -> None:
    study = studies[0]
    assert sorted((s.sequence, s.skull_stripped) for s in study.stacks) == sorted(
        (name, stripped) for name in SEQUENCES for stripped in (False, True)
    )
    whole, stripped = study.stacks[0], study.stacks[len(SEQUENCES)]
    level = study.tumour_levels[len(study.tumour_levels) // 2]
    shown = [stack.pixels[list(stack.levels).index(level)] for stack in (whole, stripped)]
    assert (shown[0] > 0).sum() > 1.1 * (shown[1] > 0).sum() > 0  # the skull is there, and is gone


def test_the_same_seed_gives_the_same_weights(studies: list[Study]) -> None:
    first, again, other = weights(studies, 1), weights(studies, 1), weights(studies, 2)
    for name, weight in first.items():
        np.testing.assert_array_equal(weight, again[name], err_msg=name)
    assert not np.array_equal(first["fc.weight"], other["fc.weight"])


def test_training_brings_the_stacks_of_a_patient_together(studies: list[Study]) -> None:
    recipe = Recipe(learning_rate=3e-4, shift=0, turn=0, scale=0, bend=0, gamma=0, gain=0, noise=0)
    rng = np.random.default_rng(0)
    pixels = np.concatenate([training._draw_views(rng, study, recipe) for study in studies])

    def loss(network: torch.nn.Module) -> float:
        network.train()  # after so few steps the running statistics lag far behind the weights
        with torch.inference_mode():
            slices = torch.nn.functional.normalize(network(torch.from_numpy(pixels)[:, None].float() / 255), dim=1)
        return float(training._loss(slices, len(studies), recipe))

    torch.manual_seed(3)
    untrained = training.build_network(training.ARCHITECTURE)
    assert loss(train(studies, epochs=30, seed=3, recipe=recipe)) < 0.8 * loss(untrained)


def test_loss_knows_which_slices_belong_together() -> None:
    recipe = Recipe(stacks_a_patient=2, slices_a_stack=2, temperature=0.1)
    basis = torch.eye(8)
    # Two patients with two stacks of two levels: patient, stack, level.
    together = basis[[0, 1, 0, 1, 2, 3, 2, 3]]
    levels_swapped = basis[[0, 1, 1, 0, 2, 3, 3, 2]]
    patients_swapped = basis[[0, 1, 2, 3, 0, 1, 2, 3]]
    losses = [float(training._loss(s, 2, recipe)) for s in (together, levels_swapped, patients_swapped)]
    assert losses[0] < 0.1
    assert losses[0] + 1 < losses[1] < losses[2]


def test_views_are_the_same_levels_of_different_stacks(studies: list[Study]) -> None:
    study, recipe = studies[0], Recipe(level_jitter=0)
    size = SMALL.size
    for seed in range(8):
        views = training._draw_views(np.random.default_rng(seed), study, recipe)
        assert views.shape == (recipe.stacks_a_patient * recipe.slices_a_stack, size, size)
        shown = [_level_of(study, pixels) for pixels in views]
        assert shown[: recipe.slices_a_stack] == shown[recipe.slices_a_stack :]
        assert set(shown) & set(study.tumour_levels.tolist())


def _level_of(study: Study, pixels: npt.NDArray[np.uint8]) -> int:
    for stack in study.stacks:
        for level, drawn in zip(stack.levels, stack.pixels, strict=True):
            if np.array_equal(drawn, pixels) or np.array_equal(drawn[:, ::-1], pixels):
                return int(level)
    raise AssertionError("a view that is no slice of the study")


def test_one_patient_is_not_enough(studies: list[Study]) -> None:
    with pytest.raises(ValueError, match="two patients"):
        train(studies[:1], epochs=1, seed=0)


def test_augmentation_keeps_range_shape_and_air(studies: list[Study]) -> None:
    torch.manual_seed(0)
    images = torch.zeros(5, 1, 48, 48)
    images[1:] = torch.from_numpy(studies[0].stacks[0].pixels[10:14])[:, None] / 255
    augmented = training._augment(images, RECIPE)
    assert augmented.shape == images.shape
    assert float(augmented.min()) >= 0
    assert float(augmented.max()) <= 1
    assert not augmented[0].any()  # noise does not fill the air
    assert all(not torch.equal(a, b) for a, b in zip(augmented[1:], images[1:], strict=True))


def test_whitened_directions_count_the_same(studies: list[Study]) -> None:
    torch.manual_seed(1)
    network = training.build_network(training.ARCHITECTURE).eval()
    training.whiten(network, studies)
    pixels = np.concatenate([stack.pixels for study in studies for stack in study.stacks])
    with torch.inference_mode():
        projected = network(torch.from_numpy(pixels)[:, None] / 255)
    strongest = projected[:, -4:]  # the weakest are below the floor, and below what bfloat16 resolves
    np.testing.assert_allclose(strongest.mean(dim=0).numpy(), 0, atol=0.1)
    np.testing.assert_allclose(torch.cov(strongest.T).numpy(), np.eye(4), atol=0.15)


def test_checkpoint_carries_recipe_and_figures(
    studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PREPROCESSING", SMALL)
    checkpoint = first_checkpoint("tiny", studies, studies[:3], epochs=1, seed=4)
    save_checkpoint(tmp_path / "tiny.safetensors", checkpoint.card, checkpoint.weights)
    loaded = load_checkpoint(tmp_path / "tiny.safetensors")
    assert loaded.card.training.settings["temperature"] == RECIPE.temperature
    assert loaded.card.training.patients == len(studies)
    assert {"head_ndcg_5", "head_ndcg_5_chance", "head_ndcg_5_untrained"} <= set(loaded.card.figures)
    assert measure(Encoder(loaded, "cpu"), studies[:3]).items() <= loaded.card.figures.items()
