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
from pathlib import Path
from typing import BinaryIO

from pacs_cbir.errors import DiskUnavailable


class TransferFile:
    """One transfer, with the part of NamedTemporaryFile's interface that pynetdicom uses.

    Args:
        folder: the incoming directory, on the file system of the instances directory.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{uuid.uuid4().hex}.part"
        self._position = 0
        self._error: OSError | None = None
        self._file: BinaryIO | None = None
        # pynetdicom forgets the transfers of requests that it cannot serve, without an event.
        self._remove = weakref.finalize(self, _remove, self._path)
        try:
            # 64 KiB of buffer: fragments are as small as the peer's PDUs.
            self._file = self._path.open("xb", buffering=1 << 16)
        except OSError as error:
            self._error = error

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
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def close(self) -> None:
        """Close; safe to call again."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._error = self._error or error
            self._file = None

    def complete(self) -> Path:
        """Close, and give the path of the whole transfer.

        Raises:
            DiskUnavailable: part of it could not be written; nothing is left on the disk.
        """
        self.close()
        if self._error is not None:
            self.discard()
            raise DiskUnavailable(f"the data set could not be written: {os.strerror(self._error.errno or 0)}")
        return self._path

    def discard(self) -> None:
        """Close and remove the file, where it still has the transfer's name; also done once nothing refers to it."""
        self.close()
        self._remove()


def _remove(path: Path) -> None:
    # On a disk that fails the sweep removes it.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
