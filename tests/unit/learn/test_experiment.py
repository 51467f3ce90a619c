from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from hashlib import sha1
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_stacks import painted_stacks
from rich.console import Console

from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.errors import NotMeasurable, RecipeError, TableError
from pacs_cbir.learn import experiment as experiments
from pacs_cbir.learn.comparison import Robustness
from pacs_cbir.learn.experiment import Cohort, Experiment, halves_of, report_of
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.report import commit_of_program, device_in_words, write_report
from pacs_cbir.learn.results import Result
from pacs_cbir.learn.rows import Rows
from pacs_cbir.learn.stacks import Stack
from pacs_cbir.learn.table import make_table
from pacs_cbir.learn.train import fingerprint, train

QUIET = Console(quiet=True)
ARCHITECTURE = {"appearance": 8, "grey_levels": 8, "weights": {"appearance": 1, "grey": 1}}
ROWS: list[dict[str, Any]] = [
    {"name": "random order", "baseline": "random-order"},
    {"name": "grey histogram", "baseline": "grey-histogram"},
    {"name": "trained", "recipe": "plain", "changes": {"architecture": ARCHITECTURE}},
]
TABLE: dict[str, Any] = {
    "title": "small",
    "changes": {"plain": {"epochs": 1, "size": 32, "draws_a_stack": 1, "groups_a_batch": 2}},
    "rows": ROWS,
}


def draw(preprocessing: Preprocessing, change: str | None, patients: int = 8) -> list[Stack]:
    stacks = painted_stacks(patients, size=preprocessing.size)
    if change is None:
        return stacks
    # Upside down: another picture for everything that looks at one.
    return [
        replace(s, pixels=s.pixels[:, ::-1], picture=None if s.picture is None else s.picture[::-1] * 0.5)
        for s in stacks
    ]


def experiment(results: Path, *, simulated: bool = False, **changes: Any) -> Experiment:
    content = {**TABLE, **changes}
    if not any("recipe" in row for row in content["rows"]):
        content["changes"] = {}
    table = make_table(content)
    return Experiment(table, Cohort("painted", draw, ("upside down",), simulated), Rows(table, Path(), None), results)


def _of_14() -> Cohort:
    """Enough for folds with galleries of more than five."""
    return Cohort("painted", partial(draw, patients=14), ("upside down",))


def kept(results: Path) -> dict[str, int]:
    files = (results / "runs" / "small").rglob("*.json")
    return {str(file.relative_to(results / "runs" / "small")): file.stat().st_mtime_ns for file in files}


def test_rows_are_measured_once_and_again_only_where_they_changed(tmp_path: Path) -> None:
    measured, failed = experiment(tmp_path).run(QUIET)
    assert not failed
    assert [result.name for result in measured["poster"]] == [row["name"] for row in ROWS]
    first = kept(tmp_path)
    assert len(first) == 3 * 2 * 2  # rows, protocols, folds

    again, _ = experiment(tmp_path).run(QUIET)
    assert again == measured
    assert kept(tmp_path) == first

    lost = tmp_path / "runs" / "small" / "trained" / "service-1-0.json"
    lost.unlink()
    resumed, _ = experiment(tmp_path).run(QUIET)
    assert resumed == measured
    assert {name for name, time in kept(tmp_path).items() if first[name] != time} == {"trained/service-1-0.json"}

    damaged = tmp_path / "runs" / "small" / "random-order" / "poster-0-0.json"
    damaged.write_text("{")
    mended, _ = experiment(tmp_path).run(QUIET)
    assert mended == measured

    second = kept(tmp_path)
    changed = {**ROWS[2], "changes": {"architecture": ARCHITECTURE, "temperature": 0.5}}
    experiment(tmp_path, rows=[*ROWS[:2], changed]).run(QUIET)
    anew = {name for name, time in kept(tmp_path).items() if second[name] != time}
    assert anew == {name for name in second if name.startswith("trained/")}


