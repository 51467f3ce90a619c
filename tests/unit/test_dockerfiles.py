"""The Dockerfiles, read by hadolint, and against each other."""

from __future__ import annotations

import difflib
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_no_fault(path: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_two_images_differ_in_what_a_gpu_needs_alone() -> None:
    cpu, gpu = ((ROOT / "docker" / f"{name}.Dockerfile").read_text().splitlines() for name in ("cpu", "gpu"))
    changed = [
        line
        for line in difflib.ndiff(cpu, gpu)
        if line[0] in "+-" and not line[2:].startswith("#") and "PIP_EXTRA_INDEX_URL" not in line
    ]
    assert all(
        any(
            word in line for word in ("NVIDIA_", "['optional-dependencies']['cpu']", "['optional-dependencies']['gpu']")
        )
        for line in changed
    ), changed
