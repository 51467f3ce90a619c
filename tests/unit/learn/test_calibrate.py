from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from painted_stacks import painted_stacks

from pacs_cbir.embed.checkpoint import load_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.learn.calibrate import calibrate, unrelated_similarities, unrelated_slice_similarities
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.train import train

RECIPE = {"size": 32, "epochs": 0, "architecture": {"grey_levels": 8, "weights": {"grey": 1}}}


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return Encoder(train(Recipe.model_validate(RECIPE), painted_stacks(2), seed=0, out=tmp_path / "plain")[""])


def test_it_is_the_median_over_pairs_of_two_patients(encoder: Encoder) -> None:
    stacks = painted_stacks(5)
    stacks.append(replace(stacks[0], study="again"))  # a pair of one patient's own
    found = unrelated_similarities(encoder, stacks)
    assert set(found) == {"T1", "FLAIR"}
    alike = [stack for stack in stacks if stack.sequence == "T1"]
    pooled = [encoder.pool(encoder.embed(stack.pixels)) for stack in alike]
    pairs = [
        float(one @ two)
        for one, first in zip(pooled, alike, strict=True)
        for two, second in zip(pooled, alike, strict=True)
        if first.patient != second.patient
    ]
    assert found["T1"] == pytest.approx(np.median(pairs), abs=1e-4)


def test_slices_are_compared_with_the_nearest_of_another_patients(encoder: Encoder) -> None:
    stacks = painted_stacks(4, sequences=("T1",))
    stacks.append(replace(stacks[0], study="again"))
    slices = [encoder.embed(stack.pixels) for stack in stacks]
    nearest = [
        float((mine @ slices[two].T).max())
        for one, own in enumerate(slices)
        for mine in own
        for two in range(len(stacks))
        if stacks[one].patient != stacks[two].patient
    ]
    found = unrelated_slice_similarities(encoder, stacks)
    assert found == {"T1": pytest.approx(np.median(nearest), abs=1e-4)}


def test_single_pictures_count_only_where_there_are_no_series(encoder: Encoder) -> None:
    stacks = painted_stacks(4)
    single = [replace(s, pixels=s.pixels[2:3], sequence="T2", patient=f"single {s.patient}") for s in stacks]
    assert set(unrelated_similarities(encoder, stacks + single)) == {"T1", "FLAIR"}
    assert set(unrelated_similarities(encoder, single)) == {"T2"}


def test_one_patient_tells_nothing(encoder: Encoder) -> None:
    assert unrelated_similarities(encoder, painted_stacks(1)) == {}


def test_the_card_keeps_it(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    before = load_checkpoint(path)
    calibrate(path, before, painted_stacks(4))
    after = load_checkpoint(path)
    assert after.card.unrelated == unrelated_similarities(encoder, painted_stacks(4))
    assert after.card.unrelated_slices == unrelated_slice_similarities(encoder, painted_stacks(4))
    both = {name: getattr(after.card, name) for name in ("unrelated", "unrelated_slices")}
    assert after.card == before.card.model_copy(update=both)
    assert after.identity("float32") == before.identity("float32")
