"""An SCU that sends what it is given, right or wrong: pynetdicom's own mends or refuses it before it is sent."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from dicom_factory import encoded
from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from pacs_cbir.pacs.association import leave_answers_to_who_asked
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
    with _answered_here(asked):
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


def _command(sop_class: str, sop_instance: str | None, *, with_data: bool, field: int = 0x0001) -> bytes:
    """A C-STORE-RQ's or C-FIND-RQ's command set in implicit VR little endian (PS3.7 9.3.1.1, 9.3.2.1)."""
    elements = [
        (0x0002, _padded(sop_class)),
        (0x0100, struct.pack("<H", field)),
        (0x0110, struct.pack("<H", 1)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 0x0001 if with_data else 0x0101)),
    ]
    if sop_instance is not None:
        elements.append((0x1000, _padded(sop_instance)))
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _padded(identifier: str) -> bytes:
    value = UID(identifier).encode("ascii")
    return value + b"\0" * (len(value) % 2)


@contextmanager
def _answered_here(asked: Association) -> Iterator[None]:
    take = asked.dimse.get_msg
    leave_answers_to_who_asked(asked)
    try:
        yield
    finally:
        asked.dimse.get_msg = take


class Final(int):
    """A query's last status.

    Attributes:
        code: its number.
        comment: its Error Comment, empty where there is none.
    """

    code: int
    comment: str


def identifier(level: str, *, private: Mapping[int, tuple[str, object]] | None = None, **keys: object) -> Dataset:
    """A C-FIND's identifier in UTF-8.

    Args:
        private: number in our private block → VR and value.
    """
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        vr = dictionary_VR(keyword).split(" or ")[0]
        # Matching keys are no values of their VR, as 1-3 is no IS.
        given: object = int(value) if vr == "US" and value else value
        if isinstance(given, str) and vr in {"IS", "DS"}:
            ds.add(DataElement(keyword, "LO", given))
        else:
            ds.add(DataElement(keyword, vr, given, validation_mode=config.IGNORE))
    if private:
        block = ds.private_block(0x0075, "PACS_CBIR", create=True)
        for number, (vr, value) in private.items():
            block.add_new(number, vr, value)
    return ds


def find(asked: Association, level: str, **keys: object) -> tuple[Final, list[tuple[int, Dataset]]]:
    """Ask in the Study Root model; as `answers`."""
    return answers(asked, identifier(level, **keys))


def answers(asked: Association, ds: Dataset) -> tuple[Final, list[tuple[int, Dataset]]]:
    """The last status, and of each answer before it its status and data set."""
    with _answered_here(asked):
        *pending, (last, _) = asked.send_c_find(ds, StudyRootQueryRetrieveInformationModelFind)
    final = Final(last.Status)
    final.code, final.comment = int(last.Status), last.get("ErrorComment", "")
    return final, [(status.Status, found) for status, found in pending]


def find_bytes(asked: Association, data: bytes) -> int | None:
    """Ask with any bytes as the identifier; the last status, None where there was none."""
    sop_class = StudyRootQueryRetrieveInformationModelFind
    with _answered_here(asked):
        asked.dul.send_pdu(_fragment(1, 0b11, _command(sop_class, None, with_data=True, field=0x0020)))
        step = asked.acceptor.maximum_length - 6
        for start in range(0, max(1, len(data)), step):
            last = start + step >= len(data)
            asked.dul.send_pdu(_fragment(1, 0b10 if last else 0b00, data[start : start + step]))
        while True:
            _, answer = asked.dimse.get_msg(block=True)
            if answer is None or answer.Status is None:
                return None
            if answer.Status not in {0xFF00, 0xFF01}:
                return int(answer.Status)
