"""Instances or frames of one series → stacks → volumes in patient axes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt


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
        frames: frames[i] is the source of array[i].
    """

    array: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    plane: Plane
    frames: tuple[FrameReference, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels in mm: (slices, rows, columns)."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))
