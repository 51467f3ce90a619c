"""BraTS' folders: those of 2021 (Baid et al., arXiv:2107.02314) and of 2023 (Kazerooni et al., arXiv:2305.17033)."""

from __future__ import annotations

import re
from pathlib import Path

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.datasets.files import files_below
from pacs_cbir.learn.manifest import Row

_SEQUENCES = {
    "t1": "T1",
    "t1ce": "T1CE",
    "t2": "T2",
    "flair": "FLAIR",
    "t1n": "T1",
    "t1c": "T1CE",
    "t2w": "T2",
    "t2f": "FLAIR",
}
_FILE = re.compile(r"(?P<case>.+)(?:_(?P<of2021>t1|t1ce|t2|flair|seg)|-(?P<of2023>t1n|t1c|t2w|t2f|seg))\.nii(\.gz)?")
_TIME_POINT = re.compile(r"(?P<patient>BraTS-\w+-\d+)-\d+")
"""Names of 2023 and later: site and patient, then the number of the study."""


def brats_rows(folder: Path) -> tuple[list[Row], list[str]]:
    """The cases below a folder, however deep: four volumes each, with the segmentation as mask; its every label is
    lesion.

    Returns:
        a row a volume, and what should be known: cases without segmentation.

    Raises:
        ManifestError: there is none.
    """
    cases: dict[Path, dict[str, Path]] = {}
    for path in files_below(folder):
        if found := _FILE.fullmatch(path.name):
            part = found["of2021"] or found["of2023"]
            cases.setdefault(path.with_name(found["case"]), {})[part] = path
    rows = []
    for case, files in cases.items():
        time_point = _TIME_POINT.fullmatch(case.name)
        patient = time_point["patient"] if time_point else case.name
        for part, sequence in _SEQUENCES.items():
            if part in files:
                rows.append(
                    Row(
                        path=files[part],
                        patient=patient,
                        study=case.name,
                        sequence=sequence,
                        mask=files.get("seg"),
                        body_part="BRAIN",
                    )
                )
    if not rows:
        raise ManifestError(
            str(folder), ["no BraTS case: expected CASE/CASE_flair.nii.gz (2021) or CASE/CASE-t2f.nii.gz (2023)"]
        )
    return rows, [f"{case.name} has no segmentation" for case, files in cases.items() if "seg" not in files]
