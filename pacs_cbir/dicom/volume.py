"""Instances or frames of one series → stacks → volumes in patient axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise

import highdicom
import numpy as np
import numpy.typing as npt
from highdicom.spatial import get_closest_patient_orientation, get_volume_positions
from pydicom import dcmread
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pacs_cbir.dicom.frames import Frame, value_of
from pacs_cbir.dicom.stack import Stack, StackKey, read_stacks, repeats_positions, split_stacks
from pacs_cbir.errors import DecodingError, NotAVolume, NotEmbeddable

__all__ = [
    "FrameReference",
    "Plane",
    "Stack",
    "StackKey",
    "Volume",
    "build_volume",
    "read_stacks",
    "split_stacks",
]

SPACING_TOLERANCE = 0.05
"""Share of the mean distance by which the distance of two neighbouring slices may differ from it."""
PRESENT_SHARE = 0.5
"""Of the places between the first and the last slice so many have one: with less nothing tells what is missing."""
UNKNOWN_THICKNESS = 1.0
"""Spacing in mm of a single slice that has neither Slice Thickness nor Spacing Between Slices."""
_PIXEL_NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation")


class Plane(StrEnum):
    """The anatomical plane nearest to a stack's slices."""

    AXIAL = "AXIAL"
    CORONAL = "CORONAL"
    SAGITTAL = "SAGITTAL"


@dataclass(frozen=True)
class FrameReference:
    """Which picture a slice is: the instance and its frame number, counted from 1 (PS3.3 C.7.6.6)."""

    sop_instance_uid: str
    frame_number: int


@dataclass(frozen=True)
class Volume:
    """One stack of parallel slices with rescaled values.

    Attributes:
        array: float32, shape (slices, rows, columns), rescaled values (PS3.3 C.11.1). The axes are those of the
            native plane in radiological display order: AXIAL feet→head, anterior→posterior, right→left;
            CORONAL anterior→posterior, head→feet, right→left; SAGITTAL right→left, head→feet, anterior→posterior.
            Obliques are permuted and flipped to the nearest plane, not resampled.
        affine: float64, shape (4, 4), from (slice, row, column) index to millimetres in the patient's LPS axes
            (PS3.3 C.7.6.2.1.1).
        plane: the native plane.
        frames: frames[i] is the source of array[i]; None where that slice is missing between others, and its values
            are interpolated from its neighbours'.
    """

    array: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    plane: Plane
    frames: tuple[FrameReference | None, ...]

    @property
    def missing_slices(self) -> int:
        """How many are missing between others."""
        return self.frames.count(None)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels in mm: (slices, rows, columns)."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))


# Towards which the index grows, for (slices, rows, columns); PS3.3 C.7.6.1.1.1.
_DISPLAY = {Plane.AXIAL: "HPL", Plane.CORONAL: "PFL", Plane.SAGITTAL: "LFP"}
_PLANE_OF_NORMAL = {
    "H": Plane.AXIAL,
    "F": Plane.AXIAL,
    "A": Plane.CORONAL,
    "P": Plane.CORONAL,
    "L": Plane.SAGITTAL,
    "R": Plane.SAGITTAL,
}


