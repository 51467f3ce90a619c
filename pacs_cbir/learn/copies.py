"""Pictures that are there twice under two names: links, and copies byte by byte."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.pictures import Format, format_of, is_of_one_grey

_Key = TypeVar("_Key", bound=Hashable)


def copies_of_others(owners: Mapping[Path, str]) -> Iterator[list[Path]]:
    """Files of several patients that hold the same, each group in the order of `owners`.

    Only files of equal size are read. Pictures of one grey value are left out: black slices at the ends of a stack are
    alike, and tell nobody.

    Args:
        owners: file → its patient.
    """
    for sized in _grouped(owners, _size, owners):
        for alike in _grouped(sized, _sha256, owners):
            if not _is_plain(alike[0]):
                yield alike


def _grouped(paths: Iterable[Path], key: Callable[[Path], _Key | None], owners: Mapping[Path, str]) -> list[list[Path]]:
    """Those with the same key, of more than one patient; files without a key are left out."""
    groups: defaultdict[_Key, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            found = key(path)
        except OSError:  # another fault, named where the file is looked for
            continue
        if found is not None:
            groups[found].append(path)
    return [group for group in groups.values() if len({owners[path] for path in group}) > 1]


def _size(path: Path) -> int | None:
    return path.stat().st_size or None


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _is_plain(path: Path) -> bool:
    try:
        return format_of(path) is Format.PICTURE and is_of_one_grey(path)
    except ManifestError:
        return False
