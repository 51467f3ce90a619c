from __future__ import annotations

import numpy as np
import pytest
import torch
from painted_stacks import painted_stacks
from torch.nn import functional

from pacs_cbir.learn.losses import (
    Contrast,
    Decoder,
    label_loss,
    lesion_loss,
    relevance_loss,
    relevances_of,
)
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.relevance import gfd_d95, relevance

RECIPE = Recipe.model_validate({"architecture": {"appearance": 8, "weights": {"appearance": 1}}, "groups_a_batch": 2})


def test_relevance_in_a_batch_is_that_of_the_measure() -> None:
    stacks = painted_stacks(6, sequences=("FLAIR",))
    d95 = gfd_d95(stacks)
    images = torch.from_numpy(np.stack([stack.picture for stack in stacks if stack.picture is not None]))[:, None]
    masks = torch.from_numpy(np.stack([stack.truth for stack in stacks if stack.truth is not None])).float()[:, None]
    measured = relevance(stacks, stacks, d95).mean
    np.testing.assert_allclose(relevances_of(images, masks, d95).numpy(), measured, atol=2e-3)
    assert np.ptp(measured) > 0.1


def test_relevance_loss_is_least_for_the_right_order() -> None:
    embeddings = functional.normalize(torch.tensor([[1.0, 0, 0], [0.9, 0.4, 0], [0.3, 0.9, 0], [0, 0.2, 1]]), dim=1)
    comparable = ~torch.eye(4, dtype=torch.bool)
    alike = embeddings @ embeddings.T
    same = Recipe(temperature=0.1, target_temperature=0.1)
    assert float(relevance_loss(embeddings, alike, comparable, same)) == pytest.approx(0, abs=1e-6)
    assert float(relevance_loss(embeddings, 1 - alike, comparable, same)) > 1


def test_pairs_that_are_not_comparable_do_not_count() -> None:
    embeddings = functional.normalize(torch.eye(4) + 0.3, dim=1).requires_grad_()
    relevances = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    comparable = torch.zeros(4, 4, dtype=torch.bool)
    comparable[:3, :3] = ~torch.eye(3, dtype=torch.bool)
    loss = relevance_loss(embeddings, relevances, comparable, RECIPE)
    other = relevances.clone()
    other[3], other[:, 3] = 1 - other[3], 1 - other[:, 3]
    assert float(relevance_loss(embeddings, other, comparable, RECIPE).detach()) == float(loss.detach())
    loss.backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert not embeddings.grad[3].any()
    assert embeddings.grad[:3].isfinite().all()
    nothing = relevance_loss(embeddings, relevances, torch.zeros_like(comparable), RECIPE)
    assert float(nothing.detach()) == 0
    assert nothing.requires_grad


def test_lesion_loss_falls_as_the_answer_comes_nearer() -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 8:20, 4:16] = 1  # the other has none
    half = functional.avg_pool2d(masks, 2)
    losses = [float(lesion_loss(logits, masks)) for logits in (-12 + 24 * half, 0 * half, 12 - 24 * half)]
    assert losses[0] < 0.02
    assert losses[0] < losses[1] < losses[2]


def test_contrast_wants_like_labels_together() -> None:
    basis = torch.eye(8)
    labels = torch.tensor([0, 0, 1, 1])
    contrast = Contrast(RECIPE)
    assert float(contrast(basis[[0, 0, 1, 1]], labels)) < 0.1
    assert float(contrast(basis[[0, 1, 0, 1]], labels)) > 1


def test_a_memory_compares_with_earlier_batches_and_is_saved() -> None:
    recipe = RECIPE.changed({"memory": 6})
    basis, labels = torch.eye(8), torch.tensor([0, 0, 1, 1])
    contrast, plain = Contrast(recipe), Contrast(RECIPE)
    contrast(basis[[5, 5, 6, 6]], labels)
    second = basis[[0, 0, 1, 1]]
    assert float(contrast(second, labels)) > float(plain(second, labels)) + 1  # label 0 was elsewhere before
    again = Contrast(recipe)
    again.load_state_dict(contrast.state_dict())
    third = basis[[2, 2, 3, 3]]
    assert float(again(third, labels)) == float(contrast(third, labels))
    assert float(again(third, labels)) == float(contrast(third, labels))


def test_a_decoder_learns_to_draw_what_was_embedded() -> None:
    torch.manual_seed(0)
    images = torch.from_numpy(np.stack([s.pixels[2] for s in painted_stacks(4, sequences=("T1",))])).float()[:, None]
    embeddings, decoder = torch.eye(8)[:4], Decoder(8)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = decoder.loss(embeddings, images)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_labels_that_are_not_known_take_no_part() -> None:
    generator = torch.Generator().manual_seed(0)
    appearance = torch.randn(6, 8, generator=generator).requires_grad_()
    classes = torch.tensor([0, 1, -1, 0, 1, -1])
    loss = label_loss(appearance, classes, RECIPE)
    loss.backward()
    assert appearance.grad is not None
    assert appearance.grad[classes < 0].abs().max() == 0
    assert appearance.grad[classes >= 0].abs().min() > 0
    assert float(label_loss(appearance.detach(), torch.full((6,), -1), RECIPE)) == 0
    together = torch.eye(2)[[0, 1, 0, 0, 1, 0]]
    mixed = torch.tensor([0, 0, -1, 1, 1, -1])
    assert float(label_loss(together, classes, RECIPE)) < float(label_loss(together, mixed, RECIPE))
