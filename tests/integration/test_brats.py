"""The poster's table from a folder of BraTS cases: simulated ones, and real ones where they are at hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REAL = Path(__file__).parents[3] / "shared" / "data" / "brats"
TABLE = """
title = "poster"
protocols = ["poster", "service"]
[changes.plain]
epochs = 1
size = 32
groups_a_batch = 2
draws_a_stack = 1
[changes.ours]
epochs = 1
size = 32
groups_a_batch = 2
draws_a_stack = 1
init = "random"
[[rows]]
name = "random order"
baseline = "random-order"
[[rows]]
name = "grey histogram"
baseline = "grey-histogram"
[[rows]]
name = "SupCon by patient, from scratch"
recipe = "plain"
[[rows]]
name = "ours"
recipe = "ours"
"""


SIMULATED = 14
"""Seven in each fold: nDCG@5 is of galleries of six or more."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_of_brats_cases_gives_the_table(tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    run("simulate", cases, "--patients", SIMULATED, "--layout", "brats", "--skull-stripped")
    real = [folder for folder in (REAL / "BraTS2021_00006", REAL / "BraTS-GLI-00000-000") if folder.exists()]
    for folder in real:
        shutil.copytree(folder, cases / folder.name)
    manifest, table = tmp_path / "brats.csv", tmp_path / "poster.toml"
    table.write_text(TABLE)
    run("dataset", "brats", cases, manifest)
    run("experiment", table, "--manifest", manifest, "--results", tmp_path / "results")
    for protocol in ("poster", "service"):
        report = json.loads((tmp_path / "results" / f"poster-{protocol}.json").read_text())
        assert report["failed"] == {}
        assert len(report["rows"]) == 4
        assert sum(len(patients) for patients in report["split"].values()) == SIMULATED + len(real)
        for row in report["rows"]:
            assert set(row["by_sequence"]) == {"T1", "T1CE", "T2", "FLAIR"}
            assert 0 < row["ndcg5"] <= 1
            for part in row["by_sequence"].values():
                assert part["queries"] + part["left_out"] == SIMULATED + len(real)


def run(*arguments: object) -> None:
    command = [sys.executable, "-m", "pacs_cbir", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
