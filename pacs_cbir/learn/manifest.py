"""The table that training and evaluation read: one row a slice or volume, with whose it is and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pacs_cbir.dicom.body_part import canonical

FIRST_ROW = 2
"""Rows are counted as a spreadsheet counts them: row 1 holds the columns' names."""
UNKNOWN_PATIENT = "patient of "
"""Begins the name that a study's own patient has."""
LISTED = 10
"""Studies that a warning names; the others are counted."""

_Number = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Millimetres = Annotated[float, Field(ge=0.1, le=1000)]
"""Of finer pixels an encoder's field of view would be a picture that no memory holds."""


class Row(BaseModel):
    """A slice, or a volume whose every slice is meant.

    Attributes:
        path: a picture, a NIfTI file or a DICOM file; relative to the manifest's folder in the file, absolute here.
        patient: a pseudonym; empty where it is not known, and then the study is a patient of its own.
        study, series: names; a study's series need one where two are of one sequence.
        sequence: T1, T1CE, T2, FLAIR, ... or "unknown".
        slice: its number, ascending along the plane's normal (feet→head of an axial one); of a NIfTI file its index
            from 0, and empty for all of them; empty for DICOM, where the header has the position.
        channel: of a picture, from 0; empty for its luminance.
        mask: of the lesion, with the shape of `path`; whatever is not 0 is lesion.
        plane: of a picture; axial where it is empty.
        body_part: that is shown, in any words; here BRAIN, KNEE, ..., as the service tells stored series'.
        label, split: as the data set's maker has them.
        spacing_mm: width of a picture's pixel.
        slice_spacing_mm: distance between a picture's slices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True)

    path: Path
    patient: str
    study: str = Field(min_length=1)
    sequence: str = Field(min_length=1)
    series: str | None = None
    slice: _Number | None = None
    channel: _Number | None = Field(default=None, ge=0)
    mask: Path | None = None
    plane: Literal["axial", "coronal", "sagittal"] | None = None
    body_part: Annotated[str | None, AfterValidator(lambda name: canonical(name or "") or None)] = None
    label: str | None = None
    split: str | None = None
    spacing_mm: _Millimetres | None = None
    slice_spacing_mm: _Millimetres | None = None

    @property
    def owner(self) -> str:
        """The patient; a name that no other study has where it is not known."""
        return self.patient or f"{UNKNOWN_PATIENT}{self.study}"

    @property
    def stack(self) -> tuple[str, str, str, str]:
        """What the rows of one stack share."""
        return (self.owner, self.study, self.series or "", self.sequence)


@dataclass(frozen=True)
class Manifest:
    """All rows, in the file's order."""

    rows: tuple[Row, ...]


def missing_sequences(manifest: Manifest) -> list[str]:
    """What is no fault and should be known: studies that lack a sequence which others have, a line a sequence."""
    studies: dict[tuple[str, str], tuple[int, set[str]]] = {}
    for number, row in enumerate(manifest.rows, FIRST_ROW):
        studies.setdefault((row.owner, row.study), (number, set()))[1].add(row.sequence)
    warnings = []
    for sequence in sorted({row.sequence for row in manifest.rows} - {"unknown"}):
        lacking = [f"{study} (row {first})" for (_, study), (first, has) in studies.items() if sequence not in has]
        if lacking:
            more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
            named = ", ".join(lacking[:LISTED]) + more
            warnings.append(f"{sequence} is missing in {len(lacking)} of {len(studies)} studies: {named}")
    return warnings
