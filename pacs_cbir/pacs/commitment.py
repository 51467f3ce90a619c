"""Tell a sender what became of its storage commitment request (PS3.4 J.3.3), as SCP of an association that we open."""

from __future__ import annotations

from pydicom import Dataset
from pynetdicom import build_context, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes its names at run time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from pacs_cbir.errors import PeerError
from pacs_cbir.pacs.association import open_association
from pacs_cbir.peers import Peer

ALL_COMMITTED, SOME_REFUSED = 1, 2
"""Event Type IDs (PS3.4 Table J.3-2)."""
ANSWER_SECONDS = 30
SUCCESS = 0x0000


def report_to(peer: Peer, calling: str, event: Dataset) -> None:
    """Report over an association of its own.

    Raises:
        PeerError: it has no address, gives no association or refuses the report.
    """
    host, port = peer.address
    association = open_association(
        host,
        port,
        [build_context(StorageCommitmentPushModel)],
        called=peer.ae_title,
        calling=calling,
        answer_seconds=ANSWER_SECONDS,
        # The one who opens an association is an SCU where it does not say otherwise (PS3.7 D.3.3.4).
        negotiated=[build_role(StorageCommitmentPushModel, scp_role=True)],
    )
    if not association.is_established:
        raise PeerError(f"{peer.ae_title} at {host}:{port} gave no association")
    try:
        report_over(association, event)
    finally:
        if association.is_established:
            association.release()


def report_over(association: Association, event: Dataset) -> None:
    """Report over an association that stands.

    Raises:
        PeerError: it does not take storage commitment, ended, or the report was refused.
    """
    kind = SOME_REFUSED if "FailedSOPSequence" in event else ALL_COMMITTED
    try:
        status, _ = association.send_n_event_report(
            event, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError) as error:
        raise PeerError("the peer takes no storage commitment reports over this association") from error
    if status.get("Status") != SUCCESS:
        answer = f"{status.Status:04X}H" if "Status" in status else "nothing"
        raise PeerError(f"the peer answered the report with {answer}")
