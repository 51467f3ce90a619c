"""A slice with its heat on it, as a picture for people. torch is not imported."""

from __future__ import annotations

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

HOTTEST = 99.5
"""Percentile of the slice's heat that is shown hottest: single pixels must not leave all else dark."""
MOST_OPAQUE = 0.75
"""The slice is seen through the hottest place too."""
WHITE = 99.8
"""Percentile of the slice's grey levels that is shown white: those of the volume's brightest voxel leave it dim."""


def heat_picture(pixels: npt.NDArray[np.float32], heat: npt.NDArray[np.float32], *, edge: int) -> npt.NDArray[np.uint8]:
    """The slice in grey, and over it the heat: the hotter, the brighter and the less transparent.

    Args:
        pixels: shape (size, size), in [0, 1].
        heat: shape (size, size); what is below 0 is left out.
        edge: of the picture, in pixels.

    Returns:
        uint8, shape (edge, edge, 3).
    """
    grey = _resized(pixels / max(float(np.percentile(pixels, WHITE)), 1e-6), edge)[..., None]
    hot = _resized(heat / max(float(np.percentile(heat, HOTTEST)), 1e-12), edge)
    colours = matplotlib.colormaps["inferno"](hot)[..., :3]
    opacity = MOST_OPAQUE * hot[..., None]
    picture: npt.NDArray[np.uint8] = np.rint(255 * ((1 - opacity) * grey + opacity * colours)).astype(np.uint8)
    return picture


def _resized(image: npt.NDArray[np.float32], edge: int) -> npt.NDArray[np.float32]:
    resized = Image.fromarray(image.astype(np.float32)).resize((edge, edge), Image.Resampling.BICUBIC)
    return np.asarray(resized).clip(0, 1)
