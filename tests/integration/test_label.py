"""Labels on the command line: of one study, and a site's list, which is taken as a whole or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rows import add_series
from running import pacs_cbir

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
    return label(environment, "import", str(table))


def label(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return pacs_cbir(environment, "label", *arguments)


def test_a_list_of_labels(two: Database, environment: dict[str, str], tmp_path: Path) -> None:
    content = "StudyInstanceUID,label\n1.1,glioma\n1.1, IDH wild type\n1.2,\n9.9,glioma\n"
    done = imported(tmp_path / "list.csv", content, environment)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == ["2 studies have the labels of list.csv", "1 is not here:", "9.9"]
    one = imported(tmp_path / "list.csv", "StudyInstanceUID,label\n1.2,\n", environment)
    assert (one.returncode, one.stdout) == (0, "1 study has the labels of list.csv\n")
    assert labels_of(two, "1.1") == ("IDH wild type", "glioma")
    assert labels_of(two, "1.2") == ()


def test_labels_of_one_study(two: Database, environment: dict[str, str]) -> None:
    assert label(environment, "add", "1.2", "O-RADS 4", " excluded: motion ").stdout.splitlines() == [
        "O-RADS 4",
        "excluded: motion",
        "old",
    ]
    assert labels_of(two, "1.2") == ("O-RADS 4", "excluded: motion", "old")
    assert label(environment, "remove", "1.2", "excluded: motion", "old").stdout.splitlines() == ["O-RADS 4"]
    assert label(environment, "add", "1.1", "O-RADS 4", "[red]").returncode == 0
    assert label(environment, "show", "1.1").stdout.splitlines() == ["O-RADS 4", "[red]"]
    listed = label(environment, "show").stdout
    assert [line.split()[1:-1] for line in listed.splitlines() if "RADS" in line or "red" in line] == [
        ["O-RADS", "4", "│", "2"],
        ["[red]", "│", "1"],
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "9.9", "glioma"), "there is no such study here"),
        (("remove", "9.9", "glioma"), "there is no such study here"),
        (("show", "9.9"), "there is no such study here"),
        (("add", "1.2", "glioma", "x" * 65), "1 to 64 characters"),
        (("remove", "1.2", "old", "glioma"), "the study has no label 'glioma'; it has old"),
    ],
)
def test_what_cannot_be_changed_says_why_and_changes_nothing(
    two: Database, environment: dict[str, str], arguments: tuple[str, ...], says: str
) -> None:
    done = label(environment, *arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert (labels_of(two, "1.1"), labels_of(two, "1.2")) == ((), ("old",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("study,label\n1.1,glioma\n", "column 'StudyInstanceUID' is missing"),
        ("StudyInstanceUID,label\n", "no rows"),
        ("StudyInstanceUID;label\n1.1;glioma, left\n", "its columns are parted by semicolons: save it with commas"),
        ("StudyInstanceUID\tlabel\n1.1\tglioma\n", "its columns are parted by tabs: save it with commas"),
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
