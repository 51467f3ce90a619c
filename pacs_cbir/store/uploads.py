"""Pictures that came with a question: on disk while it is answered, and never longer."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs_cbir.settings import Settings
from pacs_cbir.store.files import disk_errors
from pacs_cbir.store.room import require_room


@contextmanager
def upload_folder(settings: Settings) -> Iterator[Path]:
    """An empty folder for one request's files, for this user alone; it is gone after the block, however that ends.

    Raises:
        DiskFull, DiskUnavailable: it cannot be made.
    """
    require_room(settings)
    folder = settings.uploads_dir / uuid.uuid4().hex
    with disk_errors():
        folder.mkdir(mode=0o700)
        # A process that dies loses its locks, and what it left is told from what another one uses.
        lock = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def purge_uploads(settings: Settings) -> int:
    """Remove what processes that died left behind; other processes' uploads under way stay.

    Returns:
        how many uploads were removed.

    Raises:
        DiskUnavailable: they cannot be.
    """
    removed = 0
    with disk_errors():
        for folder in settings.uploads_dir.iterdir():
            try:
                lock = _locked(folder)
            except (BlockingIOError, FileNotFoundError):
                continue
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            removed += 1
    return removed


def _locked(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
