from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_stacks import painted_stacks
from PIL import Image
from typer.testing import CliRunner

from pacs_cbir.cli import app, main
from pacs_cbir.embed.checkpoint import load_checkpoint
from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.manifest import Manifest, Row
from pacs_cbir.learn.manifest_file import write_manifest

RECIPE = """
size = 32
epochs = 1
groups_a_batch = 2
[architecture]
appearance = 8
weights = { appearance = 1 }
"""
TABLE = """
title = "tiny"
protocols = ["poster"]
rows = [{ name = "grey histogram", baseline = "grey-histogram" }, { name = "trained", recipe = "tiny-recipe.toml" }]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of fourteen patients with masks, a manifest, a recipe and a table."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for stack in painted_stacks(14, sequences=("FLAIR",)):
        assert stack.picture is not None
        assert stack.truth is not None
        name = stack.patient
        Image.fromarray((stack.picture * 255).astype(np.uint8)).save(folder / f"{name}.png")
        Image.fromarray(stack.truth.astype(np.uint8) * 255).save(folder / f"{name}_mask.png")
        path, mask = folder / f"{name}.png", folder / f"{name}_mask.png"
        rows.append(
            Row(
                path=path,
                patient=name,
                study=name,
                sequence="FLAIR",
                mask=mask,
                spacing_mm=1.5,
                label=stack.label,
                split=stack.split,
            )
        )
    write_manifest(Manifest(tuple(rows)), folder / "painted.csv")
    (folder / "tiny-recipe.toml").write_text(RECIPE)
    (folder / "tiny-table.toml").write_text(TABLE)
    return folder


def run(*arguments: str | Path) -> str:
    """What the command says on standard error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stderr


@pytest.mark.slow
def test_train_evaluate_and_experiment_from_a_manifest(folder: Path, tmp_path: Path) -> None:
    manifest = folder / "painted.csv"
    run("train", folder / "tiny-recipe.toml", tmp_path / "mine", "--manifest", manifest, "--seed", "3")
    card = load_checkpoint(tmp_path / "mine.safetensors").card
    assert (card.training.patients, set(card.unrelated)) == (14, {"FLAIR"})

    measured = tmp_path / "mine-result.json"
    said = run("evaluate", measured, "--manifest", manifest, "--encoder", tmp_path / "mine.safetensors")
    assert "mine was trained on 14 of the 14 patients" in said
    written = json.loads(measured.read_text())
    assert 0 < written["ndcg5"] <= 1
    assert written["trained_on"] == 14

    run("experiment", folder / "tiny-table.toml", "--manifest", manifest, "--results", tmp_path / "results")
    written = json.loads((tmp_path / "results" / "tiny-poster.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["grey histogram", "trained"]
    assert written["dataset"] == "painted"


def test_evaluate_prints_the_figures_that_it_writes(folder: Path, tmp_path: Path) -> None:
    arguments = ["--manifest", str(folder / "painted.csv"), "--encoder", "grey-histogram"]

    def evaluate(*more: str) -> tuple[str, dict[str, Any]]:
        out = tmp_path / "out.json"
        result = CliRunner().invoke(app, ["evaluate", str(out), *arguments, *more], catch_exceptions=False)
        assert "of 14 queries left out of nDCG@10 14, nDCG@20 14" in result.stderr or "labelled" in more
        return result.stdout, json.loads(out.read_text())

    said, written = evaluate("--protocol", "poster")
    low, high = written["interval"]
    assert re.search(r"nDCG@5 \(95 %\) +. @10 +. @20 +. skill@5", said)
    shown = f"{written['ndcg5']:.3f} ({low:.3f}–{high:.3f})"
    assert re.search(rf"{re.escape(shown)} . – +. – +. {written['skill5']:.3f} ", said)
    said, written = evaluate("--protocol", "labelled", "--test-split", "test")
    assert re.search(r"mAP \(95 %\) +. P@5 +. P@10", said)
    assert re.search(rf"{written['map']:.3f} .* . {written['precision5']:.3f} . {written['precision10']:.3f} ", said)


def test_a_table_with_faults_ends_with_code_2_and_all_of_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 'rows = [{ name = "a", baseline = "x" }, { name = "b", recipe = "ours", changes = { size = 48 } }]'
    (tmp_path / "table.toml").write_text(f'title = "faulty"\n{rows}\n')
    told = ["experiment", tmp_path / "table.toml", "--manifest", folder / "painted.csv", "--results", tmp_path / "r"]
    monkeypatch.setattr("sys.argv", ["pacs-cbir", *map(str, told)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "row 'a': there is no baseline 'x'" in said
    assert "row 'b': a changed recipe: size:" in said


def test_an_experiment_needs_its_data_named_once(folder: Path, tmp_path: Path) -> None:
    arguments = ["experiment", str(folder / "tiny-table.toml"), "--results", str(tmp_path)]
    with pytest.raises(RecipeError, match="--manifest"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    arguments[1] = "smoke"
    with pytest.raises(RecipeError, match="--manifest"):
        CliRunner().invoke(app, [*arguments, "--manifest", str(folder / "painted.csv")], catch_exceptions=False)
