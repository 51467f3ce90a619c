"""A manifest says the same after writing and reading, and names every fault by its row."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.datasets.images import images_rows
from pacs_cbir.learn.manifest import Manifest, Row, missing_sequences
from pacs_cbir.learn.manifest_file import read_manifest, write_manifest


def picture(path: Path, shape: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, 100, np.uint8)).save(path)
    return path


def row(path: Path, **fields: object) -> Row:
    return Row.model_validate({"path": path, "patient": "p", "study": "s", "sequence": "T1"} | fields)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_everything_comes_back_and_paths_move_with_their_folder(tmp_path: Path, suffix: str) -> None:
    inside, mask = picture(tmp_path / "data" / "1.png"), picture(tmp_path / "data" / "1_mask.png")
    full = row(
        inside,
        series="x",
        slice=-3,
        channel=0,
        mask=mask,
        plane="coronal",
        label="007",
        body_part="BRAIN",
        split="0",
        spacing_mm=0.1,
        slice_spacing_mm=6.5,
    )
    sparse = row(picture(tmp_path / "data" / "2.png"), patient="", study='a "b", c', sequence="T2*")
    (tmp_path / "lists").mkdir()
    write_manifest(Manifest((full, sparse)), tmp_path / "lists" / f"m.{suffix}")
    assert read_manifest(tmp_path / "lists" / f"m.{suffix}") == Manifest((full, sparse))

    shutil.move(tmp_path / "data", tmp_path / "moved" / "data")
    shutil.move(tmp_path / "lists", tmp_path / "moved" / "lists")
    [first, _] = read_manifest(tmp_path / "moved" / "lists" / f"m.{suffix}").rows
    assert first.path == tmp_path / "moved" / "data" / "1.png"


def test_all_faults_are_listed_by_row_at_once(tmp_path: Path) -> None:
    for name in ("a", "a4", "a5", "a6"):
        picture(tmp_path / f"{name}.png")
    picture(tmp_path / "b.png", (8, 9))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "m.csv").write_text(
        "path,patient,study,sequence,slice,mask,split\n"
        "a.png,p1,s1,T1,1,,train\n"
        "gone.png,p2,s2,T1,1,,\n"
        "a.png,p1,s3,T1,1,,test\n"
        "a4.png,p4,s4,T1,1,b.png,\n"
        "a5.png,p5,s5,T1,1,a.png,\n"
        "a5.png,p5,s5,T1,1,a.png,\n"
        "a5.png,p5,s5,T1,2,,\n"
        "a6.png,p6,s6,T1,1,broken.png,\n"
        "a.dcm,p7,s7,T1,,a.png,\n"
    )
    (tmp_path / "a.dcm").write_bytes(b"any")
    with pytest.raises(ManifestError) as raised:
        read_manifest(tmp_path / "m.csv")
    expected = (
        ("row 3:", "gone.png is missing"),
        ("row 4:", "split 'test' here and in 'train' in row 2"),
        ("row 5:", "b.png is 8×9, its picture 8×8"),
        ("row 7:", "the same slice of s5, T1, as row 6"),
        ("row 8:", "has no mask"),
        ("row 9:", "broken.png is no picture"),
        ("row 10:", "masks of DICOM files are not read"),
    )
    assert len(raised.value.faults) == len(expected)
    for fault, (where, what) in zip(raised.value.faults, expected, strict=True):
        assert fault.startswith(where)
        assert what in fault
        assert fault in str(raised.value)


def test_values_that_cannot_be_read_are_listed_by_row(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text(
        "path,patient,study,sequence,slice,spacing_mm,plane\n"
        "a.png,p,s,T1,one,,\na.png,p,,T1,1,,\na.png,p,s,T1,2,-1,oblique\na.png,p,s,T1,3,nan,axial\n"
        "a.png,p,s,T1,4,inf,\na.png,p,s,T1,100000000000000000000000,,\n"
    )
    with pytest.raises(ManifestError) as raised:
        read_manifest(tmp_path / "m.csv")
    named = [tuple(fault.split()[:3]) for fault in raised.value.faults]
    assert named == [
        ("row", "2:", "slice"),
        ("row", "3:", "study"),
        ("row", "4:", "plane"),
        ("row", "4:", "spacing_mm"),
        ("row", "5:", "spacing_mm"),
        ("row", "6:", "spacing_mm"),
        ("row", "7:", "slice"),
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("path,patient,study\na.png,p,s\n", "column 'sequence' is missing"),
        ("path,patient,study,sequence,Mask\na.png,p,s,T1,b.png\n", "columns Mask are not known"),
        ("path,patient,study,sequence\n", "no rows"),
        ("path,patient,study,sequence\na.png,p\n", "cannot be read"),
        ("", "cannot be read"),
        ("path,patient,study,sequence,label,patient\na.png,p,s,T1,l,q\n", "columns patient are there twice"),
    ],
)
def test_a_table_of_another_shape_says_what_is_missing(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(ManifestError, match=fault):
        read_manifest(tmp_path / "m.csv")


def test_a_manifest_is_csv_or_parquet(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"name it \.csv or \.parquet"):
        write_manifest(Manifest(()), tmp_path / "m.xlsx")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "gone.parquet")


def test_a_study_without_patient_is_a_patient_of_its_own(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    first, second, other = (
        row(path, patient="", study="s1", split="0"),
        row(picture(tmp_path / "b.png"), patient="", study="s2", split="1"),
        row(path, patient="", study="s1", sequence="T2", split="0"),
    )
    assert first.owner == other.owner != second.owner
    write_manifest(Manifest((first, second, other)), tmp_path / "m.csv")  # in two splits, and yet no leak
    assert len(read_manifest(tmp_path / "m.csv").rows) == 3


@pytest.mark.parametrize(
    ("word", "part"),
    [("Kopf", "BRAIN"), ("HEAD", "BRAIN"), ("knee, left", "KNEE"), ("Ovary", "OVARY"), ("-", None), (None, None)],
)
def test_a_body_part_is_named_as_the_service_names_it(word: str | None, part: str | None) -> None:
    assert row(Path("a.png"), body_part=word).body_part == part


def test_rows_of_one_stack_show_one_body_part(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    rows = row(path, slice=1, body_part="brain"), row(path, slice=2, body_part="head"), row(path, slice=3)
    write_manifest(Manifest(rows), tmp_path / "m.csv")
    with pytest.raises(ManifestError) as raised:
        read_manifest(tmp_path / "m.csv")
    [fault] = raised.value.faults
    assert fault.startswith("row 4: another body_part than row 2")


def test_a_stacks_rows_must_agree(tmp_path: Path) -> None:
    path, volume = picture(tmp_path / "a.png"), tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), volume)
    rows = row(path, slice=1), row(path, slice=2, spacing_mm=2), row(volume, slice=3), row(path), row(path)
    write_manifest(Manifest(rows), tmp_path / "m.csv")
    with pytest.raises(ManifestError) as raised:
        read_manifest(tmp_path / "m.csv")
    found = raised.value.faults
    assert [fault.split(":")[0] for fault in found] == ["row 3", "row 4", "row 6"]
    assert "another spacing_mm" in found[0]
    assert "another kind of file" in found[1]
    assert "number the slices" in found[2]


def test_missing_sequences_are_told_with_the_studies_that_lack_them(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    rows = [
        row(path, study=f"s{n}", sequence=name)
        for n in range(12)
        for name in ("T1", "T2")
        if (n, name) == (0, "T1") or name == "T2"
    ]
    rows.append(row(path, study="s0", sequence="unknown"))
    [warning] = missing_sequences(Manifest(tuple(rows)))
    assert warning.startswith("T1 is missing in 11 of 12 studies: s1 (row 4), s2 (row 5), ")
    assert warning.endswith(" and 1 more")


@pytest.mark.parametrize("patients", [("p", "q"), ("", "")])
def test_a_picture_of_two_patients_is_refused(patients: tuple[str, str], tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    rows = [row(path, patient=p, study=f"s{i}", split=str(i)) for i, p in enumerate(patients)]
    write_manifest(Manifest(tuple(rows)), tmp_path / "m.csv")
    with pytest.raises(ManifestError, match=r"row 3: a\.png is another patient's in row 2"):
        read_manifest(tmp_path / "m.csv")


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("path,patient,study,sequence,é\na.png,p,s,T1,x\n".encode("latin1"))
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("column", ["path", "mask"])
def test_a_path_that_the_system_refuses_is_named_by_row(column: str, tmp_path: Path) -> None:
    values = {"path": str(picture(tmp_path / "a.png")), "mask": "", column: "a" * 5000}
    (tmp_path / "m.csv").write_text(f"path,mask,patient,study,sequence\n{values['path']},{values['mask']},p,s,T1\n")
    with pytest.raises(ManifestError, match=r"row 2: .* cannot be looked for: File name too long"):
        read_manifest(tmp_path / "m.csv")


def test_numbers_of_a_parquet_file_are_names(tmp_path: Path) -> None:
    (tmp_path / "7").write_bytes(b"as many DICOM files are called")
    columns = {"path": [7], "patient": [12], "study": [3], "sequence": ["T1"], "label": [1], "split": [0]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    [read] = read_manifest(tmp_path / "m.parquet").rows
    assert (read.path, read.patient, read.study, read.label, read.split) == (tmp_path / "7", "12", "3", "1", "0")


def test_numbers_that_lack_values_are_whole_names_and_what_lacks_is_missing(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png")
    nan = float("nan")
    columns = {
        "path": ["a.png", "b.png", "c.png", "d.png"],
        "patient": [3.0, 4.0, nan, nan],
        "study": ["s1", "s2", "s3", "s4"],
        "sequence": ["T1"] * 4,
        "slice": [1.0, nan, nan, nan],
        "label": [1.0, 0.5, nan, None],
        "split": ["", " ", None, "1"],
        "spacing_mm": [nan, 1.0, 0.5, nan],
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    rows = read_manifest(tmp_path / "m.parquet").rows
    assert [row.patient for row in rows] == ["3", "4", "", ""]
    assert len({row.owner for row in rows}) == 4
    assert [row.label for row in rows] == ["1", "0.5", None, None]
    assert [row.split for row in rows] == [None, None, None, "1"]
    assert [row.slice for row in rows] == [1, None, None, None]
    assert [row.spacing_mm for row in rows] == [None, 1, 0.5, None]

    listed = {"path": columns["path"], "study": [nan, 7.0, nan, nan], "sequence": ["", "T1", None, " "]}
    pyarrow.parquet.write_table(pa.table(listed), tmp_path / "l.parquet")
    found, _ = images_rows(tmp_path / "l.parquet")
    assert [(row.study, row.sequence) for row in found[:2]] == [("a.png", "unknown"), ("7", "T1")]


def test_a_study_of_a_patient_known_in_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "path,patient,study,sequence,split\na.png,p,s,T1,1\nb.png,,s,T2,2\nb.png,,s,FLAIR,2\nc.png,,t,T1,1\n"
    )
    for number, name in enumerate("abc"):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ManifestError) as raised:
        read_manifest(tmp_path / "m.csv")
    fault = "patient is empty, and row 2 names one of the same study: fill it in"
    assert list(raised.value.faults) == [f"row 3: {fault}", f"row 4: {fault}"]


@pytest.mark.parametrize("patients", [("p", "q"), ("", "")])
@pytest.mark.parametrize("kind", ["symlink", "hard link", "copy"])
def test_a_picture_of_two_patients_under_two_names_is_refused(
    kind: str, patients: tuple[str, str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "other"):
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / f"{name}.tif")
    assert (tmp_path / "a.tif").stat().st_size == (tmp_path / "other.tif").stat().st_size
    again = tmp_path / "b.tif"
    match kind:
        case "symlink":
            again.symlink_to(tmp_path / "a.tif")
        case "hard link":
            again.hardlink_to(tmp_path / "a.tif")
        case _:
            shutil.copy(tmp_path / "a.tif", again)
    named = [(tmp_path / "a.tif", patients[0]), (tmp_path / "other.tif", "r"), (again, patients[1])]
    rows = [row(path, patient=p, study=f"s{i}") for i, (path, p) in enumerate(named)]
    write_manifest(Manifest(tuple(rows)), tmp_path / "m.csv")
    with pytest.raises(ManifestError, match=r"row 4: b\.tif is, byte by byte, another patient's in row 2") as raised:
        read_manifest(tmp_path / "m.csv")
    assert len(raised.value.faults) == 1


def test_pictures_of_nothing_are_alike_and_no_fault(tmp_path: Path) -> None:
    rows = [row(picture(tmp_path / f"{p}.tif"), patient=p, study=p) for p in ("p", "q")]
    write_manifest(Manifest(tuple(rows)), tmp_path / "m.csv")
    assert len(read_manifest(tmp_path / "m.csv").rows) == 2


def test_channels_that_are_not_there_and_slices_of_other_sizes_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", (8, 9))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "c.tif")
    Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P").save(tmp_path / "p.png")
    (tmp_path / "cut.png").write_bytes(b"no picture")
    (tmp_path / "m.csv").write_text(
        "path,patient,study,sequence,slice,channel\n"
        "a.png,p,s,T1,1,0\na.png,p,s,T2,1,1\nb.png,p,s,T1,2,\nc.tif,p,s,T1,3,2\nc.tif,p,s,FLAIR,1,7\np.png,p,t,T1,1,2\n"
        "cut.png,p,t,T2,1,0\n"
    )
    with pytest.raises(ManifestError) as raised:
        read_manifest(tmp_path / "m.csv")
    assert [fault.split(" is no picture")[0] for fault in raised.value.faults] == [
        "row 3: a.png has 1 channels, and none numbered 1: the first is 0",
        "row 4: b.png is 8×9, row 2 of its stack 8×8: export alike",
        "row 6: c.tif has 3 channels, and none numbered 7: the first is 0",
        "row 8: cut.png",
    ]
