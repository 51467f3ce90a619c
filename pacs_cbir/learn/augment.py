"""Slices moved, bent and made brighter or noisier, each by itself, on the device that trains."""

from __future__ import annotations

import torch
from torch.nn import functional

from pacs_cbir.learn.recipe import Augmentation

BEND_POINTS = 6
"""Control points of the elastic deformation along an edge."""
BIAS_POINTS = 3
"""Of the bias field: receive coils vary smoothly over the head."""
CURVE_PIECES = 8
"""Of the grey-level curve, between black and `CURVE_MEDIANS` times the picture's median; beyond them it goes on."""
CURVE_MEDIANS = 3.0


def augment(
    images: torch.Tensor, masks: torch.Tensor, augmentation: Augmentation, flips: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change images and move their masks with them.

    Args:
        images: (n, 1, size, size) in [0, 1].
        masks: (n, 1, size, size) in [0, 1].
        flips: bool (n,), the ones to mirror; the caller knows which images must stay alike.

    Returns:
        Both in the same shapes and ranges. Air stays black: noise and field change what is not 0.
    """
    images, masks = _move(images, masks, augmentation, flips)
    n, _, size, _ = images.shape
    field = torch.randn(n, 1, BIAS_POINTS, BIAS_POINTS, device=images.device) * augmentation.bias
    field = functional.interpolate(field, size=(size, size), mode="bicubic")
    images = images ** _uniform(images, augmentation.gamma).exp()
    if augmentation.curve:
        images = _curved(images, augmentation.curve)
    images = images * (field + _uniform(images, augmentation.gain)).exp()
    strength = augmentation.noise * torch.rand(n, 1, 1, 1, device=images.device) * _medians(images).view(n, 1, 1, 1)
    noisy = images + strength * torch.randn_like(images)
    return torch.where(images > 0, noisy, 0).clamp(0, 1), masks


def _move(
    images: torch.Tensor, masks: torch.Tensor, augmentation: Augmentation, flips: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if not (augmentation.turn or augmentation.shift or augmentation.scale or augmentation.bend):
        mirrored = flips[:, None, None, None]  # no resampling: pictures stay as sharp as they will be embedded
        return torch.where(mirrored, images.flip(3), images), torch.where(mirrored, masks.flip(3), masks)
    n, _, size, _ = images.shape
    turn, scale = _uniform(images, augmentation.turn).flatten(), _uniform(images, augmentation.scale).flatten().exp()
    side = torch.where(flips, -scale, scale)
    linear = torch.stack([turn.cos() * side, -turn.sin() * scale, turn.sin() * side, turn.cos() * scale], dim=1)
    shift = (torch.rand(n, 2, 1, device=images.device) * 2 - 1) * augmentation.shift
    grid = functional.affine_grid(torch.cat([linear.view(n, 2, 2), shift], dim=2), [n, 1, size, size], False)
    bend = augmentation.bend * torch.randn(n, 2, BEND_POINTS, BEND_POINTS, device=images.device)
    bend = functional.interpolate(bend, size=(size, size), mode="bicubic").permute(0, 2, 3, 1)
    moved = functional.grid_sample(torch.cat([images, masks], dim=1), grid + bend, align_corners=False)
    return moved[:, :1].clamp(0, 1), moved[:, 1:].clamp(0, 1)


def _curved(images: torch.Tensor, spread: float) -> torch.Tensor:
    """Each picture by a rising, piecewise linear curve of its own, which leaves black and `CURVE_MEDIANS` in place."""
    pixels = images.flatten(1)
    white = (CURVE_MEDIANS * _medians(images))[:, None]
    slopes = (spread * torch.randn(len(images), CURVE_PIECES, device=images.device)).exp()
    slopes = slopes / slopes.mean(dim=1, keepdim=True)
    starts = functional.pad(slopes.cumsum(dim=1), (1, 0))[:, :-1]
    places = pixels / white * CURVE_PIECES
    pieces = places.long().clamp(0, CURVE_PIECES - 1)
    curved = starts.gather(1, pieces) + (places - pieces) * slopes.gather(1, pieces)
    return (curved / CURVE_PIECES * white).view_as(images).clamp(0, 1)


def _medians(images: torch.Tensor) -> torch.Tensor:
    """Of each picture's foreground, (n,)."""
    pixels = images.flatten(1)
    return torch.where(pixels > 0, pixels, torch.nan).nanmedian(dim=1).values.nan_to_num(1.0)


def _uniform(images: torch.Tensor, largest: float) -> torch.Tensor:
    """One number an image between -largest and largest, (n, 1, 1, 1)."""
    return (torch.rand(len(images), 1, 1, 1, device=images.device) * 2 - 1) * largest
