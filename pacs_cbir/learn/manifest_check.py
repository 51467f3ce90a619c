"""What is wrong with a manifest's rows, as far as it can be seen without reading pixels."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.copies import copies_of_others
from pacs_cbir.learn.manifest import FIRST_ROW, Manifest, Row
from pacs_cbir.learn.pictures import Format, channels_of, format_of, shape_of


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


def _file_faults(row: Row) -> Iterable[str]:
    for path in filter(None, (row.path, row.mask)):
        try:
            missing = not path.is_file()
            empty = not missing and not path.stat().st_size
        except OSError as error:
            yield f"{path} cannot be looked for: {error.strerror}: correct the path or remove the row"
            return
        if missing:
            yield f"{path} is missing: correct the path or remove the row"
            return
        if empty:
            yield f"{path} is empty (0 bytes): copy it again, or remove the row"
            return
    try:
        if format_of(row.path) is not Format.DICOM:
            shape_of(row.path)  # whether its header can be read
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
        for name in ("split", "label", "plane", "body_part", "spacing_mm", "slice_spacing_mm"):
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
