"""Thumbnails: the frames that were embedded, as a viewer shows them, only smaller."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from dicom_factory import mr_instance
from PIL import Image

from pacs_cbir.dicom.stack import read_stacks
from pacs_cbir.dicom.volume import build_volume
from pacs_cbir.embed.decode import draw_each, draw_series
from pacs_cbir.embed.picture import render_frame
from pacs_cbir.embed.preprocess import Preprocessing, draw_slices
from pacs_cbir.embed.thumbnail import EDGE, draw_thumbnails

DATA = Path(__file__).parents[4] / "shared/data/dicom"
MOST_MEAN_DIFFERENCE = 3.0
"""Of grey values, after JPEG."""

ORIENTATIONS = {
    "axial": ["1", "0", "0", "0", "1", "0"],
    "axial from above": ["-1", "0", "0", "0", "1", "0"],
    "axial turned": ["0", "1", "0", "1", "0", "0"],
    "coronal": ["1", "0", "0", "0", "0", "-1"],
    "coronal upside down": ["1", "0", "0", "0", "0", "1"],
    "sagittal": ["0", "1", "0", "0", "0", "-1"],
    "sagittal lying": ["0", "0", "-1", "0", "1", "0"],
    "oblique": ["0.9", "0.3", "0.316228", "-0.3162278", "0.9486833", "0"],
}


def pixels(size: int, number: int) -> npt.NDArray[np.uint16]:
    """Bright in one corner, and different in every row and column."""
    rows, columns = np.mgrid[0:size, 0:size]
    lopsided = (columns * 7 + rows * 3) * 2 + 50 * number
    lopsided[: size // 4, : size // 3] += 1500
    return lopsided.astype("<u2")


def write(folder: Path, size: int = 64, **attributes: object) -> list[Path]:
    orientation = np.array([float(value) for value in attributes["ImageOrientationPatient"]])  # type: ignore[attr-defined]
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for number in range(1, 4):
        ds = mr_instance(number=number, size=size, **attributes)
        ds.ImagePositionPatient = [f"{value:.6f}" for value in normal * 6 * number]
        ds.PixelData = pixels(size, number).tobytes()
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
        paths.append(folder / f"{number}.dcm")
    return paths


def opened(picture: bytes) -> npt.NDArray[np.float64]:
    image = Image.open(io.BytesIO(picture))
    assert (image.format, image.mode) == ("JPEG", "L")
    return np.asarray(image, np.float64)


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_thumbnail_is_the_frame_as_it_is_rendered(tmp_path: Path, name: str, photometric: str) -> None:
    window = {"WindowCenter": "700", "WindowWidth": "900", "RescaleSlope": "0.5", "RescaleIntercept": "20"}
    paths = write(tmp_path, ImageOrientationPatient=ORIENTATIONS[name], PhotometricInterpretation=photometric, **window)
    by_uid = {str(mr_instance(number=number).SOPInstanceUID): path for number, path in enumerate(paths, start=1)}
    (stack,) = draw_series(paths, Preprocessing(size=32))
    assert len(stack.thumbnails) == 3, stack.not_embedded
    for thumbnail in stack.thumbnails:
        rendered = render_frame(by_uid[thumbnail.sop_instance_uid], thumbnail.frame_number).pixels
        assert rendered.std() > 30
        assert np.abs(opened(thumbnail.picture) - rendered).mean() < MOST_MEAN_DIFFERENCE


def test_a_large_frame_is_made_small(tmp_path: Path) -> None:
    paths = write(tmp_path, 512, ImageOrientationPatient=ORIENTATIONS["axial"])
    (stack,) = draw_series(paths, Preprocessing(size=32))
    assert {opened(one.picture).shape for one in stack.thumbnails} == {(EDGE, EDGE)}


def test_pictures_that_are_not_stored_have_none(tmp_path: Path) -> None:
    paths = write(tmp_path, ImageOrientationPatient=ORIENTATIONS["axial"])
    assert [stack.thumbnails for stack in draw_each(paths, Preprocessing(size=32))] == [()]


@pytest.mark.skipif(not (DATA / "siemens-mprage-study").is_dir(), reason="the shared data is not here")
def test_of_a_resliced_volume_frames_throughout_it_are_kept() -> None:
    paths = sorted((DATA / "siemens-mprage-study").rglob("*.dcm"))
    for stack in read_stacks(paths):
        if stack.reason is not None or len(stack.frames) < 50:
            continue
        volume = build_volume(stack)
        slices = draw_slices(volume, Preprocessing(size=32))
        assert len(set(slices.frames)) == 1
        kept = draw_thumbnails(stack, volume, slices)
        numbers = sorted(
            index
            for index, frame in enumerate(volume.frames)
            if (frame.sop_instance_uid, frame.frame_number)
            in {(one.sop_instance_uid, one.frame_number) for one in kept}
        )
        assert len(slices.frames) <= len(kept) <= len(slices.frames) + 1
        assert (numbers[0], numbers[-1]) == (0, len(volume.frames) - 1)
        return
    pytest.fail("no volume that is resliced")
