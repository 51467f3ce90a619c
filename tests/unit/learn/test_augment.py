from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pacs_cbir.learn.augment import augment
from pacs_cbir.learn.recipe import Augmentation

ALL = Augmentation(
    flip=True, turn=0.3, shift=0.1, scale=0.2, bend=0.05, gamma=0.4, gain=0.3, bias=0.3, noise=0.05, curve=0.5
)
NONE = torch.zeros(4, dtype=torch.bool)


@pytest.fixture
def images() -> torch.Tensor:
    """A smooth blob off the centre, grey levels up to 0.8, air round it."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    blob = 0.8 * (1 - ((y + 0.2) ** 2 + (x - 0.15) ** 2) / 0.3).clamp(0, 1)
    return blob.expand(4, 1, 48, 48).clone()


def test_range_and_air_are_kept(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    images[0] = 0
    changed, _ = augment(images, images, ALL, NONE)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert not changed[0].any()
    assert not torch.equal(changed[1], changed[2])  # each by itself


def test_masks_move_with_their_images(images: torch.Tensor) -> None:
    torch.manual_seed(1)
    moves = Augmentation(turn=0.5, shift=0.2, scale=0.3, bend=0.1)
    changed, masks = augment(images, images, moves, torch.tensor([True, False, True, False]))
    torch.testing.assert_close(changed, masks)
    assert float((changed - images).abs().max()) > 0.1


def test_without_changes_all_stays_to_the_last_bit(images: torch.Tensor) -> None:
    changed, masks = augment(images, images, Augmentation(), NONE)
    assert torch.equal(changed, images)
    assert torch.equal(masks, images)


@pytest.mark.parametrize("moved", [Augmentation(), Augmentation(shift=1e-6)], ids=["alone", "with other moves"])
def test_flips_are_the_ones_asked_for(images: torch.Tensor, moved: Augmentation) -> None:
    changed, masks = augment(images, images, moved, torch.tensor([True, False, False, True]))
    expected = torch.stack([images[0].flip(2), images[1], images[2], images[3].flip(2)])
    torch.testing.assert_close(changed, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(masks, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["turn", "shift", "scale", "bend", "gamma", "gain", "bias", "noise"])
def test_each_setting_changes_images_and_only_moves_change_masks(images: torch.Tensor, name: str) -> None:
    torch.manual_seed(2)
    changed, masks = augment(images, images, Augmentation(**{name: 0.3}), NONE)
    assert float((changed - images).abs().max()) > 0.02
    assert torch.equal(masks, images) is (name in {"gamma", "gain", "bias", "noise"})


def test_turns_keep_proportions(images: torch.Tensor) -> None:
    torch.manual_seed(3)
    square = functional.pad(torch.ones(4, 1, 16, 16), (16, 16, 16, 16))
    turned, _ = augment(square, square, Augmentation(turn=0.7), torch.tensor([True, False, True, False]))
    torch.testing.assert_close(turned.sum(dim=(1, 2, 3)), square.sum(dim=(1, 2, 3)), rtol=0.02, atol=0)


def test_a_curve_changes_contrast_and_keeps_the_order_of_grey_levels(images: torch.Tensor) -> None:
    torch.manual_seed(2)
    changed, _ = augment(images, images, Augmentation(curve=0.8), NONE)
    assert float((changed - images).abs().max()) > 0.03
    order = images[0].flatten().argsort()
    assert (changed.flatten(1)[:, order].diff(dim=1) >= -1e-6).all()
    assert not torch.equal(changed[0], changed[1])
