"""Pictures and NIfTI files → arrays in display order."""

from __future__ import annotations

import zlib
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from PIL import Image

from pacs_cbir.dicom.volume import Plane
from pacs_cbir.errors import ManifestError

Floats = npt.NDArray[np.float32]

PICTURE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp"})
NIFTI_SUFFIXES = (".nii", ".nii.gz")
FINE_MM = 2.0
"""A NIfTI file no coarser than this along any axis is taken as axial slices."""

_DAMAGED = (
    OSError,
    EOFError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    zlib.error,
    Image.DecompressionBombError,
    ImageFileError,
    HeaderDataError,
    OrientationError,
)
"""What Pillow, nibabel and numpy were seen to raise over files whose bytes were changed or cut."""

_AXES = {Plane.AXIAL: (2, 1, 0), Plane.CORONAL: (1, 2, 0), Plane.SAGITTAL: (0, 2, 1)}
"""NIfTI's axes (right, anterior, superior) in the order of (slices, rows, columns)."""


class Format(StrEnum):
    """What kind of file a row names."""

    PICTURE = "picture"
    NIFTI = "NIfTI"
    DICOM = "DICOM"


def format_of(path: Path) -> Format:
    """By the suffix; what is neither a picture nor NIfTI is DICOM, whose files often have none."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return Format.PICTURE
    return Format.NIFTI if path.name.lower().endswith(NIFTI_SUFFIXES) else Format.DICOM


@lru_cache(maxsize=4096)
def shape_of(path: Path) -> tuple[int, ...]:
    """(rows, columns) of a picture, NIfTI's own axes of a volume; from the header alone.

    Raises:
        ManifestError: it cannot be read, or is DICOM.
    """
    match format_of(path):
        case Format.PICTURE:
            with _opened(path) as picture:
                return (picture.height, picture.width)
        case Format.NIFTI:
            return tuple(int(n) for n in _loaded(path).shape)
        case _:
            raise ManifestError(path.name, [f"{path.name} is neither a picture nor NIfTI: convert it"])


@lru_cache(maxsize=4096)
def channels_of(path: Path) -> int:
    """How many channels `read_picture` can pick from; from the header alone.

    Raises:
        ManifestError: it cannot be read.
    """
    with _opened(path) as picture:
        return 3 if picture.mode == "P" else len(picture.getbands())


def is_of_one_grey(path: Path) -> bool:
    """Whether all of a picture's pixels are alike.

    Raises:
        ManifestError: it cannot be read.
    """
    with _opened(path) as picture:
        try:
            values = np.asarray(picture)
        except _DAMAGED as error:
            raise _damaged(path, error) from error
    return bool((values == values[0, 0]).all())


def read_picture(path: Path, channel: int | None = None) -> Floats:
    """One picture as float32 (rows, columns) in [0, 1] of its own scale; real and 32-bit numbers as they are.

    Args:
        channel: which of a colour picture, from 0; None for its luminance (ITU-R 601-2).

    Raises:
        ManifestError: it cannot be read, has several pages, or not that channel.
    """
    with _opened(path) as picture:
        try:
            if (pages := getattr(picture, "n_frames", 1)) > 1:
                raise ManifestError(path.name, [f"{path.name} has {pages} pages: export each as a picture"])
            bands = (picture.convert("RGB") if picture.mode == "P" else picture).split()
            if channel is not None and channel >= len(bands):
                raise ManifestError(path.name, [f"{path.name} has {len(bands)} channels, and none numbered {channel}"])
            grey = picture if channel is None else bands[channel]
            if grey.mode.startswith("I;16"):
                return np.asarray(grey, np.float32) / np.float32(65535)
            if grey.mode in {"I", "F"}:
                return np.asarray(grey, np.float32)
            return np.asarray(grey.convert("L"), np.float32) / np.float32(255)
        except _DAMAGED as error:
            raise _damaged(path, error) from error


def read_picture_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Bool (rows, columns): where anything but transparency is not 0.

    Raises:
        ManifestError: it cannot be read, or holds NaN, which is neither lesion nor none.
    """
    with _opened(path) as picture:
        try:
            values = np.asarray(picture)
        except _DAMAGED as error:
            raise _damaged(path, error) from error
        colours = len(picture.getbands()) - (picture.mode in {"LA", "RGBA"})
    if not np.isfinite(values).all():
        raise ManifestError(path.name, [f"{path.name} has values that are NaN or infinite: export it without"])
    return np.asarray(values.reshape(*values.shape[:2], -1)[..., :colours].any(axis=-1))


def read_nifti(path: Path, plane: Plane | None = None) -> tuple[Floats, npt.NDArray[np.float64], Plane]:
    """A NIfTI volume in the display order of a plane; see `Volume`.

    Args:
        plane: None for that of its slices: the axis with the largest spacing is their normal, and a volume no
            coarser than `FINE_MM` is axial.

    Returns:
        float32 (slices, rows, columns), the affine to LPS mm, and the plane.

    Raises:
        ManifestError: it cannot be read, or has more than three dimensions.
    """
    image = _loaded(path)
    if len(image.shape) != 3:
        raise ManifestError(path.name, [f"{path.name} has {len(image.shape)} dimensions: three are read"])
    try:
        image = nibabel.as_closest_canonical(image)  # type: ignore[no-untyped-call]
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    if plane is None:
        normal = 2 if spacing.max() <= FINE_MM else int(np.argmax(spacing[::-1]) * -1 + 2)
        plane = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)[normal]
    order = _AXES[plane]
    try:
        array = np.asarray(image.dataobj, np.float32).transpose(order)
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine[:, [*order, 3]]
    # NIfTI's indices grow towards right, anterior and superior; displayed ones do so along axial slices' normal alone.
    for axis, source in enumerate(order):
        if plane is not Plane.AXIAL or source != 2:
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
            array = np.flip(array, axis)
    return array, affine, plane


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except _DAMAGED as error:
        raise ManifestError(path.name, [f"{path.name} is no picture that can be read: {_line(error)}"]) from error


def _loaded(path: Path) -> Any:
    try:
        return nibabel.load(path)
    except _DAMAGED as error:
        raise ManifestError(path.name, [f"{path.name} is no NIfTI file that can be read: {_line(error)}"]) from error


def _damaged(path: Path, error: Exception) -> ManifestError:
    return ManifestError(path.name, [f"{path.name} is damaged: {_line(error)}; copy it again, or leave its rows out"])


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
