"""BraTS, kaggle_3m and listed pictures: the layouts as their makers publish them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
import pytest
from PIL import Image
from rich.console import Console

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.datasets.brats import brats_rows
from pacs_cbir.learn.datasets.folds import split_by_patient
from pacs_cbir.learn.datasets.images import images_rows
from pacs_cbir.learn.datasets.kaggle3m import kaggle3m_rows
from pacs_cbir.learn.datasets.report import save
from pacs_cbir.learn.manifest import Manifest, Row
from pacs_cbir.learn.manifest_file import read_manifest


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_brats_of_2021_and_2023_become_rows_with_their_segmentation(tmp_path: Path) -> None:
    old, new = tmp_path / "a" / "BraTS2021_00006", tmp_path / "BraTS-GLI-00005-001"
    touch(old, *(f"BraTS2021_00006_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair", "seg")))
    touch(new, *(f"BraTS-GLI-00005-001-{part}.nii.gz" for part in ("t1n", "t1c", "t2w", "t2f")), "notes.nii.gz")
    rows, notes = brats_rows(tmp_path)
    found = {(row.patient, row.study, row.sequence): (row.path.name, row.mask and row.mask.name) for row in rows}
    assert found == {
        ("BraTS2021_00006", "BraTS2021_00006", sequence): (
            f"BraTS2021_00006_{part}.nii.gz",
            "BraTS2021_00006_seg.nii.gz",
        )
        for part, sequence in (("t1", "T1"), ("t1ce", "T1CE"), ("t2", "T2"), ("flair", "FLAIR"))
    } | {
        # One patient may have several time points.
        ("BraTS-GLI-00005", "BraTS-GLI-00005-001", sequence): (f"BraTS-GLI-00005-001-{part}.nii.gz", None)
        for part, sequence in (("t1n", "T1"), ("t1c", "T1CE"), ("t2w", "T2"), ("t2f", "FLAIR"))
    }
    assert notes == ["BraTS-GLI-00005-001 has no segmentation"]
    assert {row.body_part for row in rows} == {"BRAIN"}


def test_linked_cases_are_listed_once_and_a_link_back_ends(tmp_path: Path) -> None:
    stored, listed = tmp_path / "stored" / "BraTS2021_00006", tmp_path / "listed"
    touch(stored, *(f"BraTS2021_00006_{part}.nii.gz" for part in ("t1", "flair")))
    listed.mkdir()
    (listed / "BraTS2021_00006").symlink_to(stored)
    (listed / "again").symlink_to(stored)
    (stored / "back").symlink_to(listed)
    rows, _ = brats_rows(listed)
    assert [row.path for row in rows] == [
        listed / "BraTS2021_00006" / f"BraTS2021_00006_{part}.nii.gz" for part in ("t1", "flair")
    ]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        *((f"a.{suffix}", b"", "is empty") for suffix in ("png", "tif", "nii", "nii.gz", "dcm")),
        *((f"a.{suffix}", b"no picture", "can be read") for suffix in ("png", "tif", "nii", "nii.gz")),
    ],
)
def test_files_that_cannot_be_read_are_named_by_row_when_they_are_listed(
    name: str, content: bytes, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "t.csv").write_text(f"path,label\n{name},x\n")
    with pytest.raises(ManifestError, match=rf"row 2: .*{name} .*{complaint}"):
        save(*images_rows(tmp_path / "t.csv"), tmp_path / "m.csv", Console(quiet=True))
    assert not (tmp_path / "m.csv").exists()


def test_masks_that_show_nothing_are_not_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = rng.integers(0, 250, (16, 16, 3), np.uint8)
        picture[0, 0, 0] = 255 if number == 1 else 0
        write_slice(tmp_path, "TCGA_CS_0001_19990101", number, picture)
    console = Console(record=True, width=120, file=(tmp_path / "out").open("w"))
    save(*kaggle3m_rows(tmp_path), tmp_path / "m.csv", console)
    all_rows = next(line for line in console.export_text().splitlines() if "all" in line)
    assert [word for word in all_rows.split() if word != "│"] == ["all", "1", "1", "9", "3", "0"]
    (tmp_path / "TCGA_CS_0001_19990101" / "TCGA_CS_0001_19990101_2_mask.tif").write_bytes(b"II*\0 cut")
    with pytest.raises(ManifestError, match=r"_2_mask\.tif"):
        save(*kaggle3m_rows(tmp_path), tmp_path / "m.csv", console)


def test_a_table_without_paths_says_what_it_has_and_a_column_like_a_label_is_named(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("file,O-RADS\na.png,2\n")
    with pytest.raises(ManifestError, match="row 1: no column path; it has file, O-RADS"):
        images_rows(table)
    table.write_text("path,O-RADS,id\na.png,2,1\nb.png,5,2\nc.png,2,3\n")
    assert images_rows(table)[1] == [
        "columns not used: O-RADS, id",
        "no row has a label, and O-RADS may be one: rename that column to label",
    ]
    table.write_text("path,O-RADS,label\na.png,2,x\nb.png,5,y\nc.png,2,x\n")
    assert images_rows(table)[1] == ["columns not used: O-RADS"]


def test_a_folder_without_cases_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="CASE/CASE-t2f"):
        brats_rows(tmp_path)
    with pytest.raises(ManifestError, match="TCGA_"):
        kaggle3m_rows(tmp_path)


def write_slice(folder: Path, patient: str, number: int, channels: npt.NDArray[np.uint8]) -> None:
    (folder / patient).mkdir(parents=True, exist_ok=True)
    Image.fromarray(channels).save(folder / patient / f"{patient}_{number}.tif")
    Image.fromarray(channels[..., 0] > 250).save(folder / patient / f"{patient}_{number}_mask.tif")


def test_kaggle3m_channels_are_sequences_and_copies_of_flair_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in (1, 2, 10):
        picture = rng.integers(0, 256, (16, 16, 3), np.uint8)
        write_slice(tmp_path, "TCGA_CS_0001_19990101", number, picture)
        copied = picture.copy()
        copied[..., 2] = copied[..., 1]
        if number == 1:  # in one slice alone: no copy
            copied[..., 0] = copied[..., 1]
        write_slice(tmp_path, "TCGA_DU_0002_19990101", number, copied)
    rows, notes = kaggle3m_rows(tmp_path)
    assert notes == ["T1CE of TCGA_DU_0002_19990101 is a copy of FLAIR, so missing: left out"]
    assert [(row.sequence, row.channel, row.slice) for row in rows if row.patient == "TCGA_CS_0001_19990101"] == [
        (sequence, channel, number) for channel, sequence in enumerate(("T1", "FLAIR", "T1CE")) for number in (1, 2, 10)
    ]
    assert {row.sequence for row in rows if row.patient == "TCGA_DU_0002_19990101"} == {"T1", "FLAIR"}
    assert {row.body_part for row in rows} == {"BRAIN"}
    assert all(row.mask == row.path.with_name(f"{row.path.stem}_mask.tif") for row in rows)


def test_a_kaggle3m_slice_without_its_mask_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    write_slice(tmp_path, "TCGA_CS_0001_19990101", 1, np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    (tmp_path / "TCGA_CS_0001_19990101" / "TCGA_CS_0001_19990101_1_mask.tif").unlink()
    with pytest.raises(ManifestError, match=r"row 2: .*_1_mask\.tif is missing"):
        save(*kaggle3m_rows(tmp_path), tmp_path / "m.csv", Console(quiet=True))
    assert not (tmp_path / "m.csv").exists()


def test_listed_pictures_of_another_organ_need_no_code(tmp_path: Path) -> None:
    for number, name in enumerate(("1.png", "2.png", "2_mask.png")):
        Image.fromarray(np.eye(8, k=number, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "ovaries.csv").write_text(
        "path,label,mask,split,age\n1.png,O-RADS 2,,1,40\n2.png,O-RADS 5,2_mask.png,4,50\n"
    )
    rows, notes = images_rows(tmp_path / "ovaries.csv")
    assert notes == ["columns not used: age"]
    assert [(row.label, row.split, row.sequence) for row in rows] == [
        ("O-RADS 2", "1", "unknown"),
        ("O-RADS 5", "4", "unknown"),
    ]
    assert rows[0].owner != rows[1].owner
    assert rows[1].mask == tmp_path / "2_mask.png"
    save(rows, notes, tmp_path / "m.parquet", Console(quiet=True))
    assert read_manifest(tmp_path / "m.parquet").rows == tuple(rows)


def test_numbered_slices_of_a_patient_are_one_study(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,patient,slice\na.png,p,1\nb.png,p,2\nc.png,,3\n")
    rows, _ = images_rows(tmp_path / "t.csv")
    assert [row.study for row in rows] == ["p", "p", "c.png"]
    assert len({row.stack for row in rows}) == 2


def test_folds_follow_the_names_sha1_in_turn(tmp_path: Path) -> None:
    names = [f"patient {number}" for number in range(7)]
    rows = [
        Row(path=tmp_path, patient=name, study=f"{name} {visit}", sequence="T1") for name in names for visit in range(2)
    ]
    split = split_by_patient(Manifest(tuple(rows)), 3)
    by_hash = sorted(names, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert {row.patient: row.split for row in split.rows} == {name: str(n % 3) for n, name in enumerate(by_hash)}
    assert [row.model_copy(update={"split": None}) for row in split.rows] == rows


def test_what_was_written_is_told_with_what_is_missing(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        Image.fromarray(np.eye(8, k=number, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    rows = [
        Row(path=tmp_path / f"{patient}.png", patient=patient, study=patient, sequence=sequence, label="x")
        for patient, sequence in (("a", "T1"), ("a", "T2*"), ("b", "T1"))
    ]
    console = Console(record=True, width=120, quiet=False, file=(tmp_path / "out").open("w"))
    save(rows, ["something was left out"], tmp_path / "m.csv", console)
    told = console.export_text()
    assert "something was left out" in told
    assert "T2* is missing in 1 of 2 studies: b (row 4)" in told
    all_rows = next(line for line in told.splitlines() if "all" in line)
    assert [word for word in all_rows.split() if word != "│"] == ["all", "2", "2", "3", "0", "3"]


def test_a_column_of_lists_is_not_used(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.png", "b.png"], "box": [[1, 2], [3, 4]]}), table)
    assert images_rows(table)[1] == ["columns not used: box"]
