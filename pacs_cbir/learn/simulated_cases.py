"""Writes simulated patients as cases of BraTS 2021: for training and measuring, which read masks beside volumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from pacs_cbir.errors import DiskUnavailable
from pacs_cbir.learn.phantom import simulate_patient
from pacs_cbir.learn.simulate import check_cohort, save_nifti


def simulate_cases(out: Path, *, patients: int, seed: int, skull_stripped: bool = False) -> Iterator[Path]:
    """Write `patients` cases below `out`, one process a core, one case each time the iterator is advanced.

    The layout is that of BraTS 2021 (Baid et al., arXiv:2107.02314): OUT/CASE/CASE_t1.nii.gz, _t1ce, _t2, _flair and
    _seg, and truth.json beside them. Slices keep their own thickness. The same seed gives the same voxels, whatever
    the number of patients.

    Raises:
        SettingsError, DiskUnavailable: as `simulate_cohort`.
    """
    check_cohort(out, patients, seed)
    return _write_all(partial(_write_case, out, seed, skull_stripped), range(1, patients + 1))


def _write_all(write: partial[Path], numbers: range) -> Iterator[Path]:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, numbers)


def _write_case(out: Path, seed: int, skull_stripped: bool, number: int) -> Path:
    patient = simulate_patient(seed, number, skull_stripped=skull_stripped)
    name = f"SIM-{'brain' if skull_stripped else 'head'}-{seed}_{number:05d}"
    folder = out / name
    try:
        folder.mkdir(parents=True)
        for sequence, volume in patient.volumes.items():
            path = folder / f"{name}_{sequence.lower()}.nii.gz"
            save_nifti(path, volume.astype(np.int16), patient.affine)
        save_nifti(folder / f"{name}_seg.nii.gz", patient.mask, patient.affine)
        parameters = {"seed": seed, "number": number, "parameters": asdict(patient.parameters)}
        (folder / "truth.json").write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DiskUnavailable(f"cannot write below {out}: {error.strerror or error}") from error
    return folder
