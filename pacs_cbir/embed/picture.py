"""One frame → a picture for people; runs in the decoder's child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from highdicom.pixels import apply_voi_window
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from pacs_cbir.dicom.frames import Frame, read_frames
from pacs_cbir.errors import DecodingError

PERCENTILES = (1.0, 99.0)
"""Black and white where the header has no window."""
WHITE = 255.0

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Window:
    """Which rescaled values are drawn from black to white (PS3.3 C.11.2.1.2).

    Attributes:
        width: at least 1 for LINEAR, more than 0 for the others.
    """

    centre: float
    width: float
    function: Function = "LINEAR"


@dataclass(frozen=True)
class Picture:
    """A drawn frame.

    Attributes:
        pixels: shape (rows, columns), or (rows, columns, 3) for colour.
        window: as it was drawn; None for colour, which has none.
    """

    pixels: npt.NDArray[np.uint8]
    window: Window | None


def render_frame(path: Path, number: int, window: Window | None = None) -> Picture:
    """Draw one frame as a viewer would by default.

    Grey values are rescaled (PS3.3 C.11.1) and windowed: as asked, else by the first window of the header (PS3.3
    C.11.2), else between two percentiles.

    Args:
        path: a DICOM file.
        number: the frame's number, counted from 1.

    Raises:
        DecodingError: there are no pixels, or they cannot be decoded.
    """
    frames = read_frames(path)
    frame = frames[min(number, len(frames)) - 1]
    if frame.get("Rows") is None:
        raise DecodingError("the instance has no pixels")
    try:
        stored = np.asarray(pixel_array(path, index=number - 1))
        if frame.get("PhotometricInterpretation") == "PALETTE COLOR":
            stored = apply_color_lut(stored, frame.instance)
    except MemoryError:
        raise
    except Exception as error:
        # pydicom's and the codecs' errors have no common base.
        raise DecodingError(f"the pixel data cannot be decoded ({type(error).__name__})") from error
    return Picture(_colour(stored), None) if stored.ndim == 3 else _grey(stored, frame, window)


def _colour(stored: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if stored.dtype == np.uint8:
        return stored.astype(np.uint8)
    scaled = stored.astype(np.float64) / np.iinfo(np.uint16).max * WHITE
    return np.clip(scaled, 0.0, WHITE).astype(np.uint8)


def _grey(stored: npt.NDArray[np.generic], frame: Frame, asked: Window | None) -> Picture:
    slope, intercept = frame.number_of("RescaleSlope"), frame.number_of("RescaleIntercept")
    values = stored.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)
    return draw_values(values, frame, asked)


def draw_values(values: npt.NDArray[np.float64], frame: Frame, asked: Window | None = None) -> Picture:
    """Draw a frame's rescaled values by the window that is asked for, else the header's, else two percentiles."""
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    window = asked or _header_window(frame) or _percentiles(values)
    drawn = apply_voi_window(
        values,
        window_center=window.centre,
        window_width=window.width,
        voi_lut_function=window.function,
        output_range=(0.0, WHITE),
        invert=frame.get("PhotometricInterpretation") == "MONOCHROME1",
    )
    return Picture(np.round(drawn).astype(np.uint8), window)


def _header_window(frame: Frame) -> Window | None:
    centre, width = frame.number_of("WindowCenter"), frame.number_of("WindowWidth")
    function = str(frame.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or width < 1 or function not in get_args(Function):
        return None
    return Window(centre, width, cast("Function", function))


def _percentiles(values: npt.NDArray[np.float64]) -> Window:
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    return Window((low + high) / 2, max(high - low, float(np.finfo(np.float32).tiny)), "LINEAR_EXACT")