def build_volume(stack: Stack) -> Volume:
    """Decode a stack's pixels and put them in patient axes, ordered by position and never by Instance Number.

    The values are those after the rescale (PS3.3 C.11.1) or pixel value transformation (C.7.6.16.2.9); a Real World
    Value Mapping is not applied. Pixels of the Pixel Padding Value take the lowest value of their frame's others.

    Raises:
        NotEmbeddable: the stack has a reason not to be embedded.
        NotAVolume: colour, no size, position or spacing, a rescale that is no number, slices at one position, or
            distances that vary by more than `SPACING_TOLERANCE`. Where slices are missing between others, which may
            have been rejected or never come, distances may be multiples of the others, if `PRESENT_SHARE` is there.
        DecodingError: pixel data that is missing or cannot be decoded; names the transfer syntax.
    """
    if stack.reason is not None:
        raise NotEmbeddable(stack.reason)
    first = stack.frames[0]
    if (photometric := str(first.get("PhotometricInterpretation"))) not in {"MONOCHROME1", "MONOCHROME2"}:
        raise NotAVolume(f"the pixels are not grey values: photometric interpretation {photometric}")
    _require_pixel_numbers(stack.frames)
    placed = _placed(stack.frames)
    places = sorted(placed.frames)
    shape = (places[-1] + 1, int(first.number_of("Rows") or 0), int(first.number_of("Columns") or 0))
    array = np.empty(shape, dtype=np.float32)
    _decode_into(array, placed.frames)
    _bridge_gaps(array, places)
    native = highdicom.Volume.from_attributes(
        array=array,
        image_position=placed.position,
        image_orientation=placed.orientation,
        pixel_spacing=placed.pixel_spacing,
        spacing_between_slices=placed.spacing,
        coordinate_system="PATIENT",
    )
    normal, *_ = get_closest_patient_orientation(native.affine)
    plane = _PLANE_OF_NORMAL[normal.value]
    # A view of the array: flips and permutations copy nothing.
    displayed = native.to_patient_orientation(_DISPLAY[plane])
    references: list[FrameReference | None] = [None] * len(array)
    for place, frame in placed.frames.items():
        references[place] = FrameReference(frame.sop_instance_uid, frame.number)
    # Both are stacked along the first axis, so the order was either kept or reversed.
    if np.dot(displayed.affine[:3, 0], native.affine[:3, 0]) < 0:
        references.reverse()
    return Volume(displayed.array, np.array(displayed.affine, dtype=np.float64), plane, tuple(references))


def _require_pixel_numbers(frames: Sequence[Frame]) -> None:
    # Decoders fail on others in ways that name no element, or quote what it holds.
    for instance in {id(frame.instance): frame.instance for frame in frames}.values():
        for keyword in _PIXEL_NUMBERS:
            if not isinstance(value_of(instance, keyword), int):
                raise NotAVolume(f"the pixels of a slice cannot be read: {keyword} is no whole number")


@dataclass(frozen=True)
class _Placed:
    """Frames by their places along the normal, counted from 0, and where they are in LPS: mm, cosines."""

    frames: dict[int, Frame]
    spacing: float
    position: tuple[float, ...]
    """Of the first frame."""
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]


def _placed(frames: Sequence[Frame]) -> _Placed:
    first = frames[0]
    orientation = first.numbers_of("ImageOrientationPatient", 6)
    pixel_spacing = first.numbers_of("PixelSpacing", 2)
    positions = [p for f in frames if (p := f.numbers_of("ImagePositionPatient", 3)) is not None]
    if orientation is None:
        raise NotAVolume("a slice has no orientation: ImageOrientationPatient is not six numbers")
    if len(positions) < len(frames):
        raise NotAVolume("a slice has no position: ImagePositionPatient is not three numbers")
    if pixel_spacing is None or min(pixel_spacing) <= 0:
        raise NotAVolume("the pixels have no spacing: PixelSpacing is not two numbers above 0")
    if not _is_orthonormal(orientation):
        raise NotAVolume("the orientation's row and column are not two perpendicular unit vectors")
    if len(frames) == 1:
        thickness = first.number_of("SliceThickness") or first.number_of("SpacingBetweenSlices")
        return _Placed({0: first}, abs(thickness or UNKNOWN_THICKNESS), positions[0], orientation, pixel_spacing)
    if repeats_positions(frames):
        raise NotAVolume(f"{len(frames)} slices, several of them at one position, and no attribute tells them apart")
    spacing, places = get_volume_positions(positions, orientation, rtol=SPACING_TOLERANCE)
    if places is None and (hint := _spacing_between_gaps(positions, orientation)) is not None:
        spacing, places = get_volume_positions(
            positions, orientation, rtol=SPACING_TOLERANCE, allow_missing_positions=True, spacing_hint=hint
        )
    if spacing is None or places is None:
        raise NotAVolume(_irregularity(positions, orientation))
    by_place = dict(zip(places, frames, strict=True))
    return _Placed(by_place, float(spacing), positions[places.index(0)], orientation, pixel_spacing)


