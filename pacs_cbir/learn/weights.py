"""Where a training starts from, and what it leaves behind: weights in, a checkpoint with its card out."""

from __future__ import annotations

import datetime
import pickle
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import ResNet18_Weights

from pacs_cbir.embed.checkpoint import (
    Card,
    Checkpoint,
    Domain,
    Training,
    default_checkpoint_path,
    load_checkpoint,
    save_checkpoint,
)
from pacs_cbir.embed.network import SHAPE_STEP, Network, build_network, fourier_descriptors
from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.stacks import Stack

CARD_NAME = r"[a-z0-9][a-z0-9.-]*"


def initial_network(recipe: Recipe, stacks: Sequence[Stack], seed: int, weights: Path | None) -> Network:
    """The network as it is before the first step, on the CPU.

    Args:
        stacks: to train on: the landmarks among shapes are taken from their lesions.
        weights: of a recipe that starts "pretrained": a file with torchvision's names, or a checkpoint of ours; None
            for torchvision's own, which are downloaded.

    Raises:
        RecipeError: the weights are missing or belong to another network.
        CheckpointError: a checkpoint cannot be read.
    """
    network, filled = _started(recipe, seed, weights)
    if recipe.architecture.shape_landmarks and "landmarks" not in filled:
        network.fit_shapes(_shapes(stacks, recipe.architecture.shape_landmarks, seed))
    return network


def check_start(recipe: Recipe, weights: Path | None) -> None:
    """Whether a recipe finds the weights that it starts from, whatever the stacks.

    Raises:
        RecipeError, CheckpointError: as `initial_network`.
    """
    if recipe.init != "random":
        _started(recipe, 0, weights)


def _started(recipe: Recipe, seed: int, weights: Path | None) -> tuple[Network, set[str]]:
    """The network, and which of its weights are not random."""
    torch.manual_seed(seed)
    network = build_network(recipe.architecture)
    appearance = network.appearance
    if appearance is not None and appearance.in_features == appearance.out_features:
        # The features themselves, so that an encoder without training is what it is called.
        nn.init.eye_(appearance.weight)
        nn.init.zeros_(appearance.bias)
    filled: set[str] = set()
    if recipe.init == "shipped":
        filled = _fill(network, _of_checkpoint(default_checkpoint_path()), "the package's own checkpoint")
    elif recipe.init == "pretrained":
        filled = _fill(network, _pretrained(weights), str(weights or "torchvision's checkpoint"))
    if recipe.masks == "drawn" and "head.coarse.weight" not in filled:
        raise RecipeError('masks = "drawn" needs weights that draw lesions, as "shipped" does: these have no head')
    return network, filled


def training_of_start(recipe: Recipe, weights: Path | None) -> Training | None:
    """How the checkpoint of ours came about that a training starts from; None where it starts from none.

    Raises:
        CheckpointError: it cannot be read.
    """
    if recipe.init == "shipped":
        return load_checkpoint(default_checkpoint_path()).card.training
    if recipe.init == "pretrained" and weights is not None and weights.suffix == ".safetensors":
        return load_checkpoint(weights).card.training
    return None


def _pretrained(path: Path | None) -> Mapping[str, torch.Tensor]:
    if path is not None and path.suffix == ".safetensors":
        return _of_checkpoint(path)
    if path is not None:
        state = read_torch(path, "cpu", "name a file of ResNet18's weights with --weights")
    else:
        try:
            state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise RecipeError(
                f"torchvision's weights cannot be had: {error}; name a file of ResNet18's weights with --weights"
            ) from error
    # One grey channel answers as three equal ones did.
    trunk = {
        f"trunk.{name}": tensor.float()
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and not name.startswith("fc.")
    }
    if "trunk.conv1.weight" in trunk:
        trunk["trunk.conv1.weight"] = trunk["trunk.conv1.weight"].sum(dim=1, keepdim=True)
    return trunk


