"""A folder of DICOM files: series as the service tells them apart, patients without their names."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.datasets.dicom import dicom_rows
from tests.dicom_factory import mr_instance

FIRST = ("good 1", "scout 1", "gap 0")
"""Of each series."""


def write(folder: Path, name: str, *arguments: object, **attributes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ds = mr_instance(*arguments, **attributes)  # type: ignore[arg-type]
    ds.save_as(folder / name, enforce_file_format=True)
    return folder / name


def test_series_get_their_sequence_and_patients_numbers(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "x", f"IM{number}", "MEIER 1960", "first", "t2", number)
        write(tmp_path / "x", f"t1 {number}", "MEIER 1960", "first", "t1", number, RepetitionTime="500", EchoTime="10",
              SeriesDescription="t1_se", ProtocolName="t1_se")  # fmt: skip
        write(tmp_path / "y", f"{number}.dcm", "MEIER 1960", "second", "t2", number)
        write(tmp_path / "z", f"{number}.dcm", "", "third", "t2", number)
        write(tmp_path / "z", f"o{number}.dcm", "", "fourth", "t2", number)
    rows, notes = dicom_rows(tmp_path)
    assert notes == []
    by_study: dict[str, set[tuple[str, str, str | None]]] = {}
    for row in rows:
        by_study.setdefault(row.study, set()).add((row.patient, row.sequence, row.series))
    assert sorted(map(len, by_study.values())) == [1, 1, 1, 2]
    assert {found[1] for study in by_study.values() for found in study} == {"T1", "T2"}
    assert sorted({row.patient for row in rows}) == ["", "patient 00001"]
    assert len({row.owner for row in rows}) == 3  # each study without PatientID is a patient of its own
    assert "MEIER" not in "".join(row.model_dump_json(exclude={"path"}) for row in rows)
    assert {row.path.name for row in rows if row.sequence == "T1"} == {"t1 1", "t1 2"}


def test_rows_say_what_the_headers_say_of_the_body(tmp_path: Path) -> None:
    for series, parts in {"head": ("HEAD", "HEAD"), "nothing": ("", ""), "several": ("HEAD", "KNEE")}.items():
        for stack, part in enumerate(parts):
            for number in (1, 2):
                place = ["0", "0", str(number)]
                write(tmp_path, f"{series} {stack} {number}", "p", series, series, number + 2 * stack,
                      BodyPartExamined=part, EchoNumbers=stack, ImagePositionPatient=place)  # fmt: skip
    rows, _ = dicom_rows(tmp_path)
    assert len(rows) == 12
    found = {(row.path.name.split()[0], row.body_part) for row in rows}
    assert found == {("head", "BRAIN"), ("nothing", None), ("several", None)}


def test_what_is_left_out_is_named_with_its_reason(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path, f"good {number}", "p", "s", "good", number)
        write(tmp_path, f"scout {number}", "p", "s", "scout", number, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for number, position in enumerate(("0", "4", "30")):
        write(tmp_path, f"gap {number}", "p", "s", "gap", number, ImagePositionPatient=["-120", "-120", position])
    (tmp_path / "README.txt").write_text("no DICOM")
    rows, notes = dicom_rows(tmp_path)
    by_uid = sorted((str(pydicom.dcmread(tmp_path / name).SeriesInstanceUID), name) for name in FIRST)
    named = {name: f"study 00001, series {place}" for place, (_, name) in enumerate(by_uid, 1)}
    assert {row.path.name for row in rows} == {"good 1", "good 2"}
    distances = "the distances between slices vary from 4.00 to 26.00 mm, more than 5% from their mean"
    assert notes == [
        "left out: 1 x file: no DICOM prefix at byte 128: README.txt",
        f"left out: 1 x stack: not embedded: localiser: {named['scout 1']} (scout 1)",
        f"left out: 1 x stack: {distances}: {named['gap 0']} (gap 0)",
    ]
    assert sorted(named.values()) == [f"study 00001, series {number}" for number in (1, 2, 3)]


def test_of_many_that_are_left_out_the_first_are_named(tmp_path: Path) -> None:
    write(tmp_path, "good 1", "p", "s", "good", 1)
    write(tmp_path, "good 2", "p", "s", "good", 2)
    for number in range(12):
        (tmp_path / f"{number:02}.txt").write_text("no DICOM")
    _, [note] = dicom_rows(tmp_path)
    assert note.startswith("left out: 12 x file: no DICOM prefix at byte 128: 00.txt; 01.txt; ")
    assert note.endswith("; 09.txt and 2 more")


def test_a_folder_without_mr_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("no DICOM")
    with pytest.raises(ManifestError, match="no MR series"):
        dicom_rows(tmp_path)
