"""Small pictures of what is embedded, which stay when the pixel data leaves; drawn in the decoder's child process.

A study of four sequences has about 96 slices that are embedded. As JPEG of at most 192 pixels a real head's slice is
4.7 kB (mean over 60 of several devices): 0.5 MB a study, and 45 GB for 100 000 studies, where their embeddings are 10
GB and their files some 3 TB. WebP of the same size would be 34 GB and take six times as long; 256 pixels 78 GB.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pacs_cbir.dicom.frames import Frame
from pacs_cbir.dicom.stack import Stack
from pacs_cbir.dicom.volume import FrameReference, Volume
from pacs_cbir.embed.picture import draw_values, render_frame
from pacs_cbir.embed.preprocess import Slices

EDGE = 192
"""Most rows or columns."""
QUALITY = 75


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of a frame, as a viewer shows it by default.

    Attributes:
        sop_instance_uid, frame_number: of what (frame counted from 1).
        picture: JPEG, grey, at most `EDGE` pixels wide and high.
    """

    sop_instance_uid: str
    frame_number: int
    picture: bytes


def draw_thumbnails(stack: Stack, volume: Volume, slices: Slices) -> tuple[Thumbnail, ...]:
    """A picture of each frame that slices were drawn from.

    Slices of a resliced volume lie across its frames, and have one frame in common: of these as many are drawn as there
    are slices, evenly through the volume.

    Raises:
        DecodingError: a mosaic, which is drawn as a whole, cannot be decoded.
    """
    frames = {FrameReference(frame.sop_instance_uid, frame.number): frame for frame in stack.frames}
    index_of = {reference: index for index, reference in enumerate(volume.frames) if reference is not None}
    wanted = dict.fromkeys(slices.frames)
    if len(wanted) < len(slices.frames):
        there = list(index_of)
        spread = np.linspace(0, len(there) - 1, len(slices.frames)).round().astype(int)
        wanted |= dict.fromkeys(there[index] for index in spread)
    return tuple(
        Thumbnail(one.sop_instance_uid, one.frame_number, _encoded(_drawn(frames[one], volume, index_of[one])))
        for one in wanted
    )


def _drawn(frame: Frame, volume: Volume, index: int) -> npt.NDArray[np.uint8]:
    if frame.tile is not None:
        return render_frame(frame.path, frame.number).pixels
    return draw_values(_as_stored(frame, volume, index).astype(np.float64), frame).pixels


def _as_stored(frame: Frame, volume: Volume, index: int) -> npt.NDArray[np.float32]:
    """A frame's values, with the rows and columns that it is stored with (PS3.3 C.7.6.2.1.1)."""
    orientation = frame.numbers_of("ImageOrientationPatient", 6)
    assert orientation is not None  # noqa: S101 - a volume has none without
    along_columns, along_rows = np.array(orientation[:3]), np.array(orientation[3:])
    plane: npt.NDArray[np.float32] = volume.array[index]
    down, right = volume.affine[:3, 1], volume.affine[:3, 2]
    if abs(right @ along_columns) < abs(down @ along_columns):
        plane, down, right = plane.T, right, down
    if down @ along_rows < 0:
        plane = plane[::-1]
    if right @ along_columns < 0:
        plane = plane[:, ::-1]
    return plane


def _encoded(pixels: npt.NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.convert("L").save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()
