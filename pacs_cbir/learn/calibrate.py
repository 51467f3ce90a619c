"""How alike the series of two unrelated patients are to an encoder: what a match must be more than."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pacs_cbir.embed.checkpoint import Checkpoint, save_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.learn.stacks import Stack

LARGEST = 1000
"""Series of a sequence that are looked at: enough for a median, and no more than a matrix can hold."""
LARGEST_BY_SLICE = 100
"""The same where all slices of theirs are compared."""


def calibrate(path: Path, checkpoint: Checkpoint, stacks: Sequence[Stack]) -> Checkpoint:
    """Write into a checkpoint's card what it makes of unrelated patients.

    Args:
        path: the checkpoint's .safetensors file.
        stacks: that it was trained on.
    """
    encoder = Encoder(checkpoint)
    found = {
        "unrelated": unrelated_similarities(encoder, stacks),
        "unrelated_slices": unrelated_slice_similarities(encoder, stacks),
    }
    card = checkpoint.card.model_copy(update=found)
    return save_checkpoint(path, card, checkpoint.weights)


def unrelated_similarities(encoder: Encoder, stacks: Sequence[Stack]) -> dict[str, float]:
    """MR sequence → median cosine of the whole stacks of two patients.

    Whole series are compared with whole series: pictures that stand alone are looked at only where there is nothing
    else. Sequences of one patient alone are left out.
    """
    return _by_sequence(stacks, lambda alike: _median(encoder, _some(alike, LARGEST)))


def unrelated_slice_similarities(encoder: Encoder, stacks: Sequence[Stack]) -> dict[str, float]:
    """MR sequence → median cosine of a slice and the nearest one of another patient's series, which is how a slice is
    searched with: of many slices one is always more alike than whole series are."""
    return _by_sequence(stacks, lambda alike: _median_of_slices(encoder, _some(alike, LARGEST_BY_SLICE)))


def _some(stacks: Sequence[Stack], most: int) -> Sequence[Stack]:
    """As many at most, from everywhere: a data set's first ones may be of one kind."""
    return stacks[:: -(-len(stacks) // most)]


def _by_sequence(stacks: Sequence[Stack], median: Callable[[list[Stack]], float | None]) -> dict[str, float]:
    several = [stack for stack in stacks if len(stack.pixels) > 1]
    by_sequence: defaultdict[str, list[Stack]] = defaultdict(list)
    for stack in several or stacks:
        by_sequence[stack.sequence].append(stack)
    found = {sequence: median(alike) for sequence, alike in sorted(by_sequence.items())}
    return {sequence: value for sequence, value in found.items() if value is not None}


def _median_of_slices(encoder: Encoder, stacks: Sequence[Stack]) -> float | None:
    slices = [encoder.embed(stack.pixels) for stack in stacks]
    firsts = np.cumsum([0, *(len(own) for own in slices[:-1])])
    nearest = np.maximum.reduceat(np.concatenate(slices) @ np.concatenate(slices).T, firsts, axis=1)
    patients: npt.NDArray[np.str_] = np.array([stack.patient for stack in stacks])
    others = np.repeat(patients, [len(own) for own in slices])[:, None] != patients
    return round(float(np.median(nearest[others])), 4) if others.any() else None


def _median(encoder: Encoder, stacks: Sequence[Stack]) -> float | None:
    pooled = np.stack([encoder.pool(encoder.embed(stack.pixels)) for stack in stacks])
    patients: npt.NDArray[np.str_] = np.array([stack.patient for stack in stacks])
    others = patients[:, None] != patients
    return round(float(np.median((pooled @ pooled.T)[others])), 4) if others.any() else None
