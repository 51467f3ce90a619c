"""The LGG set of Buda et al. (Comput Biol Med 2019;109:218) as Kaggle has it: kaggle_3m."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.datasets.files import files_below
from pacs_cbir.learn.manifest import Row
from pacs_cbir.learn.pictures import read_picture

CHANNELS = ("T1", "FLAIR", "T1CE")
COPY_TOLERANCE = 1 / 255
"""Mean difference up to which one channel is another's copy: stored without loss it is 0, with loss less than this."""

_SLICE = re.compile(r"(?P<patient>TCGA_.+)_(?P<number>\d+)\.tif")


def kaggle3m_rows(folder: Path) -> tuple[list[Row], list[str]]:
    """The patients below a folder: TCGA_*/TCGA_*_N.tif of three channels, T1, FLAIR and T1CE, and TCGA_*_N_mask.tif.

    The set replaces a missing sequence by FLAIR; such a channel is left out.

    Returns:
        a row a slice and sequence, and which sequences were left out.

    Raises:
        ManifestError: there is none, or a picture cannot be read or has fewer channels.
    """
    patients: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in files_below(folder):
        if found := _SLICE.fullmatch(path.name):
            patients[found["patient"]].append((int(found["number"]), path))
    if not patients:
        raise ManifestError(str(folder), ["no patient: expected TCGA_*/TCGA_*_N.tif"])
    rows: list[Row] = []
    notes: list[str] = []
    faults: list[str] = []
    for patient, slices in sorted(patients.items()):
        try:
            copies = _copies_of_flair([path for _, path in slices])
        except ManifestError as error:
            faults += error.faults
            continue
        notes += [f"{CHANNELS[copy]} of {patient} is a copy of FLAIR, so missing: left out" for copy in copies]
        rows += [
            Row(
                path=path,
                patient=patient,
                study=patient,
                sequence=sequence,
                slice=number,
                channel=channel,
                mask=path.with_name(f"{path.stem}_mask.tif"),
                body_part="BRAIN",
            )
            for channel, sequence in enumerate(CHANNELS)
            if channel not in copies
            for number, path in sorted(slices)
        ]
    if faults:
        raise ManifestError(str(folder), faults)
    return rows, notes


def _copies_of_flair(paths: list[Path]) -> list[int]:
    """The channels, T1's or T1CE's, that equal FLAIR's in every slice."""
    candidates = [CHANNELS.index("T1"), CHANNELS.index("T1CE")]
    for path in paths:
        flair = read_picture(path, CHANNELS.index("FLAIR"))
        candidates = [
            channel for channel in candidates if np.abs(read_picture(path, channel) - flair).mean() <= COPY_TOLERANCE
        ]
        if not candidates:
            break
    return candidates
