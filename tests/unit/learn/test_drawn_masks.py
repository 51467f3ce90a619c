"""Masks that an encoder draws itself: believed where a place's images agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
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


def test_a_sequence_that_hides_the_lesion_learns_it_from_one_that_shows_it(tmp_path: Path) -> None:
    shown, hidden = lesion_stack("a", LESION, grey=0.9), lesion_stack("a", LESION, grey=0.3, sequence="T1")
    flair, t1 = drawn_masks(Drawer(), [shown, hidden], tmp_path)
    assert covered(flair) > 0.85
    assert covered(t1) > 0.85
    assert t1.best == 0


def test_what_the_mirrored_picture_does_not_show_is_not_believed(tmp_path: Path) -> None:
    shown, hidden = lesion_stack("a", LESION, grey=0.9), lesion_stack("a", LESION, grey=0.3, sequence="T1")
    flair, t1 = drawn_masks(Drawer(spot=True), [shown, hidden], tmp_path)
    assert covered(flair) > 0.85
    assert covered(t1) > 0.85


def test_other_places_and_other_studies_tell_nothing(tmp_path: Path) -> None:
    shown = lesion_stack("a", LESION, grey=0.9)
    for other in (
        lesion_stack("a", LESION, grey=0.3, sequence="T1", positions=np.array([3.0])),
        lesion_stack("a", LESION, grey=0.3, sequence="T1", study="another"),
        lesion_stack("b", LESION, grey=0.3, sequence="T1"),
        lesion_stack("a", LESION, grey=0.3, sequence="T1", plane="CORONAL"),
    ):
        _, untold = drawn_masks(Drawer(), [shown, other], tmp_path)
        assert covered(untold) == 0
        assert untold.best is None


def test_an_encoder_that_draws_nothing_cannot_teach_itself(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="draws none"):
        drawn_masks(Drawer(brighter_than=2.0), [lesion_stack("a", LESION)], tmp_path)
    with pytest.raises(RecipeError, match="lesion_grid"):
        drawn_masks(
            Network(Architecture(appearance=8, weights={"appearance": 1})), [lesion_stack("a", LESION)], tmp_path
        )


class Counted(Drawer):
    """Says how often it was asked, and is interrupted when it has been asked often enough."""

    def __init__(self, allowed: int = 1000, *, brighter_than: float = 0.5) -> None:
        super().__init__(brighter_than=brighter_than)
        self.asked, self._allowed = 0, allowed

    def forward(self, images: torch.Tensor) -> Outputs:
        if self.asked == self._allowed:
            raise KeyboardInterrupt
        self.asked += 1
        return super().forward(images)


def seeded(counted: Counted) -> Counted:
    """Its weights are of no use and a part of what tells it from others."""
    with torch.no_grad():
        for weight in counted.parameters():
            weight.fill_(0.5)
    return counted


def masks_of(stacks: list[Stack]) -> list[npt.NDArray[np.bool_]]:
    return [stack.masks for stack in stacks if stack.masks is not None]


def test_what_was_drawn_before_a_kill_is_not_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stacks = [
        lesion_stack(patient, LESION, grey=0.7 + 0.1 * number, sequence=sequence)
        for number, patient in enumerate("abc")
        for sequence in ("FLAIR", "T1")
    ]
    whole = drawn_masks(Drawer(), stacks, tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        drawn_masks(seeded(Counted(10)), stacks, tmp_path / "kept")  # two a stack: in the midst of the third patient
    assert len(list((tmp_path / "kept").iterdir())) == 2
    capsys.readouterr()
    again = seeded(Counted())
    resumed = drawn_masks(again, stacks, tmp_path / "kept", "own")
    assert again.asked == 4
    np.testing.assert_array_equal(masks_of(resumed), masks_of(whole))
    assert [stack.best for stack in resumed] == [stack.best for stack in whole]
    said = capsys.readouterr().err
    assert "own  drawing masks, patients" in said
    assert "3/3" in said


def test_other_slices_other_weights_and_damaged_files_are_drawn_anew(tmp_path: Path) -> None:
    stacks = [lesion_stack("a", LESION, grey=0.8), lesion_stack("b", LESION, grey=0.9)]
    drawn_masks(seeded(Counted()), stacks, tmp_path)
    moved = [stacks[0], lesion_stack("b", LESION, grey=0.9, positions=np.array([7.0]))]
    other, unlike = seeded(Counted()), Counted()
    drawn_masks(other, moved, tmp_path)
    assert other.asked == 2
    drawn_masks(unlike, stacks, tmp_path)
    assert unlike.asked == 4
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    anew = seeded(Counted())
    drawn_masks(anew, stacks, tmp_path)
    assert anew.asked == 4
