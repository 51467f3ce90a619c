"""A C-STORE SCU that sends what it is given, right or wrong: pynetdicom's own mends or refuses it before it is sent."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dicom_factory import encoded
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from pacs_cbir.settings import Settings

PATIENCE_SECONDS = 20
MR = ((MRImageStorage, ExplicitVRLittleEndian),)


@contextmanager
def association(
    settings: Settings,
    contexts: Iterable[tuple[str, str]] = MR,
    *,
    calling: str = "PEER",
    called: str | None = None,
) -> Iterator[Association]:
    """An association that was asked for, accepted or not, with one presentation context a (SOP class, transfer syntax).

    It is released at the end, where it still stands.
    """
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = PATIENCE_SECONDS
    asked = ae.associate(
        settings.dicom_host,
        settings.dicom_port,
        contexts=[build_context(abstract, transfer) for abstract, transfer in contexts],
        ae_title=called or settings.ae_title,
        max_pdu=131072,
    )
    try:
        yield asked
    finally:
        if asked.is_established:
            asked.release()


def context_of(asked: Association, sop_class: str, transfer_syntax: str) -> int:
    """The ID of the accepted presentation context."""
    return next(
        int(context.context_id)
        for context in asked.accepted_contexts
        if context.abstract_syntax == sop_class and context.transfer_syntax[0] == transfer_syntax
    )


def store(asked: Association, ds: Dataset) -> int | None:
    """Send an instance as its file meta information says; the status of the answer, None where there was none."""
    syntax = ds.file_meta.TransferSyntaxUID
    context = context_of(asked, ds.SOPClassUID, syntax)
    return store_bytes(asked, encoded(ds, syntax), ds.SOPClassUID, ds.SOPInstanceUID, context=context)


def store_bytes(
    asked: Association,
    data: bytes | None,
    sop_class: str,
    sop_instance: str,
    *,
    context: int = 1,
) -> int | None:
    """Send any bytes under any identifiers; without `data` the request says that there is no data set."""
    with _paused(asked):
        for fragment in fragments(asked, data, sop_class, sop_instance, context=context):
            asked.dul.send_pdu(fragment)
        _, answer = asked.dimse.get_msg(block=True)
    return None if answer is None or answer.Status is None else int(answer.Status)


def fragments(
    asked: Association, data: bytes | None, sop_class: str, sop_instance: str, *, context: int = 1
) -> Iterator[P_DATA]:
    """The request's P-DATA, the command first (PS3.8 Annex E)."""
    yield _fragment(context, 0b11, _command(sop_class, sop_instance, with_data=data is not None))
    if data is None:
        return
    step = asked.acceptor.maximum_length - 6
    for start in range(0, max(1, len(data)), step):
        yield _fragment(context, 0b10 if start + step >= len(data) else 0b00, data[start : start + step])


def _fragment(context: int, control: int, data: bytes) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context, bytes([control]) + data))
    return primitive


def _command(sop_class: str, sop_instance: str, *, with_data: bool) -> bytes:
    """A C-STORE-RQ's command set in implicit VR little endian (PS3.7 9.3.1.1)."""
    elements = [
        (0x0002, _padded(sop_class)),
        (0x0100, struct.pack("<H", 0x0001)),
        (0x0110, struct.pack("<H", 1)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 0x0001 if with_data else 0x0101)),
        (0x1000, _padded(sop_instance)),
    ]
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _padded(identifier: str) -> bytes:
    value = UID(identifier).encode("ascii")
    return value + b"\0" * (len(value) % 2)


@contextmanager
def _paused(asked: Association) -> Iterator[None]:
    # Otherwise the association's own thread may take the answer.
    asked._reactor_checkpoint.clear()
    while not asked._is_paused and asked.is_alive():
        time.sleep(0.0001)
    try:
        yield
    finally:
        asked._reactor_checkpoint.set()
