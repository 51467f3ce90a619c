"""What the SCP does with a request: acknowledge an echo, ingest an instance, answer a query."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx
import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from pacs_cbir.errors import PacsCbirError
from pacs_cbir.pacs.association import AT_ONCE
from pacs_cbir.pacs.transfer import TransferFile, received_file
from pacs_cbir.receive.commitment import Commitments
from pacs_cbir.receive.find import Answer, find
from pacs_cbir.receive.metrics import Metrics
from pacs_cbir.receive.status import SUCCESS, answer, status_of
from pacs_cbir.settings import Settings
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.session import Database

log = structlog.get_logger()


def handlers(
    database: Database, settings: Settings, api: httpx.Client, commitments: Commitments, metrics: Metrics
) -> list[tuple[evt.EventType, Callable[..., Any]] | tuple[evt.EventType, Callable[..., Any], list[Any]]]:
    """pynetdicom's event handlers."""

    def store(event: Event) -> Dataset:
        answered = _store(event, database, settings)
        metrics.answered(answered.Status)
        return answered

    def answers(event: Event) -> Iterator[Answer]:
        return find(event, database, api)

    def rejected(event: Event) -> None:
        metrics.rejected()
        log.warning("association rejected", calling_ae_title=str(event.assoc.requestor.ae_title).strip())

    return [
        (evt.EVT_C_FIND, answers),
        (evt.EVT_C_ECHO, lambda event: SUCCESS),  # noqa: ARG005 - an echo has nothing to look at
        (evt.EVT_C_STORE, store),
        (evt.EVT_N_ACTION, commitments.take_on),
        (evt.EVT_DIMSE_RECV, lambda event: commitments.heard(event.assoc)),
        *AT_ONCE,
        (evt.EVT_ABORTED, _discard_transfer),
        (evt.EVT_CONN_CLOSE, _discard_transfer),
        (evt.EVT_CONN_CLOSE, _free_association),
        (evt.EVT_REJECTED, rejected),
    ]


def _store(event: Event, database: Database, settings: Settings) -> Dataset:
    request = cast("C_STORE", event.request)
    source = Source(
        calling_ae_title=str(event.assoc.requestor.ae_title).strip(),
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
    )
    peer = {"calling_ae_title": source.calling_ae_title, "sop_class": UID(source.sop_class_uid or "").name}
    try:
        outcome = ingest(received_file(request), source, database, settings)
    except PacsCbirError as error:
        code = status_of(error)
        log.warning("instance refused", status=f"{code:04X}", error=str(error), kind=type(error).__name__, **peer)
        return answer(code, str(error))
    except Exception as error:
        code = status_of(error)
        log.exception("instance refused", status=f"{code:04X}", **peer)
        return answer(code, "an error that was not foreseen; see the log")
    log.info("instance received", outcome=outcome.value, **peer)
    return answer(SUCCESS)


def _discard_transfer(event: Event) -> None:
    # A transfer that its peer broke off never reaches the handler above; without this its file would stay.
    message = event.assoc.dimse.message
    transfer = getattr(message, "_data_set_file", None)
    if isinstance(transfer, TransferFile):
        transfer.discard()


def _free_association(event: Event) -> None:
    # A connection that closes before it asked for anything, as a port check does, would count among the associations
    # until the ACSE timeout ends.
    if event.assoc.requestor.primitive is None:
        waiting: Any = event.assoc.dul.to_user_queue
        waiting.put(None)  # what a time-out gives
