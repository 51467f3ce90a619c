"""A box in a frame's pixels lands on the drawn slice where the patient's axes say, whatever way round it was stored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from dicom_factory import mr_instance, uid
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage

from pacs_cbir.dicom.frames import Frame
from pacs_cbir.dicom.volume import read_stacks
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.embed.region import Box, DrawnRegion, _tile, draw_region
from pacs_cbir.errors import InvalidQuery, SeriesChanged

PREPROCESSING = Preprocessing()
PIXEL_MM = PREPROCESSING.field_of_view_mm / PREPROCESSING.size
EDGE, SLICES = 48, 9
HEAD_MM, MARKER_MM = 60.0, 9.0
MARKER = np.array([22.0, -18.0, 12.0])
"""LPS, from the head's middle at the origin."""
AXIAL, CORONAL, SAGITTAL = np.eye(3)[[0, 1]], np.array([[1, 0, 0], [0, 0, -1]]), np.array([[0, 1, 0], [0, 0, -1]])
OBLIQUE = np.array([[np.cos(0.3), np.sin(0.3), 0], [-np.sin(0.3), np.cos(0.3), 0]])


class Scan:
    """A ball of a head with a bright ball as marker, imaged in a plane, as classic instances."""

    def __init__(self, axes: npt.ArrayLike, pixel_mm: tuple[float, float], step_mm: float, slices: int) -> None:
        """Args: axes are the cosines along a row and along a column; pixel_mm is between rows and between columns."""
        row, column = np.asarray(axes, dtype=np.float64)
        self.row, self.column, self.pixel_mm = row * pixel_mm[1], column * pixel_mm[0], pixel_mm
        self.cosines = [*row, *column]
        step = np.cross(row, column) * step_mm
        centre = (self.row * (EDGE - 1) + self.column * (EDGE - 1)) / 2
        self.positions = [step * (k - (slices - 1) / 2) - centre for k in range(slices)]

    def pixels(self, position: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
        rows, columns = np.mgrid[:EDGE, :EDGE][..., None]
        at = position + rows * self.column + columns * self.row
        head = np.linalg.norm(at, axis=-1) < HEAD_MM
        marker = np.linalg.norm(at - MARKER, axis=-1) < MARKER_MM
        return (20 + 400 * head + 1500 * marker).astype(np.uint16)

    def box(self, position: npt.NDArray[np.float64]) -> Box:
        """The box round the marker in the frame at a position."""
        rows, columns = np.nonzero(self.pixels(position) > 1000)
        return Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)

    def nearest(self) -> int:
        """The frame through the marker's middle."""
        normal = np.cross(self.row, self.column)
        return int(np.argmin([abs((MARKER - position) @ normal) for position in self.positions]))

    def instances(self) -> list[Dataset]:
        return [
            mr_instance(
                number=k,
                Rows=EDGE,
                Columns=EDGE,
                PixelData=self.pixels(position).tobytes(),
                BitsStored=16,
                HighBit=15,
                ImagePositionPatient=[f"{v:.6f}" for v in position],
                ImageOrientationPatient=[f"{v:.9f}" for v in self.cosines],
                PixelSpacing=[f"{v:g}" for v in self.pixel_mm],
                SpacingBetweenSlices=None,
                SliceThickness="4",
            )
            for k, position in enumerate(self.positions)
        ]


def draw(folder: Path, instances: Sequence[Dataset], picture: tuple[str, int | None], box: Box) -> DrawnRegion | None:
    paths = []
    for number, ds in enumerate(instances):
        paths.append(folder / f"{number}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    (stack,) = read_stacks(paths)
    return draw_region(paths, stack.key.as_dict(), picture, box, PREPROCESSING)


def assert_on_marker(drawn: DrawnRegion | None) -> None:
    """What the box covers is where the marker is drawn."""
    assert drawn is not None
    bright = drawn.pixels > 0.6
    assert bright.any()
    rows, columns = np.nonzero(bright)
    middle = np.average(np.indices(bright.shape).reshape(2, -1), axis=1, weights=drawn.inside.ravel())
    assert middle == pytest.approx([rows.mean(), columns.mean()], abs=1.5)
    assert drawn.inside[bright].mean() > 0.8
    assert drawn.inside.sum() < 3 * bright.sum()


def turned(axes: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """A plane's eight ways to lay rows and columns."""
    return [
        np.array([one * first, two * second])
        for first, second in (axes, axes[::-1])
        for one, two in itertools.product((1, -1), repeat=2)
    ]


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, SAGITTAL, OBLIQUE], ids=["axial", "coronal", "sagittal", "oblique"])
@pytest.mark.parametrize("way", range(8))
def test_every_way_to_store_a_plane(tmp_path: Path, plane: npt.NDArray[np.float64], way: int) -> None:
    scan = Scan(turned(plane)[way], (2.5, 3.5), 6.0, 2 * SLICES)
    k = scan.nearest()
    drawn = draw(tmp_path, scan.instances(), (uid("study", "series", k), None), scan.box(scan.positions[k]))
    assert_on_marker(drawn)


