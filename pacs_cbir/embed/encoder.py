"""Slices → unit embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pacs_cbir.embed import parts
from pacs_cbir.embed.architecture import Part
from pacs_cbir.embed.checkpoint import Checkpoint
from pacs_cbir.embed.heat import heat_maps
from pacs_cbir.embed.network import build_network
from pacs_cbir.errors import CheckpointError

CPU_BATCH = 32
SHOWN_MISFITS = 3
GPU_BATCH = 512
FLOAT32_TOLERANCE = 1e-5
"""Largest difference of a component of an embedding between two batches the same slice is in, on a CPU."""
BFLOAT16_TOLERANCE = 2e-2
"""The same on a GPU, which rounds to 8 bits and may choose another algorithm for another batch."""
LENGTH_TOLERANCE = 1e-3
"""Largest difference of an embedding's length from 1."""
DEVICES: Mapping[str, Literal["cuda", "cpu"]] = {"float32": "cpu", "bfloat16": "cuda"}
"""Precision → where it is computed."""
FADING_PIXELS = 3.0
"""Standard deviation of a region's soft edge: a hard one looks like a lesion's."""


def has_device(precision: str) -> bool:
    """Whether this process can embed with that precision."""
    return DEVICES.get(precision) == "cpu" or (DEVICES.get(precision) == "cuda" and torch.cuda.is_available())


class Encoder:
    """A checkpoint ready to embed.

    A slice's embedding is a unit vector made of named parts; see `pacs_cbir.embed.network`.

    Attributes:
        card: what the checkpoint says of itself.
        dimension: length of an embedding.
        precision: "bfloat16" on a GPU, "float32" on a CPU.
        identity: whose the embeddings are; see `Checkpoint.identity`.
        batch: slices that it embeds at once.
    """

    def __init__(self, checkpoint: Checkpoint, device: Literal["cuda", "cpu"] | None = None) -> None:
        """Build the network; without a device on a GPU if there is one.

        Raises:
            CheckpointError: the weights are not those of the card's architecture.
        """
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.card = checkpoint.card
        self.dimension = self.card.architecture.embedding_dimension
        self.precision = next(precision for precision, device in DEVICES.items() if device == self._device)
        self.identity = checkpoint.identity(self.precision)
        network = build_network(self.card.architecture)
        _load_weights(network, checkpoint.weights)
        network.eval()
        _fold_batch_norms(network)
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        self.batch = GPU_BATCH if self._device == "cuda" else CPU_BATCH

    def try_out(self) -> None:
        """Embed a picture, to see that unit vectors come of it: weights may be finite and lead to none.

        Raises:
            CheckpointError: they do not.
        """
        picture = np.random.default_rng(0).random((1, self.card.preprocessing.size, self.card.preprocessing.size))
        length = float(np.linalg.norm(self.embed(picture)))
        if not abs(length - 1) < LENGTH_TOLERANCE:
            raise CheckpointError(f"{self.card.name} makes vectors of length {length:g} of pictures, and not of 1")

    def embed(
        self, pixels: npt.NDArray[np.floating], inside: npt.NDArray[np.floating] | None = None
    ) -> npt.NDArray[np.float32]:
        """Embed slices as `draw_slices` gives them.

        Args:
            pixels: shape (n, size, size), n >= 1, in [0, 1].
            inside: of the same shape, in [0, 1]: embed a region of each slice. Around it the slice fades into the
                dark; its grey levels are told of the whole slice, which says where in the head it is.

        Returns:
            float32, shape (n, dimension), each of length 1. The same slice gives the same vector whatever else is in
            the array, within FLOAT32_TOLERANCE or BFLOAT16_TOLERANCE.

        Raises:
            ValueError: the shape is not that of the card's preprocessing.
        """
        self._check(pixels)
        shown = _faded(inside)
        vectors = []
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            for start in range(0, len(pixels), self.batch):
                batch = slice(start, start + self.batch)
                region = None if shown is None else self._images(shown[batch])
                vectors.append(self._network(self._images(pixels[batch]), region).embedding.cpu())
        embeddings: npt.NDArray[np.float32] = torch.cat(vectors).numpy()
        return embeddings

    def heat(
        self,
        pixels: npt.NDArray[np.floating],
        others: npt.NDArray[np.float32],
        weights: Mapping[Part, float],
        inside: npt.NDArray[np.floating] | None = None,
    ) -> npt.NDArray[np.float32]:
        """What each pixel of slices adds to their similarity to others; see `pacs_cbir.embed.heat.heat_maps`.

        Args:
            pixels: shape (n, size, size), 1 <= n <= batch, in [0, 1].
            others: shape (n, dimension), embeddings of what each is compared with.
            weights: part → what it counts.
            inside: as in `embed`, 1 all over where a whole slice is beside a region.

        Returns:
            float32, shape (n, size, size).

        Raises:
            ValueError: the shape is not that of the card's preprocessing.
        """
        self._check(pixels)
        # Without autocast: it is a picture for people, and shares of shares would be rounded away.
        shown = _faded(inside)
        region = None if shown is None else self._images(shown)
        images, compared = self._images(pixels), torch.from_numpy(others).to(self._device)
        heat = heat_maps(self._network, images, compared, weights, region)
        shared: npt.NDArray[np.float32] = heat.cpu().numpy()
        return shared

    def _check(self, pixels: npt.NDArray[np.floating]) -> None:
        size = self.card.preprocessing.size
        if pixels.ndim != 3 or not len(pixels) or pixels.shape[1:] != (size, size):
            raise ValueError(f"slices must be of shape (n, {size}, {size}), not {pixels.shape}")

    def _images(self, pixels: npt.NDArray[np.floating]) -> torch.Tensor:
        """Shape (n, size, size) → (n, 1, size, size), on the device."""
        batch = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))
        return batch[:, None].to(self._device, memory_format=torch.channels_last)

    def pool(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The stack's embedding, shape (dimension,), of length 1, from its slices', as `embed` gives them."""
        return parts.pool(embeddings, self.card.architecture)


def _faded(inside: npt.NDArray[np.floating] | None) -> npt.NDArray[np.floating] | None:
    return None if inside is None else ndimage.gaussian_filter(inside, (0, FADING_PIXELS, FADING_PIXELS))


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution that stands before it.

    Not by torch.fx, which changes every module of the process while it traces: what embeds meanwhile would fail.
    """
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        _fold_batch_norms(child)
        before = name, child


def _load_weights(network: nn.Module, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
    try:
        network.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()})
    except (RuntimeError, TypeError) as error:
        told = [line.strip() for line in str(error).splitlines()]
        few = "; ".join(told[1 : 1 + SHOWN_MISFITS] or told)
        raise CheckpointError(f"architecture: the weights are not those of the card's: {few}") from error
