"""The table that training and evaluation read: one row a slice or volume, with whose it is and what is known of it."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.columns import read_table, write_table
from pacs_cbir.learn.copies import copies_of_others
from pacs_cbir.learn.pictures import Format, channels_of, format_of, shape_of

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


_REQUIRED = tuple(name for name, field in Row.model_fields.items() if field.is_required())
_COLUMN_TYPES = {
    "slice": pa.int64(),
    "channel": pa.int64(),
    "spacing_mm": pa.float64(),
    "slice_spacing_mm": pa.float64(),
}


def read_manifest(path: Path) -> Manifest:
    """Read a CSV or Parquet file, told apart by the suffix.

    Raises:
        ManifestError: the file cannot be read, or rows are at fault: all of them are listed.
    """
    records = read_table(path)
    columns = set(records[0]) if records else set()
    faults = [f"row 1: column '{name}' is missing: add it" for name in _REQUIRED if records and name not in columns]
    if unknown := sorted(columns - Row.model_fields.keys()):
        known = ", ".join(Row.model_fields)
        faults.append(
            f"row 1: columns {', '.join(unknown)} are not known: rename them or leave them out; known: {known}"
        )
    if faults:
        raise ManifestError(path.name, faults)
    manifest = Manifest(tuple(parse_rows(records, path)))
    check(manifest, path.name)
    return manifest


def parse_rows(records: Sequence[Mapping[str, Any]], table: Path) -> list[Row]:
    """Rows from a table's values, with paths relative to its folder.

    Raises:
        ManifestError: there are none, or values are at fault: all of them are listed.
    """
    rows, faults = [], []
    for number, record in enumerate(records, FIRST_ROW):
        try:
            rows.append(_row(record, table.parent))
        except ValidationError as error:
            faults += [f"row {number}: {_explained(fault)}" for fault in error.errors()]
    if faults or not rows:
        raise ManifestError(table.name, faults or ["no rows: one at least is needed"])
    return rows


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a CSV or Parquet file, by the suffix, with paths relative to its folder.

    Raises:
        ManifestError: another suffix, or it cannot be written.
    """
    folder = path.parent.resolve()
    records = [row.model_dump() for row in manifest.rows]
    for record in records:
        for name in ("path", "mask"):
            record[name] = record[name] and os.path.relpath(record[name], folder)
    schema = pa.schema([(name, _COLUMN_TYPES.get(name, pa.string())) for name in Row.model_fields])
    write_table(pa.Table.from_pylist(records, schema), path)


def check(manifest: Manifest, name: str) -> None:
    """Look for everything that can be seen without reading pixels.

    Args:
        name: of the manifest, for the message.

    Raises:
        ManifestError: with all faults, by row.
    """
    numbered = list(enumerate(manifest.rows, FIRST_ROW))
    faults = [(number, fault) for number, row in numbered for fault in _file_faults(row)]
    faults += _two_splits(numbered)
    faults += _two_owners(numbered)
    faults += _copies(numbered)
    faults += _known_in_part(numbered)
    for rows in _grouped(numbered, lambda row: row.stack).values():
        faults += _stack_faults(rows)
    if faults:
        raise ManifestError(name, [f"row {number}: {fault}" for number, fault in sorted(faults)])


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


def _row(record: Mapping[str, Any], folder: Path) -> Row:
    fields = {name: value for name, value in record.items() if value is not None}
    paths = {
        name: os.path.normpath(folder.resolve() / str(fields[name])) for name in ("path", "mask") if name in fields
    }
    return Row(**({"patient": ""} | fields | paths))


def _explained(fault: Mapping[str, Any]) -> str:
    name, value = fault["loc"][0], fault.get("input")
    if fault["type"] == "missing":
        return f"{name} is empty: fill it in"
    return f"{name} '{value}': {fault['msg'].lower()}; correct it"


def _file_faults(row: Row) -> Iterable[str]:
    for path in (row.path, row.mask):
        try:
            missing = path is not None and not path.is_file()
        except OSError as error:
            yield f"{path} cannot be looked for: {error.strerror}: correct the path or remove the row"
            return
        if missing:
            yield f"{path} is missing: correct the path or remove the row"
            return
    try:
        yield from _channel_faults(row)
        yield from _mask_faults(row)
    except ManifestError as error:
        yield from error.faults