def test_another_measure_measures_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment(tmp_path, rows=ROWS[:2]).run(QUIET)
    first = kept(tmp_path)
    monkeypatch.setattr(experiments, "MEASURE_REVISION", experiments.MEASURE_REVISION + 1)
    experiment(tmp_path, rows=ROWS[:2]).run(QUIET)
    assert all(first[name] != time for name, time in kept(tmp_path).items())


def test_other_data_make_other_results(tmp_path: Path) -> None:
    experiment(tmp_path, rows=ROWS[:2]).run(QUIET)
    first = kept(tmp_path)
    other = experiment(tmp_path, rows=ROWS[:2])
    other.cohort = Cohort("painted", lambda *_: painted_stacks(8, first=50))
    other.run(QUIET)
    assert all(first[name] != time for name, time in kept(tmp_path).items())


def test_each_fold_is_measured_by_what_was_trained_on_the_other(tmp_path: Path) -> None:
    run = experiment(tmp_path)
    one, two = run.folds
    assert one.training == two.measured
    assert two.training == one.measured
    assert not one.training & one.measured
    measured, _ = run.run(QUIET)
    result = measured["poster"][0]
    assert isinstance(result, Result)
    for fold in run.folds:
        assert {query.patient for query in result.queries if query.fold == fold.name} == fold.measured


def test_folds_alternate_along_the_names_digests() -> None:
    names = [f"p{i}" for i in range(9)]
    ordered = sorted(names, key=lambda name: sha1(name.encode(), usedforsecurity=False).hexdigest())
    assert halves_of(set(names)) == (frozenset(ordered[::2]), frozenset(ordered[1::2]))
    with pytest.raises(RecipeError, match="3 patients"):
        halves_of(names[:3])


def test_seeds_are_of_recipes_alone(tmp_path: Path) -> None:
    measured, _ = experiment(tmp_path, seeds=[3, 4], protocols=["poster"], rows=ROWS[1:]).run(QUIET)
    histogram, trained = measured["poster"]
    assert isinstance(histogram, Result)
    assert isinstance(trained, Result)
    assert {query.seed for query in histogram.queries} == {3}
    assert {query.seed for query in trained.queries} == {3, 4}


def test_a_checkpoint_that_knows_the_measured_patients_is_named(tmp_path: Path) -> None:
    stacks = painted_stacks(8)
    recipe = Recipe.model_validate({**TABLE["changes"]["plain"], "architecture": ARCHITECTURE})
    train(recipe, stacks[:6], seed=0, out=tmp_path / "mine")
    rows = [{"name": "mine", "checkpoint": str(tmp_path / "mine.safetensors")}, *ROWS[:1]]
    rows.append({"name": "shipped", "checkpoint": "shipped"})
    train(recipe, stacks[:6], seed=1, out=tmp_path / "older")
    card = json.loads((tmp_path / "older.json").read_text())
    card["training"]["patient_digests"] = None
    (tmp_path / "older.json").write_text(json.dumps(card))
    rows.append({"name": "older", "checkpoint": str(tmp_path / "older.safetensors")})
    run = experiment(tmp_path, rows=rows, protocols=["service"])
    said = StringIO()
    measured, failed = run.run(Console(file=said, width=300))
    [line] = [line for line in said.getvalue().splitlines() if "of the 8" in line]
    assert "mine was trained on 3 of the 8 patients" in line
    write_report(report_of(run, "service", failed), measured["service"], tmp_path, "service")
    mine, chance, shipped, older = json.loads((tmp_path / "small-service.json").read_text())["rows"]
    assert (mine["trained_on"], mine["measured"]) == (3, 8)
    assert chance["trained_on"] == shipped["trained_on"] == 0
    assert older["trained_on"] is None
    assert "older: whether it was trained on the patients it is measured on is not known" in said.getvalue()
    lines = (tmp_path / "small-service.md").read_text().splitlines()
    notes = [line for line in lines if line.startswith("- ") and "trained on" in line]
    assert len(notes) == 2
    assert "mine was trained on 3 of the 8 patients" in notes[0]
    assert "older: whether it was trained on the patients it is measured on is not known" in notes[1]


