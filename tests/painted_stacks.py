"""Small stacks painted in a moment: an ellipse of a head with a bright disc of a lesion, a place and size a patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pacs_cbir.learn.stacks import Stack

SLICES = 4


def painted_stacks(
    patients: int, *, sequences: tuple[str, ...] = ("T1", "FLAIR"), size: int = 32, first: int = 0, masks: bool = True
) -> list[Stack]:
    """Stacks of patients `first` to `first + patients - 1`, each sequence with its own grey levels."""
    stacks = []
    for number in range(first, first + patients):
        rng = np.random.default_rng(number)
        place, radius = rng.uniform(0.35, 0.65, 2), rng.uniform(0.08, 0.18)
        for sequence in sequences:
            bright = 0.3 + 0.5 * rng.random()
            shown = [_slice(size, place, radius * share, bright, rng) for share in (0, 0.6, 1, 0)]
            picture, truth = _slice(128, place, radius, bright, rng)
            stacks.append(
                Stack(
                    patient=f"p{number:03d}",
                    study=f"s{number:03d}",
                    sequence=sequence,
                    plane="axial",
                    split="test" if number % 3 == 0 else "train",
                    label="round" if number % 2 else "flat",
                    pixels=np.stack([pixels for pixels, _ in shown]).astype(np.float16),
                    levels=np.arange(SLICES),
                    positions=5.0 * np.arange(SLICES),
                    masks=np.stack([mask for _, mask in shown]) if masks else None,
                    best=2 if masks else None,
                    picture=picture if masks else None,
                    truth=truth if masks else None,
                    parameters={},
                )
            )
    return stacks


def _slice(
    size: int, place: npt.NDArray[np.float64], radius: float, bright: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    head = np.hypot((y - 0.5) / 0.45, (x - 0.5) / 0.38) < 1
    mask = (np.hypot(y - place[0], x - place[1]) < radius) & head
    pixels = np.where(head, 0.25 + bright * mask + rng.normal(0, 0.02, head.shape), 0)
    return pixels.clip(0, 1).astype(np.float32), mask
