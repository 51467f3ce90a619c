"""Associations that we open: what is answered over them reaches whoever asked, and at once."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from pacs_cbir.pacs.transfer import keep_identifiers_out_of_logs

CONNECT_SECONDS = 30
MAXIMUM_PDU_BYTES = 131072


def send_at_once(event: Event) -> None:
    """For connections that open: a data set does not wait until the command before it is acknowledged (Nagle)."""
    _set_option(event, socket.TCP_NODELAY)


def acknowledge_at_once(event: Event) -> None:
    """For PDUs that come: a peer that waits like that is told at once, which the kernel delays by 40 ms.

    The option holds until the kernel takes it back, so it is set again for each PDU.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        _set_option(event, socket.TCP_QUICKACK)


def _set_option(event: Event, option: int) -> None:
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        with contextlib.suppress(OSError):
            connection.socket.setsockopt(socket.IPPROTO_TCP, option, 1)


# Of every association, whoever opens it.
AT_ONCE = ((evt.EVT_CONN_OPEN, send_at_once), (evt.EVT_PDU_RECV, acknowledge_at_once))


def open_association(
    host: str,
    port: int,
    contexts: Sequence[PresentationContext],
    *,
    called: str,
    calling: str,
    answer_seconds: float,
    negotiated: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Association:
    """Ask a peer for an association, which may or may not come about.

    Args:
        called, calling: AE titles.
        answer_seconds: how long an answer may take.
        negotiated: role selections and SOP Class Extended Negotiations (PS3.7 D.3.3.4, D.3.3.5).
        handlers: pynetdicom's event handlers.
    """
    keep_identifiers_out_of_logs()
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.connection_timeout = min(CONNECT_SECONDS, answer_seconds)
    ae.dimse_timeout = ae.network_timeout = answer_seconds
    association = ae.associate(
        host,
        port,
        contexts=list(contexts),
        ae_title=called,
        max_pdu=MAXIMUM_PDU_BYTES,
        ext_neg=list(negotiated),
        evt_handlers=[*AT_ONCE, *handlers],
    )
    leave_answers_to_who_asked(association)
    return association


def leave_answers_to_who_asked(association: Association) -> None:
    """Let the association's own thread take no messages: on a busy machine it takes answers.

    It looks for requests of the peer, without waiting (pynetdicom's issue 875); over an association that we open there
    are none but within a C-GET, which takes them itself.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        return take(block) if block else (None, None)

    association.dimse.get_msg = get_msg  # type: ignore[method-assign]  # pynetdicom makes its provider by itself
