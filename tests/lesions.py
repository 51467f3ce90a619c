"""Stacks made by hand: a lesion of a known place and size in a dark head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pacs_cbir.learn.stacks import Stack

Mask = npt.NDArray[np.bool_]
EDGE = 128


def disc(radius: float, row: float = 63.5, column: float = 63.5, edge: int = EDGE) -> Mask:
    rows, columns = np.ogrid[:edge, :edge]
    drawn: Mask = np.hypot(rows - row, columns - column) <= radius
    return drawn


def lesion_stack(
    patient: str = "a",
    truth: Mask | None = None,
    *,
    sequence: str = "FLAIR",
    grey: float = 0.5,
    slices: int = 1,
    parameters: Mapping[str, float] | None = None,
    **fields: Any,
) -> Stack:
    """A head of 0.3 and a lesion of `grey`, which is the slice in the middle; the other slices show the head alone."""
    head = disc(55) * np.float32(0.3)
    picture = head if truth is None else np.where(truth, np.float32(grey), head)
    best = slices // 2
    pixels = np.stack([picture if k == best else head for k in range(slices)])
    masks = None if truth is None else np.stack([truth & (k == best) for k in range(slices)])
    known: dict[str, Any] = {
        "patient": patient,
        "study": f"study of {patient}",
        "sequence": sequence,
        "plane": "AXIAL",
        "split": None,
        "label": None,
        "pixels": pixels.astype(np.float16),
        "levels": np.arange(slices) * 3,
        "positions": np.arange(slices) * 15.0,
        "masks": masks,
        "best": None if truth is None else best,
        "picture": picture.astype(np.float32),
        "truth": truth,
        "parameters": parameters or {},
    }
    return Stack(**(known | fields))
