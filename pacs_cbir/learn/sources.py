"""The rows of one stack → volumes with their masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pacs_cbir.dicom.volume import FrameReference, Plane, Volume, build_volume, read_stacks
from pacs_cbir.errors import ManifestError, VolumeError
from pacs_cbir.learn.manifest import Row
from pacs_cbir.learn.pictures import Format, format_of, read_nifti, read_picture, read_picture_mask

DEFAULT_FIELD_MM = 240.0
"""Width of a picture that does not say its own: a head's usual field of view."""
DEFAULT_SLICE_SPACING_MM = 5.0

_DISPLAY_AXES = {
    # Unit vectors in LPS of (slices, rows, columns), as `Volume.array` describes them, in columns.
    Plane.AXIAL: np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float64),
    Plane.CORONAL: np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], np.float64),
    Plane.SAGITTAL: np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float64),
}

Numbered = tuple[int, Row]
Fault = tuple[int, str]


@dataclass(frozen=True, eq=False)
class Source:
    """A stack before it is drawn.

    Attributes:
        volume: `frames[k].frame_number` is k + 1, so that drawn slices can be followed back.
        mask: bool, of the volume's shape; None where it is not known.
        numbers: int, shape (slices,): the manifest's number of each slice.
        white: grey value that is 1 on the source's own scale.
    """

    volume: Volume
    mask: npt.NDArray[np.bool_] | None
    numbers: npt.NDArray[np.intp]
    white: float


def read_sources(rows: list[Numbered]) -> tuple[list[Source], list[Fault]]:
    """Read all files of one stack's rows; of DICOM files possibly more than one stack.

    Returns:
        the sources, and the faults that were found, each with its row's number.
    """
    match format_of(rows[0][1].path):
        case Format.PICTURE:
            return _pictures(rows)
        case Format.NIFTI:
            return _nifti(rows)
        case _:
            return _dicom(rows)


def _pictures(rows: list[Numbered]) -> tuple[list[Source], list[Fault]]:
    ordered = sorted(rows, key=lambda numbered: numbered[1].slice or 0)
    faults: list[Fault] = []
    pictures, masks = [], []
    for number, row in ordered:
        try:
            pictures.append(_finite(read_picture(row.path, row.channel), row.path))
            masks += [] if row.mask is None else [read_picture_mask(row.mask)]
        except ManifestError as error:
            faults += [(number, fault) for fault in error.faults]
            continue
        if pictures[-1].shape != pictures[0].shape:
            faults.append((number, f"{row.path.name} is of another size than the stack's first slice: export it alike"))
    if faults:
        return [], faults
    array, row = np.stack(pictures), ordered[0][1]
    plane = Plane[(row.plane or "axial").upper()]
    pixel = row.spacing_mm or DEFAULT_FIELD_MM / array.shape[2]
    affine = np.eye(4)
    affine[:3, :3] = _DISPLAY_AXES[plane] * (row.slice_spacing_mm or DEFAULT_SLICE_SPACING_MM, pixel, pixel)
    volume = Volume(array, affine, plane, _references(array))
    numbers = np.array([row.slice or 0 for _, row in ordered])
    # More than 1 only in pictures of real or 32-bit numbers.
    return [Source(volume, np.stack(masks) if masks else None, numbers, max(1.0, float(array.max())))], []


def _nifti(rows: list[Numbered]) -> tuple[list[Source], list[Fault]]:
    ordered = sorted(rows, key=lambda numbered: numbered[1].slice or 0)
    number, row = ordered[0]
    others = [n for n, other in ordered if (other.path, other.mask) != (row.path, row.mask)]
    if others:
        return [], [(n, f"another file than row {number} of the same stack: name its series") for n in others]
    try:
        array, affine, plane = read_nifti(row.path)
        white = float(_finite(array, row.path).max())
        mask = None if row.mask is None else _finite(read_nifti(row.mask, plane)[0], row.mask) != 0
        levels = _levels(ordered, len(array))
    except ManifestError as error:
        return [], [(number, fault) for fault in error.faults]
    if mask is not None and mask.shape != array.shape:
        return [], [(number, f"{row.mask} is oriented otherwise than its volume: resample it to that")]
    affine[:3, 3] += affine[:3, 0] * levels[0]
    affine[:3, 0] *= levels[1] - levels[0] if len(levels) > 1 else 1
    array = array[levels]
    volume = Volume(array, affine, plane, _references(array))
    return [Source(volume, None if mask is None else mask[levels], levels, _white(white))], []


def _levels(ordered: list[Numbered], slices: int) -> npt.NDArray[np.intp]:
    """Which slices of a NIfTI file its rows mean."""
    name, first = ordered[0][1].path.name, ordered[0][1].slice
    if first is None:
        return np.arange(slices)
    levels = np.array([row.slice or 0 for _, row in ordered])
    if levels[0] < 0 or levels[-1] >= slices:
        beyond = levels[0] if levels[0] < 0 else levels[-1]
        raise ManifestError(name, [f"{name} has no slice {beyond}: it has 0 to {slices - 1}"])
    if len(np.unique(np.diff(levels))) > 1:
        raise ManifestError(name, [f"the slices of {name} are not evenly spaced: name all of them, or none"])
    return levels


def _dicom(rows: list[Numbered]) -> tuple[list[Source], list[Fault]]:
    """A file may hold several stacks: those of the rows' sequence that are volumes count."""
    number, row = rows[0]
    sources, reasons = [], []
    try:
        stacks = [stack for stack in read_stacks([row.path for _, row in rows]) if stack.reason is None]
        if len(stacks) > 1:
            stacks = [stack for stack in stacks if stack.sequence.sequence == row.sequence]
    except VolumeError as error:
        stacks, reasons = [], [str(error)]
    for stack in stacks:
        try:
            volume = build_volume(stack)
        except VolumeError as error:
            reasons.append(str(error))
            continue
        try:
            white = _white(float(_finite(volume.array, row.path).max()))
        except ManifestError as error:
            return [], [(number, fault) for fault in error.faults]
        there = [frame is not None for frame in volume.frames]
        references = zip(_references(volume.array), there, strict=True)
        numbered = replace(volume, frames=tuple(one if here else None for one, here in references))
        sources.append(Source(numbered, None, np.arange(len(volume.array)), white))
    if sources:
        return sources, []
    why = "; ".join(reasons) or f"it holds no {row.sequence} that can be embedded"
    return [], [(number, f"the series of {row.path.name} cannot be read: {why}; leave its rows out")]


def _finite(array: npt.NDArray[np.float32], path: Path) -> npt.NDArray[np.float32]:
    if bad := int(np.count_nonzero(~np.isfinite(array))):
        raise ManifestError(path.name, [f"{path.name} has {bad} values that are NaN or infinite: export it without"])
    return array


def _references(array: npt.NDArray[np.float32]) -> tuple[FrameReference, ...]:
    return tuple(FrameReference("", k + 1) for k in range(len(array)))


def _white(brightest: float) -> float:
    return brightest if brightest > 0 else 1.0
