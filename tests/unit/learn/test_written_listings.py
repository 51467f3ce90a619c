"""The page's two scripts list what ships was trained on, from folders laid out as it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
from pacs_cbir.learn.datasets.images import images_rows
from pacs_cbir.learn.datasets.report import save
from pacs_cbir.learn.manifest_file import read_manifest
from pacs_cbir.learn.recipe import read_recipe

PAGE = (Path(__file__).parents[3] / "results" / "README.md").read_text()
LIST, JOIN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_manifest_of_what_ships_is_listed_as_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 12), np.uint8)
    mask[4:8, 3:9] = 1
    (tmp_path / "figshare").mkdir()
    (tmp_path / "figshare" / "labels.csv").write_text("index,label,fold\n0,meningioma,3\n103,glioma,4\n")
    for number in (0, 103):
        Image.fromarray(rng.integers(0, 255, (16, 12), np.uint8)).save(tmp_path / "figshare" / f"{number}.webp")
        Image.fromarray(mask * 255).save(tmp_path / "figshare" / f"{number}_mask.png")
    picture = rng.integers(0, 255, (16, 12, 4), np.uint8)
    np.savez(
        tmp_path / "brats_ssa_best_crops.npz", **{"00002|img": picture, "00002|mask": mask, "00002|z": np.array(7)}
    )

    run(LIST, tmp_path)
    for name in ("figshare", "africa"):
        save(*images_rows(tmp_path / f"{name}-listed.csv"), tmp_path / f"{name}.csv", Console(quiet=True))
    for name, patient in (("sim-head", "SIM-head-11_00001"), ("sim-brain", "SIM-brain-12_00001")):
        shutil.copytree(tmp_path / "africa", tmp_path / name)
        Image.fromarray(rng.integers(0, 255, (16, 12, 4), np.uint8)).save(tmp_path / name / "00002.png")
        rows_of = (tmp_path / "africa.csv").read_text()
        simulated = rows_of.replace("africa/", f"{name}/").replace("BraTS-SSA-00002", patient)
        (tmp_path / f"{name}.csv").write_text(simulated)
    run(JOIN, tmp_path)

    rows = read_manifest(tmp_path / "shipped.csv").rows
    figshare = [row for row in rows if row.split == "figshare"]
    assert [(row.owner, row.sequence, row.label) for row in figshare] == [("figshare-0", "T1CE", "meningioma")]
    africa = [row for row in rows if row.split == "brats-africa"]
    assert [(row.channel, row.sequence) for row in africa] == list(enumerate(("T1", "T1CE", "T2", "FLAIR")))
    assert {row.split for row in rows} == set(read_recipe(Path("shipped")).shares)
    names = {row.owner for row in rows}
    assert load_checkpoint(default_checkpoint_path()).card.training.trained_on(names) == names


def run(script: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
