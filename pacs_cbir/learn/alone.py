"""One run at a time where one is written: two would take each other's half-written files for their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fasteners

from pacs_cbir.errors import DiskUnavailable, RecipeError


@contextmanager
def alone(lock: Path, where: Path) -> Iterator[None]:
    """Hold a lock while a run writes; it ends with the process, whatever ends that. The empty file stays.

    Args:
        lock: the file that is locked; folders are made.
        where: what is written, for the message.

    Raises:
        RecipeError: another process has it.
        DiskUnavailable: the file cannot be made.
    """
    held = fasteners.InterProcessLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        mine = held.acquire(blocking=False)
    except OSError as error:
        raise DiskUnavailable(f"{lock} cannot be written: {error.strerror or error}") from error
    if not mine:
        raise RecipeError(f"another run writes {where}: wait for it, or name another place")
    try:
        yield
    finally:
        held.release()