def test_rows_say_which_program_measured_them(tmp_path: Path) -> None:
    experiment(tmp_path, rows=ROWS[:2], protocols=["poster"]).run(QUIET)
    old = tmp_path / "runs" / "small" / "random-order" / "poster-0-0.json"
    old.write_text(json.dumps(json.loads(old.read_text()) | {"commit": "older", "device": "another"}))
    unknown = tmp_path / "runs" / "small" / "grey-histogram" / "poster-0-0.json"
    kept = json.loads(unknown.read_text())
    unknown.write_text(json.dumps({"identity": kept["identity"], "result": kept["result"]}))
    run = experiment(tmp_path, rows=ROWS[:2], protocols=["poster"])
    measured, failed = run.run(QUIET)
    write_report(report_of(run, "poster", failed), measured["poster"], tmp_path, "poster")
    chance, histogram = json.loads((tmp_path / "small-poster.json").read_text())["rows"]
    assert set(chance["commit"]) == {"older", commit_of_program()}
    assert set(chance["device"]) == {"another", device_in_words()}
    assert histogram["commit"] == [commit_of_program()]
    assert json.loads(unknown.read_text())["identity"] == kept["identity"]  # what an older version kept is not lost


def test_rows_that_cannot_work_are_all_named_before_anything_is_drawn_or_trained(tmp_path: Path) -> None:
    changes = {"architecture": ARCHITECTURE}
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    rows = [
        *ROWS[:2],
        {"name": "none", "baseline": "nonsense"},
        {"name": "lost", "checkpoint": "lost.safetensors"},
        {"name": "odd size", "recipe": "plain", "changes": {"size": 48}},
        {"name": "unknown word", "recipe": "plain", "changes": {"colour": 1}},
        {"name": "no recipe", "recipe": "nowhere.toml"},
        {"name": "damaged weights", "recipe": "plain", "changes": {**changes, "init": "pretrained"}},
    ]
    run = experiment(tmp_path / "results", rows=rows)
    run.rows = replace(run.rows, weights=tmp_path / "weights.pth")
    run.cohort = Cohort("painted", lambda *_: pytest.fail("drawn"))
    with pytest.raises(TableError) as refused:
        run.run(QUIET)
    for fault, (name, words) in zip(
        refused.value.faults,
        {
            "none": "there are: random-order, grey-histogram",
            "lost": "lost.safetensors",
            "odd size": "size: Input should be a multiple of 32",
            "unknown word": "colour",
            "no recipe": "the package's own recipes are",
            "damaged weights": "weights.pth cannot be read",
        }.items(),
        strict=True,
    ):
        assert fault.startswith(f"row '{name}': ")
        assert words in fault
    assert not (tmp_path / "results").exists()


def test_a_row_that_fails_on_these_data_is_named_and_does_not_end_the_others(tmp_path: Path) -> None:
    changes = {"architecture": ARCHITECTURE, "dimension": 16, "draws_a_stack": 1}
    run = experiment(tmp_path, rows=[{"name": "none", "recipe": "plain", "changes": changes}, *ROWS[:2]])
    measured, failed = run.run(QUIET)
    assert [result.name for result in measured["service"]] == ["random order", "grey histogram"]
    assert "dimension = 16" in failed["none"]
    write_report(report_of(run, "service", failed), measured["service"], tmp_path, "service")
    assert json.loads((tmp_path / "small-service.json").read_text())["failed"] == failed
    assert "left out: none" in (tmp_path / "small-service.md").read_text()