def _spacing_between_gaps(positions: Sequence[Sequence[float]], orientation: Sequence[float]) -> float | None:
    """The distance in mm of neighbouring places, some of which have no slice; None where it is no such stack."""
    gaps = _gaps(positions, orientation)
    one_place = gaps[gaps < 1.5 * gaps.min()].mean()
    steps = np.rint(gaps / one_place)
    spacing = float(gaps.sum() / steps.sum())
    regular = np.allclose(gaps, steps * spacing, rtol=0, atol=SPACING_TOLERANCE * spacing)
    return spacing if regular and len(positions) >= PRESENT_SHARE * (steps.sum() + 1) else None


def _gaps(positions: Sequence[Sequence[float]], orientation: Sequence[float]) -> npt.NDArray[np.float64]:
    """Distances of neighbours along the normal, in mm."""
    distances: npt.NDArray[np.float64] = np.array(positions) @ np.cross(orientation[:3], orientation[3:])
    return np.diff(np.sort(distances))


def _bridge_gaps(array: npt.NDArray[np.float32], places: Sequence[int]) -> None:
    """Fill what lies between the places that have a slice."""
    for before, after in pairwise(places):
        for place in range(before + 1, after):
            share = (place - before) / (after - before)
            array[place] = (1 - share) * array[before] + share * array[after]


def _is_orthonormal(orientation: Sequence[float]) -> bool:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    gram = np.array([row @ row, column @ column, row @ column])
    return bool(np.allclose(gram, [1, 1, 0], atol=1e-3))


def _irregularity(positions: Sequence[Sequence[float]], orientation: Sequence[float]) -> str:
    gaps = _gaps(positions, orientation)
    if np.allclose(gaps, gaps.mean(), rtol=SPACING_TOLERANCE, atol=0):
        return "the slices are shifted against one another within their planes"
    return (
        f"the distances between slices vary from {gaps.min():.2f} to {gaps.max():.2f} mm, "
        f"more than {SPACING_TOLERANCE:.0%} from their mean"
    )


def _decode_into(array: npt.NDArray[np.float32], frames: Mapping[int, Frame]) -> None:
    """Fill array[i] with frames[i], instance by instance, one decoded frame in memory at a time."""
    by_source = sorted(frames, key=lambda i: (str(frames[i].path), frames[i].number))
    for _, same_file in groupby(by_source, key=lambda i: frames[i].path):
        targets = [list(same) for _, same in groupby(same_file, key=lambda i: frames[i].number)]
        numbers = [frames[same[0]].number for same in targets]
        decoded = _decoded(frames[targets[0][0]], numbers)
        for same, pixels in zip(targets, decoded, strict=True):
            for i in same:
                values = _rescaled(pixels if frames[i].tile is None else pixels[frames[i].tile], frames[i])
                if values.shape != array.shape[1:]:
                    raise DecodingError(f"decoded {values.shape} pixels where the header says {array.shape[1:]}")
                array[i] = values


def _decoded(frame: Frame, numbers: list[int]) -> Iterator[npt.NDArray[np.generic]]:
    meta = getattr(frame.instance, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta else None
    # A deflated data set cannot be read in parts.
    source = dcmread(frame.path) if syntax == DeflatedExplicitVRLittleEndian else frame.path
    try:
        yield from iter_pixels(source, indices=[n - 1 for n in numbers])
    except MemoryError:
        raise
    except Exception as error:
        # Decoders raise whatever their libraries do.
        name = syntax.name if syntax else "no transfer syntax"
        raise DecodingError(f"pixel data in {name} cannot be decoded: {type(error).__name__}: {error}") from error


def _rescaled(pixels: npt.NDArray[np.generic], frame: Frame) -> npt.NDArray[np.float32]:
    slope, intercept = _number(frame, "RescaleSlope"), _number(frame, "RescaleIntercept")
    values = pixels.astype(np.float32)
    padding = frame.number_of("PixelPaddingValue")
    if padding is not None and (padded := pixels == padding).any() and not padded.all():
        values[padded] = values[~padded].min()
    # PS3.3 C.11.1.1.2: a slope of 0 is not allowed, and would leave nothing of the image.
    return values * np.float32(slope or 1.0) + np.float32(intercept or 0.0)


def _number(frame: Frame, keyword: str) -> float | None:
    """A number without which the values are others; None where it is absent."""
    number = frame.number_of(keyword)
    if number is None and frame.get(keyword) is not None:
        raise NotAVolume(f"the values of a slice are not known: {keyword} is no number")
    return number
