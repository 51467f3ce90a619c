"""Heat: what each pixel adds to a similarity, and that nothing is added twice or lost."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from lesions import disc

from pacs_cbir.embed.architecture import Architecture, Part
from pacs_cbir.embed.heat import heat_maps
from pacs_cbir.embed.network import Network, build_network

SIZE = 128
ARCHITECTURE = Architecture(
    appearance=32,
    lesion_grid=16,
    shape_landmarks=20,
    grey_levels=64,
    weights={"appearance": 1.0, "lesion": 2.0, "shape": 0.5, "grey": 3.0},
)


def heads(n: int) -> torch.Tensor:
    """Bright ovals on black, each with a brighter spot somewhere."""
    rng = np.random.default_rng(5)
    head = disc(50).astype(np.float32)
    spots = np.stack([disc(10, *rng.integers(45, 80, 2)) for _ in range(n)]).astype(np.float32)
    noise = rng.random((n, SIZE, SIZE), np.float32)
    return torch.from_numpy((np.float32(0.4) * (head + spots) + np.float32(0.1) * noise * head)[:, None])


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(3)
    return build_network(ARCHITECTURE).eval()


def without_place(network: Network, part: Part, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """What two embeddings have in common of a part that belongs to no pixel."""
    place = network.architecture.places[part]
    one, two = (torch.nn.functional.normalize(v[:, place], dim=1) for v in (one, two))
    if part in {"lesion", "shape"}:
        return one[:, -1] * two[:, -1]
    return torch.zeros(len(one))


@pytest.mark.parametrize("part", ["lesion", "shape", "grey"])
def test_all_heat_is_the_similarity_but_for_what_has_no_place(network: Network, part: Part) -> None:
    images = heads(3)
    with torch.no_grad():
        own = network(images).embedding
    others = own.roll(1, dims=0)
    heat = heat_maps(network, images, others, {part: 1.0})
    assert heat.shape == (3, SIZE, SIZE)
    place = ARCHITECTURE.places[part]
    cosines = torch.nn.functional.cosine_similarity(own[:, place], others[:, place])
    expected = cosines - without_place(network, part, own, others)
    np.testing.assert_allclose(heat.sum(dim=(1, 2)), expected, atol=1e-4)


def test_heat_of_appearance_is_its_similarity_but_for_the_bias(network: Network) -> None:
    images = heads(2)
    with torch.no_grad():
        network.appearance.bias.zero_()  # type: ignore[union-attr]
        own = network(images).embedding
    others = own.roll(1, dims=0)
    place = ARCHITECTURE.places["appearance"]
    cosines = torch.nn.functional.cosine_similarity(own[:, place], others[:, place])
    np.testing.assert_allclose(
        heat_maps(network, images, others, {"appearance": 1.0}).sum(dim=(1, 2)), cosines, atol=1e-3
    )


@pytest.mark.parametrize("part", ["lesion", "shape", "grey", "appearance"])
def test_heat_of_a_region_is_in_it_and_of_its_embedding(network: Network, part: Part) -> None:
    images, shown = heads(2), torch.zeros(2, 1, SIZE, SIZE)
    shown[..., 40:72, 30:80] = 1
    with torch.no_grad():
        own, others = network(images, shown).embedding, network(images).embedding.roll(1, dims=0)
    heat = heat_maps(network, images, others, {part: 1.0}, shown)
    # A mask has half of the picture's pixels, and is spread over their neighbours.
    near = torch.nn.functional.max_pool2d(shown, 5, stride=1, padding=2)[:, 0]
    assert heat.abs().amax() > 0
    assert (heat * (1 - near)).abs().max() == 0
    if part in {"lesion", "shape"}:
        place = ARCHITECTURE.places[part]
        cosines = torch.nn.functional.cosine_similarity(own[:, place], others[:, place])
        expected = cosines - without_place(network, part, own, others)
        np.testing.assert_allclose(heat.sum(dim=(1, 2)), expected, atol=1e-4)


def test_parts_are_mixed_as_their_weights_say(network: Network) -> None:
    images = heads(2)
    with torch.no_grad():
        others = network(images).embedding.roll(1, dims=0)
    lesion, grey = (heat_maps(network, images, others, {part: 1.0}) for part in ("lesion", "grey"))
    mixed = heat_maps(network, images, others, {"lesion": 3.0, "grey": 1.0, "shape": 0.0})
    np.testing.assert_allclose(mixed, 0.75 * lesion + 0.25 * grey, atol=1e-7)


def test_grey_heat_is_where_pixels_of_shared_levels_are(network: Network) -> None:
    one = torch.zeros(1, 1, SIZE, SIZE)
    one[..., :64, :] = 0.5
    one[..., 64:, :64] = 0.9
    two = torch.zeros(1, 1, SIZE, SIZE)
    two[..., :64, :] = 0.5
    with torch.no_grad():
        other = network(two).embedding
    heat = heat_maps(network, one, other, {"grey": 1.0})[0]
    assert heat[:64].min() > 0
    assert heat[64:].abs().max() == 0


def test_heat_of_the_lesion_is_under_the_drawn_mask(network: Network) -> None:
    sharp = copy.deepcopy(network)
    with torch.no_grad():
        sharp.head.fine.weight.mul_(50)  # type: ignore[union-attr]
        images = heads(1)
        outputs = sharp(images)
        mask = torch.nn.functional.interpolate(outputs.lesion.sigmoid(), size=(SIZE, SIZE), mode="bilinear")[0, 0]
    heat = heat_maps(sharp, images, outputs.embedding, {"lesion": 1.0})[0]
    sure, unsure = mask > mask.quantile(0.99), mask < mask.quantile(0.5)
    assert heat[sure].mean() > 3 * heat[unsure].mean()
