"""Masks without annotation: what an encoder draws itself, where a patient's images of one place agree with one another.

An encoder that draws a lesion on FLAIR and misses it on T1 has what it needs to learn T1: the two are of one place.
Which of them to believe shows without annotation too: a lesion that is there is drawn on the mirrored picture as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from pacs_cbir.embed.network import Network
from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.stacks import Stack

SAME_PLACE_MM = 2.5
"""Largest distance of two sequences' slices that show one place: half the spacing at which slices are drawn."""
TRUST = 4
"""Power to which agreement says what a drawing counts: the one that agrees best decides."""
DOUBT = 20.0
"""Pixels of the logits' map: small drawings are believed less."""
BATCH = 64

Floats = npt.NDArray[np.float32]


def drawn_masks(network: Network, stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks with the masks that a network draws, the same on all of a study's sequences.

    Args:
        network: with a lesion head; on the CPU.

    Raises:
        RecipeError: it draws no lesion on any of them.
    """
    network = network.eval()
    drawings = [_draw(network, stack.pixels) for stack in stacks]
    of_study: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for number, stack in enumerate(stacks):
        of_study[stack.patient, stack.study, stack.plane].append(number)
    masked = list(stacks)
    for numbers in of_study.values():
        for number in numbers:
            stack = stacks[number]
            logits = np.stack([_agreed(stack, k, [(stacks[n], *drawings[n]) for n in numbers])
                               for k in range(len(stack.pixels))])  # fmt: skip
            masks = _upsampled(logits, stack.pixels.shape[-1]) > 0
            areas = masks.sum(axis=(1, 2))
            masked[number] = replace(stack, masks=masks, best=int(areas.argmax()) if areas.any() else None)
    if all(stack.best is None for stack in masked):
        raise RecipeError('masks = "drawn" needs an encoder that draws lesions, and this one draws none on these data')
    return masked


def _draw(network: Network, pixels: npt.NDArray[np.float16]) -> tuple[Floats, Floats]:
    """Logits (n, h, h), means of the picture's and its mirror image's, and how far these agree, (n,), 0 to 1."""
    logits, agreements = [], []
    with torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            images = torch.from_numpy(pixels[start : start + BATCH].astype(np.float32))[:, None]
            one, two = network(images).lesion, network(images.flip(-1)).lesion
            if one is None or two is None:
                raise RecipeError('masks = "drawn" needs architecture.lesion_grid: without it nothing draws a lesion')
            two = two.flip(-1)
            logits.append((one + two)[:, 0] / 2)
            one, two = one.sigmoid(), two.sigmoid()
            total = (one.square() + two.square()).sum(dim=(1, 2, 3))
            agreements.append(2 * (one * two).sum(dim=(1, 2, 3)) / (total + DOUBT))
    return torch.cat(logits).numpy(), torch.cat(agreements).numpy()


def _agreed(stack: Stack, k: int, drawings: Sequence[tuple[Stack, Floats, Floats]]) -> Floats:
    """Logits (h, h) of a slice: the mean of all drawings of its place, by how far each agrees with its mirror image."""
    found = list(_of_one_place(float(stack.positions[k]), drawings))
    weights = np.array([agreement for _, agreement in found]) ** TRUST
    mean: Floats = np.average([logits for logits, _ in found], axis=0, weights=weights + 1e-9)
    return mean


def _of_one_place(
    position: float, drawings: Sequence[tuple[Stack, Floats, Floats]]
) -> Iterator[tuple[Floats, np.float32]]:
    for other, logits, agreements in drawings:
        nearest = int(np.abs(other.positions - position).argmin())
        if abs(other.positions[nearest] - position) <= SAME_PLACE_MM:
            yield logits[nearest], agreements[nearest]


def _upsampled(logits: Floats, size: int) -> Floats:
    drawn = functional.interpolate(torch.from_numpy(logits)[:, None], size=(size, size), mode="bilinear")
    upsampled: Floats = drawn[:, 0].numpy()
    return upsampled
