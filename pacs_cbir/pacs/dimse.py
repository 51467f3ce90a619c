"""Associations with a peer, identifiers, and what its statuses mean (PS3.4 Tables C.4-1, -2 and -3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from pacs_cbir.errors import PeerAway, PeerError, PeerRefuses, PeerSilent
from pacs_cbir.pacs.archive import Fetched
from pacs_cbir.pacs.association import open_association
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings

SYNTAXES: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]

UTF_8 = "ISO_IR 192"

SUCCESS = 0x0000
PENDING = {0xFF00, 0xFF01}
CANCELLED = 0xFE00
TOO_MANY_MATCHES = 0xA700
SOME_FAILED = 0xB000
UNKNOWN_DESTINATION = 0xA801
# Sub-operations that were done.
COUNTS = ("Completed", "Warning", "Failed")
# PS3.8 Table 9-21: result 1 is permanent, and so are these reasons of the service user.
REJECTED_FOR_GOOD = 1
REASONS = {
    3: "it does not know our AE title {ours}",
    7: "its AE title is not {theirs}",
}


def named(peer: Peer) -> str:
    """A peer as messages name it."""
    return f"{peer.ae_title} at {peer.host}:{peer.port}"


@contextmanager
def associate(
    peer: Peer,
    settings: Settings,
    services: Sequence[UID],
    others: Sequence[PresentationContext] = (),
    *,
    negotiated: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[tuple[Association, UID]]:
    """An association, and the first of some SOP classes that the peer accepts; aborted where the block raises.

    Args:
        services: SOP classes of which one will do, the best first.
        others: presentation contexts that the peer may reject.
        negotiated: role selections and SOP Class Extended Negotiations (PS3.7 D.3.3.4, D.3.3.5).
        handlers: pynetdicom's event handlers.

    Raises:
        PeerAway: nothing answers, or not now, or the association ended too early.
        PeerRefuses: the peer wants no association with us, or lacks the service.
    """
    contexts = [*(build_context(service, SYNTAXES) for service in services), *others]
    association = _open(peer, settings, contexts, negotiated=negotiated, handlers=handlers)
    # Where all contexts are rejected, pynetdicom ends the association by itself.
    _require_one(association, services, peer, settings)
    service = accepted(association, services)
    if not association.is_established or service is None:
        raise _no_association(association, peer, settings)
    try:
        yield association, service
    except RuntimeError as error:
        if association.is_established:
            association.abort()
            raise
        # pynetdicom sends nothing over an association that has ended.
        raise PeerAway(f"{named(peer)} ended the association too early") from error
    except BaseException:
        association.abort()
        raise
    association.release()


def _open(
    peer: Peer, settings: Settings, contexts: Sequence[PresentationContext], **options: Sequence[Any]
) -> Association:
    host, port = peer.address
    return open_association(
        host,
        port,
        contexts,
        called=peer.ae_title,
        calling=settings.ae_title,
        answer_seconds=peer.timeout_seconds,
        **options,
    )


def accepted(association: Association, services: Sequence[UID]) -> UID | None:
    """The first of some SOP classes that the peer has accepted; None where it has none of them."""
    offered = {context.abstract_syntax for context in association.accepted_contexts}
    return next((service for service in services if service in offered), None)


def _require_one(association: Association, services: Sequence[UID], peer: Peer, settings: Settings) -> None:
    if {context.abstract_syntax for context in association.rejected_contexts}.issuperset(services):
        association.abort()
        names = " or ".join(service.name for service in services)
        raise PeerRefuses(
            f"{named(peer)} does not offer us {names}: allow {settings.ae_title} to use it there, or set another "
            "`retrieve` in PACS_CBIR_PEERS"
        )


def _no_association(association: Association, peer: Peer, settings: Settings) -> PeerError:
    refused = association.acceptor.primitive if association.is_rejected else None
    if refused is None:
        return PeerAway(f"{named(peer)} does not answer")
    reason = REASONS.get(refused.diagnostic or 0, "it gives no reason")
    if refused.result != REJECTED_FOR_GOOD or refused.result_source != REJECTED_FOR_GOOD:
        return PeerAway(f"{named(peer)} accepts no association at present")
    reason = reason.format(ours=settings.ae_title, theirs=peer.ae_title)
    return PeerRefuses(f"{named(peer)} rejects associations: {reason}; see PACS_CBIR_PEERS and its own configuration")


def identifier(level: str, keys: Mapping[str, str]) -> Dataset:
    """The identifier of a C-FIND, C-MOVE or C-GET (PS3.4 C.4.1.1.3, C.4.2.1.4)."""
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        # Matching keys are no values of their VR: a range of dates is no DA.
        vr = dictionary_VR(keyword)
        ds.add(DataElement(keyword, vr, value or None, validation_mode=config.IGNORE))
    if not "".join(keys.values()).isascii():
        ds.SpecificCharacterSet = UTF_8
    return ds


Responses = Iterable[tuple[Dataset, Dataset | None]]


def while_it_goes_on(peer: Peer, responses: Responses, arrived: Callable[[], object], hint: str = "") -> Responses:
    """A C-MOVE's or C-GET's responses, for as long as they, or what arrives, tell that something is done.

    A peer may say that it is under way (Pending) without end. What is looked at beside its counts, which it may leave
    out, is only asked for once they have stood still for the peer's `timeout_seconds`.

    Args:
        arrived: what it returns is another after something arrived.
        hint: what the error says at its end.

    Raises:
        PeerSilent: nothing was done for that time.
    """
    before, counted, since = arrived(), None, time.monotonic()
    for status, failed in responses:
        counts = [status.get(f"NumberOf{name}Suboperations") for name in ("Remaining", *COUNTS)]
        if counts != counted:
            counted, since = counts, time.monotonic()
        elif status.get("Status") in PENDING and time.monotonic() - since > peer.timeout_seconds:
            if (now := arrived()) == before:
                raise PeerSilent(
                    f"{named(peer)} has said for {peer.timeout_seconds:g} s that it is sending, and counts on no "
                    f"further, and nothing has arrived{hint}"
                )
            before, since = now, time.monotonic()
        yield status, failed


def fetched(peer: Peer, settings: Settings, responses: Responses, service: str) -> Fetched:
    """A C-MOVE's or C-GET's responses → what was handed over, by the counts of the last one.

    Raises:
        PeerRefuses: the peer does not know the destination.
        PeerError: it failed as a whole, or broke off.
    """
    for status, failed in responses:
        code = status.get("Status")
        if code in PENDING:
            continue
        if code is None:
            raise PeerError(
                f"{named(peer)} broke off a {service}, or was silent for {peer.timeout_seconds:g} s; some do so where "
                f"they do not know our AE title {settings.ae_title}, or not as one that may fetch"
            )
        if code == UNKNOWN_DESTINATION:
            raise PeerRefuses(
                f"{named(peer)} does not know where to send (A801H): give it our AE title {settings.ae_title} "
                f"with this machine's address and port {settings.dicom_port}, as a destination of C-MOVE"
            )
        counts = {name: int(status.get(f"NumberOf{name}Suboperations") or 0) for name in COUNTS}
        completed = counts["Completed"] + counts["Warning"]
        hint = "" if completed or service != "C-MOVE" else can_it_send(settings)
        if code not in {SUCCESS, SOME_FAILED} and not any(counts.values()):
            raise PeerError(f"{named(peer)} answered a {service} with status {code:04X}H{comment_of(status)}{hint}")
        return Fetched(
            completed=completed,
            warned=counts["Warning"],
            failed=counts["Failed"],
            failures=tuple(f"{one}{hint}" for one in _failures(peer, service, code, counts["Failed"], failed)),
        )
    raise PeerError(f"{named(peer)} broke off a {service}")


def can_it_send(settings: Settings) -> str:
    """What to look at where a C-MOVE brings nothing: PACSs use one status for all that may have gone wrong."""
    return (
        f"; is `pacs-cbir scp` running, and does the PACS know our AE title {settings.ae_title}, this machine's "
        f"address and port {settings.dicom_port}?"
    )


def _failures(peer: Peer, service: str, code: int, count: int, failed: Dataset | None) -> tuple[str, ...]:
    if not count:
        return ()
    uids = None if failed is None else failed.get("FailedSOPInstanceUIDList")
    listed = [uids] if isinstance(uids, str) else list(uids or ())
    names = f": {shortened(listed)}" if listed else ", and does not say which"
    return (f"{named(peer)} could not send {count} instances by {service} (status {code:04X}H){names}",)


SHOWN_UIDS = 3


def shortened(uids: Sequence[object]) -> str:
    """The first few of many UIDs."""
    shown = ", ".join(str(uid) for uid in uids[:SHOWN_UIDS])
    return shown if len(uids) <= SHOWN_UIDS else f"{shown} and {len(uids) - SHOWN_UIDS} more"


def comment_of(status: Dataset) -> str:
    """The attributes that a status is about; its Error Comment is left out, for it may quote values of a header."""
    offending = status.get("OffendingElement")
    return "" if not offending else f", about {offending}"
