"""The first checkpoint: ResNet18 from random weights, supervised contrastive, on simulated patients alone.

Every sequence of a patient, with and without skull, shows the same tumour in the same head: those pictures are made
alike, and unlike those of other patients: patient = label (Khosla et al., Supervised Contrastive Learning, 2020).
`python -m pacs_cbir.learn.train OUT` writes OUT.safetensors and its card.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import typer
from pytorch_metric_learning.losses import SupConLoss
from torch import nn
from torch.nn import functional

from pacs_cbir.embed.checkpoint import Architecture, Card, Checkpoint, Domain, Training, save_checkpoint
from pacs_cbir.embed.encoder import Encoder, build_network
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.learn.cohort import Study, simulate_studies
from pacs_cbir.learn.figures import measure
from pacs_cbir.learn.phantom import SEQUENCES

ARCHITECTURE = Architecture(network="resnet18", embedding_dimension=256)
PREPROCESSING = Preprocessing()
TEMPLATE_LICENCE = (
    "ICBM 152 2009a: copyright 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological "
    "Institute, McGill University; use, copying, modification and distribution without fee, with this notice"
)
WHITENING_PATIENTS = 64
HELD_OUT_PATIENTS = 40
HELD_OUT_COHORT = 2_000_000
"""Added to the seed for the cohort that figures are measured on."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the run, kept in the card.

    Attributes:
        patients_a_batch, stacks_a_patient, slices_a_stack: what a batch shows.
        level_jitter: the slices of a patient's stacks lie within so many slices of a common level.
        temperature: of the loss.
        shift, turn, scale, bend: largest or, of the bend, usual displacement: share of half the picture, radians,
            logarithm, share of half the picture. The bend makes the head's outline an unsure sign of the patient.
        gamma, gain: largest logarithm of each.
        noise: largest standard deviation.
    """

    patients_a_batch: int = 12
    stacks_a_patient: int = 2
    slices_a_stack: int = 4
    level_jitter: int = 1
    temperature: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    shift: float = 0.1
    turn: float = 0.25
    scale: float = 0.15
    bend: float = 0.06
    gamma: float = 0.3
    gain: float = 0.2
    noise: float = 0.03


RECIPE = Recipe()


def train(studies: Sequence[Study], epochs: int, seed: int, recipe: Recipe = RECIPE) -> nn.Module:
    """Train on some patients; the same seed gives the same weights on the same machine.

    Raises:
        ValueError: fewer than two patients: none would be unlike another.
    """
    if len(studies) < 2:
        raise ValueError("contrastive training needs two patients or more")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = build_network(ARCHITECTURE).to(device).to(memory_format=torch.channels_last).train()
    batches = -(-len(studies) // recipe.patients_a_batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=epochs * batches + 1)
    for epoch in range(epochs):
        losses = []
        for chosen in np.array_split(rng.permutation(len(studies)), batches):
            pixels = np.concatenate([_draw_views(rng, studies[i], recipe) for i in chosen])  # uint8 (p * v * s, x, x)
            images = _augment(torch.from_numpy(pixels)[:, None].float() / 255, recipe)  # (p * v * s, 1, x, x)
            images = images.to(device, memory_format=torch.channels_last)
            # bfloat16 is three times as fast on CPUs that have AMX, and on GPUs.
            with torch.autocast(device, torch.bfloat16):
                features = network(images)  # (p * v * s, dimension)
            slices = functional.normalize(features.float(), dim=1)
            loss = _loss(slices, len(chosen), recipe)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        typer.echo(f"epoch {epoch + 1}/{epochs}  loss {np.mean(losses):.3f}")
    network.eval()
    return network.cpu()


def _draw_views(rng: np.random.Generator, study: Study, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Some of a patient's stacks at the same levels, uint8 (stacks * slices, size, size), mirrored half of the time.

    The levels are spread over the head, as those of a whole stack are; one of them shows the tumour.
    """
    first = max(stack.levels[0] for stack in study.stacks)
    last = min(stack.levels[-1] for stack in study.stacks)
    step = (last - first) / recipe.slices_a_stack
    levels = first + step * (np.arange(recipe.slices_a_stack) + rng.random(recipe.slices_a_stack))
    if len(study.tumour_levels):
        tumour = rng.choice(study.tumour_levels)
        levels[np.abs(levels - tumour).argmin()] = tumour
    pixels = []
    for i in rng.permutation(len(study.stacks))[: recipe.stacks_a_patient]:
        near = levels + rng.uniform(-recipe.level_jitter, recipe.level_jitter, len(levels))
        nearest = np.abs(study.stacks[i].levels - near[:, None]).argmin(axis=1)
        pixels.append(study.stacks[i].pixels[nearest])
    views = np.concatenate(pixels)
    # All views together: a mirrored head is another patient, and left stays unlike right.
    return views[:, :, ::-1] if rng.random() < 0.5 else views


def _loss(slices: torch.Tensor, patients: int, recipe: Recipe) -> torch.Tensor:
    """Like should be the slices at one level of one patient, and the stacks of one patient: pooled as in `Encoder`."""
    supervised = SupConLoss(temperature=recipe.temperature)
    by_stack = slices.view(patients, recipe.stacks_a_patient, recipe.slices_a_stack, -1)  # (p, v, s, dimension)
    stacks = functional.normalize(by_stack.mean(dim=2), dim=-1).flatten(0, 1)  # (p * v, dimension)
    labels = torch.arange(patients, device=slices.device)[:, None, None]
    levels = torch.arange(recipe.slices_a_stack, device=slices.device)
    slice_labels = (labels * recipe.slices_a_stack + levels).expand(by_stack.shape[:3]).flatten()
    stack_labels = labels[:, 0].expand(by_stack.shape[:2]).flatten()
    loss: torch.Tensor = supervised(slices, slice_labels) + supervised(stacks, stack_labels)
    return loss


