from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from painted_stacks import SLICES, painted_stacks

from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.draw import Batch, Drawing
from pacs_cbir.learn.recipe import Recipe

STACKS = painted_stacks(6)


def batches(seed: int = 0, epoch: int = 0, **settings: Any) -> list[Batch]:
    plain: dict[str, Any] = {"size": 32, "groups_a_batch": 3, "views": 2, "slices": "all"}
    return list(Drawing(STACKS, Recipe.model_validate({**plain, **settings})).epoch(seed, epoch))


def shown(batch: Batch) -> list[tuple[str, str, int]]:
    """Patient, sequence and slice of each image."""
    known = {s.pixels[k].tobytes(): (s.patient, s.sequence, k) for s in STACKS for k in range(SLICES)}
    return [known[image.numpy().astype(np.float16).tobytes()] for image in batch.images[:, 0]]


def test_views_of_a_patient_have_one_label_and_one_side() -> None:
    for batch in batches():
        patients = [patient for patient, _, _ in shown(batch)]
        assert len(set(patients)) == 3
        for i, j in np.ndindex(6, 6):
            assert (patients[i] == patients[j]) == bool(batch.labels[i] == batch.labels[j])
            assert (patients[i] == patients[j]) == bool(batch.groups[i] == batch.groups[j])


def test_two_views_of_a_picture_are_the_same_picture() -> None:
    for batch in batches(positives="picture"):
        pictures = shown(batch)
        assert pictures[::2] == pictures[1::2]
        assert len(set(pictures)) == len(set(batch.labels.tolist())) == 3


def test_views_of_a_label_are_of_one_class_and_mirrored_each_by_itself() -> None:
    labels = {stack.patient: stack.label for stack in STACKS}
    for batch in batches(positives="label", groups_a_batch=2):
        classes = [labels[patient] for patient, _, _ in shown(batch)]
        assert len(set(classes)) == 2
        assert classes[::2] == classes[1::2]
        assert batch.groups.tolist() == [0, 1, 2, 3]


def test_an_epoch_is_the_same_for_a_seed_and_another_for_the_next() -> None:
    one, again, other, later = (shown(batches(s, e)[0]) for s, e in ((1, 0), (1, 0), (2, 0), (1, 1)))
    assert one == again
    assert other != one != later


@pytest.mark.parametrize(
    "settings", [{}, {"positives": "picture"}, {"positives": "relevance"}, {"slices_a_view": 2}], ids=str
)
def test_all_recipes_see_as_many_images(settings: dict[str, Any]) -> None:
    assert sum(len(batch.images) for batch in batches(draws_a_stack=4, **settings)) == 4 * len(STACKS)


def test_each_stack_is_shown_as_often_where_nothing_is_contrasted() -> None:
    seen = [picture[:2] for batch in batches(positives="relevance", draws_a_stack=2) for picture in shown(batch)]
    assert sorted(seen) == sorted([(stack.patient, stack.sequence) for stack in STACKS] * 2)


@pytest.mark.parametrize(("slices", "allowed"), [("best", {2}), ("tumour", {1, 2}), ("all", {0, 1, 2, 3})])
def test_slices_are_those_asked_for(slices: str, allowed: set[int]) -> None:
    drawn = [k for batch in batches(slices=slices, draws_a_stack=20) for _, _, k in shown(batch)]
    assert set(drawn) == allowed


def test_views_of_several_slices_are_in_order() -> None:
    for batch in batches(slices_a_view=3):
        pictures = shown(batch)
        assert len(pictures) == 3 * len(batch.labels)
        for start in range(0, len(pictures), 3):
            view = pictures[start : start + 3]
            assert len({picture[:2] for picture in view}) == 1
            assert [k for _, _, k in view] == sorted({k for _, _, k in view})


def test_masks_are_those_of_the_images_and_known_where_they_are_known() -> None:
    without = [replace(stack, masks=None) if stack.patient == "p000" else stack for stack in STACKS]
    recipe = Recipe(size=32, positives="none", contrast=0, reconstruction=1, slices="all", groups_a_batch=6)
    masks = {(s.patient, s.sequence): s.masks for s in without}
    for batch in Drawing(without, recipe).epoch(0, 0):
        for (patient, sequence, k), mask, known in zip(shown(batch), batch.masks, batch.known, strict=True):
            truth = masks[patient, sequence]
            assert bool(known) is (truth is not None)
            assert torch.equal(mask[0].bool(), torch.from_numpy(truth[k])) if truth is not None else not mask.any()
        comparable = batch.comparable()
        assert not comparable.diagonal().any()
        assert not comparable[~batch.known].any()


def test_only_like_sequences_are_comparable() -> None:
    for batch in batches(positives="relevance"):
        sequences = [sequence for _, sequence, _ in shown(batch)]
        for i, j in np.ndindex(len(sequences), len(sequences)):
            assert bool(batch.comparable()[i, j]) == (i != j and sequences[i] == sequences[j])


def test_a_missing_label_is_refused_and_not_taken_for_one() -> None:
    stacks = [replace(STACKS[0], label=None), *STACKS[1:]]
    with pytest.raises(RecipeError, match="label"):
        Drawing(stacks, Recipe(size=32, positives="label", slices="all"))


def test_each_split_gets_its_share_of_the_draws() -> None:
    stacks = [replace(stack, split="few" if stack.patient == STACKS[0].patient else "many") for stack in STACKS]
    recipe = Recipe.model_validate(
        {
            "size": 32,
            "positives": "none",
            "lesion": 1.0,
            "slices": "all",
            "draws_a_stack": SLICES,
            "architecture": {"lesion_grid": 4, "weights": {"lesion": 1}},
            "shares": {"few": 0.75, "many": 0.25},
        }
    )
    seen = [picture[0] for batch in Drawing(stacks, recipe).epoch(0, 0) for picture in shown(batch)]
    assert seen.count(STACKS[0].patient) / len(seen) == pytest.approx(0.75, abs=0.1)
    with pytest.raises(RecipeError, match="few, many"):
        Drawing(stacks, recipe.changed({"shares": {"other": 1.0}}))


def test_stacks_without_a_label_have_no_class() -> None:
    stacks = [replace(stack, label=None if i % 2 else f"kind {i % 4}") for i, stack in enumerate(STACKS)]
    recipe = Recipe(size=32, slices="all", groups_a_batch=3)
    of_picture = {s.pixels[k].tobytes(): s.label for s in stacks for k in range(SLICES)}
    for batch in Drawing(stacks, recipe).epoch(0, 0):
        labels = [of_picture[image.numpy().astype(np.float16).tobytes()] for image in batch.images[:, 0]]
        assert batch.classes.tolist() == [-1 if name is None else int(name[-1]) // 2 for name in labels]