def test_changed_queries_are_ranked_against_the_unchanged_gallery(tmp_path: Path) -> None:
    run, second = (experiment(tmp_path, protocols=["poster", "robustness"]) for _ in range(2))
    run.cohort, second.cohort = (_of_14() for _ in range(2))
    measured, failed = run.run(QUIET)
    assert not failed
    again, _ = second.run(QUIET)
    assert again == measured
    for plain, changed in zip(measured["poster"], measured["robustness"], strict=True):
        assert isinstance(changed, Robustness)
        assert changed.unchanged == plain
    of_chance, of_histogram, _ = measured["robustness"]
    assert isinstance(of_chance, Robustness)
    assert isinstance(of_histogram, Robustness)
    assert of_chance.falls["upside down"].ndcg5 == pytest.approx(0)
    assert abs(of_histogram.falls["upside down"].ndcg5 or 0) > 0.001
    write_report(report_of(run, "robustness", failed), measured["robustness"], tmp_path, "robustness")
    rows = json.loads((tmp_path / "small-robustness.json").read_text())["rows"]
    assert rows[1]["falls"]["upside down"]["ndcg5"] == of_histogram.falls["upside down"].ndcg5
    assert "| upside down |" in (tmp_path / "small-robustness.md").read_text()
    assert (tmp_path / "small-robustness.png").read_bytes().startswith(b"\x89PNG")


def test_labelled_rows_are_trained_on_all_splits_but_the_one_that_asks(tmp_path: Path) -> None:
    run = experiment(tmp_path, protocols=["labelled"], test_split="test", rows=ROWS)
    (fold,) = run.folds
    assert fold.measured == {"p000", "p003", "p006"}
    measured, failed = run.run(QUIET)
    assert not failed
    write_report(report_of(run, "labelled", failed), measured["labelled"], tmp_path, "labelled")
    rows = json.loads((tmp_path / "small-labelled.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [row["name"] for row in ROWS]
    assert all(0 <= row["map"] <= 1 and "per_query" not in row for row in rows)
    assert "| trained |" in (tmp_path / "small-labelled.md").read_text()
    with pytest.raises(RecipeError, match="'9'"):
        _ = experiment(tmp_path, test_split="9").folds


def test_pictures_are_published_of_simulated_patients_alone(tmp_path: Path) -> None:
    experiment(tmp_path / "real", rows=ROWS[:2]).run(QUIET)
    assert not (tmp_path / "real" / "sheets").exists()
    experiment(tmp_path / "simulated", simulated=True, rows=ROWS[:2]).run(QUIET)
    assert {path.name for path in (tmp_path / "simulated" / "sheets").iterdir()} == {
        "small-random-order.png",
        "small-grey-histogram.png",
    }


def test_progress_says_which_row_fold_and_seed_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [ROWS[0], {**ROWS[2], "name": "[plain], trained"}]
    experiment(tmp_path, rows=rows, protocols=["poster"], seeds=[7]).run(QUIET)
    said = capsys.readouterr().err
    for fold in (0, 1):
        assert f"2/2  [plain], trained, fold {fold}, seed 7  epoch 1 of 1" in said


def test_weights_of_patients_are_kept_out_of_git(tmp_path: Path) -> None:
    experiment(tmp_path, rows=ROWS[2:], protocols=["poster"]).run(QUIET)
    assert (tmp_path / "weights" / ".gitignore").read_text() == "*\n"
    assert len(list((tmp_path / "weights").glob("*.safetensors"))) == 2  # one a fold


def test_rows_that_are_measured_otherwise_share_what_was_trained(tmp_path: Path) -> None:
    trained = ROWS[2]["changes"]
    rows = [
        ROWS[2],
        {"name": "grey alone", "recipe": "plain", "changes": {**trained, "parts": {"grey": 1}}},
        {"name": "projected", "recipe": "plain", "changes": {**trained, "dimension": 4}},
        {"name": "no such part", "recipe": "plain", "changes": {**trained, "parts": {"lesion": 1}}},
    ]
    run = experiment(tmp_path, rows=rows)
    run.cohort = _of_14()
    measured, failed = run.run(QUIET)
    assert len(list((tmp_path / "weights").glob("*.safetensors"))) == 2
    whole, grey, projected = (result.ndcg5 for result in measured["poster"] if isinstance(result, Result))
    assert len({whole, grey, projected}) == 3
    assert "no part lesion" in failed["no such part"]


def test_networks_of_a_sequence_are_trained_once(tmp_path: Path) -> None:
    rows = [{**ROWS[2], "changes": {**ROWS[2]["changes"], "a_network_a_sequence": True}}]
    measured, _ = experiment(tmp_path, rows=rows).run(QUIET)
    weights = sorted((tmp_path / "weights").glob("*.safetensors"))
    assert len(weights) == 2 * 2  # folds, sequences
    first = [file.stat().st_mtime_ns for file in weights]
    lost = weights[0].with_suffix(".json")
    lost.unlink()
    for file in (tmp_path / "runs").rglob("*.json"):
        file.unlink()
    again, failed = experiment(tmp_path, rows=rows).run(QUIET)
    assert not failed
    assert again == measured
    anew = [file.stat().st_mtime_ns != time for file, time in zip(weights, first, strict=True)]
    assert anew == [True, False, False, False]


def test_a_half_written_checkpoint_is_trained_anew(tmp_path: Path) -> None:
    measured, _ = experiment(tmp_path, rows=ROWS[2:]).run(QUIET)
    for weights in (tmp_path / "weights").glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:1000])
    for file in (tmp_path / "runs").rglob("*.json"):
        file.unlink()
    again, failed = experiment(tmp_path, rows=ROWS[2:]).run(QUIET)
    assert not failed
    assert again == measured


