"""A data directory that cannot be one ends every command that needs it in one line, whichever it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from pacs_cbir.cli import app
from pacs_cbir.errors import DiskUnavailable
from pacs_cbir.settings import load_settings
from pacs_cbir.store import files
from pacs_cbir.store.embedded import EmbeddedPostgres

WITH_DATA_DIR = {
    "serve": [],
    "scp": [],
    "worker": [],
    "hl7": [],
    "api": [],
    "health": ["worker"],
    "status": [],
    "delete-patient": ["--study", "1.2"],
    "backfill": [],
    "sequences": [],
    "reindex": [],
    "encoder add": [],
    "encoder list": [],
    "encoder activate": ["x"],
    "encoder rollback": [],
    "encoder retire": ["x"],
    "label add": ["1.2", "x"],
    "label remove": ["1.2", "x"],
    "label show": [],
    "label import": [str(Path(__file__))],
    "export": ["--query", "", "out"],
    "db upgrade": [],
    "dataset database": ["out.csv"],
}
WITHOUT = {
    "settings",
    "simulate",
    "demo",
    "train",
    "evaluate",
    "experiment",
    *(f"bench {name}" for name in ("embed", "explain", "reindex", "query")),
    *(f"dataset {name}" for name in ("brats", "kaggle3m", "images", "dicom", "split")),
}
# One process starts, and a copy of it runs each command: imports are what takes time, and torch's end.
RUN_EACH = """
import json, os, sys
from pacs_cbir import cli
from pacs_cbir.store import schema
for number, arguments in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        said = os.open(f"{number}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1), os.dup2(said, 2)
        sys.argv = ["pacs-cbir", *arguments]
        try:
            cli.main()
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)
"""


def commands() -> set[str]:
    found = set()
    for name, one in get_command(app).commands.items():  # type: ignore[attr-defined]
        found |= {f"{name} {below}" for below in one.commands} if hasattr(one, "commands") else {name}
    return found


def test_every_command_is_listed_here() -> None:
    assert commands() == WITH_DATA_DIR.keys() | WITHOUT


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("file", "File exists"), ("file/below", "Not a directory"), ("/proc/nowhere", "No such file or directory")],
)
def test_a_folder_that_cannot_be_is_no_data_directory(short_path: Path, folder: str, reason: str) -> None:
    (short_path / "file").touch()
    for use in (
        EmbeddedPostgres(short_path / folder / "postgres").__enter__,
        lambda: files.prepare(load_settings(data_dir=short_path / folder)),
    ):
        with pytest.raises(
            DiskUnavailable, match=f"the data directory .* cannot be used: {reason}; set PACS_CBIR_DATA"
        ):
            use()


@pytest.mark.slow
def test_every_command_tells_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = {
        "PACS_CBIR_DATA_DIR": str(tmp_path / "file"),
        "PACS_CBIR_HL7_PORT": "1",
        "PACS_CBIR_PEERS": '{"a": {"ae_title": "A", "host": "127.0.0.1", "port": 1}}',
    }
    arguments = json.dumps([[*name.split(), *rest] for name, rest in WITH_DATA_DIR.items()])
    subprocess.run([sys.executable, "-c", RUN_EACH, arguments], env=os.environ | given, cwd=tmp_path, check=True)
    said = {name: (tmp_path / f"{number}.log").read_text() for number, name in enumerate(WITH_DATA_DIR)}
    told = {name for name, text in said.items() if text.startswith("pacs-cbir: the data directory ")}
    assert {name: text for name, text in said.items() if name not in told or text.count("\n") > 1} == {}
