"""Send instances by C-STORE, as a PACS does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pynetdicom import build_context
from pynetdicom.association import Association

from pacs_cbir.errors import PeerError
from pacs_cbir.pacs.association import open_association

# An association may propose 128 presentation contexts (PS3.8 9.3.2.2).
MAXIMUM_CONTEXTS = 128
ANSWER_SECONDS = 60
SUCCESS = 0x0000


@dataclass(frozen=True)
class Sent:
    """One file's fate.

    Attributes:
        status: the DIMSE status of the answer; None for what is not a DICOM instance, which was not sent.
        study_instance_uid: empty for what is not a DICOM instance.
    """

    path: Path
    status: int | None
    study_instance_uid: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the peer has it."""
        return self.status == SUCCESS


def send(paths: Sequence[Path], host: str, port: int, *, called: str, calling: str) -> Iterator[Sent]:
    """Send files over one association, one each time the iterator is advanced.

    Raises:
        PeerError: no association, or it ended before all was sent.
    """
    headers = {path: _header(path) for path in paths}
    contexts = sorted({(h.SOPClassUID, h.file_meta.TransferSyntaxUID) for h in headers.values() if h is not None})
    if len(contexts) > MAXIMUM_CONTEXTS:
        raise PeerError(f"{len(contexts)} kinds of instances do not fit into one association; send fewer at once")
    proposed = [build_context(abstract, transfer) for abstract, transfer in contexts]
    association = open_association(host, port, proposed, called=called, calling=calling, answer_seconds=ANSWER_SECONDS)
    if not association.is_established:
        raise PeerError(f"{called} at {host}:{port} gave no association")
    try:
        for path, header in headers.items():
            if header is None:
                yield Sent(path, None)
            else:
                yield Sent(path, _send_one(association, path), str(header.StudyInstanceUID))
    finally:
        association.release()


def _send_one(association: Association, path: Path) -> int:
    try:
        answer = association.send_c_store(path)
    except RuntimeError as error:
        raise PeerError("the association ended before all was sent") from error
    if "Status" not in answer:
        raise PeerError("the peer did not answer a C-STORE request")
    return int(answer.Status)


def _header(path: Path) -> pydicom.FileDataset | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "StudyInstanceUID"])
    except (InvalidDicomError, OSError):
        return None
    complete = "SOPClassUID" in header and "StudyInstanceUID" in header and "TransferSyntaxUID" in header.file_meta
    return header if complete else None
