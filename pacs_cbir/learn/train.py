"""One trainer for every recipe: deterministic for a seed on one device, and gone on with after a kill.

What an epoch shows is drawn from (seed, epoch) alone, so a run that was killed and resumed ends in the same weights,
bit by bit, as one that was not.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pacs_cbir.embed.checkpoint import Checkpoint, load_checkpoint
from pacs_cbir.embed.network import Network, Outputs
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.errors import CheckpointError, RecipeError
from pacs_cbir.learn.augment import augment
from pacs_cbir.learn.draw import Batch, Drawing
from pacs_cbir.learn.drawn_masks import drawn_masks, fingerprint_of
from pacs_cbir.learn.losses import Contrast, Decoder, label_loss, lesion_loss, relevance_loss, relevances_of
from pacs_cbir.learn.progress import progress
from pacs_cbir.learn.recipe import Recipe, digest
from pacs_cbir.learn.relevance import gfd_d95
from pacs_cbir.learn.stacks import Stack
from pacs_cbir.learn.weights import check_name, initial_network, read_torch, save_trained

WARM_UP = 0.2
"""Share of the steps in which the learning rate rises."""
LARGEST_GRADIENT = 5.0
"""Norm at which gradients are cut: one odd batch must not undo an epoch."""
COARSE = 0.75
"""Share of the edge at which the first, coarse epochs show slices."""
SAVE_SECONDS = 20.0
"""At least so long between two saved states: of short epochs not each is worth 130 MB."""


def train(
    recipe: Recipe,
    stacks: Sequence[Stack],
    *,
    seed: int,
    out: Path,
    weights: Path | None = None,
    named_by_run: bool = False,
    shown: str = "",
) -> dict[str, Checkpoint]:
    """Train, and write OUT.safetensors with its card OUT.json; OUT-t1.safetensors and so on of one for each sequence.

    OUT.state, and OUT.drawn where masks are drawn, hold the run until it is finished, and the run of the same recipe,
    stacks, weights and seed goes on from them; what that run has finished is taken as it is.

    Args:
        stacks: as `recipe.preprocessing` draws them; every one is trained on.
        weights: see `initial_network`.
        named_by_run: OUT's name is of this run alone, as an experiment's is: what is finished there is taken as it is,
            and a state that another device or version left is begun anew.
        shown: what its progress is called; empty for OUT's name.

    Returns:
        Sequence → its checkpoint; "" → that of all sequences.

    Raises:
        RecipeError: the recipe does not fit the stacks, the name or the weights, OUT or OUT.state is of another run,
            or the loss is not finite.
    """
    recipe = recipe.taught(labels=any(stack.label is not None for stack in stacks))
    outs = _outs(recipe, stacks, out)
    alike = {sequence: [stack for stack in stacks if sequence in {"", stack.sequence}] for sequence in outs}
    trained, runs = {}, {}
    for sequence, own in outs.items():  # all are looked at before the first is trained
        if named_by_run and (finished := _finished(own)):
            trained[sequence] = finished
            continue
        runs[sequence] = _identity(recipe, alike[sequence], seed, weights)
        if not named_by_run and (done := _done(own, runs[sequence])):
            trained[sequence] = done
    for sequence in runs.keys() - trained.keys():
        called = f"{shown}, {sequence}" if shown and sequence else shown or outs[sequence].name
        trained[sequence] = _train_one(
            recipe,
            alike[sequence],
            seed,
            outs[sequence],
            weights,
            run_of=runs[sequence],
            anew=named_by_run,
            shown=called,
        )
    return {sequence: trained[sequence] for sequence in outs}


def _outs(recipe: Recipe, stacks: Sequence[Stack], out: Path) -> dict[str, Path]:
    """Sequence → what its checkpoint is called; "" → that of all sequences."""
    check_name(out.name)
    if not recipe.a_network_a_sequence:
        return {"": out}
    names = {sequence: f"{out.name}-{sequence.lower()}" for sequence in sorted({stack.sequence for stack in stacks})}
    for name in names.values():
        check_name(name)
    alike = [sequence for sequence, name in names.items() if list(names.values()).count(name) > 1]
    if alike:
        raise RecipeError(f"the networks of {' and '.join(alike)} would be one file: write the sequence in one way")
    return {sequence: out.with_name(name) for sequence, name in names.items()}


def _finished(out: Path) -> Checkpoint | None:
    """What a training of that name has left; None where it is not finished."""
    path = out.with_name(f"{out.name}.safetensors")
    running = out.with_name(f"{out.name}.state").exists()
    if running or not path.with_suffix(".json").exists():
        return None
    try:
        return load_checkpoint(path)
    except CheckpointError:  # half written, as when the machine died: trained anew
        return None


def _done(out: Path, identity: str) -> Checkpoint | None:
    """What this very run has left; None where nothing is there.

    Raises:
        RecipeError: something else is there.
    """
    path = out.with_name(f"{out.name}.safetensors")
    if not path.with_suffix(".json").exists():
        return None
    try:
        found = load_checkpoint(path)
    except CheckpointError as error:
        raise RecipeError(f"{error}; remove both files to train anew, or name another OUT") from error
    if found.card.training.run != identity:
        raise RecipeError(
            f"{path} is there, of another training: its recipe, data, seed, weights, device or program differ; "
            "remove it and its card to train anew, or name another OUT"
        )
    _drop_unfinished(out)  # the machine died between the two
    return found


def _identity(recipe: Recipe, stacks: Sequence[Stack], seed: int, weights: Path | None) -> str:
    """What tells a run from others: 64 hex digits."""
    start = initial_network(recipe, stacks, seed, weights)
    return digest(recipe, seed, _device(), fingerprint(stacks), fingerprint_of(start))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class _Run:
    """What a state file holds beside the number of finished epochs."""

    network: Network
    contrast: Contrast
    decoder: Decoder
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in self.__dataclass_fields__}

    def resume(self, state: dict[str, Any]) -> None:
        for name in self.__dataclass_fields__:
            getattr(self, name).load_state_dict(state[name])


def _train_one(
    recipe: Recipe,
    stacks: Sequence[Stack],
    seed: int,
    out: Path,
    weights: Path | None,
    *,
    run_of: str,
    anew: bool,
    shown: str,
) -> Checkpoint:
    network = initial_network(recipe, stacks, seed, weights)
    if recipe.masks == "drawn" and recipe.epochs:
        stacks = drawn_masks(network, stacks, _drawn(out), shown)
    if not recipe.epochs:
        return save_trained(network.eval(), recipe, stacks, seed, out, weights=weights, run=run_of)
    device = _device()
    _be_deterministic(device)
    drawing = Drawing(stacks, recipe)
    run = _start(network, recipe, recipe.epochs * drawing.batches, device)
    d95 = gfd_d95(stacks) if recipe.positives == "relevance" else 1.0
    state = out.with_name(f"{out.name}.state")
    finished = _resume(run, state, run_of, device, anew=anew)
    saved = -SAVE_SECONDS
    with progress() as bar:
        if finished:
            bar.console.print(f"{shown}  going on from epoch {finished} of {recipe.epochs}", markup=False)
        task = bar.add_task(shown, total=recipe.epochs * drawing.batches, completed=finished * drawing.batches)
        for epoch in range(finished, recipe.epochs):
            torch.manual_seed(int(digest(seed, epoch)[:15], 16))
            run.network.train()
            losses: list[float] = []
            for batch in drawing.epoch(seed, epoch):
                losses.append(_step(run, batch, recipe, device, d95=d95, coarse=epoch < recipe.coarse_epochs))
                bar.update(task, advance=1, description=f"{shown}  loss {losses[-1]:.3f}")
            mean = sum(losses) / len(losses)
            bar.console.print(f"{shown}  epoch {epoch + 1} of {recipe.epochs}  loss {mean:.3f}", markup=False)
            if time.monotonic() - saved >= SAVE_SECONDS and epoch + 1 < recipe.epochs:
                _save(state, {"identity": run_of, "finished": epoch + 1, **run.state()})
                saved = time.monotonic()
    checkpoint = save_trained(run.network.cpu().eval(), recipe, stacks, seed, out, weights=weights, run=run_of)
    _drop_unfinished(out)
    return checkpoint


def _drawn(out: Path) -> Path:
    """Folder of the masks that a run has drawn."""
    return out.with_name(f"{out.name}.drawn")


def _drop_unfinished(out: Path) -> None:
    """What a run keeps until it is finished."""
    shutil.rmtree(_drawn(out), ignore_errors=True)
    out.with_name(f"{out.name}.state").unlink(missing_ok=True)


def _be_deterministic(device: str) -> None:
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _start(network: Network, recipe: Recipe, steps: int, device: str) -> _Run:
    network = network.to(device).to(memory_format=torch.channels_last)
    contrast = Contrast(recipe).to(device)
    decoder = Decoder(recipe.architecture.embedding_dimension).to(device)
    parameters = [*network.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    # One step more: the schedule is asked for the rate after the last.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps + 1, pct_start=max(WARM_UP, 2 / (steps + 1))
    )
    return _Run(network, contrast, decoder, optimizer, schedule)


def _step(run: _Run, batch: Batch, recipe: Recipe, device: str, *, d95: float, coarse: bool) -> float:
    """One batch forth and back; the loss."""
    drawn = batch.to(device)
    seen = _change(drawn, recipe, coarse=coarse)
    with torch.autocast(device, torch.bfloat16, enabled=_has_fast_bfloat16(device)):
        outputs = run.network(seen.images.contiguous(memory_format=torch.channels_last))
        loss = _loss(run, seen, recipe, outputs)
        if recipe.contrast and recipe.positives == "relevance":
            relevances = relevances_of(drawn.images, seen.masks, d95)
            ranked = relevance_loss(outputs.embedding, relevances, seen.comparable(), recipe)
            loss = loss + recipe.contrast * ranked
    if not torch.isfinite(loss):
        raise RecipeError("the loss is not finite any more: lower learning_rate, or raise temperature")
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.network.parameters(), LARGEST_GRADIENT)
    run.optimizer.step()
    run.schedule.step()
    return float(loss.detach())


def _change(batch: Batch, recipe: Recipe, *, coarse: bool) -> Batch:
    """The batch as the network sees it: a mirrored head is another patient."""
    groups = int(batch.groups[-1]) + 1
    mirrored = (torch.rand(groups, device=batch.groups.device) < recipe.augmentation.flip / 2)[batch.groups]
    flips = mirrored.repeat_interleave(recipe.slices_a_view)
    images, masks = augment(batch.images, batch.masks, recipe.augmentation, flips)
    if coarse:
        images, masks = (_coarsened(drawn) for drawn in (images, masks))
    labels = batch.labels if recipe.positives == "label" else 2 * batch.labels + mirrored
    return replace(batch, images=images, masks=masks, labels=labels)


def _coarsened(images: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(images, scale_factor=COARSE, mode="bilinear", antialias=True)


def _loss(run: _Run, seen: Batch, recipe: Recipe, outputs: Outputs) -> torch.Tensor:
    """The weighted sum of all losses but that of relevance, which needs the grey levels as they were."""
    embeddings = outputs.embedding
    loss = embeddings.sum() * 0
    if recipe.contrast and recipe.positives in {"picture", "patient", "label"}:
        views = functional.normalize(embeddings.view(len(seen.labels), recipe.slices_a_view, -1).mean(dim=1), dim=1)
        loss = loss + recipe.contrast * run.contrast(views, seen.labels)
    if recipe.reconstruction:
        loss = loss + recipe.reconstruction * run.decoder.loss(embeddings, seen.images)
    if recipe.labels:
        appearance = embeddings[:, recipe.architecture.places["appearance"]]
        loss = loss + recipe.labels * label_loss(appearance, seen.classes, recipe)
    if recipe.lesion and outputs.lesion is not None and seen.known.any():
        loss = loss + recipe.lesion * lesion_loss(outputs.lesion[seen.known], seen.masks[seen.known])
    return loss


def _has_fast_bfloat16(device: str) -> bool:
    """On a CPU without instructions for it bfloat16 is emulated, and slower than float32."""
    return device == "cuda" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def fingerprint(stacks: Sequence[Stack]) -> str:
    """SHA-256 of what is known and seen of stacks, 64 hex digits."""
    sha256 = hashlib.sha256()
    for stack in stacks:
        sha256.update(
            f"{stack.patient}\0{stack.study}\0{stack.sequence}\0{stack.label}\0{stack.split}\0{stack.best}\0".encode()
        )
        # Only where it is known: what was trained and measured before anyone could say it stays what it was.
        sha256.update(f"{stack.body_part}\0".encode() if stack.body_part else b"")
        sha256.update(stack.pixels.tobytes())
        sha256.update(b"" if stack.masks is None else stack.masks.tobytes())
        sha256.update(b"" if stack.picture is None else stack.picture.tobytes())
        sha256.update(b"" if stack.truth is None else stack.truth.tobytes())
    return sha256.hexdigest()


def _save(path: Path, state: dict[str, Any]) -> None:
    with whole_file(path) as file:
        torch.save(state, file)


def _resume(run: _Run, path: Path, identity: str, device: str, *, anew: bool) -> int:
    """Take over a state of this very run; the number of finished epochs.

    Args:
        anew: leave a state of another run aside.

    Raises:
        RecipeError: the file is damaged, no saved training, or of another run.
    """
    if not path.exists():
        return 0
    state = read_torch(path, device, "remove it to begin anew")
    if "identity" not in state:
        raise RecipeError(f"{path} is no saved training: remove it to begin anew")
    if state["identity"] != identity:
        if anew:
            return 0
        raise RecipeError(
            f"{path} is of another training: its recipe, data, seed, weights, device or program differ; "
            "remove it to begin anew, or name another OUT"
        )
    run.resume(state)
    finished: int = state["finished"]
    return finished
