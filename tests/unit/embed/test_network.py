"""The parts of an embedding say what their names do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.network import (
    DESCRIPTORS,
    build_network,
    fourier_descriptors,
    grey_part,
    lesion_part,
)
from pacs_cbir.embed.parts import lesion_areas
from pacs_cbir.learn.relevance import gfd

ARCHITECTURE = Architecture(
    appearance=8, lesion_grid=8, shape_landmarks=6, grey_levels=16,
    weights={"appearance": 1.0, "lesion": 3.0, "shape": 2.0, "grey": 4.0},
)  # fmt: skip
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = 0.2 + 0.8 * torch.rand(5, 1, 64, 64, generator=GENERATOR)


def ellipse(y: float, x: float, height: float, width: float, size: int = 64) -> torch.Tensor:
    """A mask (1, 1, size, size)."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((((rows - y) / height) ** 2 + ((columns - x) / width) ** 2) < 1).float()[None, None]


def test_each_part_has_its_place_and_its_share() -> None:
    torch.manual_seed(0)
    outputs = build_network(ARCHITECTURE).eval()(IMAGES)
    assert outputs.embedding.shape == (5, ARCHITECTURE.embedding_dimension)
    for part, place in ARCHITECTURE.places.items():
        lengths = outputs.embedding[:, place].norm(dim=1)
        np.testing.assert_allclose(lengths.detach(), ARCHITECTURE.shares[part] ** 0.5, rtol=1e-5)


def test_every_parameter_learns_and_no_gradient_is_infinite() -> None:
    torch.manual_seed(0)
    network = build_network(ARCHITECTURE)
    outputs = network(IMAGES)
    assert outputs.lesion is not None
    target = torch.rand_like(outputs.embedding)
    (outputs.embedding * target).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_grey_levels_are_told_whatever_the_scanners_gain_tells_the_network() -> None:
    torch.manual_seed(0)
    network = build_network(ARCHITECTURE).eval()
    dim = network(IMAGES * 0.5)
    full = network(IMAGES)
    np.testing.assert_allclose(dim.levels[-1].detach(), full.levels[-1].detach(), rtol=0.02, atol=0.02)
    grey = ARCHITECTURE.places["grey"]
    assert (dim.embedding[:, grey] - full.embedding[:, grey]).abs().max() > 0.1


def test_lesions_are_alike_as_they_overlap() -> None:
    masks = torch.cat(
        [ellipse(20, 20, 8, 8), ellipse(22, 22, 8, 8), ellipse(44, 44, 8, 8), ellipse(0, 0, 0.1, 0.1) * 0]
    )
    parts = lesion_part(masks, 16)
    alike = parts @ parts.T
    assert alike[0, 1] > 0.7
    assert alike[0, 2] < 0.1
    assert alike[0, 3] < 0.1
    np.testing.assert_allclose(parts.norm(dim=1), 1, rtol=1e-6)


def test_area_can_be_read_from_the_part() -> None:
    masks = torch.cat([ellipse(32, 32, r, r) for r in (0.0, 4.0, 8.0, 16.0)])
    areas = lesion_areas(lesion_part(masks, 16).numpy())
    assert areas[0] == 0
    np.testing.assert_allclose(areas[2:], [math.pi * 4, math.pi * 16], rtol=0.2)
    assert (np.diff(areas) > 0).all()


@pytest.mark.parametrize("mask", [ellipse(30, 25, 12, 6), ellipse(10, 50, 5, 9), ellipse(32, 32, 20, 20)])
def test_descriptors_are_those_of_the_measure(mask: torch.Tensor) -> None:
    np.testing.assert_allclose(fourier_descriptors(mask)[0], gfd(mask[0, 0].numpy() > 0).ravel(), atol=1e-4)


def test_a_soft_mask_has_the_shape_of_its_surer_half() -> None:
    mask = ellipse(30, 25, 12, 6)
    np.testing.assert_allclose(fourier_descriptors(0.3 * mask + 0.01), fourier_descriptors(mask), atol=1e-4)
    assert torch.equal(fourier_descriptors(torch.zeros(1, 1, 64, 64)), torch.zeros(1, DESCRIPTORS))


def test_shapes_are_alike_as_their_descriptors_are_near() -> None:
    network = build_network(ARCHITECTURE)
    shapes = torch.cat([ellipse(32, 32, h, w) for h, w in [(4, 4), (8, 8), (16, 4), (20, 10), (6, 18), (12, 12)]])
    network.fit_shapes(fourier_descriptors(shapes))
    features = network.shape_features(shapes)
    distances = torch.cdist(fourier_descriptors(shapes), fourier_descriptors(shapes), p=1)
    np.testing.assert_allclose(features @ features.T, (-distances / 2.4).exp(), atol=1e-3)


def test_a_shape_that_is_unsure_is_said_shorter() -> None:
    network = build_network(ARCHITECTURE)
    shapes = torch.cat([ellipse(32, 32, h, w) for h, w in [(4, 4), (8, 8), (16, 4), (20, 10), (6, 18), (12, 12)]])
    network.fit_shapes(fourier_descriptors(shapes))
    lengths = [float(network.shape_part(share * shapes[:1])[0, :-1].norm()) for share in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(lengths, [0, 0.25, 0.5, 1], atol=1e-3)
    np.testing.assert_allclose(network.shape_part(shapes).norm(dim=1), 1, rtol=1e-5)
    empty = network.shape_part(torch.zeros(1, 1, 64, 64))
    assert not empty[0, :-1].any()


def test_histogram_leaves_out_air_and_counts_white() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0] = torch.tensor([1.0, 1.0, 0.5, 0.04])
    expected = torch.zeros(1, 16)
    expected[0, 15], expected[0, 8] = math.sqrt(2), 1
    np.testing.assert_allclose(grey_part(image, 16), functional.normalize(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"weights": {"grey": 1.0}}, "weights needs"),
        ({"weights": {"appearance": 0.0}}, "weights needs"),
        ({"appearance": 513}, "2 to 512"),
        ({"appearance": 8, "shape_landmarks": 4}, "lesion_grid"),
    ],
)
def test_architectures_that_make_no_embedding_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Architecture.model_validate({"appearance": 8, "weights": {"appearance": 1.0}} | wrong)
