"""C-ECHO as SCU: does somebody take our associations and answer (PS3.4 Annex A)."""

from __future__ import annotations

from pynetdicom import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # pynetdicom makes its names at run time

from pacs_cbir.pacs.association import open_association

SUCCESS = 0x0000


def echoes(host: str, port: int, *, called: str, calling: str, answer_seconds: float) -> bool:
    """Whether the association is accepted and the echo answered with success.

    Args:
        called, calling: AE titles.
        answer_seconds: how long an answer may take.
    """
    association = open_association(
        host, port, [build_context(Verification)], called=called, calling=calling, answer_seconds=answer_seconds
    )
    if not association.is_established:
        return False
    try:
        return bool(association.send_c_echo().get("Status") == SUCCESS)
    finally:
        association.release()
