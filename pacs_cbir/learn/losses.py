"""What training makes small: contrast by likeness or by relevance, the lesion's mask, the picture itself."""

from __future__ import annotations

import itertools

import torch
from pytorch_metric_learning.losses import CrossBatchMemory, SupConLoss
from torch import nn
from torch.nn import functional

from pacs_cbir.embed.network import fourier_descriptors
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.relevance import FOREGROUND, HISTOGRAM_BINS

RECONSTRUCTED = 32
"""Edge in pixels of the picture that is drawn from an embedding: what is finer is not what likeness is about."""
DICE_SMOOTHING = 1.0
"""Pixels; lets an empty mask be met by an empty answer."""


class Contrast(nn.Module):
    """Supervised contrast (Khosla et al. 2020), within a batch or, with a memory, across batches (Wang et al. 2020)."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._supervised = SupConLoss(temperature=recipe.temperature)
        dimension = recipe.architecture.embedding_dimension
        self._memory = CrossBatchMemory(self._supervised, dimension, recipe.memory) if recipe.memory else None

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, d), labels int (n,), equal for what belongs together → scalar."""
        loss: torch.Tensor = (self._memory or self._supervised)(embeddings, labels)
        return loss

    def get_extra_state(self) -> dict[str, int | bool]:
        """The memory's place in its ring, which is no buffer of its own."""
        memory = self._memory
        return {} if memory is None else {"queue_idx": memory.queue_idx, "filled": memory.has_been_filled}

    def set_extra_state(self, state: dict[str, int | bool]) -> None:
        """Of `get_extra_state`."""
        if self._memory is not None:
            self._memory.queue_idx, self._memory.has_been_filled = state["queue_idx"], state["filled"]


def label_loss(appearance: torch.Tensor, classes: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Contrast of one part of the embedding by class (Khosla et al. 2020).

    Args:
        appearance: (n, d), that part of each embedding.
        classes: int (n,); -1 is not known, and takes no part.
        recipe: for its temperature.

    Returns:
        Scalar; 0 where fewer than two are known.
    """
    known = classes >= 0
    if known.sum() < 2:
        return appearance.sum() * 0
    supervised = SupConLoss(temperature=recipe.temperature)
    loss: torch.Tensor = supervised(functional.normalize(appearance[known].float(), dim=1), classes[known])
    return loss


def relevance_loss(
    embeddings: torch.Tensor, relevances: torch.Tensor, comparable: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    """Cross-entropy between the orders that relevances and similarities give (ListNet; Cao et al., ICML 2007).

    Args:
        embeddings: (n, d), of length 1.
        relevances: (n, n) in [0, 1].
        comparable: bool (n, n), false on the diagonal: pairs that are ranked at all.
        recipe: for its temperatures.

    Returns:
        Scalar, less the targets' own entropy: 0 where the orders agree; 0 where nothing is comparable.
    """
    ranked = comparable.sum(dim=1) > 1  # one alone has no order
    if not ranked.any():
        return embeddings.sum() * 0
    left_out = ~comparable[ranked]
    similarities = (embeddings @ embeddings.T)[ranked] / recipe.temperature
    target = (relevances[ranked] / recipe.target_temperature).masked_fill(left_out, -torch.inf).softmax(dim=1)
    # A finite floor: 0 times minus infinity is no number.
    given = similarities.masked_fill(left_out, -1e4).log_softmax(dim=1)
    wanted = target.clamp(min=1e-12).log()
    return (target * (wanted - given)).sum(dim=1).mean()


@torch.no_grad()
def relevances_of(images: torch.Tensor, masks: torch.Tensor, d95: float) -> torch.Tensor:
    """The measure of `pacs_cbir.learn.relevance` within a batch.

    Args:
        images: (n, 1, size, size) in [0, 1], before their grey levels were changed.
        masks: (n, 1, size, size) in [0, 1], as the network is shown them: where a lesion is moves with the picture.
        d95: distance of generic Fourier descriptors at which shapes are wholly unlike.

    Returns:
        (n, n) in [0, 1]; an empty mask shares nothing with any.
    """
    inside = (masks > 0.5).flatten(1).float()
    shared, areas = inside @ inside.T, inside.sum(dim=1)
    iou = shared / (areas[:, None] + areas - shared).clamp(min=1)
    pixels = images.flatten(1)
    counts = torch.zeros(len(images), HISTOGRAM_BINS, device=images.device)
    bins = (pixels * HISTOGRAM_BINS).long().clamp(0, HISTOGRAM_BINS - 1)
    counts.scatter_add_(1, bins, (pixels > FOREGROUND).float())
    histograms = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    alike = 1 - torch.cdist(histograms, histograms, p=1) / 2
    descriptors = fourier_descriptors(masks)
    shapes = 1 - (torch.cdist(descriptors, descriptors, p=1) / d95).clamp(max=1)
    return (iou + alike + shapes) / 3


def lesion_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy and soft Dice (Milletari et al. 2016).

    Args:
        logits: (n, 1, h, w), n >= 1.
        masks: (n, 1, size, size) in [0, 1], known for each; averaged down to h x w.

    Returns:
        Scalar.
    """
    target = functional.adaptive_avg_pool2d(masks, (logits.shape[2], logits.shape[3]))
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), target)
    drawn = logits.float().sigmoid()
    shared, total = (drawn * target).sum(dim=(1, 2, 3)), (drawn + target).sum(dim=(1, 2, 3))
    return entropy + (1 - (2 * shared + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


class Decoder(nn.Module):
    """Draws a small picture from an embedding, after Kobayashi et al., Med Image Anal 2021;74:102227.

    Trained beside the network and dropped after it: what an embedding must hold for it is kept.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.start = nn.Linear(dimension, 128 * 4 * 4)
        widths = (128, 64, 32, 16)
        self.grow = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
                )
                for a, b in itertools.pairwise(widths)
            )
        )
        self.draw = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(n, dimension) of length 1 → (n, 1, RECONSTRUCTED, RECONSTRUCTED)."""
        # Numbers of a unit vector are small: brought back to about 1 each.
        scaled = embeddings * embeddings.shape[1] ** 0.5
        drawn: torch.Tensor = self.draw(self.grow(self.start(scaled).view(len(embeddings), 128, 4, 4)))
        return drawn

    def loss(self, embeddings: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Mean squared difference from the images (n, 1, size, size) that were embedded."""
        shown = functional.adaptive_avg_pool2d(images, RECONSTRUCTED)
        return functional.mse_loss(self(embeddings).float(), shown)
