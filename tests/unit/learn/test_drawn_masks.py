"""Masks that an encoder draws itself: believed where a place's images agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lesions import disc, lesion_stack

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.network import Network, Outputs
from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.drawn_masks import drawn_masks
from pacs_cbir.learn.stacks import Stack

LESION = disc(12, 50, 80)


class Drawer(Network):
    """Draws what is bright, and always a spot on the left, which a mirrored picture does not have on the same side."""

    def __init__(self, *, brighter_than: float = 0.5, spot: bool = False) -> None:
        super().__init__(Architecture(lesion_grid=8, weights={"lesion": 1}))
        self._threshold, self._spot = brighter_than, spot

    def forward(self, images: torch.Tensor) -> Outputs:
        small = torch.nn.functional.avg_pool2d(images, 2)
        logits = 30 * (small - self._threshold)
        if self._spot:
            logits[..., 20:36, 8:20] = 5.0
        return Outputs(torch.zeros(len(images), 65), (), logits)


def covered(stack: Stack, k: int = 0) -> float:
    """Intersection over union of a stack's mask and the lesion."""
    assert stack.masks is not None
    mask = stack.masks[k]
    return float((mask & LESION).sum() / (mask | LESION).sum())


def test_a_sequence_that_hides_the_lesion_learns_it_from_one_that_shows_it() -> None:
    shown, hidden = lesion_stack("a", LESION, grey=0.9), lesion_stack("a", LESION, grey=0.3, sequence="T1")
    flair, t1 = drawn_masks(Drawer(), [shown, hidden])
    assert covered(flair) > 0.85
    assert covered(t1) > 0.85
    assert t1.best == 0


def test_what_the_mirrored_picture_does_not_show_is_not_believed() -> None:
    shown, hidden = lesion_stack("a", LESION, grey=0.9), lesion_stack("a", LESION, grey=0.3, sequence="T1")
    flair, t1 = drawn_masks(Drawer(spot=True), [shown, hidden])
    assert covered(flair) > 0.85
    assert covered(t1) > 0.85


def test_other_places_and_other_studies_tell_nothing() -> None:
    shown = lesion_stack("a", LESION, grey=0.9)
    for other in (
        lesion_stack("a", LESION, grey=0.3, sequence="T1", positions=np.array([3.0])),
        lesion_stack("a", LESION, grey=0.3, sequence="T1", study="another"),
        lesion_stack("b", LESION, grey=0.3, sequence="T1"),
        lesion_stack("a", LESION, grey=0.3, sequence="T1", plane="CORONAL"),
    ):
        _, untold = drawn_masks(Drawer(), [shown, other])
        assert covered(untold) == 0
        assert untold.best is None


def test_an_encoder_that_draws_nothing_cannot_teach_itself() -> None:
    with pytest.raises(RecipeError, match="draws none"):
        drawn_masks(Drawer(brighter_than=2.0), [lesion_stack("a", LESION)])
    with pytest.raises(RecipeError, match="lesion_grid"):
        drawn_masks(Network(Architecture(appearance=8, weights={"appearance": 1})), [lesion_stack("a", LESION)])