def _augment(images: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Each image moved, bent and made brighter or noisier by itself; (n, 1, size, size) in [0, 1] → the same."""
    n, _, size, _ = images.shape

    def uniform(largest: float, *shape: int) -> torch.Tensor:
        return (torch.rand(n, *shape) * 2 - 1) * largest

    turn, scale = uniform(recipe.turn), uniform(recipe.scale).exp()
    linear = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], dim=1).view(n, 2, 2) * scale[:, None, None]
    grid = functional.affine_grid(torch.cat([linear, uniform(recipe.shift, 2, 1)], dim=2), [n, 1, size, size], False)
    bend = functional.interpolate(recipe.bend * torch.randn(n, 2, 6, 6), size=(size, size), mode="bicubic")
    images = functional.grid_sample(images, grid + bend.permute(0, 2, 3, 1), align_corners=False)
    images = uniform(recipe.gain, 1, 1, 1).exp() * images.clamp(0, 1) ** uniform(recipe.gamma, 1, 1, 1).exp()
    noise = recipe.noise * torch.rand(n, 1, 1, 1) * torch.randn_like(images)
    return torch.where(images > 0, (images + noise).clamp(0, 1), 0)


def whiten(network: nn.Module, studies: Sequence[Study]) -> None:
    """Put a whitening of ResNet's pooled features in the place of the projection that was trained with.

    A few loud directions, such as the level of a slice, would drown what is rare: a tumour. After PCA whitening each
    of the `embedding_dimension` strongest directions counts the same (Jégou & Chum, ECCV 2012).
    """
    device = next(network.parameters()).device
    network.fc = nn.Identity()
    features = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        for stack in (stack for study in studies[:WHITENING_PATIENTS] for stack in study.stacks):
            images = torch.from_numpy(stack.pixels)[:, None].to(device, memory_format=torch.channels_last) / 255
            features.append(network(images).double().cpu())  # (n, 512)
    pooled = torch.cat(features)
    variances, directions = torch.linalg.eigh(torch.cov(pooled.T))  # ascending
    strongest = slice(-ARCHITECTURE.embedding_dimension, None)
    floor = 1e-3 * variances.mean()  # so that directions without variance do not become noise
    weight = (directions[:, strongest] / (variances[strongest] + floor).sqrt()).T
    network.fc = nn.Linear(*weight.T.shape)
    network.load_state_dict({**network.state_dict(), "fc.weight": weight, "fc.bias": -weight @ pooled.mean(dim=0)})


def train_first_checkpoint(out: Path, *, patients: int = 384, epochs: int = 14, seed: int = 20261123) -> Checkpoint:
    """Simulate, train, measure on a cohort of its own, and write OUT.safetensors and OUT.json.

    Args:
        out: path without suffix; its last part names the checkpoint.
        patients: simulated patients to train on.
        epochs: how often each is seen.
        seed: of cohort, weights and augmentation.
    """
    studies = simulate_studies(seed, range(patients), PREPROCESSING)
    held_out = simulate_studies(seed + HELD_OUT_COHORT, range(HELD_OUT_PATIENTS), PREPROCESSING)
    checkpoint = first_checkpoint(out.name, studies, held_out, epochs=epochs, seed=seed)
    return save_checkpoint(out.with_name(f"{out.name}.safetensors"), checkpoint.card, checkpoint.weights)


def first_checkpoint(
    name: str, studies: Sequence[Study], held_out: Sequence[Study], *, epochs: int, seed: int
) -> Checkpoint:
    """Train on some patients and measure on others, beside the same network with random weights."""
    card = Card(
        name=name,
        purpose=(
            "A first checkpoint, trained in minutes on simulated patients alone and measured on simulated patients "
            "alone: it shows that the parts work together. It ranks by the head as much as by the tumour, only a "
            "little better than random weights do. It has seen no real patient and is not for clinical use."
        ),
        architecture=ARCHITECTURE,
        preprocessing=PREPROCESSING,
        domain=Domain(body_parts=("BRAIN",), sequences=SEQUENCES),
        training=Training(
            method=(
                "supervised contrastive (Khosla et al. 2020), patient = label, from random weights; then PCA whitening"
            ),
            data="pacs_cbir.learn.phantom: heads simulated from nilearn's MNI152 T1, grey and white matter templates",
            licences=(TEMPLATE_LICENCE,),
            patients=len(studies),
            epochs=epochs,
            seed=seed,
            settings=asdict(RECIPE),
            date=datetime.datetime.now(datetime.UTC).date(),
        ),
        figures={},
    )
    trained = Checkpoint(card, _weights(train(studies, epochs, seed), studies))
    torch.manual_seed(seed)
    untrained = Checkpoint(card, _weights(build_network(ARCHITECTURE).eval(), studies))
    figures = measure(Encoder(trained), held_out)
    for figure, value in measure(Encoder(untrained), held_out).items():
        figures.setdefault(
            figure if figure.endswith(("chance", "histogram", "patients")) else f"{figure}_untrained", value
        )
    return Checkpoint(card.model_copy(update={"figures": figures}), trained.weights)


def _weights(network: nn.Module, studies: Sequence[Study]) -> dict[str, npt.NDArray[np.generic]]:
    """Whiten, and give the matrices in float16, which halves the file."""
    whiten(network, studies)
    weights = {name: weight.numpy() for name, weight in network.state_dict().items()}
    return {name: weight.astype(np.float16) if weight.ndim > 1 else weight for name, weight in weights.items()}


if __name__ == "__main__":
    typer.run(train_first_checkpoint)
