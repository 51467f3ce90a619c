"""A training as a person orders it: alone in its place, and calibrated on whom it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pacs_cbir.learn.alone import alone
from pacs_cbir.learn.calibrate import calibrate
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.stacks import Stack
from pacs_cbir.learn.train import train


def train_and_calibrate(recipe: Recipe, stacks: Sequence[Stack], *, seed: int, out: Path, weights: Path | None) -> None:
    """Train as `train` does, and write into each card what it makes of unrelated patients. What the cards will not
    claim is told first.

    Called again after a kill, be it in the calibration, it does what is left.

    Raises:
        RecipeError: as `train`, or another run writes OUT.
    """
    if not any(stack.body_part for stack in stacks):
        Console(stderr=True).print(
            "No row has a body_part: the card claims no part of the body, and every answer will be marked as outside "
            "of what the encoder was trained for. Fill the manifest's column body_part in, as with BRAIN.",
            style="yellow",
            soft_wrap=True,
        )
    with alone(out.with_name(f".{out.name}.lock"), out):
        for trained in train(recipe, stacks, seed=seed, out=out, weights=weights).values():
            calibrate(out.with_name(f"{trained.card.name}.safetensors"), trained, stacks)
