"""An instance on its way in: a file in the incoming directory that grows no further than the disk's reserve."""

from __future__ import annotations

import contextlib
import uuid
import weakref
from pathlib import Path

from pacs_cbir.settings import Settings
from pacs_cbir.store.files import disk_errors
from pacs_cbir.store.room import require_room

LOOK_AT_ROOM_BYTES = 16 << 20
"""How much of a transfer is written before the room on the disk is looked at again."""


class IncomingFile:
    """One transfer's file; it is removed once nothing refers to it, unless it was renamed.

    The disk's reserve is looked at before the first byte is kept, and again as a large transfer grows.

    Attributes:
        path: where it is.
        size: bytes so far.

    Raises:
        DiskFull, DiskUnavailable: it cannot be made.
    """

    def __init__(self, settings: Settings) -> None:
        require_room(settings)
        self._settings = settings
        self.path = settings.incoming_dir / f"{uuid.uuid4().hex}.part"
        self.size = self._looked_at = 0
        with disk_errors():
            # 64 KiB of buffer: fragments are as small as the peer's PDUs.
            self._file = self.path.open("xb", buffering=1 << 16)
        self._remove = weakref.finalize(self, _remove, self.path)

    def write(self, data: bytes | memoryview) -> None:
        """Append.

        Raises:
            DiskFull, DiskUnavailable.
        """
        self.size += len(data)
        if self.size - self._looked_at >= LOOK_AT_ROOM_BYTES:
            self._looked_at = self.size
            require_room(self._settings)
        with disk_errors():
            self._file.write(data)

    def close(self) -> None:
        """Write what is buffered; safe to call again.

        Raises:
            DiskUnavailable.
        """
        with disk_errors():
            self._file.close()

    def discard(self) -> None:
        """Close and remove the file, where it still has the transfer's name."""
        # On a disk that fails the sweep removes it.
        with contextlib.suppress(OSError):
            self._file.close()
        self._remove()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