def test_what_was_kept_before_body_parts_were_known_is_kept() -> None:
    [stack] = painted_stacks(1, sequences=("T1",), masks=False)
    plain = replace(stack, pixels=np.zeros((1, 2, 2), np.float16))
    assert fingerprint([plain]) == "3117f5535600ca915ea860cb22eb1ecb0913a604cc7ec1b64271e422b1f2edd3"


def test_other_splits_are_other_data() -> None:
    stacks = painted_stacks(4)
    assert fingerprint(stacks) != fingerprint([replace(stack, split="elsewhere") for stack in stacks])


def test_results_stay_in_their_folder_whatever_a_split_is_called(tmp_path: Path) -> None:
    run = experiment(tmp_path, protocols=["labelled"], test_split="a/../../../out", rows=ROWS[:1])
    stacks = painted_stacks(8)
    run.cohort = Cohort(
        "painted", lambda *_: [replace(s, split="a/../../../out" if s.split == "test" else s.split) for s in stacks]
    )
    _, failed = run.run(QUIET)
    assert not failed
    [file] = tmp_path.rglob("labelled-*.json")
    assert file.parent == tmp_path / "runs" / "small" / "random-order"


def _without_masks(stacks: list[Stack]) -> list[Stack]:
    return [replace(s, masks=None, best=None, picture=None, truth=None) for s in stacks]


@pytest.mark.parametrize(
    ("stacks", "changes", "complaint"),
    [
        (_without_masks(painted_stacks(8)), {"protocols": ["service"]}, "service: no stack has a lesion mask"),
        (
            [replace(s, pixels=s.pixels[2:3], levels=s.levels[2:3], best=0) for s in painted_stacks(8)],
            {"protocols": ["robustness"]},
            "robustness: stacks of one slice",
        ),
        (
            [s for s in painted_stacks(8) if s.patient not in {"p003", "p006"}],
            {"protocols": ["poster"], "test_split": "test"},
            "poster: no two patients",
        ),
        (
            [replace(s, label=None if s.split == "test" else s.label) for s in painted_stacks(8)],
            {"protocols": ["labelled"], "test_split": "test"},
            "no labels among the queries",
        ),
        (
            [replace(s, label=f"{s.label} {s.split}") for s in painted_stacks(8)],
            {"protocols": ["labelled"], "test_split": "test"},
            "no query has a label",
        ),
    ],
)
def test_data_that_no_row_can_be_measured_on_are_refused_before_training(
    stacks: list[Stack], changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    run = experiment(tmp_path, rows=ROWS[2:], **changes)
    run.cohort = Cohort("painted", lambda *_: stacks)
    with pytest.raises(NotMeasurable, match=complaint):
        run.run(QUIET)
    assert not list(tmp_path.iterdir())
