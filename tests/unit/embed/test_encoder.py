"""Slices become unit vectors that depend on the slice alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pacs_cbir.embed.checkpoint import Checkpoint
from pacs_cbir.embed.encoder import BFLOAT16_TOLERANCE, CPU_BATCH, FLOAT32_TOLERANCE, Encoder, build_network
from pacs_cbir.errors import CheckpointError

PIXELS = np.random.default_rng(0).random((CPU_BATCH + 5, 64, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def encoder(checkpoint: Checkpoint) -> Encoder:
    return Encoder(checkpoint, "cpu")


def test_embeddings_are_unit_vectors(encoder: Encoder) -> None:
    embeddings = encoder.embed(PIXELS)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(PIXELS), encoder.dimension)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert np.ptp(embeddings, axis=0).max() > 1e-3  # different slices, different vectors


def test_a_slice_gives_the_same_vector_in_any_batch(encoder: Encoder) -> None:
    together = encoder.embed(PIXELS)
    alone = np.concatenate([encoder.embed(pixels[None]) for pixels in PIXELS[[0, 7, -1]]])
    np.testing.assert_allclose(alone, together[[0, 7, -1]], atol=FLOAT32_TOLERANCE)
    np.testing.assert_allclose(encoder.embed(PIXELS[::-1])[::-1], together, atol=FLOAT32_TOLERANCE)


def test_fused_network_computes_what_the_weights_say(checkpoint: Checkpoint, encoder: Encoder) -> None:
    network = build_network(checkpoint.card.architecture)
    network.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in checkpoint.weights.items()})
    with torch.inference_mode():
        plain = torch.nn.functional.normalize(network.eval()(torch.from_numpy(PIXELS)[:, None]), dim=1).numpy()
    np.testing.assert_allclose(encoder.embed(PIXELS), plain, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(checkpoint: Checkpoint, encoder: Encoder) -> None:
    gpu = Encoder(checkpoint, "cuda")
    assert gpu.identity != encoder.identity
    np.testing.assert_allclose(gpu.embed(PIXELS), encoder.embed(PIXELS), atol=BFLOAT16_TOLERANCE)
    np.testing.assert_allclose(gpu.embed(PIXELS[:1]), gpu.embed(PIXELS)[:1], atol=BFLOAT16_TOLERANCE)


def test_stack_embedding_is_the_unit_mean(encoder: Encoder) -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)
    np.testing.assert_allclose(encoder.pool(vectors), [0.5**0.5, 0.5**0.5, 0], atol=1e-7)
    assert encoder.pool(vectors).dtype == np.float32
    opposite = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    assert np.linalg.norm(encoder.pool(opposite)) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(0, 64, 64), (64, 64), (2, 64, 32), (2, 128, 128)])
def test_slices_of_another_shape_are_refused(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        encoder.embed(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("spoil", ["missing", "shape", "extra"])
def test_weights_of_another_architecture_are_refused(checkpoint: Checkpoint, spoil: str) -> None:
    weights = dict(checkpoint.weights)
    if spoil == "missing":
        del weights["fc.bias"]
    elif spoil == "shape":
        weights["conv1.weight"] = np.zeros((64, 3, 7, 7), dtype=np.float32)
    else:
        weights["fc2.bias"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(CheckpointError, match="architecture"):
        Encoder(Checkpoint(checkpoint.card, weights), "cpu")


def test_identity_is_the_checkpoints_with_the_precision(checkpoint: Checkpoint, encoder: Encoder) -> None:
    assert encoder.precision == "float32"
    assert encoder.identity == checkpoint.identity("float32")
