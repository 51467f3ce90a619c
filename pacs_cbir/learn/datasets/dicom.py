"""A folder of DICOM files."""

from __future__ import annotations

from collections import defaultdict
from operator import itemgetter
from pathlib import Path

from rich.console import Console
from rich.progress import track

from pacs_cbir.dicom.instance import read_instance
from pacs_cbir.dicom.volume import build_volume, read_stacks
from pacs_cbir.errors import InstanceError, ManifestError, VolumeError
from pacs_cbir.learn.datasets.files import files_below
from pacs_cbir.learn.manifest import LISTED, Row

_Series = dict[str, list[Path]]
_Studies = dict[str, _Series]
_LeftOut = dict[str, list[str]]
"""Why → which."""


def dicom_rows(folder: Path) -> tuple[list[Row], list[str]]:
    """The MR series below a folder that are volumes, whatever their files are called, each with its sequence and part
    of the body as the service tells them.

    Patients, studies and series are numbered in the order of their identifiers, which the rows do not hold; the paths
    stay as they are. A study without PatientID is a patient of its own.

    Returns:
        a row a file, and how many files, series and stacks were left out, why, and which: by their path below the
        folder, series with their numbers and their first file's path.

    Raises:
        ManifestError: nothing can be used.
    """
    left_out: _LeftOut = defaultdict(list)
    patients: dict[tuple[str, str], _Studies] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for path in track(files_below(folder), "Reading headers", console=Console(stderr=True)):
        try:
            instance = read_instance(path)
        except (InstanceError, OSError) as error:
            left_out[f"file: {error}"].append(str(path.relative_to(folder)))
            continue
        patient_key = (instance.issuer_of_patient_id, instance.patient_id)
        patients[patient_key][instance.study_instance_uid][instance.series_instance_uid].append(path)
    rows: list[Row] = []
    studies = [(key, study) for key, found in sorted(patients.items()) for _, study in sorted(found.items())]
    numbers = {key: f"patient {number:05d}" for number, key in enumerate(sorted(filter(itemgetter(1), patients)), 1)}
    for number, (key, study) in enumerate(track(studies, "Decoding", console=Console(stderr=True)), 1):
        patient = numbers.get(key, "")
        for place, (_, files) in enumerate(sorted(study.items()), 1):
            name = f"study {number:05d}, series {place} ({files[0].relative_to(folder)})"
            rows += _series_rows(files, patient, f"study {number:05d}", str(place), name=name, left_out=left_out)
    notes = [f"left out: {len(which)} x {reason}: {_listed(which)}" for reason, which in sorted(left_out.items())]
    if not rows:
        raise ManifestError(str(folder), ["no MR series that can be embedded", *notes])
    return rows, notes


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return "; ".join(names[:LISTED]) + more


def _series_rows(
    files: list[Path], patient: str, study: str, series: str, *, name: str, left_out: _LeftOut
) -> list[Row]:
    try:
        stacks = read_stacks(files)
    except VolumeError as error:
        left_out[f"series: {error}"].append(name)
        return []
    found: set[tuple[str, Path]] = set()
    parts: dict[str, set[str]] = defaultdict(set)
    for stack in stacks:
        try:
            build_volume(stack)
        except VolumeError as error:
            left_out[f"stack: {error}"].append(name)
            continue
        sequence = str(stack.sequence.sequence)
        found |= {(sequence, frame.path) for frame in stack.frames}
        parts[sequence].add(stack.body_part)
    return [
        Row(
            path=path,
            patient=patient,
            study=study,
            series=series,
            sequence=sequence,
            # Of stacks of one sequence that show different parts, none is the row's.
            body_part=min(parts[sequence]) if len(parts[sequence]) == 1 else None,
        )
        for sequence, path in sorted(found)
    ]
