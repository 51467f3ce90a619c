"""A site's list becomes its studies' labels, as a whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rows import add_series

from pacs_cbir.store import labels
from pacs_cbir.store.session import Database


@pytest.fixture
def two(database: Database) -> Database:
    with database.transaction() as connection:
        for study in ("1.1", "1.2"):
            add_series(connection, study, f"{study}.1")
        labels.replace(connection, "1.2", ["old"])
    return database


def labels_of(database: Database, study: str) -> tuple[str, ...] | None:
    with database.transaction() as connection:
        return labels.of_study(connection, study)


def imported(table: Path, content: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    table.write_text(content)
    return subprocess.run(
        [sys.executable, "-m", "pacs_cbir", "labels", "import", str(table)],
        env=os.environ | environment | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_list_of_labels(two: Database, environment: dict[str, str], tmp_path: Path) -> None:
    content = "StudyInstanceUID,label\n1.1,glioma\n1.1, IDH wild type\n1.2,\n9.9,glioma\n"
    done = imported(tmp_path / "list.csv", content, environment)
    assert done.returncode == 0, done.stderr
    assert "2 studies have the labels of list.csv" in done.stdout
    assert "1 are not here: 9.9" in done.stdout
    assert labels_of(two, "1.1") == ("IDH wild type", "glioma")
    assert labels_of(two, "1.2") == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("study,label\n1.1,glioma\n", "column 'StudyInstanceUID' is missing"),
        ("StudyInstanceUID,label\n", "no rows"),
        (f"StudyInstanceUID,label\n1.1,glioma\n1.2,{'x' * 65}\n", "study 1.2: a label is text of 1 to 64"),
    ],
)
def test_a_list_with_a_fault_changes_nothing(
    two: Database, environment: dict[str, str], tmp_path: Path, content: str, says: str
) -> None:
    done = imported(tmp_path / "list.csv", content, environment)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert (labels_of(two, "1.1"), labels_of(two, "1.2")) == ((), ("old",))
