"""Heat on pairs of simulated heads with one lesion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.learn.phantom import simulate_patient
from pacs_cbir.learn.shared_lesions import LesionHeat, shared_lesion_heat, table_of, write_results


@pytest.fixture(scope="module")
def heats() -> list[LesionHeat]:
    encoder = Encoder(load_checkpoint(default_checkpoint_path()))
    return [heat for of_pair in shared_lesion_heat(encoder, pairs=2, seed=21) for heat in of_pair]


def test_another_head_can_have_the_same_lesion() -> None:
    one = simulate_patient(5, 1)
    two = simulate_patient(5, 2, glioma=one.parameters.glioma)
    assert two.parameters.glioma == one.parameters.glioma
    assert two.parameters.head != one.parameters.head
    centres = [(p.affine @ [*np.argwhere(p.mask > 0).mean(axis=0), 1])[:3] for p in (one, two)]
    assert np.linalg.norm(centres[0] - centres[1]) < 10
    alone = simulate_patient(5, 2)
    assert two.parameters.head == alone.parameters.head
    assert two.parameters.scan == alone.parameters.scan


def test_the_lesion_is_three_times_as_hot_as_the_rest_of_the_head(heats: list[LesionHeat]) -> None:
    assert {heat.sequence for heat in heats} == {"T1", "T1CE", "T2", "FLAIR"}
    assert np.mean([heat.inside for heat in heats]) >= 3 * np.mean([heat.outside for heat in heats])


def test_results_are_figures_and_a_picture(heats: list[LesionHeat], tmp_path: Path) -> None:
    write_results(heats, "some-encoder", 21, tmp_path / "new")
    written = json.loads((tmp_path / "new" / "explain.json").read_text())
    assert (written["encoder"], written["seed"], written["pairs"]) == ("some-encoder", 21, 2)
    assert written["sequences"]["all"]["slices"] == len(heats)
    assert f"| {written['sequences']['FLAIR']['ratio']:.2f} |" in table_of(heats)
    assert Image.open(tmp_path / "new" / "explain.png").size == (1024, 512)
