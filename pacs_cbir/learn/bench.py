"""What an embedding costs, in units of a plain ResNet18 that sees the same slices in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx.experimental.optimization import fuse
from torchvision.models import resnet18

from pacs_cbir.embed.checkpoint import Checkpoint
from pacs_cbir.embed.encoder import Encoder


@dataclass(frozen=True)
class EmbeddingCost:
    """Medians of the rounds.

    Attributes:
        encoder, resnet18: slices a second.
        ratio: seconds of the encoder by seconds of ResNet18 in the same round; the acceptable is 0.85 to 1.15.
    """

    encoder: float
    resnet18: float
    ratio: float


def embedding_cost(checkpoint: Checkpoint, *, slices: int = 128, rounds: int = 7) -> EmbeddingCost:
    """Embed random slices with the encoder and with torchvision's ResNet18, by turns.

    ResNet18 is given what the encoder has: fused batch norms, channels last, the same batches, device and precision;
    its three channels are the slice three times.
    """
    encoder = Encoder(checkpoint)
    size = checkpoint.card.preprocessing.size
    pixels = np.random.default_rng(0).random((slices, size, size), np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = fuse(resnet18().eval()).to(device).to(memory_format=torch.channels_last)
    shown = torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1)
    batches = [shown[start : start + encoder.batch] for start in range(0, slices, encoder.batch)]

    def classify() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            for batch in batches:
                plain(batch.to(device).contiguous(memory_format=torch.channels_last)).cpu()

    def embed() -> None:
        encoder.embed(pixels)

    embed()
    classify()
    seconds = np.array([[_seconds(embed), _seconds(classify)] for _ in range(rounds)])
    of_encoder, of_resnet18 = np.median(seconds, axis=0)
    return EmbeddingCost(
        encoder=float(slices / of_encoder),
        resnet18=float(slices / of_resnet18),
        ratio=float(np.median(seconds[:, 0] / seconds[:, 1])),
    )


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
