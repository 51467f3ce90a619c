"""The files below a folder, through symbolic links too: data sets are often put together of links."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """All files, however deep, sorted; a folder that several links lead to, or one back to itself, counts once."""
    seen: set[str] = set()
    found: list[Path] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(root)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders.sort()
        found += [path for name in names if (path := Path(root, name)).is_file()]
    return sorted(found)