def read_torch(path: Path, device: str, remedy: str) -> dict[str, Any]:
    """What `torch.save` wrote under names.

    Args:
        remedy: what to do about a file that cannot be read.

    Raises:
        RecipeError: the file is missing, damaged or of another kind.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, struct.error, pickle.UnpicklingError) as error:
        raise RecipeError(f"{path} cannot be read ({type(error).__name__}): {remedy}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds nothing under names: {remedy}")
    return content


def _of_checkpoint(path: Path) -> Mapping[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(weight)) for name, weight in load_checkpoint(path).weights.items()}


def _fill(network: Network, weights: Mapping[str, torch.Tensor], source: str) -> set[str]:
    """Take over what fits, and say what did."""
    own = network.state_dict()
    fitting = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
    missing = [n for n in own if n.startswith("trunk.") and n not in fitting and not n.endswith("num_batches_tracked")]
    if missing:
        raise RecipeError(f"{source} is no ResNet18: it lacks {', '.join(missing[:3])}")
    if broken := [name for name, weight in fitting.items() if not torch.isfinite(weight).all()]:
        raise RecipeError(f"{source} holds weights that are not finite, {', '.join(broken[:3])}: take another file")
    network.load_state_dict(fitting, strict=False)
    return set(fitting)


def _shapes(stacks: Sequence[Stack], landmarks: int, seed: int) -> torch.Tensor:
    """Generic Fourier descriptors of some lesions, (landmarks, 45)."""
    masks = [s.masks[s.best] for s in stacks if s.masks is not None and s.best is not None]
    if not masks:
        raise RecipeError("architecture.shape_landmarks needs stacks with lesion masks: set it to 0 without them")
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(masks), landmarks, replace=len(masks) < landmarks)
    shown = torch.from_numpy(np.stack([masks[i] for i in chosen])).float()[:, None]
    return fourier_descriptors(functional.avg_pool2d(shown, 2 * SHAPE_STEP))  # as large as drawn masks are


def check_name(name: str) -> None:
    """Refuse what cannot name a checkpoint, before hours of training."""
    if not re.fullmatch(CARD_NAME, name):
        raise RecipeError(f"{name!r} cannot name a checkpoint: lower-case letters, digits, dots and hyphens can")


def save_trained(
    network: Network, recipe: Recipe, stacks: Sequence[Stack], seed: int, out: Path, *, weights: Path | None, run: str
) -> Checkpoint:
    """Write OUT.safetensors and OUT.json.

    Matrices are stored in float16, which halves the file, so the checkpoint is to be measured as it is read again.

    Args:
        weights: that the training started from; see `initial_network`.
        run: what tells this training from others.
    """
    halved = {name for name, parameter in network.named_parameters() if parameter.ndim > 1}
    arrays = {name: w.detach().cpu().numpy() for name, w in network.state_dict().items()}
    patients = {stack.patient for stack in stacks} if recipe.epochs else set()
    start = training_of_start(recipe, weights)
    card = Card(
        name=out.name,
        purpose=recipe.purpose,
        architecture=recipe.architecture,
        preprocessing=recipe.preprocessing,
        domain=Domain(
            body_parts=tuple(sorted({stack.body_part for stack in stacks} - {""})),
            sequences=tuple(sorted({stack.sequence for stack in stacks})),
        ),
        training=Training(
            method="; then ".join([*([] if start is None else [start.method]), _method(recipe)]),
            data=recipe.data or "what the manifest named",
            licences=recipe.licences,
            patients=len(patients),
            epochs=recipe.epochs,
            seed=seed,
            settings=dict(_numbers(recipe.model_dump())),
            date=datetime.datetime.now(datetime.UTC).date(),
            run=run,
            patient_digests={} if start is None else start.patient_digests,
        ),
        figures={},
    )
    return save_checkpoint(
        out.with_name(f"{out.name}.safetensors"),
        card,
        {name: array.astype(np.float16) if name in halved else array for name, array in arrays.items()},
        patients,
    )


def _method(recipe: Recipe) -> str:
    """What no number tells of a recipe; the numbers are the card's settings."""
    choices = {key: value for key, value in recipe.model_dump().items() if isinstance(value, str)}
    words = [f"{key} {value}" for key, value in choices.items() if key not in {"purpose", "data"}]
    return ", ".join([f"{recipe.epochs} epochs", *words])


def _numbers(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number, those of nested parts under `part.name`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)
