"""What is drawn by chance for one simulated patient: the head, the scan and the glioma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pacs_cbir.learn.relaxation import Timing, Tissue, nulling_inversion_time, relaxation


@dataclass(frozen=True)
class Glioma:
    """The tumour of one patient.

    Attributes:
        centre: LPS mm in the patient's frame of reference.
        radius: mean radius of core and rim in mm.
        axes: the three half-axes in mm, along L, P and S, before the surface is made irregular.
        irregularity: how far the surface strays from the ellipsoid, as a fraction of the radius.
        necrosis: radius of the necrotic core as a fraction of the tumour's; 0 where there is none.
        enhancement: contrast agent in the rim in mmol/L; 0 for a tumour that does not enhance.
        oedema_width: how far oedema reaches in white matter, in mm.
        mass_effect: how far tissue is pushed away, as a fraction of the radius.
    """

    centre: tuple[float, float, float]
    radius: float
    axes: tuple[float, float, float]
    irregularity: float
    necrosis: float
    enhancement: float
    oedema_width: float
    mass_effect: float


@dataclass(frozen=True)
class Head:
    """The patient without the tumour.

    Attributes:
        age: years.
        sex: "M" or "F".
        atrophy: shift of the tissue balance towards CSF; 0 in the young.
        scale: size relative to the template along right-left, anterior-posterior and feet-head.
        turn: rotation in degrees about right-left, anterior-posterior and feet-head.
        shift: of the head from the centre of the slices, LPS mm.
    """

    age: int
    sex: str
    atrophy: float
    scale: tuple[float, float, float]
    turn: tuple[float, float, float]
    shift: tuple[float, float, float]


@dataclass(frozen=True)
class Scan:
    """How the patient was scanned; one grid for all sequences.

    Attributes:
        field_strength: tesla, 1.5 or 3.0.
        slices: number of slices.
        slice_spacing, pixel_spacing: mm.
        tilt: rotation of the slices about right-left in degrees.
        timings: of each sequence.
        signal_to_noise: of white matter.
        bias: standard deviation of the logarithm of the bias field.
    """

    field_strength: float
    slices: int
    slice_spacing: float
    pixel_spacing: float
    tilt: float
    timings: dict[str, Timing]
    signal_to_noise: float
    bias: float


@dataclass(frozen=True)
class PatientParameters:
    """Everything that was drawn for one patient and has a name."""

    head: Head
    scan: Scan
    glioma: Glioma


def draw_head(rng: np.random.Generator) -> Head:
    """Age and sex roughly as glioma's are distributed; the brain shrinks with age."""
    age = int(np.clip(rng.normal(56, 15), 18, 88))
    sex = "M" if rng.random() < 0.58 else "F"
    size = (1.02 if sex == "M" else 0.97) * rng.normal(1.0, 0.025)
    scale = size * np.clip(rng.normal(1.0, 0.025, 3), 0.94, 1.06)
    return Head(
        age=age,
        sex=sex,
        atrophy=float(np.clip((age - 40) / 45 + rng.normal(0, 0.3), -0.4, 1.6)),
        scale=_floats(scale),
        turn=_floats(rng.normal(0.0, (6.0, 2.5, 3.5))),
        shift=_floats(rng.normal(0.0, 3.0, 3)),
    )


def draw_scan(rng: np.random.Generator, head: Head, matrix: int) -> Scan:
    """A routine protocol that covers `head`; `matrix` is the number of rows and columns."""
    field_strength = float(rng.choice([1.5, 3.0]))
    spacing = float(rng.choice([4.4, 5.0, 5.5, 6.0, 6.5], p=[0.15, 0.3, 0.25, 0.2, 0.1]))
    t1 = Timing(repetition=round(rng.uniform(450, 650)), echo=round(rng.uniform(8, 14), 1))
    t2 = Timing(repetition=round(rng.uniform(3800, 5800)), echo=round(rng.uniform(85, 112)))
    repetition = round(rng.uniform(8000, 10000))
    null = nulling_inversion_time(relaxation(Tissue.CSF, field_strength).t1, repetition)
    flair = Timing(repetition, echo=round(rng.uniform(95, 130)), inversion=round(null * rng.normal(0.98, 0.02)))
    return Scan(
        field_strength=field_strength,
        slices=int(np.ceil(rng.uniform(146, 156) * head.scale[2] / spacing)),
        slice_spacing=spacing,
        pixel_spacing=float(rng.choice([240, 250, 260])) / matrix,
        tilt=head.turn[0] * float(rng.uniform(0, 1)),
        timings={"T1": t1, "T1CE": t1, "T2": t2, "FLAIR": flair},
        signal_to_noise=float(rng.uniform(22, 45)) * (1.0 if field_strength == 1.5 else 1.3),
        bias=float(rng.uniform(0.04, 0.1)) * (1.0 if field_strength == 1.5 else 1.6),
    )


def draw_radius(rng: np.random.Generator) -> float:
    """A glioma's radius in mm, log-uniform."""
    return float(np.exp(rng.uniform(np.log(6.0), np.log(25.0))))


def draw_glioma(rng: np.random.Generator, radius: float, place: npt.NDArray[np.float32]) -> Glioma:
    """A glioma of `radius` mm round `place` (LPS mm); a quarter do not enhance, as low grades often do not."""
    axes = np.exp(rng.normal(0.0, 0.15, 3))
    enhances = rng.random() < 0.75
    necrotic = enhances and radius > 8.0 and rng.random() < 0.8
    return Glioma(
        centre=_floats(place),
        radius=radius,
        axes=_floats(radius * axes / np.cbrt(np.prod(axes))),
        irregularity=float(rng.uniform(0.08, 0.3)),
        necrosis=float(rng.uniform(0.35, 0.85)) if necrotic else 0.0,
        enhancement=float(rng.uniform(0.25, 1.2)) if enhances else 0.0,
        oedema_width=float(rng.uniform(4.0, 26.0) if enhances else rng.uniform(0.0, 8.0)),
        mass_effect=float(rng.uniform(0.0, 0.4)),
    )


def _floats(values: npt.ArrayLike) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in np.asarray(values))
    return (x, y, z)
