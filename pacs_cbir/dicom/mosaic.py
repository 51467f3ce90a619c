"""Siemens mosaics: the slices of a whole volume as tiles of one image, under that one image's position."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from pacs_cbir.dicom.frames import Frame


def is_mosaic(frame: Frame) -> bool:
    """Whether a classic instance's image is one of tiles."""
    return "MOSAIC" in (frame.get("ImageType") or ()) and not frame.groups


def unfolded(frame: Frame) -> list[Frame]:
    """A mosaic's tiles as frames with positions of their own; the frame itself where it is none, or where the
    private header that tells the number of tiles and the slices' order is not there."""
    if not is_mosaic(frame):
        return [frame]
    # nibabel is needed for no other images, costs every decoder's start, and warns of itself when it is imported.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import MosaicWrapper  # noqa: PLC0415
    try:
        mosaic: Any = MosaicWrapper(frame.instance)  # type: ignore[no-untyped-call]
        rows, columns, count = mosaic.image_shape
        first = np.asarray(mosaic.image_position, dtype=np.float64)
        step = np.asarray(mosaic.slice_normal, dtype=np.float64) * float(mosaic.voxel_sizes[2])
    except Exception:
        # Whatever its parser meets in private bytes: this image stays a mosaic.
        return [frame]
    tiles = []
    for index in range(count):
        row, column = divmod(index, mosaic.mosaic_size)
        own = {"ImagePositionPatient": list(first + index * step), "Rows": rows, "Columns": columns}
        tile = (slice(row * rows, (row + 1) * rows), slice(column * columns, (column + 1) * columns))
        tiles.append(replace(frame, groups=own, tile=tile))
    return tiles
