"""The file that a C-STORE's data set streams into.

pynetdicom writes a received data set to a `NamedTemporaryFile` as its fragments arrive, in the system's temporary
folder, and lets an OSError end the association. This class takes that name's place in pynetdicom: it writes into the
incoming directory, and remembers a full or missing disk until the handler can answer with a status.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs_cbir.errors import DiskUnavailable
from pacs_cbir.settings import Settings
from pacs_cbir.store.incoming import IncomingFile


class TransferFile:
    """One transfer, with the part of NamedTemporaryFile's interface that pynetdicom uses."""

    def __init__(self, settings: Settings) -> None:
        self._position = 0
        self._error: DiskUnavailable | None = None
        self._incoming: IncomingFile | None = None
        with self._remembered():
            self._incoming = IncomingFile(settings)

    @property
    def name(self) -> str:
        """The file's path; empty where the disk failed."""
        return "" if self._incoming is None else str(self._incoming.path)

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
        if self._incoming is not None and self._error is None:
            with self._remembered():
                self._incoming.write(data)
            if self._error is not None:
                # Its room is others' at once, however much is still to come.
                self.discard()
        return len(data)

    def close(self) -> None:
        """Close; safe to call again."""
        if self._incoming is not None:
            with self._remembered():
                self._incoming.close()

    def complete(self) -> Path:
        """Close, and give the path of the whole transfer.

        Raises:
            DiskFull, DiskUnavailable: part of it could not be written; nothing is left on the disk.
        """
        self.close()
        if self._error is not None:
            self.discard()
            raise self._error
        assert self._incoming is not None  # noqa: S101 - else there is an error
        return self._incoming.path

    def discard(self) -> None:
        """Close and remove the file, where it still has the transfer's name; also done once nothing refers to it."""
        if self._incoming is not None:
            self._incoming.discard()

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        """The first error of the disk waits for `complete`."""
        try:
            yield
        except DiskUnavailable as error:
            self._error = self._error or error
