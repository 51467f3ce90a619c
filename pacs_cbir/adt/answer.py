"""What a message is answered with (HL7 2.5 2.9.2, 2.15.8): errors → acknowledgement code and condition, in one table.

AA: done, or nothing to do. AE: there is an error in it, and sent again as it is it has the same. AR: it is of a kind
that is never taken in (condition 200), or cannot be at present, for reasons that are not in it (207): it may be sent
again.
"""

from __future__ import annotations

import hl7
import structlog

from pacs_cbir.adt.message import PatientMerge, Said, character_set, kind_of, parse, said
from pacs_cbir.errors import (
    DatabaseUnavailable,
    InvalidIdentifier,
    MergeRefused,
    PacsCbirError,
    UnknownPatient,
    UnreadableMessage,
    UnsupportedMessage,
)
from pacs_cbir.settings import Settings
from pacs_cbir.store import corrections
from pacs_cbir.store.session import Connection, Database

DOOR = "HL7"
ACCEPT, ERROR, REJECT = "AA", "AE", "AR"
# What an accepted message came to. A merge that finds no study of the prior patient is kept for what may come.
APPLIED, NOBODY = "applied", "nobody here"
# Conditions are of HL7 table 0357.
NOT_NOW = REJECT, "207"
ANSWERS: dict[type[PacsCbirError], tuple[str, str]] = {
    UnsupportedMessage: (REJECT, "200"),
    UnreadableMessage: (ERROR, "101"),
    InvalidIdentifier: (ERROR, "102"),
    MergeRefused: (ERROR, "205"),
    DatabaseUnavailable: NOT_NOW,
}
# Where there is no header to answer to.
BARE = "MSH|^~\\&|PACS_CBIR||||||ACK|0|P|2.5\rMSA|AR|0|no HL7 message\r"

log = structlog.get_logger()


def answer(block: bytes, database: Database, settings: Settings) -> bytes:
    """Take in what a message says, and acknowledge it. What is wrong is said without anybody's identity."""
    try:
        message = parse(block)
    except UnreadableMessage as error:
        code, answered = _unread(block, str(error))
        log.warning("HL7 message refused", answer=code, error=str(error))
        return answered
    kind = kind_of(message)
    try:
        with database.transaction() as connection:
            found = [_correct(connection, one) for one in said(message, settings.hl7_issuers)]
    except PacsCbirError as error:
        code, condition = next((ANSWERS[kind_] for kind_ in type(error).__mro__ if kind_ in ANSWERS), NOT_NOW)
        log.warning("HL7 message refused", kind=kind, answer=code, error=str(error))
        return _acknowledge(message, code, condition, str(error), block)
    except Exception as error:
        # Its text may carry what the message says.
        log.exception("HL7 message broke", kind=kind, error=type(error).__name__, exc_info=False)
        return _acknowledge(message, *NOT_NOW, "an error that was not foreseen; the service's log has it", block)
    outcome = APPLIED if sum(found) else NOBODY
    log.info("HL7 message taken in", kind=kind, answer=ACCEPT, outcome=outcome, studies=sum(found))
    return _acknowledge(message, ACCEPT, "", outcome, block)


def _correct(connection: Connection, one: Said) -> int:
    """Make a correction; returns of how many studies it is."""
    found = 0
    if isinstance(one, PatientMerge):
        for prior, surviving in one.pairs:
            found += corrections.merge_patients(connection, prior, surviving, one.values, DOOR)
        return found
    for identifier in one.patients:
        try:
            found += corrections.update_patient(connection, identifier, one.values, DOOR)
        except UnknownPatient:
            # A hospital's messages are of all its patients; of most nothing is here.
            continue
    return found


def _acknowledge(message: hl7.Message, code: str, condition: str, text: str, block: bytes) -> bytes:
    made = message.create_ack(code, application="PACS_CBIR")
    separator = message.separators[1]
    lines = str(made).rstrip("\r").split("\r")
    if text:
        plain = "".join(character for character in text if character not in message.separators)
        lines[1] += f"{separator}{plain}"
    if condition:
        lines.append(separator.join(("ERR", "", "", condition, "E", "", "", "", plain)))
    return "\r".join((*lines, "")).encode(character_set(block), "replace")


def _unread(block: bytes, text: str) -> tuple[str, bytes]:
    """An answer to what cannot be parsed, with the control ID where there is one, and its acknowledgement code."""
    fields = block.split(b"\r", 1)[0].split(block[3:4]) if block[:4] == b"MSH|" else []
    if len(fields) <= 9:
        return REJECT, BARE.encode()
    control = fields[9][:199].decode("latin-1").encode("ascii", "replace").decode()
    lines = [f"MSH|^~\\&|PACS_CBIR||||||ACK|{control}|P|2.5", f"MSA|{ERROR}|{control}|{text}", f"ERR|||102|E||||{text}"]
    return ERROR, "\r".join((*lines, "")).encode()
