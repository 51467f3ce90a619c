"""Stacks of slices as the encoder sees them, and what is known about them: a manifest's, or simulated ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.spatial.transform import Rotation

from pacs_cbir.dicom.volume import FrameReference, Plane, Volume
from pacs_cbir.embed.preprocess import Preprocessing, draw_slices
from pacs_cbir.errors import ManifestError, NotAVolume
from pacs_cbir.learn.manifest import FIRST_ROW, Manifest, Row
from pacs_cbir.learn.parameters import PatientParameters
from pacs_cbir.learn.phantom import SEQUENCES, simulate_patient
from pacs_cbir.learn.sources import Source, read_sources

PICTURE_SIZE = 128
"""Edge in pixels of the picture and the mask that relevance is taken of."""

Change = Callable[[Source], Source]

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Stack:
    """One MR sequence of one study, as the encoder sees it, with what is known about it.

    Attributes:
        patient: pseudonym; a study whose patient is not known has one of its own.
        study: name of the study.
        sequence: T1, T1CE, T2, FLAIR, ... or "unknown".
        plane: of the drawn slices: axial, coronal or sagittal.
        split, label: as in the manifest.
        pixels: float16, shape (n, size, size), in [0, 1], as `draw_slices` gives them.
        levels: int, shape (n,): the manifest's number of each slice; where a volume was resliced, 0 to n - 1.
        positions: float64, shape (n,), mm along the plane's normal: equal ones of a study are of one place.
        masks: bool, shape (n, size, size): the lesion, drawn alike; None where it is not known.
        best: which of the n shows the largest mask; None where no mask is known, or none shows anything.
        picture: float32, shape (128, 128): the whole field of the source's slice `levels[best]`, or of its only slice,
            in [0, 1] of the source's own scale; None where there is neither.
        truth: bool, shape (128, 128): the mask of that slice, where it covers half of a pixel or more.
        parameters: of a simulated patient: place_x_mm, place_y_mm, place_z_mm, radius_mm, enhancement; else empty.
        body_part: as in the manifest; empty where it is not known.
    """

    patient: str
    study: str
    sequence: str
    plane: str
    split: str | None
    label: str | None
    pixels: npt.NDArray[np.float16]
    levels: npt.NDArray[np.intp]
    positions: npt.NDArray[np.float64]
    masks: npt.NDArray[np.bool_] | None
    best: int | None
    picture: npt.NDArray[np.float32] | None
    truth: npt.NDArray[np.bool_] | None
    parameters: Mapping[str, float] = field(default_factory=dict)
    body_part: str = ""


def load_stacks(
    manifest: Manifest,
    preprocessing: Preprocessing,
    *,
    splits: Collection[str] | None = None,
    change: Change | None = None,
) -> list[Stack]:
    """Read the pictures of a manifest and draw them as the worker does, one process a core.

    Args:
        splits: of these splits alone; None for all rows.
        change: what is done to each source before it is drawn, such as one of `disturb.CHANGES`.

    Returns:
        the stacks in the order of their first rows.

    Raises:
        ManifestError: files that cannot be read or drawn, by row; all of them.
    """
    if unknown := sorted(set(splits or ()) - {row.split for row in manifest.rows}):
        there = ", ".join(sorted({row.split for row in manifest.rows if row.split})) or "none"
        raise ManifestError("the data set", [f"no row is in split {', '.join(unknown)!r}; there are: {there}"])
    groups: dict[tuple[str, ...], list[tuple[int, Row]]] = {}
    for number, row in enumerate(manifest.rows, FIRST_ROW):
        if splits is None or row.split in splits:
            groups.setdefault(row.stack, []).append((number, row))
    loaded = _in_parallel(partial(_load, preprocessing, change), list(groups.values()), "Reading")
    if faults := sorted(fault for _, found in loaded for fault in found):
        raise ManifestError("the data set", [f"row {number}: {fault}" for number, fault in faults])
    return [stack for stacks, _ in loaded for stack in stacks]


def simulate_stacks(
    seed: int,
    numbers: Sequence[int],
    preprocessing: Preprocessing,
    *,
    skull_stripped: bool = False,
    change: Change | None = None,
) -> list[Stack]:
    """Simulate patients and draw them, four sequences each, one process a core; the truth is their mask."""
    simulate = partial(_simulate, seed, preprocessing, skull_stripped, change)
    return [stack for stacks in _in_parallel(simulate, numbers, "Simulating") for stack in stacks]


def _in_parallel(work: Callable[[_Task], _Result], tasks: Sequence[_Task], description: str) -> list[_Result]:
    processes = max(1, min(os.cpu_count() or 1, len(tasks)))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        done = track(pool.map(work, tasks), description, total=len(tasks), console=Console(stderr=True))
        return list(done)


def _load(
    preprocessing: Preprocessing, change: Change | None, rows: list[tuple[int, Row]]
) -> tuple[list[Stack], list[tuple[int, str]]]:
    """The stacks of some rows, and the faults that were found, each with its row's number."""
    sources, faults = read_sources(rows)
    if faults:
        return [], faults
    first, row = rows[0]
    try:
        stacks = [
            _draw(
                source,
                preprocessing,
                row.owner,
                row.study,
                row.sequence,
                split=row.split,
                label=row.label,
                body_part=row.body_part or "",
            )
            for source in (sources if change is None else map(change, sources))
        ]
    except NotAVolume as error:
        return [], [(first, f"{row.sequence} of {row.study} cannot be drawn: {error}; leave its rows out")]
    return stacks, []