@pytest.mark.parametrize("way", range(8))
def test_a_sagittal_frame_that_was_resliced(tmp_path: Path, way: int) -> None:
    scan = Scan(turned(SAGITTAL)[way], (3.0, 3.0), 2.0, 70)
    k = scan.nearest()
    drawn = draw(tmp_path, scan.instances(), (uid("study", "series", k), 1), scan.box(scan.positions[k]))
    assert_on_marker(drawn)


def test_an_enhanced_instance_by_frame(tmp_path: Path) -> None:
    scan = Scan(turned(AXIAL)[3], (3.0, 3.0), 6.0, 2 * SLICES)
    shuffled = np.random.default_rng(0).permutation(2 * SLICES)
    ds = mr_instance(
        Rows=EDGE,
        Columns=EDGE,
        BitsStored=16,
        HighBit=15,
        NumberOfFrames=len(shuffled),
        SOPClassUID=EnhancedMRImageStorage,
        PixelData=b"".join(scan.pixels(scan.positions[k]).tobytes() for k in shuffled),
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
    )
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [3, 3], 6
    orientation.ImageOrientationPatient = scan.cosines
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in shuffled:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(v), 6) for v in scan.positions[k]]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    k = scan.nearest()
    number = int(np.flatnonzero(shuffled == k)[0]) + 1
    box = scan.box(scan.positions[k])
    assert_on_marker(draw(tmp_path, [ds], (ds.SOPInstanceUID, number), box))
    with pytest.raises(InvalidQuery, match="name the frame"):
        draw(tmp_path, [ds], (ds.SOPInstanceUID, None), box)


def test_a_frame_between_those_that_are_embedded(tmp_path: Path) -> None:
    # Of slices 2.2 mm apart every other one is embedded, or fewer.
    scan = Scan(AXIAL, (3.0, 3.0), 2.2, 5 * SLICES)
    instances = scan.instances()
    for k in range(scan.nearest() - 2, scan.nearest() + 3):
        drawn = draw(tmp_path, instances, (uid("study", "series", k), None), scan.box(scan.positions[k]))
        assert_on_marker(drawn)
        assert drawn is not None
        area = (scan.pixels(scan.positions[k]) > 1000).sum() * 3.0**2
        assert (drawn.pixels > 0.6).sum() * PIXEL_MM**2 == pytest.approx(area, rel=0.15)


def test_a_mosaic_by_tile() -> None:
    tiles = [
        Frame(Path("mosaic"), 1, Dataset(), tile=(slice(row, row + 32), slice(column, column + 64)))
        for row in (0, 32)
        for column in (0, 64)
    ]
    assert _tile(tiles, Box(70, 40, 80, 50)) == (tiles[3], Box(6, 8, 16, 18))
    assert _tile(tiles, Box(60, 0, 90, 10)) == (tiles[1], Box(0, 0, 26, 10))
    with pytest.raises(InvalidQuery, match="no slice there"):
        _tile(tiles[:3], Box(70, 40, 80, 50))


def test_the_box_is_half_open_and_covers_pixels_by_their_share(tmp_path: Path) -> None:
    scan = Scan(AXIAL, (2 * PIXEL_MM, 2 * PIXEL_MM), 6.0, SLICES)
    instances = scan.instances()
    areas = [
        draw(tmp_path, instances, (uid("study", "series", 4), None), box).inside.sum()  # type: ignore[union-attr]
        for box in (Box(20, 20, 21, 21), Box(20, 20, 22, 21), Box(20, 20, 30, 24))
    ]
    assert areas == pytest.approx([4, 8, 160], rel=1e-4)


def test_boxes_that_are_not_there(tmp_path: Path) -> None:
    scan = Scan(AXIAL, (6.0, 6.0), 6.0, SLICES)
    instances, picture = scan.instances(), (uid("study", "series", 4), None)
    with pytest.raises(InvalidQuery, match="48 columns and 48 rows: x1 to 48, y1 to 48"):
        draw(tmp_path, instances, picture, Box(0, 0, 49, 5))
    with pytest.raises(InvalidQuery, match="x1 to 48, y1 to 48"):
        draw(tmp_path, instances, picture, Box(0, 0, 5, 49))
    with pytest.raises(InvalidQuery, match="224 mm round the head"):
        draw(tmp_path, instances, picture, Box(0, 0, 2, 2))
    assert draw(tmp_path, instances, ("1.2.3", None), Box(0, 0, 2, 2)) is None
    with pytest.raises(SeriesChanged, match="changed"):
        draw_region([], {}, picture, Box(0, 0, 2, 2), PREPROCESSING)
