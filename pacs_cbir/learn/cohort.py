"""Simulated patients as the encoder sees them, and the truth about them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy.spatial.transform import Rotation

from pacs_cbir.dicom.volume import FrameReference, Plane, Volume
from pacs_cbir.embed.preprocess import Preprocessing, draw_slices
from pacs_cbir.learn.phantom import SEQUENCES, SimulatedPatient, simulate_patient


@dataclass(frozen=True)
class Stack:
    """What the encoder sees of one sequence.

    Attributes:
        pixels: uint8, shape (n, size, size): slices as drawn, times 255.
        levels: int, shape (n,): which slice of the simulated volume each is.
    """

    sequence: str
    skull_stripped: bool
    pixels: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Study:
    """One simulated patient as drawn, and the truth.

    Attributes:
        stacks: each sequence as scanned, and each without skull.
        tumour_levels: slices of the simulated volume that show tumour or oedema.
        place: of the tumour in mm in a head of average size and position.
        radius: of the tumour in mm.
    """

    stacks: tuple[Stack, ...]
    tumour_levels: npt.NDArray[np.intp]
    place: npt.NDArray[np.float64]
    radius: float


def simulate_studies(seed: int, numbers: Sequence[int], preprocessing: Preprocessing) -> list[Study]:
    """Simulate patients and draw their slices as the worker does, one process a core."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        studies = pool.map(partial(simulate_study, seed, preprocessing=preprocessing), numbers)
        return list(track(studies, description="simulate", total=len(numbers)))


def simulate_study(seed: int, number: int, preprocessing: Preprocessing) -> Study:
    """One patient of a cohort."""
    patient = simulate_patient(seed, number)
    frames = tuple(FrameReference("", k + 1) for k in range(len(patient.mask)))
    stacks = []
    for skull_stripped in (False, True):
        for sequence in SEQUENCES:
            volume = patient.volumes[sequence]
            shown = np.where(patient.brain, volume, np.float32(0)) if skull_stripped else volume
            slices = draw_slices(Volume(shown, patient.affine, Plane.AXIAL, frames), preprocessing)
            pixels = np.rint(slices.pixels * 255).astype(np.uint8)
            levels = np.array([frame.frame_number - 1 for frame in slices.frames])
            stacks.append(Stack(sequence, skull_stripped, pixels, levels))
    tumour_levels = np.flatnonzero(patient.mask.any(axis=(1, 2)))
    return Study(tuple(stacks), tumour_levels, _place(patient), patient.parameters.glioma.radius)


def _place(patient: SimulatedPatient) -> npt.NDArray[np.float64]:
    head, glioma = patient.parameters.head, patient.parameters.glioma
    turn = Rotation.from_euler("xyz", head.turn, degrees=True)
    place: npt.NDArray[np.float64] = turn.inv().apply(np.subtract(glioma.centre, head.shift)) / head.scale
    return place
