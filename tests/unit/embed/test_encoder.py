"""Slices become unit vectors that depend on the slice alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pacs_cbir.embed.checkpoint import Checkpoint
from pacs_cbir.embed.encoder import BFLOAT16_TOLERANCE, CPU_BATCH, FLOAT32_TOLERANCE, Encoder
from pacs_cbir.embed.network import build_network, lesion_part
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


def test_a_region_is_all_that_counts_but_for_the_grey_levels(encoder: Encoder) -> None:
    inside = np.zeros((1, 64, 64), np.float32)
    inside[0, 10:26, 30:50] = 1
    outside_changed = PIXELS[:1].copy()
    outside_changed[0, 45:] = PIXELS[1, 45:]
    inside_changed = PIXELS[:1].copy()
    inside_changed[0, 15:20] = PIXELS[1, 15:20]
    region, same, other = (encoder.embed(p, inside)[0] for p in (PIXELS[:1], outside_changed, inside_changed))
    places = encoder.card.architecture.places
    for part in ("appearance", "lesion", "shape"):
        np.testing.assert_allclose(same[places[part]], region[places[part]], atol=1e-4)
        assert np.abs(other - region)[places[part]].max() > 1e-3, part
    assert np.abs(same - region)[places["grey"]].max() > 1e-3
    np.testing.assert_array_equal(region[places["grey"]], encoder.embed(PIXELS[:1])[0][places["grey"]])
    np.testing.assert_allclose(encoder.embed(PIXELS[:3], np.ones((3, 64, 64))), encoder.embed(PIXELS[:3]), atol=1e-5)


def test_fused_network_computes_what_the_weights_say(checkpoint: Checkpoint, encoder: Encoder) -> None:
    network = build_network(checkpoint.card.architecture)
    network.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in checkpoint.weights.items()})
    with torch.inference_mode():
        plain = network.eval()(torch.from_numpy(PIXELS)[:, None]).embedding.numpy()
    np.testing.assert_allclose(encoder.embed(PIXELS), plain, atol=1e-4)


def test_encoders_are_built_while_another_embeds(checkpoint: Checkpoint, encoder: Encoder) -> None:
    alone = encoder.embed(PIXELS[:1])
    with ThreadPoolExecutor(2) as pool:
        building = [pool.submit(Encoder, checkpoint, "cpu") for _ in range(8)]
        while not all(one.done() for one in building):
            np.testing.assert_array_equal(encoder.embed(PIXELS[:1]), alone)
    for one in building:
        np.testing.assert_allclose(one.result().embed(PIXELS[:1]), alone, atol=FLOAT32_TOLERANCE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(checkpoint: Checkpoint, encoder: Encoder) -> None:
    gpu = Encoder(checkpoint, "cuda")
    assert gpu.identity != encoder.identity
    np.testing.assert_allclose(gpu.embed(PIXELS), encoder.embed(PIXELS), atol=BFLOAT16_TOLERANCE)
    np.testing.assert_allclose(gpu.embed(PIXELS[:1]), gpu.embed(PIXELS)[:1], atol=BFLOAT16_TOLERANCE)


def slice_vector(encoder: Encoder, lesion: npt.NDArray[np.floating], grey: int) -> npt.NDArray[np.float32]:
    """An embedding as the network would give it of a slice with a lesion and one grey level."""
    architecture = encoder.card.architecture
    parts = {
        "appearance": np.eye(architecture.appearance)[0],
        "lesion": lesion_part(torch.from_numpy(lesion)[None, None].float(), architecture.lesion_grid)[0].numpy(),
        "shape": np.eye(architecture.shape_landmarks + 1)[0],
        "grey": np.eye(architecture.grey_levels)[grey],
    }
    shares = architecture.shares
    return np.concatenate([parts[name] * shares[name] ** 0.5 for name in architecture.sizes]).astype(np.float32)


def test_stack_embedding_is_about_its_lesion(encoder: Encoder) -> None:
    empty, small, large = np.zeros((3, 32, 32))
    small[4:8, 4:8], large[16:32, 16:32] = 1, 1
    pooled = encoder.pool(np.stack([slice_vector(encoder, m, g) for g, m in enumerate((empty, small, large))]))
    like = [float(pooled @ slice_vector(encoder, m, g)) for g, m in enumerate((empty, small, large))]
    assert pooled.dtype == np.float32
    assert np.linalg.norm(pooled) == pytest.approx(1)
    assert like[2] > 0.9  # a plain mean of the three is like each by 0.6
    assert like[0] < like[1] < 0.6


def test_without_a_lesion_the_stack_is_the_mean_of_its_slices(encoder: Encoder) -> None:
    empty = np.zeros((32, 32))
    pooled = encoder.pool(np.stack([slice_vector(encoder, empty, grey) for grey in (0, 1)]))
    place = encoder.card.architecture.places["grey"]
    share = encoder.card.architecture.shares["grey"]
    np.testing.assert_allclose(pooled[place][:3] / share**0.5, [0.5**0.5, 0.5**0.5, 0], atol=1e-6)


def test_a_lesion_that_is_hardly_there_chooses_no_slice(encoder: Encoder) -> None:
    faint, fainter = np.full((32, 32), 0.02), np.full((32, 32), 0.01)
    pooled = encoder.pool(np.stack([slice_vector(encoder, mask, grey) for grey, mask in enumerate((faint, fainter))]))
    place = encoder.card.architecture.places["grey"]
    share = encoder.card.architecture.shares["grey"]
    np.testing.assert_allclose(pooled[place][:3] / share**0.5, [0.5**0.5, 0.5**0.5, 0], atol=0.02)


def test_slices_that_cancel_out_still_give_a_unit_vector(encoder: Encoder) -> None:
    vector = slice_vector(encoder, np.zeros((32, 32)), 0)
    opposite = vector.copy()
    opposite[encoder.card.architecture.places["grey"]] *= -1
    assert np.linalg.norm(encoder.pool(np.stack([vector, opposite]))) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(0, 64, 64), (64, 64), (2, 64, 32), (2, 128, 128)])
def test_slices_of_another_shape_are_refused(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        encoder.embed(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("spoil", ["missing", "shape", "extra"])
def test_weights_of_another_architecture_are_refused(checkpoint: Checkpoint, spoil: str) -> None:
    weights = dict(checkpoint.weights)
    if spoil == "missing":
        del weights["appearance.bias"]
    elif spoil == "shape":
        weights["trunk.conv1.weight"] = np.zeros((64, 3, 7, 7), dtype=np.float32)
    else:
        weights["fc2.bias"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(CheckpointError, match="architecture"):
        Encoder(Checkpoint(checkpoint.card, weights), "cpu")


@pytest.mark.parametrize("value", [0.0, -1.0, 1e38])
def test_weights_that_make_no_unit_vectors_are_found_out(
    checkpoint: Checkpoint, encoder: Encoder, value: float
) -> None:
    encoder.try_out()
    spoilt = {
        name: np.full_like(weight, value) if weight.dtype.kind == "f" else weight
        for name, weight in checkpoint.weights.items()
    }
    with pytest.raises(CheckpointError, match="vectors of length"):
        Encoder(Checkpoint(checkpoint.card, spoilt), "cpu").try_out()


def test_identity_is_the_checkpoints_with_the_precision(checkpoint: Checkpoint, encoder: Encoder) -> None:
    assert encoder.precision == "float32"
    assert encoder.identity == checkpoint.identity("float32")
