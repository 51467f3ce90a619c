"""The head in MNI space: tissue fractions at any point, from nilearn's template and shells round it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from nilearn import datasets
from scipy import ndimage

from pacs_cbir.learn.relaxation import Tissue

Floats = npt.NDArray[np.float32]

EDGE_MM = 0.8
"""Half the width over which one tissue passes into the next."""


@dataclass(frozen=True)
class Template:
    """The MNI152 2009a symmetric template (Fonov et al., NeuroImage 2011;54:313) as nilearn ships it.

    Attributes:
        grey, white: float32 fractions 0 to 1, shape (x, y, z), 1 mm, RAS+.
        brain: signed distance in mm to the brain's surface, negative inside; shape (x, y, z), 2 mm.
        hull: the same for the smooth hull of the brain, which is the inside of the skull.
        origin: MNI coordinates in mm of voxel (0, 0, 0) of all four maps.
    """

    grey: Floats
    white: Floats
    brain: Floats
    hull: Floats
    origin: Floats


@cache
def template() -> Template:
    """The template, read once from nilearn's package data; nothing is downloaded."""
    image = datasets.load_mni152_template(resolution=1)
    grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
    white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)
    mask = image.get_fdata(dtype=np.float32)[::2, ::2, ::2] > 0.05
    return Template(
        grey=grey,
        white=white,
        brain=_distance_to(_closed(mask, 4.0), 1.0),
        hull=_distance_to(_closed(mask, 10.0), 2.0),
        origin=np.asarray(image.affine[:3, 3], np.float32),
    )


def _closed(mask: npt.NDArray[np.bool_], radius_mm: float) -> npt.NDArray[np.bool_]:
    padded = np.pad(mask, 8)
    grown = ndimage.distance_transform_edt(~padded, sampling=2.0) < radius_mm
    kept: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(grown, sampling=2.0) > radius_mm
    closed: npt.NDArray[np.bool_] = (kept | padded)[8:-8, 8:-8, 8:-8]
    return closed


def _distance_to(mask: npt.NDArray[np.bool_], smoothing: float) -> Floats:
    outside = ndimage.distance_transform_edt(~mask, sampling=2.0)
    inside = ndimage.distance_transform_edt(mask, sampling=2.0)
    smooth: Floats = ndimage.gaussian_filter((outside - inside).astype(np.float32), smoothing)
    return smooth


def sample(volume: Floats, points: Floats, spacing: float) -> Floats:
    """`volume` of the template at `points` (MNI mm, shape (3, n)), by linear interpolation; float32, shape (n,)."""
    index = (points - template().origin[:, None]) / np.float32(spacing)
    values: Floats = ndimage.map_coordinates(volume, index, order=1, mode="nearest")
    return values


def is_cerebrum(points: Floats) -> npt.NDArray[np.bool_]:
    """Which `points` (MNI mm, shape (3, n)) lie above tentorium and brainstem; by planes, so roughly."""
    x, y, z = points
    infratentorial = (y < -35) & (z < -6)
    brainstem = (np.abs(x) < 16) & (y < 0) & (y > -50) & (z < 4)
    cerebrum: npt.NDArray[np.bool_] = ~infratentorial & ~brainstem & (z > -32)
    return cerebrum


@dataclass(frozen=True)
class Shells:
    """Thickness in mm of what lies round the brain; each a number or one value for each point.

    Attributes:
        csf: subarachnoid space between the brain's hull and the skull.
        table: inner table, and again outer table, of the skull: cortical bone.
        diploe: marrow between the tables.
        fat: of the scalp.
        skin: of the scalp.
    """

    csf: float
    table: float
    diploe: Floats
    fat: Floats
    skin: float


class _Painter:
    """Tissue fractions under construction: what is painted later covers what is there."""

    def __init__(self, points: int) -> None:
        self.fractions = np.zeros((len(Tissue), points), np.float32)
        self.fractions[Tissue.AIR] = 1.0

    def paint(self, tissue: Tissue, opacity: Floats, where: npt.NDArray[np.intp] | slice = slice(None)) -> None:
        """Cover what is at the points `where` with `tissue`; opacity 0 to 1."""
        self.fractions[:, where] *= 1.0 - opacity
        self.fractions[tissue, where] += opacity


def inside(signed_distance: Floats, edge: float = EDGE_MM) -> Floats:
    """1 well inside (negative), 0 well outside, with a soft edge; the distance in mm."""
    soft: Floats = np.clip(0.5 - signed_distance / np.float32(2.0 * edge), 0.0, 1.0)
    return soft


