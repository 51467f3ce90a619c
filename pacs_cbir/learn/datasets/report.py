"""What a command says about the manifest that it wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.manifest import Manifest, Row, missing_sequences
from pacs_cbir.learn.manifest_check import check
from pacs_cbir.learn.manifest_file import write_manifest
from pacs_cbir.learn.pictures import Format, format_of, read_picture_mask


def save(rows: Iterable[Row], notes: Iterable[str], out: Path, console: Console) -> None:
    """Check rows, write them, and print what they are and what was left out.

    Raises:
        ManifestError: rows are at fault; nothing is written.
    """
    manifest = Manifest(tuple(rows))
    check(manifest, out.name)
    table = _table(manifest, out.name)
    write_manifest(manifest, out)
    console.print(table)
    for line in [*notes, *missing_sequences(manifest)]:
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    console.print(str(out), highlight=False, markup=False, soft_wrap=True)


def _table(manifest: Manifest, called: str) -> Table:
    masked: set[Path] = set()
    faults: list[str] = []
    for mask in sorted({row.mask for row in manifest.rows if row.mask is not None}):
        try:
            if _shows_lesion(mask):
                masked.add(mask)
        except ManifestError as error:
            faults += error.faults
    if faults:
        raise ManifestError(called, faults)
    table = Table(
        "sequence", caption="A row is a slice, a volume, or a DICOM instance. Empty masks of pictures are not counted."
    )
    for name in ("patients", "studies", "rows", "with mask", "with label"):
        table.add_column(name, justify="right")
    for sequence in [*sorted({row.sequence for row in manifest.rows}), "all"]:
        rows = [row for row in manifest.rows if sequence in {row.sequence, "all"}]
        counts = (
            len({row.owner for row in rows}),
            len({(row.owner, row.study) for row in rows}),
            len(rows),
            sum(row.mask in masked for row in rows),
            sum(row.label is not None for row in rows),
        )
        table.add_row(escape(sequence), *map(str, counts))
    return table


def _shows_lesion(mask: Path) -> bool:
    """Of a volume not looked at: that would take as long as to read the data set."""
    return format_of(mask) is not Format.PICTURE or bool(read_picture_mask(mask).any())
