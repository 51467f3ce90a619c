"""The file that a C-STORE's data set streams into.

pynetdicom writes a received data set to a `NamedTemporaryFile` as its fragments arrive, in the system's temporary
folder, and lets an OSError end the association. This class takes that name's place in pynetdicom: it writes into the
incoming directory, and remembers a full or missing disk until the handler can answer with a status.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pacs_cbir.errors import DiskUnavailable
from pacs_cbir.settings import Settings
from pacs_cbir.store.room import require_room

LOOK_AT_ROOM_BYTES = 16 << 20
"""How much of a transfer is written before the room on the disk is looked at again."""


class TransferFile:
    """One transfer, with the part of NamedTemporaryFile's interface that pynetdicom uses.

    The disk's reserve is looked at before the first byte of the data set is kept, and again as a large one grows.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.incoming_dir / f"{uuid.uuid4().hex}.part"
        self._position = self._looked_at = 0
        self._error: DiskUnavailable | None = None
        self._file: BinaryIO | None = None
        # pynetdicom forgets the transfers of requests that it cannot serve, without an event.
        self._remove = weakref.finalize(self, _remove, self._path)
        with self._remembered():
            require_room(settings)
            # 64 KiB of buffer: fragments are as small as the peer's PDUs.
            self._file = self._path.open("xb", buffering=1 << 16)

    @property
    def name(self) -> str:
        """The file's path; the file is not there where the disk failed."""
        return str(self._path)

    @property
    def file(self) -> TransferFile:
        """pynetdicom flushes `.file` after each fragment."""
        return self

    def flush(self) -> None:
        """Nothing: the file is flushed once, when it is complete."""

    def tell(self) -> int:
        """Bytes offered so far."""
        return self._position

    def write(self, data: bytes) -> int:
        """Take a fragment; after an error of the disk the rest of the transfer is read and dropped."""
        self._position += len(data)
        if self._file is not None and self._error is None:
            with self._remembered():
                if self._position - self._looked_at >= LOOK_AT_ROOM_BYTES:
                    self._looked_at = self._position
                    require_room(self._settings)
                self._file.write(data)
            if self._error is not None:
                # Its room is others' at once, however much is still to come.
                self.discard()
        return len(data)

    def close(self) -> None:
        """Close; safe to call again."""
        if self._file is not None:
            with self._remembered():
                self._file.close()
            self._file = None

    def complete(self) -> Path:
        """Close, and give the path of the whole transfer.

        Raises:
            DiskFull, DiskUnavailable: part of it could not be written; nothing is left on the disk.
        """
        self.close()
        if self._error is not None:
            self.discard()
            raise self._error
        return self._path

    def discard(self) -> None:
        """Close and remove the file, where it still has the transfer's name; also done once nothing refers to it."""
        self.close()
        self._remove()

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        """The first error of the disk waits for `complete`."""
        try:
            yield
        except DiskUnavailable as error:
            self._error = self._error or error
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            self._error = self._error or DiskUnavailable(f"the data set could not be written: {reason}")


def _remove(path: Path) -> None:
    # On a disk that fails the sweep removes it.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