def _ellipsoid(points: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """Approximate signed distance in mm; exact for a sphere."""
    scaled = (points - np.array(centre, np.float32)[:, None]) / np.array(radii, np.float32)[:, None]
    distance: Floats = (np.sqrt(np.einsum("in,in->n", scaled, scaled)) - 1.0) * np.float32(min(radii))
    return distance


def _tube(points: Floats, start: tuple[float, float, float], end: tuple[float, float, float], radius: float) -> Floats:
    """Signed distance in mm to a round-ended tube."""
    a, b = np.array(start, np.float32)[:, None], np.array(end, np.float32)[:, None]
    along = np.clip(((points - a) * (b - a)).sum(0) / ((b - a) ** 2).sum(), 0.0, 1.0)
    distance: Floats = np.linalg.norm(points - a - along * (b - a), axis=0) - np.float32(radius)
    return distance


def head(points: Floats, hull: Floats, shells: Shells, lumps: Floats) -> Floats:
    """Tissue fractions outside the brain's hull.

    Args:
        points: MNI mm, float32, shape (3, n).
        hull: signed distance of each point to the brain's hull in mm, shape (n,).
        shells: what lies round the brain.
        lumps: smooth noise of unit variance, shape (n,); it mixes fat into the face's soft tissue.

    Returns:
        float32, shape (tissues, n), each column summing to 1.
    """
    x, y, z = points
    lateral = np.abs(x)
    temporal_muscle = (
        9.0 * np.exp(-(((y - 15.0) / 28.0) ** 2) - ((z + 22.0) / 26.0) ** 2) * np.clip(lateral / 30 - 1, 0, 1)
    )
    neck_muscle = 16.0 * np.exp(-(((z + 62.0) / 22.0) ** 2)) * np.clip(-y / 40.0 - 0.2, 0, 1)
    skull = shells.csf + 2 * shells.table + shells.diploe
    scalp = hull - skull - temporal_muscle - neck_muscle - shells.fat - shells.skin
    face = np.minimum(_ellipsoid(points, (0, 15, -48), (66, 72, 62)), _ellipsoid(points, (0, 86, -52), (13, 20, 22)))
    depth = np.minimum(scalp, face)
    painter = _Painter(hull.size)
    painter.paint(Tissue.SOFT, inside(depth))
    painter.paint(
        Tissue.FAT,
        inside(depth + shells.skin) * np.maximum(inside(-depth - shells.skin - shells.fat), inside(0.7 - lumps)),
    )
    base = inside(np.maximum(np.maximum(y - 24.0, lateral - 58.0), depth + 14.0), 3.0)
    painter.paint(Tissue.BONE, base)
    painter.paint(Tissue.MARROW, base * inside(0.2 - lumps) * 0.8)
    _paint_face(painter, points)
    tables = inside(hull - skull)
    painter.paint(Tissue.BONE, tables)
    diploe = np.abs(hull - shells.csf - shells.table - shells.diploe / 2) - shells.diploe / 2
    painter.paint(Tissue.MARROW, inside(np.asarray(diploe, np.float32)))
    painter.paint(Tissue.CSF, inside(hull - shells.csf))
    sinus = np.maximum(np.abs(hull - 2.5) - 3.0, np.abs(x) + (hull - 5.0) * 0.5 - 3.5)
    sinus = np.where((z > 20) | (y < -75), sinus, np.float32(9.0))
    painter.paint(Tissue.BLOOD, inside(sinus.astype(np.float32)))
    return painter.fractions


def _paint_face(painter: _Painter, points: Floats) -> None:
    low = np.flatnonzero((points[2] < -8.0) & (points[1] > -50.0))
    p = points[:, low]
    mirrored = np.stack([np.abs(p[0]), p[1], p[2]])

    def paint(tissue: Tissue, distance: Floats, opacity: float = 1.0) -> None:
        painter.paint(tissue, inside(distance) * np.float32(opacity), low)

    paint(Tissue.BONE, _ellipsoid(mirrored, (0, 50, -44), (16, 32, 26)))
    paint(Tissue.MUCOSA, _ellipsoid(mirrored, (0, 52, -46), (13, 30, 24)))
    paint(Tissue.AIR, _ellipsoid(mirrored, (5, 52, -46), (3.2, 26, 20)))
    paint(Tissue.AIR, _ellipsoid(mirrored, (9.5, 48, -34), (2.6, 14, 7)))
    paint(Tissue.AIR, _ellipsoid(mirrored, (6, 14, -34), (7, 9, 8)))
    paint(Tissue.BONE, _ellipsoid(mirrored, (30, 44, -62), (17, 20, 18)))
    paint(Tissue.AIR, _ellipsoid(mirrored, (30, 44, -62), (14.5, 17.5, 15.5)))
    paint(Tissue.BONE, _ellipsoid(mirrored, (50, -26, -46), (13, 17, 17)))
    paint(Tissue.AIR, _ellipsoid(mirrored, (52, -28, -46), (7, 10, 10)), 0.7)
    paint(Tissue.BONE, _ellipsoid(mirrored, (30, 44, -36), (20, 29, 18.5)))
    paint(Tissue.FAT, _ellipsoid(mirrored, (30, 46, -36), (18, 28, 16.5)))
    paint(Tissue.SOFT, _tube(mirrored, (43, 56, -36), (18, 18, -30), 2.0))
    paint(Tissue.SOFT, _tube(mirrored, (19, 56, -36), (14, 18, -30), 1.8))
    paint(Tissue.CSF, _tube(mirrored, (31, 48, -36), (10, 12, -26), 3.0))
    paint(Tissue.WHITE, _tube(mirrored, (31, 48, -36), (10, 12, -26), 1.8))
    paint(Tissue.SOFT, _ellipsoid(mirrored, (32, 60, -37), (12.8, 12.8, 12.8)))
    paint(Tissue.CSF, _ellipsoid(mirrored, (32, 60, -37), (11.6, 11.6, 11.6)))
    paint(Tissue.SOFT, _ellipsoid(mirrored, (32, 69.5, -37), (4.6, 2.2, 4.6)))
