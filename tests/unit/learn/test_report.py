from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from painted_stacks import painted_stacks
from PIL import Image

from pacs_cbir.learn.baselines import GreyHistogram, OracleIou, RandomOrder
from pacs_cbir.learn.protocols import paired, poster
from pacs_cbir.learn.relevance import gfd_d95
from pacs_cbir.learn.report import Report, commit_of_program, write_report
from pacs_cbir.learn.results import Result
from pacs_cbir.learn.table import slug

STACKS = painted_stacks(8)


@pytest.fixture(scope="module")
def results() -> list[Result]:
    methods = (RandomOrder(), GreyHistogram(), OracleIou())
    return [poster(method, STACKS, gfd_d95(STACKS)) for method in methods]


@pytest.fixture
def report() -> Report:
    return Report(
        title="some",
        dataset="painted",
        protocol="poster",
        split={"0": ["a"], "1": ["b"]},
        seeds=(0,),
        device="none",
        commit=commit_of_program(),
        table="0" * 64,
        rows=[],
        failed={},
    )


def test_the_json_has_every_figure_and_the_difference_to_the_histogram(
    results: list[Result], report: Report, tmp_path: Path
) -> None:
    write_report(report, results, tmp_path, "poster")
    written = json.loads((tmp_path / "some-poster.json").read_text())
    assert {"dataset", "protocol", "split", "device", "commit", "rows"} <= set(written)
    for row, result in zip(written["rows"], results, strict=True):
        for figure in ("name", "ndcg5", "ndcg10", "ndcg20", "skill5"):
            assert row[figure] == getattr(result, figure)
        assert row["interval"] == list(result.interval)
        assert set(row["by_sequence"]) == {"T1", "FLAIR"}
        assert set(row["by_component"]) == {"iou", "histogram", "gfd"}
        assert "queries" not in row
    assert written["rows"][1]["above_histogram"] is None
    difference = paired(results[2], results[1])
    assert written["rows"][2]["above_histogram"]["ndcg5"] == difference.ndcg5


def test_the_table_has_a_line_a_row_and_a_column_a_figure(
    results: list[Result], report: Report, tmp_path: Path
) -> None:
    write_report(report, results, tmp_path, "poster")
    lines = [line for line in (tmp_path / "some-poster.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    assert [row[0] for row in cells[2:]] == [result.name for result in results]
    titles = cells[0]
    assert {"@10", "@20", "skill@5", "iou", "gfd", "T1", "FLAIR"} <= set(titles)
    oracle = dict(zip(titles, cells[4], strict=True))
    assert oracle["iou"] == "1.000"
    assert oracle["T1"] == f"{results[2].by_sequence['T1'].ndcg5:.3f}"
    assert dict(zip(titles, cells[3], strict=True))[titles[-1]] == "–"


def test_small_galleries_leave_figures_out_and_are_told(report: Report, tmp_path: Path) -> None:
    few = painted_stacks(2)  # galleries of one: every order is the ideal one
    of_few = [poster(method, few, 2.0) for method in (RandomOrder(), GreyHistogram(), OracleIou())]
    write_report(report, of_few, tmp_path, "poster")
    told = (tmp_path / "some-poster.md").read_text()
    lines = [line for line in told.splitlines() if line.startswith("|")][2:]
    assert {cell.strip() for line in lines for cell in line.strip("|").split("|")[1:]} == {"–"}
    assert told.count("queries left out of nDCG@5 4, nDCG@10 4, nDCG@20 4") == 1
    for row in json.loads((tmp_path / "some-poster.json").read_text())["rows"]:
        assert (row["ndcg5"], row["ndcg10"], row["ndcg20"], row["skill5"]) == (None, None, None, None)
        assert row["left_out"]["queries with a gallery of 5 or fewer"] == 4


def test_a_row_stands_beside_the_one_that_its_table_compares_it_with(
    results: list[Result], report: Report, tmp_path: Path
) -> None:
    compared = report.model_copy(update={"against": {"oracle IoU": "random order", "grey histogram": "left out"}})
    write_report(compared, results, tmp_path, "poster")
    chance, histogram, oracle = json.loads((tmp_path / "some-poster.json").read_text())["rows"]
    difference = paired(results[2], results[0])
    assert oracle["against"] == "random order"
    assert oracle["above_row"]["interval"] == list(difference.interval)
    assert oracle["above_row"]["by_sequence"]["T1"]["ndcg5"] == difference.by_sequence["T1"].ndcg5
    assert (histogram["against"], histogram["above_row"]) == ("left out", None)
    assert (chance["against"], chance["above_row"]) == (None, None)
    lines = [line for line in (tmp_path / "some-poster.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][-1] == "above another row (95 %)"
    low, high = difference.interval
    shown = f"random order: {difference.ndcg5:.3f} ({low:.3f} to {high:.3f})"
    assert [row[-1] for row in cells[2:]] == ["–", "–", shown]


def test_plots_are_pictures(results: list[Result], report: Report, tmp_path: Path) -> None:
    write_report(report, results, tmp_path, "poster")
    for name in ("some-poster.png", "some-poster-sequences.png"):
        with Image.open(tmp_path / name) as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_slugs_are_names_of_files_and_checkpoints() -> None:
    assert slug("… + augmentation") == "augmentation"
    assert slug("16×16 pixels") == "16x16-pixels"
    assert slug("SupCon by patient, from scratch") == "supcon-by-patient-from-scratch"
