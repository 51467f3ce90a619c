"""Where two slices are alike: their similarity shared out among the pixels of one of them.

A similarity is a sum of products, and what is multiplied is, for given masks and lengths, linear in feature maps, masks
and counts of pixels. So it can be taken apart by place without a rest (Zhu et al., Visual explanation for deep metric
learning, 2019, for pooled features): each pixel's heat is what it adds, and all heat is the similarity, but for what is
said of a slice as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch.nn import functional

from pacs_cbir.embed.architecture import Part
from pacs_cbir.embed.network import FOREGROUND, Network, Outputs, lesion_part, pooled_features


def heat_maps(
    network: Network,
    images: torch.Tensor,
    others: torch.Tensor,
    weights: Mapping[Part, float],
    shown: torch.Tensor | None = None,
) -> torch.Tensor:
    """What each pixel adds to the similarity of a slice and another.

    Args:
        network: in evaluation mode.
        images: (n, 1, size, size) in [0, 1], size a multiple of 32.
        others: (n, dimension), embeddings of the slices that they are compared with.
        weights: part → what it counts; parts not named count nothing.
        shown: of a region, as `Network.forward` takes it: heat is given to what it shows. What the rest of the slice
            adds, which is most of the grey levels and the trunk's answer to the dark, is left out.

    Returns:
        (n, size, size), summing to the weighted mean of the parts' cosines less what has no place: that neither slice
        shows a lesion, and the bias of the projection. Below 0 where a pixel makes them less alike.
    """
    with torch.no_grad():
        outputs = network(images, shown)
        heat = torch.zeros_like(images)
        total = sum(weights.values())
        for part, place in network.architecture.places.items():
            if weights.get(part, 0) > 0:
                mine, theirs = outputs.embedding[:, place], others[:, place]
                mine, theirs = (functional.normalize(part_vectors, dim=1) for part_vectors in (mine, theirs))
                heat += weights[part] / total * _HEAT[part](_Pairs(network, images, shown, outputs, mine, theirs))
    return heat[:, 0]


class _Pairs(NamedTuple):
    """Slices, and one part of theirs and of the others' embeddings, of length 1: (n, size of the part)."""

    network: Network
    images: torch.Tensor
    shown: torch.Tensor | None
    outputs: Outputs
    mine: torch.Tensor
    theirs: torch.Tensor


def _of_appearance(pairs: _Pairs) -> torch.Tensor:
    assert pairs.network.appearance is not None  # noqa: S101  # the part is in the embedding
    mask = None if pairs.outputs.lesion is None else _mask(pairs)
    with torch.enable_grad():
        levels = [level.float().detach().requires_grad_() for level in pairs.outputs.levels]
        projected = pairs.network.appearance(pooled_features(levels, mask))
        length = projected.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
        slopes = torch.autograd.grad((projected / length * pairs.theirs).sum(), levels, allow_unused=True)
    heat = torch.zeros_like(pairs.images)
    for level, slope in zip(levels, slopes, strict=True):
        if slope is not None:
            heat += _spread((level.detach() * slope).sum(dim=1, keepdim=True), pairs.images.shape[-1])
    return _within(pairs, heat)


def _of_lesion(pairs: _Pairs) -> torch.Tensor:
    mask = _mask(pairs)
    with torch.enable_grad():
        drawn = mask.detach().requires_grad_()
        cells = lesion_part(drawn, pairs.network.architecture.lesion_grid)
        # By the cells' own slope, at the length they have: a product is linear in them.
        shares = cells[:, :-1] / cells[:, -1:] * pairs.mine[:, -1:]
        (slope,) = torch.autograd.grad((shares * pairs.theirs[:, :-1]).sum(), drawn)
    return _spread(mask * slope, pairs.images.shape[-1])


def _of_shape(pairs: _Pairs) -> torch.Tensor:
    mask = _mask(pairs)
    shares = mask / mask.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    alike = (pairs.mine[:, :-1] * pairs.theirs[:, :-1]).sum(dim=1)
    return _spread(shares * alike[:, None, None, None], pairs.images.shape[-1])


def _of_grey(pairs: _Pairs) -> torch.Tensor:
    levels = pairs.network.architecture.grey_levels
    bins = (pairs.images.flatten(1) * levels).long().clamp(0, levels - 1)
    foreground = (pairs.images.flatten(1) > FOREGROUND).float()
    counts = torch.zeros_like(pairs.mine).scatter_add_(1, bins, foreground)
    shares = pairs.mine * pairs.theirs / counts.clamp(min=1)
    return _within(pairs, (shares.gather(1, bins) * foreground).view_as(pairs.images))


_HEAT: dict[Part, Callable[[_Pairs], torch.Tensor]] = {
    "appearance": _of_appearance,
    "lesion": _of_lesion,
    "shape": _of_shape,
    "grey": _of_grey,
}


def _mask(pairs: _Pairs) -> torch.Tensor:
    assert pairs.outputs.lesion is not None  # noqa: S101  # the part is in the embedding
    mask = pairs.outputs.lesion.float().sigmoid()
    return mask if pairs.shown is None else mask * functional.avg_pool2d(pairs.shown, 2)


def _within(pairs: _Pairs, heat: torch.Tensor) -> torch.Tensor:
    return heat if pairs.shown is None else heat * pairs.shown


def _spread(heat: torch.Tensor, size: int) -> torch.Tensor:
    """Heat of a coarse map (n, 1, h, h) on pixels (n, 1, size, size): by whole factors, bilinear keeps its sum."""
    factor = size / heat.shape[-1]
    return functional.interpolate(heat, size=(size, size), mode="bilinear") / factor**2