def _draw(
    source: Source,
    preprocessing: Preprocessing,
    patient: str,
    study: str,
    sequence: str,
    *,
    split: str | None = None,
    label: str | None = None,
    body_part: str = "",
    parameters: Mapping[str, float] | None = None,
) -> Stack:
    slices = draw_slices(source.volume, preprocessing, source.mask)
    drawn_from = np.array([frame.frame_number - 1 for frame in slices.frames])
    resliced = slices.plane is not source.volume.plane
    best = None
    if source.mask is not None and slices.masks is not None and slices.masks.any():
        # A mask that is drawn smaller loses pixels at its rim, so the source's own decides where there is one.
        areas = (slices.masks if resliced else source.mask[drawn_from]).sum(axis=(1, 2))
        best = int(areas.argmax())
    shown = None
    if not resliced and best is not None:
        shown = int(drawn_from[best])
    elif len(source.volume.array) == 1:
        shown = 0
    return Stack(
        patient=patient,
        study=study,
        sequence=sequence,
        plane=slices.plane.value.lower(),
        split=split,
        label=label,
        pixels=slices.pixels.astype(np.float16),
        levels=np.arange(len(drawn_from)) if resliced else source.numbers[drawn_from],
        positions=slices.positions_mm,
        masks=slices.masks,
        best=best,
        picture=None if shown is None else _resized(source.volume.array[shown] / source.white).clip(0, 1),
        truth=None if shown is None or source.mask is None else _resized(source.mask[shown]) >= 0.5,
        parameters=parameters or {},
        body_part=body_part,
    )


def _resized(image: npt.NDArray[np.float32] | npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The whole field in 128 x 128 pixels, each the mean of what it covers."""
    resized = Image.fromarray(image.astype(np.float32)).resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BOX)
    return np.asarray(resized, np.float32)


def _simulate(
    seed: int, preprocessing: Preprocessing, skull_stripped: bool, change: Change | None, number: int
) -> list[Stack]:
    simulated = simulate_patient(seed, number, skull_stripped=skull_stripped)
    name = f"simulated {seed}-{number}"
    frames = tuple(FrameReference("", k + 1) for k in range(len(simulated.mask)))
    levels = np.arange(len(frames))
    parameters = _parameters(simulated.parameters)
    stacks = []
    for sequence in SEQUENCES:
        volume = Volume(simulated.volumes[sequence], simulated.affine, Plane.AXIAL, frames)
        source = Source(volume, simulated.mask > 0, levels, float(volume.array.max()))
        shown = source if change is None else change(source)
        stacks.append(_draw(shown, preprocessing, name, name, sequence, parameters=parameters))
    return stacks


def _parameters(drawn: PatientParameters) -> dict[str, float]:
    """What a reader of the pictures could see: place in mm in a head of average size and position, size, contrast."""
    head, glioma = drawn.head, drawn.glioma
    turn = Rotation.from_euler("xyz", head.turn, degrees=True)
    place = turn.inv().apply(np.subtract(glioma.centre, head.shift)) / head.scale
    named = {f"place_{axis}_mm": float(value) for axis, value in zip("xyz", place, strict=True)}
    return named | {"radius_mm": glioma.radius, "enhancement": glioma.enhancement}
