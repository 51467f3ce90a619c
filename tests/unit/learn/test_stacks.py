"""A manifest's files become what the worker would draw, with the mask where the picture's lesion is."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.manifest import Manifest, Row
from pacs_cbir.learn.phantom import SEQUENCES, simulate_patient
from pacs_cbir.learn.pictures import read_nifti, read_picture, read_picture_mask, shape_of
from pacs_cbir.learn.stacks import Stack, load_stacks, simulate_stacks
from tests.dicom_factory import mr_instance

SMALL = Preprocessing(size=32)
EDGE = 64


def head(
    lesion: tuple[int, int, int] = (20, 30, 6), edge: int = EDGE
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """A disc of 0.4 with a lesion of 0.8 (row, column, radius), and where the lesion is."""
    rows, columns = np.mgrid[:edge, :edge]
    middle = edge / 2
    mask = np.hypot(rows - lesion[0], columns - lesion[1]) <= lesion[2]
    return np.where(mask, 0.8, np.where(np.hypot(rows - middle, columns - middle) < 0.4 * edge, 0.4, 0.0)), mask


def save(path: Path, pixels: npt.NDArray[np.generic]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def load(*rows: Row, splits: set[str] | None = None) -> list[Stack]:
    return load_stacks(Manifest(rows), SMALL, splits=splits)


def pictures(folder: Path, radii: list[int]) -> list[Row]:
    rows = []
    for number, radius in enumerate(radii):
        drawn, mask = head((20, 30, radius)) if radius else (head()[0].clip(0, 0.4), np.zeros((EDGE, EDGE), bool))
        rows.append(
            Row(
                path=save(folder / f"{number}.png", (drawn * 65535).astype(np.uint16)),
                patient="p",
                study="s",
                sequence="T1CE",
                slice=10 + number,
                mask=save(folder / f"{number}_mask.png", mask),
                label="glioma",
                split="0",
            )
        )
    return rows[::-1]  # whatever the order of the rows


def nifti(path: Path, array: npt.NDArray[np.float32], axes: str, spacing: tuple[float, float, float]) -> Path:
    """Write an array of axes right, anterior, superior in the order and direction that `axes` names."""
    image = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]))  # type: ignore[no-untyped-call]
    codes = nibabel.orientations.axcodes2ornt(axes)  # type: ignore[no-untyped-call]
    nibabel.save(image.as_reoriented(codes), path)  # type: ignore[no-untyped-call]
    return path


def test_pictures_of_a_study_are_a_stack_with_its_best_slice(tmp_path: Path) -> None:
    [stack] = load(*pictures(tmp_path, [0, 4, 8, 6, 0]))
    assert (stack.patient, stack.study, stack.sequence, stack.plane) == ("p", "s", "T1CE", "axial")
    assert (stack.label, stack.split, stack.parameters) == ("glioma", "0", {})
    assert stack.pixels.shape == (5, 32, 32)
    assert stack.pixels.dtype == np.float16
    assert stack.levels.tolist() == [10, 11, 12, 13, 14]
    assert stack.best == 2
    assert stack.masks is not None
    assert stack.picture is not None
    assert stack.truth is not None
    # The lesion is twice as bright as the head, in what is drawn as in the source's own scale.
    shown = stack.pixels[2][stack.masks[2]]
    assert shown.min() > 0.7 * stack.pixels.max()
    assert stack.picture[stack.truth].min() == pytest.approx(0.8, abs=1e-4)
    assert stack.picture.shape == stack.truth.shape == (128, 128)
    assert stack.truth.sum() == 4 * head((20, 30, 8))[1].sum()


def test_every_second_source_pixel_is_averaged_into_the_picture(tmp_path: Path) -> None:
    drawn, mask = head((80, 120, 20), 256)
    path = save(tmp_path / "0.png", (drawn * 255).astype(np.uint8))
    [stack] = load(Row(path=path, patient="p", study="s", sequence="T1", mask=save(tmp_path / "m.png", mask)))
    by_four = (drawn * 255).astype(np.uint8).reshape(128, 2, 128, 2).mean(axis=(1, 3)) / 255
    assert stack.picture is not None
    assert np.allclose(stack.picture, by_four, atol=1e-6)
    assert stack.truth is not None
    assert np.array_equal(stack.truth, mask.reshape(128, 2, 128, 2).mean(axis=(1, 3)) >= 0.5)


def test_a_channel_is_picked_and_a_palette_or_colour_is_luminance(tmp_path: Path) -> None:
    grey = (head()[0] * 255).astype(np.uint8)
    other = (head((40, 20, 9))[0] * 255).astype(np.uint8)
    path = save(tmp_path / "c.tif", np.stack([grey, other, grey], axis=-1))
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    rows = [Row(path=path, patient="p", study=f"s{c}", sequence="T1", channel=c) for c in range(2)]
    rows.append(Row(path=tmp_path / "palette.png", patient="p", study="s2", sequence="T1"))
    first, second, third = load(*rows)
    assert np.array_equal(first.pixels, third.pixels)
    assert first.masks is None
    assert first.truth is None
    assert first.best is None
    assert first.picture is not None
    assert second.picture is not None
    assert second.picture[::2, ::2][40, 20] == pytest.approx(0.8)
    assert first.picture[::2, ::2][40, 20] == pytest.approx(0.4)


def test_transparency_is_no_lesion(tmp_path: Path) -> None:
    [row] = pictures(tmp_path, [8])
    _, mask = head((20, 30, 8))
    opaque = np.dstack([mask * np.uint8(200), *[np.zeros_like(mask, np.uint8)] * 2, np.full(mask.shape, 255, np.uint8)])
    [stack] = load(row)
    [again] = load(row.model_copy(update={"mask": save(tmp_path / "rgba.png", opaque)}))
    assert stack.truth is not None
    assert np.array_equal(stack.truth, again.truth)  # type: ignore[arg-type]


@pytest.mark.parametrize("axes", ["LPS", "SRA"])
def test_a_nifti_volume_is_the_same_in_whatever_order_it_is_stored(tmp_path: Path, axes: str) -> None:
    slices = [head((20, 30, radius)) for radius in (3, 5, 9, 4, 2)]
    volume = np.stack([drawn[::-1, ::-1].T for drawn, _ in slices], axis=-1).astype(np.float32) * 1000
    mask = np.stack([marked[::-1, ::-1].T for _, marked in slices], axis=-1).astype(np.float32)
    row = Row(
        path=nifti(tmp_path / f"{axes}.nii.gz", volume, axes, (3.5, 3.5, 6.0)),
        mask=nifti(tmp_path / f"{axes}-seg.nii.gz", mask * 4, axes, (3.5, 3.5, 6.0)),
        patient="p",
        study="s",
        sequence="FLAIR",
    )
    [stack] = load(row)
    assert stack.plane == "axial"
    assert stack.levels.tolist() == [0, 1, 2, 3, 4]
    assert stack.best == 2
    assert stack.picture is not None
    assert np.allclose(stack.picture[::2, ::2], slices[2][0] / 0.8, atol=1e-6)  # of the volume's maximum
    assert stack.truth is not None
    assert np.array_equal(stack.truth[::2, ::2], slices[2][1])
    [one] = load(row.model_copy(update={"slice": 2}))
    assert one.levels.tolist() == [2]
    assert np.array_equal(one.truth, stack.truth)  # type: ignore[arg-type]


def test_a_fine_volume_gives_the_slice_that_is_drawn_next_to_the_largest_mask(tmp_path: Path) -> None:
    slices = [head((20, 30, max(0, 9 - abs(level - 42)))) for level in range(80)]
    volume = np.stack([drawn[::-1, ::-1].T for drawn, _ in slices], axis=-1).astype(np.float32)
    mask = np.stack([marked[::-1, ::-1].T for _, marked in slices], axis=-1).astype(np.float32)
    spacing = (2.0, 2.0, 1.0)
    [stack] = load(
        Row(
            path=nifti(tmp_path / "t1.nii", volume, "RAS", spacing),
            mask=nifti(tmp_path / "seg.nii", mask, "RAS", spacing),
            patient="p",
            study="s",
            sequence="T1",
        )
    )
    assert stack.best is not None
    assert np.diff(stack.levels).tolist() == [5] * (len(stack.levels) - 1)
    level = int(stack.levels[stack.best])
    assert abs(level - 42) <= 2
    assert stack.truth is not None
    assert np.array_equal(stack.truth[::2, ::2], slices[level][1])


def test_a_coronal_volume_keeps_its_plane(tmp_path: Path) -> None:
    drawn = np.stack([head((20, 30, radius))[0] for radius in (3, 9, 4)]).astype(np.float32)
    volume = drawn[::-1, ::-1, ::-1].transpose(2, 0, 1)  # right, anterior, superior
    path = nifti(tmp_path / "t1.nii", np.ascontiguousarray(volume), "RAS", (3.5, 6.0, 3.5))
    [stack] = load(Row(path=path, patient="p", study="s", sequence="T1"))
    assert stack.plane == "coronal"
    [one] = load(Row(path=path, patient="p", study="s", sequence="T1", slice=1))
    assert one.picture is not None
    assert np.allclose(one.picture[::2, ::2], drawn[1] / 0.8, atol=1e-6)


def test_what_cannot_be_read_is_listed_by_row_all_at_once(tmp_path: Path) -> None:
    good, *_ = pictures(tmp_path, [8])
    volume = np.ones((8, 8, 8), np.float32)
    volume[1, 2, 3] = np.nan
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    rows = [
        good,
        Row(path=nifti(tmp_path / "nan.nii", volume, "RAS", (1, 1, 1)), patient="p", study="s2", sequence="T1"),
        Row(path=tmp_path / "cut.png", patient="p", study="s3", sequence="T1", slice=1),
        Row(path=good.path, patient="p", study="s4", sequence="T1", slice=1),
        Row(path=save(tmp_path / "small.png", np.eye(9) > 0), patient="p", study="s4", sequence="T1", slice=2),
        Row(path=save(tmp_path / "flat.png", np.zeros((9, 9), bool)), patient="p", study="s5", sequence="T1"),
        Row(path=good.path, patient="p", study="s6", sequence="T1", channel=3),
        Row(path=tmp_path / "nan.nii", patient="p", study="s7", sequence="T1", slice=8),
        Row(
            path=save(tmp_path / "inf.tif", np.full((9, 9), np.inf, np.float32)), patient="p", study="s8", sequence="T1"
        ),
    ]
    with pytest.raises(ManifestError) as raised:
        load(*rows)
    expected = (
        ("row 3:", "nan.nii has 1 values that are NaN"),
        ("row 4:", "cut.png is damaged"),
        ("row 6:", "small.png is of another size"),
        ("row 7:", "cannot be drawn"),
        ("row 8:", "has 1 channels, and none numbered 3"),
        ("row 9:", "NaN"),
        ("row 10:", "inf.tif has 81 values"),
    )
    for fault, (where, what) in zip(raised.value.faults, expected, strict=True):
        assert fault.startswith(where)
        assert what in fault


def test_dicom_files_of_a_series_are_a_stack_in_the_order_of_their_positions(tmp_path: Path) -> None:
    rows = []
    for number in (3, 1, 2):
        path = tmp_path / f"{number}"
        position = ["-120", "-120", str(6 * number)]
        mr_instance(number=number, size=32, ImagePositionPatient=position).save_as(path, enforce_file_format=True)
        rows.append(Row(path=path, patient="", study="s", series="1", sequence="T2"))
    [stack] = load(*rows)
    assert (stack.patient, stack.sequence, stack.plane) == ("patient of s", "T2", "axial")
    assert stack.levels.tolist() == [0, 1, 2]
    assert stack.picture is None


def test_only_the_splits_asked_for_are_read(tmp_path: Path) -> None:
    [row] = pictures(tmp_path, [8])
    broken = row.model_copy(update={"path": tmp_path / "0_mask.png", "channel": 9, "study": "t", "split": "1"})
    assert [stack.study for stack in load(row, broken, splits={"0"})] == ["s"]


@pytest.mark.slow
def test_simulated_stacks_carry_the_truth() -> None:
    stacks = simulate_stacks(3, [5], SMALL)
    assert [stack.sequence for stack in stacks] == list(SEQUENCES)
    patient = simulate_patient(3, 5)
    for stack in stacks:
        assert stack.best is not None
        assert stack.truth is not None
        assert stack.picture is not None
        level = stack.levels[stack.best]
        areas = (patient.mask > 0).sum(axis=(1, 2))
        assert areas[level] == areas[stack.levels].max()
        assert stack.truth.mean() == pytest.approx(areas[level] / patient.mask[0].size, rel=0.1)
        assert stack.picture.max() <= 1
        assert stack.parameters["radius_mm"] == patient.parameters.glioma.radius
        assert set(stack.parameters) == {"place_x_mm", "place_y_mm", "place_z_mm", "radius_mm", "enhancement"}
    [stripped, *_] = simulate_stacks(3, [5], SMALL, skull_stripped=True)
    assert (stripped.pixels > 0).mean() < (stacks[0].pixels > 0).mean()


def test_a_mask_with_nan_is_refused(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    mask = np.full(volume.shape, np.nan, np.float32)
    mask[1, 10:14, 10:14] = 1
    path = nifti(tmp_path / "v.nii", volume, "RAS", (1, 1, 1))
    of = nifti(tmp_path / "mask.nii", mask, "RAS", (1, 1, 1))
    with pytest.raises(ManifestError, match=r"mask\.nii has \d+ values that are NaN"):
        load_stacks(Manifest((Row(path=path, mask=of, patient="p", study="s", sequence="T1"),)), Preprocessing())


def test_a_split_that_is_not_there_is_named() -> None:
    manifest = Manifest((Row(path=Path("v.nii"), patient="p", study="s", sequence="T1", split="train"),))
    with pytest.raises(ManifestError, match=r"no row is in split '9'; there are: train"):
        load_stacks(manifest, Preprocessing(), splits=("9",))


def test_a_pictures_mask_with_nan_is_refused(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    mask = np.where(grey > 0.5, np.float32(1), np.float32(np.nan))
    for name, values in (("a.tif", grey), ("mask.tif", mask)):
        Image.fromarray(values).save(tmp_path / name)
    row = Row(path=tmp_path / "a.tif", mask=tmp_path / "mask.tif", patient="p", study="s", sequence="T1")
    with pytest.raises(ManifestError, match=r"mask\.tif has values that are NaN"):
        load_stacks(Manifest((row,)), Preprocessing())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".png", ".tif"])
def test_files_whose_bytes_were_changed_or_cut_are_read_or_named(suffix: str, tmp_path: Path) -> None:
    path, rng = tmp_path / f"damaged{suffix}", np.random.default_rng(1)
    if suffix.startswith(".nii"):
        nifti(path, rng.random((16, 16, 4)).astype(np.float32), "RAS", (3, 3, 6))
    else:
        save(path, rng.integers(0, 255, (16, 16, 3), np.uint8))
    readers = (shape_of, read_nifti) if suffix.startswith(".nii") else (shape_of, read_picture, read_picture_mask)
    whole, faults = path.read_bytes(), list[str]()
    for number in range(300):
        damaged = bytearray(whole)
        near = 348 if number % 2 else len(whole)  # headers are small, and most can go wrong in them
        for place in rng.integers(0, min(near, len(whole)), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged if number % 9 else damaged[: rng.integers(len(whole))])
        shape_of.cache_clear()
        for read in readers:
            try:
                read(path)  # type: ignore[operator]
            except ManifestError as error:
                faults += error.faults
    assert len(faults) > 20
    assert all("\n" not in fault and path.name in fault for fault in faults)


@pytest.mark.parametrize("number", [0, np.nan])
def test_a_volume_without_a_place_is_named(number: float, tmp_path: Path) -> None:
    path = nifti(tmp_path / "v.nii", np.ones((8, 8, 4), np.float32), "RAS", (3, 3, 6))
    image = nibabel.load(path)  # type: ignore[attr-defined]
    header = image.header.copy()
    header.set_sform(np.full((4, 4), number), 1)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(), None, header), tmp_path / "none.nii")  # type: ignore[no-untyped-call]
    with pytest.raises(ManifestError, match=r"none\.nii is damaged"):
        load(Row(path=tmp_path / "none.nii", patient="p", study="s", sequence="T1"))


def test_a_volume_that_no_memory_holds_is_named_by_row(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()  # type: ignore[no-untyped-call]
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.float32)
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        header.write_to(file)
        file.write(bytes(2000))
    with pytest.raises(ManifestError, match=r"row 2: a\.nii\.gz is damaged: MemoryError"):
        load(Row(path=tmp_path / "a.nii.gz", patient="p", study="s", sequence="T1"))
