"""Masks without annotation: what an encoder draws itself, where a patient's images of one place agree with one another.

An encoder that draws a lesion on FLAIR and misses it on T1 has what it needs to learn T1: the two are of one place.
Which of them to believe shows without annotation too: a lesion that is there is drawn on the mirrored picture as well.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from pacs_cbir.embed.network import Network
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.progress import progress
from pacs_cbir.learn.stacks import Stack

SAME_PLACE_MM = 2.5
"""Largest distance of two sequences' slices that show one place: half the spacing at which slices are drawn."""
TRUST = 4
"""Power to which agreement says what a drawing counts: the one that agrees best decides."""
DOUBT = 20.0
"""Pixels of the logits' map: small drawings are believed less."""
BATCH = 64

REVISION = 1
"""Raise it with every change of what is drawn of the same slices by the same network."""

Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]


def drawn_masks(network: Network, stacks: Sequence[Stack], kept: Path, shown: str = "") -> list[Stack]:
    """The stacks with the masks that a network draws, the same on all of a study's sequences.

    Args:
        network: with a lesion head; on the CPU.
        kept: folder of what is drawn, a file a study and plane: what is there of the same network and slices is taken,
            so that a run that was killed goes on.
        shown: what the progress is called.

    Raises:
        RecipeError: it draws no lesion on any of them.
    """
    network = network.eval()
    drawer = fingerprint_of(network)
    of_patient: defaultdict[str, defaultdict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, stack in enumerate(stacks):
        of_patient[stack.patient][stack.study, stack.plane].append(number)
    masked = list(stacks)
    with progress() as bar:
        for studies in bar.track(of_patient.values(), description=f"{shown}  drawing masks, patients".strip()):
            for numbers in studies.values():
                alike = [stacks[number] for number in numbers]
                path = kept / f"{_identity(drawer, alike)}.npz"
                masks = _read(path, alike)
                if masks is None:
                    masks = _draw_study(network, alike)
                    _write(path, masks)
                for number, drawn in zip(numbers, masks, strict=True):
                    areas = drawn.sum(axis=(1, 2))
                    best = int(areas.argmax()) if areas.any() else None
                    masked[number] = replace(stacks[number], masks=drawn, best=best)
    if all(stack.best is None for stack in masked):
        raise RecipeError('masks = "drawn" needs an encoder that draws lesions, and this one draws none on these data')
    return masked


def fingerprint_of(network: nn.Module) -> str:
    """SHA-256 of the weights, 64 hex digits."""
    sha256 = hashlib.sha256()
    for tensor in network.state_dict().values():
        sha256.update(tensor.cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()


def _identity(drawer: str, stacks: Sequence[Stack]) -> str:
    """What decides the masks of one study's stacks."""
    sha256 = hashlib.sha256(f"{REVISION} {drawer}".encode())
    for stack in stacks:
        for array in (stack.pixels, stack.positions):
            sha256.update(f"{array.shape}".encode() + array.tobytes())
    return sha256.hexdigest()


def _read(path: Path, stacks: Sequence[Stack]) -> list[Masks] | None:
    """What was drawn of these stacks before; None where nothing is there that can be read."""
    try:
        with np.load(path) as packed:
            return [
                np.unpackbits(packed[f"arr_{number}"], count=stack.pixels.size).reshape(stack.pixels.shape).astype(bool)
                for number, stack in enumerate(stacks)
            ]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _write(path: Path, masks: Sequence[Masks]) -> None:
    with whole_file(path) as file:
        np.savez(file, *map(np.packbits, masks))


def _draw_study(network: Network, stacks: Sequence[Stack]) -> list[Masks]:
    """Masks of the shape of each stack's pixels."""
    drawings = [(stack, *_draw(network, stack.pixels)) for stack in stacks]
    return [
        _upsampled(np.stack([_agreed(stack, k, drawings) for k in range(len(stack.pixels))]), stack.pixels.shape[-1])
        > 0
        for stack in stacks
    ]


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
