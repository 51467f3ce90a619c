"""The file that a C-STORE's data set streams into.

pynetdicom writes a received data set to a `NamedTemporaryFile` as its fragments arrive, in the system's temporary
folder, and lets an OSError end the association. This class takes that name's place in pynetdicom: it writes into the
incoming directory, and remembers a full or missing disk until the handler can answer with a status. It serves the SCP,
and the SCU that is sent instances by C-GET.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pynetdicom.dimse_messages
from pynetdicom import _config
from pynetdicom.dimse_primitives import C_STORE

from pacs_cbir.errors import DiskUnavailable, NotDicom
from pacs_cbir.settings import Settings
from pacs_cbir.store.incoming import IncomingFile


def stream_transfers(settings: Settings) -> None:
    """Let this process' associations stream what they receive into the incoming directory, and log no identity."""
    _config.STORE_RECV_CHUNKED_DATASET = True
    keep_identifiers_out_of_logs()
    setattr(  # noqa: B010 - the module's own import, which type checkers refuse to replace
        pynetdicom.dimse_messages, "NamedTemporaryFile", lambda **_: TransferFile(settings)
    )


def keep_identifiers_out_of_logs() -> None:
    """By default pynetdicom logs the identifiers of what it sends and receives."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False


def received_file(request: C_STORE) -> Path:
    """The whole data set of a C-STORE request, as a file.

    Raises:
        NotDicom: the request came without one.
        DiskFull, DiskUnavailable: part of it could not be written; nothing is left on the disk.
    """
    transfer = request._dataset_file
    if transfer is None:
        raise NotDicom("the request came without a data set")
    assert isinstance(transfer, TransferFile)  # noqa: S101 - `stream_transfers` gives pynetdicom no other
    return transfer.complete()


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
