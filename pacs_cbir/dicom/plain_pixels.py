"""Pixel data with nothing beside the picture: decoded, without what unused bits and trailing bytes can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from pacs_cbir.errors import DecodingError


@dataclass(frozen=True)
class Box:
    """Rows and columns of a frame from 0, the second ones outside."""

    top: int
    left: int
    bottom: int
    right: int


def add_plain_pixels(ds: Dataset, made: Dataset, visible: Sequence[Box] | None) -> None:
    """Give `made` the pixels of `ds`, uncompressed, little endian, colours as RGB by pixel (PS3.3 C.7.6.3).

    Args:
        ds: with its file meta information.
        made: with the other attributes of the Image Pixel module.
        visible: what is kept of every frame, all else becomes 0; None: everything.

    Raises:
        DecodingError: it cannot be decoded.
    """
    try:
        # pydicom clears the bits above High Bit, in which old devices kept overlays.
        pixels = np.array(ds.pixel_array)
        stored, high = int(ds.BitsStored), int(ds.HighBit)
        samples = int(ds.SamplesPerPixel)
    except MemoryError:
        raise
    except Exception as error:
        raise DecodingError(f"the pixel data cannot be decoded ({type(error).__name__})") from error
    if high != stored - 1:
        raise DecodingError("High Bit is not Bits Stored - 1 (PS3.5 8.1.1): which bits are the picture is not told")
    if visible is not None:
        _blacken(pixels, visible, samples)
    if samples == 3:
        made.PhotometricInterpretation, made.PlanarConfiguration = "RGB", 0
    made.BitsAllocated = pixels.itemsize * 8
    content = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"


def _blacken(pixels: npt.NDArray[np.integer[Any]], visible: Sequence[Box], samples: int) -> None:
    rows, columns = pixels.shape[-3:-1] if samples > 1 else pixels.shape[-2:]
    outside = np.ones((rows, columns), bool)
    for box in visible:
        outside[box.top : box.bottom, box.left : box.right] = False
    frames = pixels.reshape(-1, rows, columns, samples)
    frames[:, outside] = 0
