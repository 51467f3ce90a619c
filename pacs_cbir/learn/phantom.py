"""One simulated patient: a head with a glioma in four MR sequences, and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pacs_cbir.learn import anatomy
from pacs_cbir.learn.anatomy import Floats, inside
from pacs_cbir.learn.parameters import (
    Glioma,
    Head,
    PatientParameters,
    Scan,
    draw_glioma,
    draw_head,
    draw_radius,
    draw_scan,
)
from pacs_cbir.learn.relaxation import Relaxation, Tissue, relaxation, signals

Scalar = TypeVar("Scalar", bound=np.generic)

SEQUENCES = ("T1", "T1CE", "T2", "FLAIR")
MATRIX = 240

MAXIMUM = 4095
"""Largest value of a volume: 12 bits, as scanners store them."""

CORE, OEDEMA, ENHANCING = 1, 2, 4
"""Labels of the mask, those of BraTS (Menze et al., IEEE Trans Med Imaging 2015;34:1993)."""

HEAD_CENTRE = np.array([[0.0], [-9.0], [18.0]], np.float32)
"""MNI point in mm round which heads are scaled and turned, and which the stack of slices is centred on."""

FLIP = np.array([[-1.0], [-1.0], [1.0]], np.float32)
"""Between LPS and RAS."""


@dataclass(frozen=True)
class SimulatedPatient:
    """One patient in arrays.

    Attributes:
        volumes: for each of SEQUENCES float32, shape (slices, rows, columns), 0 to 4095 in arbitrary units; slices
            feet→head, rows anterior→posterior, columns right→left.
        affine: float64, shape (4, 4), from (slice, row, column) index to LPS mm.
        mask: uint8, shape (slices, rows, columns): 0 none, 1 necrotic or not enhancing core, 2 oedema, 4 enhancing.
        brain: bool, the same shape: brain and the CSF in and round it, which is what skull stripping leaves.
        tissues: uint8, the same shape: the Tissue that has the largest part of each voxel.
        parameters: what was drawn.
    """

    volumes: dict[str, Floats]
    affine: npt.NDArray[np.float64]
    mask: npt.NDArray[np.uint8]
    brain: npt.NDArray[np.bool_]
    tissues: npt.NDArray[np.uint8]
    parameters: PatientParameters


def simulate_patient(
    seed: int, number: int = 1, *, skull_stripped: bool = False, glioma: Glioma | None = None
) -> SimulatedPatient:
    """Draw patient `number` of the cohort `seed`; the same two numbers always give the same arrays.

    Args:
        seed: of the cohort, 0 or more.
        number: of the patient in it, 0 or more.
        skull_stripped: leave out everything but the brain, as in BraTS.
        glioma: another patient's, for this one to have; its surface is uneven in another way.

    Raises:
        ValueError: for a negative seed or number.
    """
    rng = np.random.default_rng((seed, number))
    head = draw_head(rng)
    scan = draw_scan(rng, head, MATRIX)
    affine = _affine(scan)
    voxels = _Voxels.of_head(rng, head, scan, affine)
    radius = draw_radius(rng)
    own = draw_glioma(rng, radius, _draw_place(rng, voxels, radius))
    glioma = own if glioma is None else glioma
    fractions, brain = _fractions(rng, voxels, head, glioma)
    volumes = _acquire(rng, voxels, fractions, scan, glioma)
    inside_brain = voxels.unravel(brain)
    if skull_stripped:
        volumes = {name: np.where(inside_brain, volume, np.float32(0)) for name, volume in volumes.items()}
    return SimulatedPatient(
        volumes=volumes,
        affine=affine,
        mask=voxels.unravel(_labels(fractions)),
        brain=inside_brain,
        tissues=voxels.unravel(fractions.argmax(0).astype(np.uint8)),
        parameters=PatientParameters(head, scan, glioma),
    )


def _affine(scan: Scan) -> npt.NDArray[np.float64]:
    """Slices feet→head, rows anterior→posterior, columns right→left, tilted; the origin is the centre."""
    affine = np.eye(4)
    axes = np.array([[0, 0, scan.pixel_spacing], [0, scan.pixel_spacing, 0], [scan.slice_spacing, 0, 0]])
    affine[:3, :3] = Rotation.from_euler("x", scan.tilt, degrees=True).as_matrix() @ axes
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([scan.slices, MATRIX, MATRIX]) - 1) / 2)
    return affine


@dataclass(frozen=True)
class _Voxels:
    """The voxels of the head, n of a grid, and where they are; the rest of the grid is air.

    Attributes:
        index: flat index into the grid, shape (n,).
        lps: patient coordinates in mm, shape (3, n).
        mni: the same points in the template, before the tumour pushes, mm, shape (3, n).
        hull: signed distance in mm to the brain's hull, shape (n,).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    index: npt.NDArray[np.intp]
    lps: Floats
    mni: Floats
    hull: Floats

    @classmethod
    def of_head(cls, rng: np.random.Generator, head: Head, scan: Scan, affine: npt.NDArray[np.float64]) -> _Voxels:
        shape = (scan.slices, MATRIX, MATRIX)
        spacing = (scan.slice_spacing, scan.pixel_spacing, scan.pixel_spacing)
        index = np.indices(shape, np.float32).reshape(3, -1)
        lps = affine[:3, :3].astype(np.float32) @ index + affine[:3, 3:].astype(np.float32)
        turn = Rotation.from_euler("xyz", head.turn, degrees=True).as_matrix().astype(np.float32)
        shifted = lps - np.array(head.shift, np.float32)[:, None]
        mni = FLIP * (turn.T @ shifted) / np.array(head.scale, np.float32)[:, None] + HEAD_CENTRE
        for axis in range(3):
            mni[axis] += 2.8 * smooth_noise(rng, shape, spacing, 80.0).ravel()
            mni[axis] += 1.1 * smooth_noise(rng, shape, spacing, 30.0).ravel()
        hull = anatomy.sample(anatomy.template().hull, mni, 2.0)
        near = np.flatnonzero(hull < 60.0)
        return cls(shape, spacing, near, lps[:, near], mni[:, near], hull[near])

    def noise(self, rng: np.random.Generator, scale: float) -> Floats:
        return smooth_noise(rng, self.shape, self.spacing, scale).ravel()[self.index]

    def unravel(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        grid = np.zeros(self.shape, values.dtype)
        grid.ravel()[self.index] = values
        return grid


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], spacing: tuple[float, ...], scale: float) -> Floats:
    """Gaussian random field of zero mean and unit variance that is smooth over `scale` mm; float32, shape `shape`."""
    bases = []
    for count, step in zip(shape, spacing, strict=True):
        position = np.arange(count) * step
        knots = np.arange(-2.0 * scale, position[-1] + 2.0 * scale, scale)
        basis = np.exp(-0.5 * ((position[:, None] - knots) / (0.7 * scale)) ** 2)
        bases.append((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))
    field = rng.standard_normal([basis.shape[1] for basis in bases], np.float32)
    for basis in bases:
        field = np.tensordot(field, basis, (0, 1))
    return field


