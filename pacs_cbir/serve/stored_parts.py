"""A STOW-RS body's parts → instances that are durable, each as soon as it is whole, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException

from pacs_cbir.dicom.instance import Identity, read_identity
from pacs_cbir.errors import InstanceError, InvalidIdentifier, NotDicom, PacsCbirError, StoreError, WrongIdentifier
from pacs_cbir.serve.multipart import DICOM, header
from pacs_cbir.settings import Settings
from pacs_cbir.store.files import disk_errors
from pacs_cbir.store.incoming import IncomingFile
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.session import Database

STOW_RS = "STOW-RS"
"""Stands for the calling AE title of what comes over HTTP, which names none."""
MAX_INSTANCES = 20_000
"""In one request: its answer names each, and is made in memory."""
MAX_INSTANCE_BYTES = 4 << 30

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
PROCESSING_FAILURE = 0x0110
FAILURE_REASONS: dict[type[PacsCbirError], int] = {
    WrongIdentifier: 0xA900,
    NotDicom: 0xC000,
    InvalidIdentifier: 0xC000,
}
"""Failure Reason (PS3.18 Table I.2-2): the same as the Status of a C-STORE response."""
STATUSES = frozenset({SUCCESS, OUT_OF_RESOURCES, PROCESSING_FAILURE, *FAILURE_REASONS.values()})
"""All that an instance may come to; the request is answered with an error where database or disk are away (A700)."""

log = structlog.get_logger()


@dataclass
class Stored:
    """What became of a request's instances.

    Attributes:
        stored: those that are here now.
        failed: those that are not, with their Failure Reason.
        unreadable: the Failure Reasons of parts that name no instance.
    """

    stored: list[Identity] = field(default_factory=list)
    failed: list[tuple[Identity, int]] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)

    @property
    def statuses(self) -> list[int]:
        """What each came to, as the Status of a C-STORE response."""
        return [SUCCESS] * len(self.stored) + [reason for _, reason in self.failed] + self.unreadable

    def __len__(self) -> int:
        return len(self.stored) + len(self.failed) + len(self.unreadable)


class StoredParts:
    """Each part of a body goes through `ingest` at its end, while the next one is still to come.

    Attributes:
        became: what became of the parts so far.

    Args:
        study_instance_uid: the study that all of them belong to; None: any.
    """

    def __init__(self, database: Database, settings: Settings, study_instance_uid: str | None) -> None:
        self.became = Stored()
        self._database, self._settings, self._study = database, settings, study_instance_uid
        self._incoming: IncomingFile | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        """Make the part's file.

        Raises:
            HTTPException: 413, 415.
            DiskFull, DiskUnavailable.
        """
        kind, _ = header(headers.get("content-type", DICOM))
        if kind != DICOM:
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Each part is of type {DICOM}.")
        if len(self.became) == MAX_INSTANCES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"A request may bring {MAX_INSTANCES} instances. These are stored; send the others in another one.",
            )
        self._incoming = IncomingFile(self._settings)

    def write(self, data: memoryview) -> None:
        """Keep more of it.

        Raises:
            HTTPException: 413.
            DiskFull, DiskUnavailable.
        """
        assert self._incoming is not None  # noqa: S101 - begin made it
        if self._incoming.size + len(data) > MAX_INSTANCE_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"An instance may have {MAX_INSTANCE_BYTES} bytes. Send it by C-STORE.",
            )
        self._incoming.write(data)

    def end(self) -> None:
        """Make the instance durable, or note why it cannot be.

        Raises:
            DiskFull, DiskUnavailable, DatabaseUnavailable: it is no fault of the instance; nothing of it was kept.
        """
        assert self._incoming is not None  # noqa: S101 - begin made it
        identity: Identity | None = None
        try:
            self._incoming.close()
            with disk_errors():
                identity = read_identity(self._incoming.path)
            source = Source(STOW_RS, study_instance_uid=self._study)
            outcome = ingest(self._incoming.path, source, self._database, self._settings)
        except StoreError:
            raise
        except InstanceError as error:
            self._fail(identity, _reason(error))
            log.warning("instance refused", calling_ae_title=STOW_RS, kind=type(error).__name__, error=str(error))
        except Exception:
            self._fail(identity, PROCESSING_FAILURE)
            log.exception("instance refused", calling_ae_title=STOW_RS)
        else:
            self.became.stored.append(identity)
            log.info("instance received", outcome=outcome.value, calling_ae_title=STOW_RS)
        finally:
            self.close()

    def close(self) -> None:
        """Leave no part of a transfer behind, whatever happened."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _fail(self, identity: Identity | None, reason: int) -> None:
        if identity is None:
            self.became.unreadable.append(reason)
        else:
            self.became.failed.append((identity, reason))


def _reason(error: InstanceError) -> int:
    return next((FAILURE_REASONS[kind] for kind in type(error).__mro__ if kind in FAILURE_REASONS), PROCESSING_FAILURE)
