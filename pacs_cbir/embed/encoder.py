"""Slices → unit embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torchvision.models import resnet18

from pacs_cbir.embed.checkpoint import Architecture, Checkpoint
from pacs_cbir.errors import CheckpointError

CPU_BATCH = 32
GPU_BATCH = 512
FLOAT32_TOLERANCE = 1e-5
"""Largest difference of a component of an embedding between two batches the same slice is in, on a CPU."""
BFLOAT16_TOLERANCE = 2e-2
"""The same on a GPU, which rounds to 8 bits and may choose another algorithm for another batch."""


class Encoder:
    """A checkpoint ready to embed.

    A slice's embedding is the network's output, a linear projection of ResNet18's pooled features (He et al. 2016),
    scaled to length 1.

    Attributes:
        card: what the checkpoint says of itself.
        dimension: length of an embedding.
        precision: "bfloat16" on a GPU, "float32" on a CPU.
        identity: whose the embeddings are; see `Checkpoint.identity`.
    """

    def __init__(self, checkpoint: Checkpoint, device: Literal["cuda", "cpu"] | None = None) -> None:
        """Build the network; without a device on a GPU if there is one.

        Raises:
            CheckpointError: the weights are not those of the card's architecture.
        """
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.card = checkpoint.card
        self.dimension = self.card.architecture.embedding_dimension
        self.precision = "bfloat16" if self._device == "cuda" else "float32"
        self.identity = checkpoint.identity(self.precision)
        network = build_network(self.card.architecture)
        _load_weights(network, checkpoint.weights)
        network = fuse(network.eval())
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        self._network = network.to(self._device, dtype).to(memory_format=torch.channels_last)
        self._dtype = dtype
        self._batch = GPU_BATCH if self._device == "cuda" else CPU_BATCH

    def embed(self, pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Embed slices as `draw_slices` gives them.

        Args:
            pixels: shape (n, size, size), n >= 1, in [0, 1].

        Returns:
            float32, shape (n, dimension), each of length 1. The same slice gives the same vector whatever else is in
            the array, within FLOAT32_TOLERANCE or BFLOAT16_TOLERANCE.

        Raises:
            ValueError: the shape is not that of the card's preprocessing.
        """
        size = self.card.preprocessing.size
        if pixels.ndim != 3 or not len(pixels) or pixels.shape[1:] != (size, size):
            raise ValueError(f"slices must be of shape (n, {size}, {size}), not {pixels.shape}")
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(pixels), self._batch):
                batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + self._batch], dtype=np.float32))
                images = batch[:, None].to(self._device, self._dtype, memory_format=torch.channels_last)
                vectors.append(nn.functional.normalize(self._network(images).float(), dim=1).cpu())
        embeddings: npt.NDArray[np.float32] = torch.cat(vectors).numpy()
        return embeddings

    def pool(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The stack's embedding: the mean of its slices', of length 1.

        Args:
            embeddings: shape (n, dimension), n >= 1, unit vectors.

        Returns:
            float32, shape (dimension,).
        """
        mean = embeddings.mean(axis=0, dtype=np.float64)
        length = float(np.linalg.norm(mean))
        if length == 0:  # opposite vectors: any of them stands for the stack as well as another
            mean, length = embeddings[0], 1.0
        pooled: npt.NDArray[np.float32] = np.asarray(mean / length, dtype=np.float32)
        return pooled


def build_network(architecture: Architecture) -> nn.Module:
    """ResNet18 with random weights, for images (n, 1, size, size) → (n, embedding_dimension), not yet unit vectors."""
    network = resnet18(weights=None, num_classes=architecture.embedding_dimension)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network  # type: ignore[no-any-return]


def _load_weights(network: nn.Module, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
    try:
        network.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()})
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"the weights do not fit the card's architecture: {error}") from error
