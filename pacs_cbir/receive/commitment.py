"""Storage Commitment Push Model as SCP (PS3.4 Annex J): requests are written down, then checked and reported."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass, field, replace
from typing import cast

import structlog
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import decode
from pynetdicom.events import Event

from pacs_cbir.dicom.frames import value_of
from pacs_cbir.errors import DatabaseUnavailable, InvalidCommitment, PacsCbirError, PeerError
from pacs_cbir.pacs.commitment import ANSWER_SECONDS, report_over, report_to
from pacs_cbir.receive.identifier import MAX_IDENTIFIER_BYTES
from pacs_cbir.receive.status import FAILURE_REASONS, NO_SUCH_ACTION, SUCCESS, action_status_of, answer
from pacs_cbir.settings import Settings
from pacs_cbir.store import commitments
from pacs_cbir.store.commitments import Reference, Request
from pacs_cbir.store.session import Database
from pacs_cbir.store.value_tests import is_uid

REQUEST_COMMITMENT = 1
"""Action Type ID (PS3.4 Table J.3-1)."""
IDLE_SECONDS = 2.0
QUIET_SECONDS = 0.5
"""A sender that keeps its association open and silent for so long waits for the report on it (PS3.4 J.3.3.1)."""
PATIENCE_SECONDS = 5.0
"""A sender that is never silent is told over another association."""

log = structlog.get_logger()


def read_request(encoded: bytes, transfer_syntax: UID) -> tuple[str, list[Reference]]:
    """An N-ACTION's Action Information → Transaction UID and what is to be committed (PS3.4 Table J.3-1).

    Raises:
        InvalidCommitment: it is too long, cannot be read, or lacks or repeats something.
    """
    if len(encoded) > MAX_IDENTIFIER_BYTES:
        raise InvalidCommitment(f"longer than {MAX_IDENTIFIER_BYTES >> 20} MiB; ask for fewer instances at once")
    syntax = transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian, transfer_syntax.is_deflated
    try:
        ds = decode(io.BytesIO(encoded), *syntax)
        items = value_of(ds, "ReferencedSOPSequence")
        transaction_uid = _text(ds, "TransactionUID")
    except Exception as error:
        # pydicom raises what its readers do.
        raise InvalidCommitment("the action information cannot be read") from error
    references = [
        Reference(_text(item, "ReferencedSOPClassUID"), _text(item, "ReferencedSOPInstanceUID"))
        for item in (items if isinstance(items, Sequence) else ())
    ]
    if not is_uid(transaction_uid):
        raise InvalidCommitment("it has no Transaction UID")
    if not references or not all(is_uid(one.sop_class_uid) and is_uid(one.sop_instance_uid) for one in references):
        raise InvalidCommitment("it names no instances, or one without its UIDs")
    if len({one.sop_instance_uid for one in references}) < len(references):
        raise InvalidCommitment("it names an instance twice")
    return transaction_uid, references


def _text(ds: Dataset, keyword: str) -> str:
    return str(value_of(ds, keyword) or "")


def event_information(asked: Request) -> Dataset:
    """What is reported of a request that was checked (PS3.4 Table J.3-2)."""
    assert asked.outcomes is not None  # noqa: S101 - the caller's choice
    committed: list[Dataset] = []
    refused: list[Dataset] = []
    for reference, outcome in zip(asked.references, asked.outcomes, strict=True):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
        if outcome is not None:
            item.FailureReason = FAILURE_REASONS[outcome]
        (committed if outcome is None else refused).append(item)
    event = Dataset()
    event.TransactionUID = asked.transaction_uid
    if committed:
        event.ReferencedSOPSequence = Sequence(committed)
    if refused:
        event.FailedSOPSequence = Sequence(refused)
    return event


@dataclass
class _Waiting:
    """An association over which a request came, while its sender may wait there for the report."""

    association: Association
    heard_at: float = field(default_factory=time.monotonic)


class Commitments:
    """Takes requests on, and a thread that checks them and tells their senders, those of earlier runs too."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        # By the request's row.
        self._waiting: dict[int, _Waiting] = {}
        self._wake = threading.Event()

    def take_on(self, event: Event) -> tuple[Dataset, None]:
        """Answer an N-ACTION: what was answered with success is durable, and its sender is told."""
        ae_title = str(event.assoc.requestor.ae_title).strip()
        try:
            if event.action_type != REQUEST_COMMITMENT:
                return answer(NO_SUCH_ACTION), None
            encoded = cast("N_ACTION", event.request).ActionInformation
            syntax = UID(event.context.transfer_syntax)
            transaction_uid, references = read_request(b"" if encoded is None else encoded.getvalue(), syntax)
            with self._database.transaction() as connection:
                request_id = commitments.request(connection, ae_title, transaction_uid, references)
                self._waiting[request_id] = _Waiting(event.assoc)
        except PacsCbirError as error:
            code = action_status_of(error)
            log.warning("commitment not taken on", status=f"{code:04X}", error=str(error), calling_ae_title=ae_title)
            return answer(code, str(error)), None
        except Exception as error:
            log.exception("commitment broke", calling_ae_title=ae_title)
            return answer(action_status_of(error), "an error that was not foreseen; see the log"), None
        self._wake.set()
        log.info("commitment taken on", instances=len(references), calling_ae_title=ae_title)
        return answer(SUCCESS), None

    def heard(self, association: Association) -> None:
        """A message came over an association: whoever sends more does not wait for a report."""
        for waiting in list(self._waiting.values()):
            if waiting.association is association:
                waiting.heard_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Check and report until `stop` is set."""
        while not stop.is_set():
            try:
                if not self.work_once():
                    self._wake.wait(IDLE_SECONDS)
                    self._wake.clear()
            except DatabaseUnavailable as error:
                log.warning("commitments wait for the database", error=str(error))
                stop.wait(IDLE_SECONDS)
            except Exception:
                # The request is taken up again after its lease, and the others go on; the pause keeps the log short.
                log.exception("commitment broke")
                stop.wait(IDLE_SECONDS)

    def end(self) -> None:
        """Let `run`, which was stopped, not wait any longer."""
        self._wake.set()

    def work_once(self) -> bool:
        """Check and report one request that is due; returns whether there was one."""
        with self._database.transaction() as connection:
            asked = commitments.claim(connection)
        if asked is None:
            return False
        if asked.outcomes is None:
            outcomes = commitments.check(asked, self._settings, self._database)
            if outcomes is None:
                return True
            asked = replace(asked, outcomes=outcomes)
        try:
            self._report(asked)
        except PeerError as error:
            with self._database.transaction() as connection:
                given_up = commitments.failed(connection, asked, str(error))
            log.warning("commitment not reported", error=str(error), given_up=given_up, ae_title=asked.ae_title)
            if (waiting := self._waiting.get(asked.id)) is not None and not waiting.association.is_established:
                del self._waiting[asked.id]
            return True
        self._waiting.pop(asked.id, None)
        with self._database.transaction() as connection:
            commitments.delivered(connection, asked)
        refused = sum(outcome is not None for outcome in asked.outcomes or ())
        log.info("commitment reported", instances=len(asked.references), refused=refused, ae_title=asked.ae_title)
        return True

    def _report(self, asked: Request) -> None:
        """Over the association of the request, where its sender waits there, else over one of our own."""
        event, waiting = event_information(asked), self._waiting.get(asked.id)
        if waiting is not None and _still_waits(waiting):
            try:
                _report_beside(waiting.association, event)
            except PeerError as error:
                log.info("report over the request's association failed", error=str(error), ae_title=asked.ae_title)
            else:
                return
        peer = self._settings.peer_by_ae_title(asked.ae_title)
        if peer is None:
            raise PeerError(f"no peer of PACS_CBIR_PEERS has the AE title {asked.ae_title}")
        report_to(peer, self._settings.ae_title, event)


def _still_waits(waiting: _Waiting) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waiting.association.is_established and time.monotonic() < deadline:
        silent = time.monotonic() - waiting.heard_at
        if silent >= QUIET_SECONDS:
            return True
        time.sleep(QUIET_SECONDS - silent)
    return False


def _report_beside(association: Association, event: Dataset) -> None:
    """`report_over`, in a thread of its own: pynetdicom waits without end for the reactor of an association that ended
    just now."""
    ended: list[PeerError | None] = []

    def report() -> None:
        try:
            report_over(association, event)
        except PeerError as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    thread.join(2 * ANSWER_SECONDS)
    if not ended:
        # Lets a thread that waits for the reactor go on, and find that the association is gone.
        association._is_paused = True
        raise PeerError("the association ended, or no answer came")
    if ended[0] is not None:
        raise ended[0]