def _channel_faults(row: Row) -> Iterable[str]:
    if row.channel is not None and format_of(row.path) is Format.PICTURE:
        channels = channels_of(row.path)
        if row.channel >= channels:
            yield f"{row.path.name} has {channels} channels, and none numbered {row.channel}: the first is 0"


def _mask_faults(row: Row) -> Iterable[str]:
    if row.mask is None:
        return
    if format_of(row.path) is Format.DICOM:
        yield "masks of DICOM files are not read: convert image and mask to NIfTI, or leave the mask out"
        return
    shape, mask_shape = shape_of(row.path), shape_of(row.mask)
    if shape != mask_shape:
        yield f"{row.mask.name} is {_times(mask_shape)}, its picture {_times(shape)}: export the mask in the same size"


def _two_splits(numbered: list[tuple[int, Row]]) -> Iterable[tuple[int, str]]:
    for owner, rows in _grouped(numbered, lambda row: row.owner).items():
        first, split = next(((number, row.split) for number, row in rows if row.split), (0, None))
        for number, row in rows:
            if row.split not in {None, split}:
                yield (
                    number,
                    f"patient {owner} is in split '{row.split}' here and in '{split}' in row {first}: choose one",
                )
                break


def _two_owners(numbered: list[tuple[int, Row]]) -> Iterable[tuple[int, str]]:
    """One picture of two patients would be trained on and measured, or be its own match."""
    for rows in _grouped(numbered, lambda row: row.path).values():
        first, model = rows[0]
        for number, row in rows[1:]:
            if row.owner != model.owner:
                yield number, f"{row.path.name} is another patient's in row {first}: name its one patient"
                break


def _copies(numbered: list[tuple[int, Row]]) -> Iterable[tuple[int, str]]:
    """The same under two names."""
    firsts = {row.path: (number, row) for number, row in reversed(numbered)}
    named = sorted(firsts.values(), key=lambda one: one[0])
    for paths in copies_of_others({row.path: row.owner for _, row in named}):
        (first, model), *others = [firsts[path] for path in paths]
        for number, row in others:
            if row.owner != model.owner:
                yield number, f"{row.path.name} is, byte by byte, another patient's in row {first}: leave one out"


def _known_in_part(numbered: list[tuple[int, Row]]) -> Iterable[tuple[int, str]]:
    """One study of two owners: its patient, and the nobody that rows without one would be."""
    named = {row.study: number for number, row in reversed(numbered) if row.patient}
    for number, row in numbered:
        if not row.patient and row.study in named:
            yield number, f"patient is empty, and row {named[row.study]} names one of the same study: fill it in"


def _stack_faults(rows: list[tuple[int, Row]]) -> Iterable[tuple[int, str]]:
    seen: dict[int | None, int] = {}
    first, model = rows[0]
    for number, row in rows:
        if row.slice in seen and not (row.slice is None and format_of(row.path) is Format.DICOM):
            remedy = "number the slices" if row.slice is None else "leave one out"
            yield number, f"the same slice of {row.study}, {row.sequence}, as row {seen[row.slice]}: {remedy}"
        seen.setdefault(row.slice, number)
        if (row.mask is None) != (model.mask is None):
            yield number, f"this slice or that of row {first} has no mask: give every slice of a stack one, or none"
        for name in ("split", "label", "plane", "spacing_mm", "slice_spacing_mm"):
            if getattr(row, name) != getattr(model, name):
                yield number, f"another {name} than row {first} of the same stack: make them alike"
        if format_of(row.path) is not format_of(model.path):
            yield number, f"another kind of file than row {first} of the same stack: make them alike"
        elif row.path != model.path and format_of(row.path) is Format.PICTURE:
            with contextlib.suppress(ManifestError):  # what cannot be read is another fault, named where it is read
                if (shape := shape_of(row.path)) != (other := shape_of(model.path)):
                    yield (
                        number,
                        f"{row.path.name} is {_times(shape)}, row {first} of its stack {_times(other)}: export alike",
                    )


def _grouped(numbered: list[tuple[int, Row]], key: Any) -> dict[Hashable, list[tuple[int, Row]]]:
    groups: dict[Hashable, list[tuple[int, Row]]] = defaultdict(list)
    for number, row in numbered:
        groups[key(row)].append((number, row))
    return groups


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
