"""How alike the series of two unrelated patients are to an encoder: what a match must be more than."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pacs_cbir.embed.checkpoint import Checkpoint, save_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.learn.stacks import Stack

LARGEST = 1000
"""Series of a sequence that are looked at: enough for a median, and no more than a matrix can hold."""


def calibrate(path: Path, checkpoint: Checkpoint, stacks: Sequence[Stack]) -> Checkpoint:
    """Write into a checkpoint's card what it makes of unrelated patients.

    Args:
        path: the checkpoint's .safetensors file.
        stacks: that it was trained on.
    """
    card = checkpoint.card.model_copy(update={"unrelated": unrelated_similarities(Encoder(checkpoint), stacks)})
    return save_checkpoint(path, card, checkpoint.weights)


def unrelated_similarities(encoder: Encoder, stacks: Sequence[Stack]) -> dict[str, float]:
    """MR sequence → median cosine of the whole stacks of two patients.

    Whole series are compared with whole series: pictures that stand alone are looked at only where there is nothing
    else. Sequences of one patient alone are left out.
    """
    several = [stack for stack in stacks if len(stack.pixels) > 1]
    by_sequence: defaultdict[str, list[Stack]] = defaultdict(list)
    for stack in several or stacks:
        by_sequence[stack.sequence].append(stack)
    found = {sequence: _median(encoder, alike[:LARGEST]) for sequence, alike in sorted(by_sequence.items())}
    return {sequence: median for sequence, median in found.items() if median is not None}


def _median(encoder: Encoder, stacks: Sequence[Stack]) -> float | None:
    pooled = np.stack([encoder.pool(encoder.embed(stack.pixels)) for stack in stacks])
    patients: npt.NDArray[np.str_] = np.array([stack.patient for stack in stacks])
    others = patients[:, None] != patients
    return round(float(np.median((pooled @ pooled.T)[others])), 4) if others.any() else None