def _draw_place(rng: np.random.Generator, voxels: _Voxels, radius: float) -> npt.NDArray[np.float32]:
    """A point in the white matter of the cerebrum that leaves room for half the tumour, LPS mm."""
    white = anatomy.sample(anatomy.template().white, voxels.mni, 1.0)
    room = voxels.hull < -4.0 - 0.5 * radius
    candidates = np.flatnonzero((white > 0.5) & room & anatomy.is_cerebrum(voxels.mni))
    place: Floats = voxels.lps[:, rng.choice(candidates)]
    return place


def _fractions(
    rng: np.random.Generator, voxels: _Voxels, head: Head, glioma: Glioma
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Tissue fractions, shape (tissues, n), and which voxels are brain, shape (n,)."""
    shells = anatomy.Shells(
        csf=0.9 + 0.9 * max(head.atrophy, 0.0),
        table=float(rng.uniform(1.6, 2.2)),
        diploe=np.clip(rng.uniform(2.0, 4.0) * (1 + 0.25 * voxels.noise(rng, 30.0)), 0.5, 8.0),
        fat=np.clip(rng.uniform(3.0, 6.0) * (1 + 0.2 * voxels.noise(rng, 40.0)), 1.0, 10.0),
        skin=1.6,
    )
    fractions = anatomy.head(voxels.mni, voxels.hull, shells, voxels.noise(rng, 6.0))
    within = np.flatnonzero(voxels.hull < anatomy.EDGE_MM)
    points = _pushed(voxels, glioma, within)
    opacity = inside(voxels.hull[within])
    parenchyma = _brain(rng, voxels, within, points, head)
    fractions[:, within] *= 1.0 - opacity
    fractions[Tissue.CSF : Tissue.WHITE + 1, within] += opacity * parenchyma
    _grow(rng, voxels, within, fractions, glioma)
    brain = np.zeros(voxels.hull.size, bool)
    brain[within] = anatomy.sample(anatomy.template().brain, points, 2.0) < 0.5
    brain |= _labels(fractions) > 0
    return fractions, brain


def _pushed(voxels: _Voxels, glioma: Glioma, within: npt.NDArray[np.intp]) -> Floats:
    """Where in the template the tissue at each voxel comes from once the tumour has pushed it outwards."""
    lps = voxels.lps[:, within]
    offset = lps - np.array(glioma.centre, np.float32)[:, None]
    distance = np.linalg.norm(offset, axis=0) + np.float32(1e-3)
    reach = np.exp(-0.5 * (np.maximum(distance - glioma.radius, 0.0) / (1.2 * glioma.radius + 6.0)) ** 2)
    rigid_skull = np.clip(-voxels.hull[within] / 12.0, 0.0, 1.0)
    push = glioma.mass_effect * glioma.radius * reach * rigid_skull
    push = np.minimum(push, 0.6 * distance)
    source: Floats = voxels.mni[:, within] - FLIP * offset / distance * push
    return source


def _brain(
    rng: np.random.Generator, voxels: _Voxels, within: npt.NDArray[np.intp], points: Floats, head: Head
) -> Floats:
    """Fractions of CSF, grey and white matter, shape (3, n); the template's average folds made crisp and individual."""
    maps = anatomy.template()
    grey = np.clip(anatomy.sample(maps.grey, points, 1.0), 0.0, 1.0)
    white = np.clip(anatomy.sample(maps.white, points, 1.0), 0.0, 1.0)
    crisp = np.stack([np.clip(1.0 - grey - white, 0.0, 1.0), grey, white]) ** 2
    crisp[0] *= np.exp(0.30 * head.atrophy + 0.45 * voxels.noise(rng, 4.0)[within])
    crisp[2] *= np.exp(0.35 * voxels.noise(rng, 5.0)[within])
    sharp: Floats = crisp / (crisp.sum(0) + np.float32(1e-6))
    return sharp


def _grow(
    rng: np.random.Generator, voxels: _Voxels, within: npt.NDArray[np.intp], fractions: Floats, glioma: Glioma
) -> None:
    """Put the tumour into the fractions; it displaces brain, never skull."""
    offset = voxels.lps[:, within] - np.array(glioma.centre, np.float32)[:, None]
    level = np.linalg.norm(offset / np.array(glioma.axes, np.float32)[:, None], axis=0)
    coarse, fine = voxels.noise(rng, max(0.8 * glioma.radius, 5.0))[within], voxels.noise(rng, 5.0)[within]
    coarse -= coarse[level < 1.0].mean()
    level *= np.exp(glioma.irregularity * (0.8 * coarse + 0.3 * fine))
    outside = (level - 1.0) * glioma.radius
    room = inside(voxels.hull[within] + 1.5)
    white, grey = fractions[Tissue.WHITE, within], fractions[Tissue.GREY, within]
    extent = glioma.oedema_width * np.exp(0.25 * voxels.noise(rng, 14.0)[within]) - 1.0
    oedema = room * inside(outside - extent, 1.5) * np.clip(1.2 * white + 0.25 * grey, 0.0, 1.0)
    tumour = room * inside(outside, 0.8)
    solid = Tissue.RIM if glioma.enhancement else Tissue.SOLID
    ragged = level * np.exp(0.12 * fine)
    necrosis = tumour * inside((ragged - glioma.necrosis) * glioma.radius) if glioma.necrosis else 0.0 * tumour
    for tissue, opacity in ((Tissue.OEDEMA, oedema), (solid, tumour), (Tissue.NECROSIS, necrosis)):
        fractions[:, within] *= 1.0 - opacity
        fractions[tissue, within] += opacity


def _labels(fractions: Floats) -> npt.NDArray[np.uint8]:
    oedema, rim = fractions[Tissue.OEDEMA], fractions[Tissue.RIM]
    core = fractions[Tissue.NECROSIS] + fractions[Tissue.SOLID]
    parts = np.stack([1.0 - oedema - rim - core, core, oedema, rim])
    labels: npt.NDArray[np.uint8] = np.array([0, CORE, OEDEMA, ENHANCING], np.uint8)[parts.argmax(0)]
    return labels


def _acquire(
    rng: np.random.Generator, voxels: _Voxels, fractions: Floats, scan: Scan, glioma: Glioma
) -> dict[str, Floats]:
    """Signal, bias field, blur within the slice and Rician noise; scaled to the scanner's whole numbers."""
    tissues = {tissue: relaxation(tissue, scan.field_strength) for tissue in Tissue}
    for tissue in (Tissue.OEDEMA, Tissue.SOLID, Tissue.RIM, Tissue.NECROSIS):
        tissues[tissue] = _varied(rng, tissues[tissue])
    tissues[Tissue.RIM] = replace(tissues[Tissue.RIM], gadolinium=glioma.enhancement)
    texture = 1.0 + 0.02 * voxels.noise(rng, 3.0) + 0.12 * fractions[Tissue.OEDEMA :].sum(0) * voxels.noise(rng, 6.0)
    bias = np.exp(scan.bias * smooth_noise(rng, voxels.shape, voxels.spacing, 90.0))
    volumes = {}
    for name in SEQUENCES:
        table = signals(scan.timings[name], tissues, contrast=name == "T1CE")
        signal = voxels.unravel((table @ fractions) * texture) * bias
        signal = ndimage.gaussian_filter(signal, (0.0, 0.55, 0.55))
        sigma = table[Tissue.WHITE] / scan.signal_to_noise
        real, imaginary = sigma * rng.standard_normal((2, *voxels.shape), np.float32)
        magnitude = np.hypot(signal + real, imaginary)
        gain = rng.uniform(0.35, 0.8) * MAXIMUM / np.quantile(magnitude[::3, ::3, ::3], 0.999)
        volumes[name] = np.clip(np.rint(magnitude * np.float32(gain)), 0, MAXIMUM).astype(np.float32)
    return volumes


def _varied(rng: np.random.Generator, tissue: Relaxation) -> Relaxation:
    t1, t2 = np.exp(rng.normal(0.0, 0.08, 2))
    return replace(tissue, t1=tissue.t1 * float(t1), t2=tissue.t2 * float(t2))
