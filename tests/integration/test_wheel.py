"""The wheel alone, in a virtual environment of its own, away from the clone: it carries all that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    [wheel] = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    made = folder / "venv" / "bin" / "python"
    subprocess.run([made, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, capture_output=True)
    purelib = subprocess.check_output([made, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    # A path in a .pth file is searched after the environment's own packages, and its own .pth files, an editable
    # install among them, are not read: the package under test is the wheel's.
    (Path(purelib.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def run(program: Path, *arguments: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [program, *arguments], cwd="/", env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(python: Path) -> None:
    assert str(python.parents[1]) in run(python, "-c", "import pacs_cbir; print(pacs_cbir.__file__)")


def test_it_carries_the_migrations(python: Path, tmp_path: Path) -> None:
    out = run(python, "-m", "pacs_cbir", "status", PACS_CBIR_DATA_DIR=str(tmp_path / "d"))
    assert "0 waiting" in out


def test_it_carries_the_checkpoint(python: Path) -> None:
    code = """
from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
print(load_checkpoint(default_checkpoint_path()).card.name)
"""
    assert run(python, "-c", code).strip()


def test_it_carries_the_page(python: Path) -> None:
    code = "from pacs_cbir.serve.page import WEB; print(*sorted(path.name for path in WEB.iterdir()))"
    assert run(python, "-c", code).split() == sorted(path.name for path in (ROOT / "pacs_cbir/serve/web").iterdir())


def test_its_command_is_installed(python: Path) -> None:
    assert run(python.with_name("pacs-cbir"), "--version").strip()
