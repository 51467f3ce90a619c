"""`pacs-cbir bench query` on a cohort that is small enough for a test; its figures are nobody's business here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pacs_cbir.bench.clients import ask
from pacs_cbir.bench.cohort import Cohort
from pacs_cbir.bench.questions import KINDS
from pacs_cbir.cli import app
from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.parts import pool
from pacs_cbir.errors import BenchFailed

ARCHITECTURE = Architecture(appearance=256, grey_levels=64, weights={"appearance": 3.0, "grey": 1.0})


@pytest.mark.slow
def test_reindexing_is_measured_beside_the_encoder_alone(tmp_path: Path) -> None:
    arguments = ["--patients", "1", "--rounds", "2", "--results", str(tmp_path)]
    result = CliRunner().invoke(app, ["bench", "reindex", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads((tmp_path / "bench-reindex.json").read_text())
    assert (report["series"], len(report["rounds"])) == (4, 2)
    assert report["slices"] > 40
    ratios = [one["reindexed"] / one["bare"] for one in report["rounds"]]
    assert report["ratio"] == pytest.approx(np.median(ratios))
    assert min(ratios) > 0
    assert (tmp_path / "bench-reindex.md").read_text().endswith(result.stdout)


@pytest.mark.slow
def test_the_command_measures_every_kind_of_query(tmp_path: Path) -> None:
    arguments = ["--size", "400", "--clients", "1", "--clients", "2", "--seconds", "0.1", "--results", str(tmp_path)]
    result = CliRunner().invoke(app, ["bench", "query", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads((tmp_path / "bench-query.json").read_text())
    assert [row["kind"] for row in report["measured"]] == [kind.name for kind in KINDS]
    for row in report["measured"]:
        assert (row["bare"] > 0) == (row["kind"] != KINDS[0].name)
        assert [speed["clients"] for speed in row["speeds"]] == [1, 2]
        for speed in row["speeds"]:
            assert 0 < speed["p50"] <= speed["p95"] <= speed["p99"]
            assert speed["per_second"] > 0
    table = (tmp_path / "bench-query.md").read_text()
    assert table.endswith(result.stdout)
    assert all(f"| {kind.name} |" in table for kind in KINDS)


def test_an_answer_that_is_an_error_ends_the_measurement(tmp_path: Path) -> None:
    import http.server
    import threading

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(BenchFailed, match="404"):
            ask(f"http://127.0.0.1:{server.server_port}", ["/nothing/here"], "application/json", 1, 0.1)
        server.shutdown()


@pytest.mark.parametrize("slices", [100, 10_000, 1_000_000])
def test_a_range_of_dates_leaves_its_share_of_the_studies(slices: int) -> None:
    cohort = Cohort(ARCHITECTURE, slices)
    for share in (1.0, 0.1, 0.001):
        first, last = cohort.dates_that_leave(share)
        left = sum(first <= cohort.date_of(study) <= last for study in range(cohort.studies))
        assert left >= 1
        assert left == pytest.approx(share * cohort.studies, abs=1 + 0.02 * share * cohort.studies)


def test_unrelated_stacks_are_as_alike_as_the_calibration_found_them() -> None:
    """And those of one kind of finding more alike, and a study its own twin."""
    cohort = Cohort(ARCHITECTURE, 96 * 200)
    assert cohort.studies == 200
    whole = np.stack([pool(cohort.embeddings(study)[3], ARCHITECTURE) for study in range(200)])
    assert np.linalg.norm(whole, axis=1) == pytest.approx(np.ones(200), abs=1e-5)
    cosines = (whole @ whole.T)[np.triu_indices(200, 1)]
    assert np.median(cosines) == pytest.approx(0.84, abs=0.02)
    assert np.quantile(cosines, 0.99) > 0.9
    np.testing.assert_array_equal(cohort.embeddings(7), Cohort(ARCHITECTURE, 96 * 200).embeddings(7))
