"""An HL7 v2 message → what it says of patients (HL7 2.5 chapters 2 and 3; IHE RAD TF-2 4.12, Patient Update)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import hl7

from pacs_cbir.errors import UnreadableMessage, UnsupportedMessage
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.value_tests import is_date

UPDATES = frozenset({"A08", "A31"})
MERGE = "A40"
_NO_PATIENT_NUMBERS = frozenset({"AN", "BA", "BC", "DL", "PPN", "SS", "VN"})
"""Identifier types (HL7 table 0203) of accounts, cards, licences, passports and visits."""
_SEXES = {"M": "M", "F": "F", "O": "O", "A": "O", "N": "O"}
"""HL7 table 0001 → PS3.3 C.7.1.1."""
_KIND = re.compile(r"[A-Z]{3}\^[A-Z][A-Z0-9]{2}")
"""HL7 tables 0076 and 0003."""
_LONGEST_NAME = 324
"""Three groups of five components of 64 characters would be more; no name is."""
_NULL = '""'
"""HL7 2.5 2.5.3: the value is to be taken away; a field that is empty says nothing."""
_CODECS = {
    "": "utf-8",
    "ASCII": "ascii",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "ISO IR14": "iso2022_jp_2",
    "ISO IR87": "iso2022_jp_2",
    "ISO IR159": "iso2022_jp_2",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    **{f"8859/{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
}
"""HL7 table 0211 → codec; without a name UTF-8, which holds ASCII."""


@dataclass(frozen=True)
class PatientUpdate:
    """One patient's demographics, under all identifiers that the message has for them.

    Attributes:
        values: keyword → value of those that it names.
    """

    patients: tuple[Identifier, ...]
    values: Mapping[str, str]


@dataclass(frozen=True)
class PatientMerge:
    """Identifiers that become others', by pairs (prior, surviving), and the survivor's demographics."""

    pairs: tuple[tuple[Identifier, Identifier], ...]
    values: Mapping[str, str]


Said = PatientUpdate | PatientMerge


def character_set(block: bytes) -> str:
    """The codec of a message, by MSH-18.

    Raises:
        UnreadableMessage: it is none that is known here.
    """
    fields = block.replace(b"\n", b"\r").split(b"\r", 1)[0].split(block[3:4] or b"|")
    repetitions = fields[17].decode("latin-1").upper() if len(fields) > 17 else ""
    name = repetitions.split("~", 1)[0].strip()
    if name not in _CODECS:
        raise UnreadableMessage("MSH-18 names a character set that is not known here")
    return _CODECS[name]


def parse(block: bytes) -> hl7.Message:
    """Parse one message.

    Raises:
        UnreadableMessage: it is none, or not in its character set.
    """
    if block[:3] != b"MSH":
        raise UnreadableMessage("the message does not begin with MSH")
    codec = character_set(block)
    try:
        text = block.decode(codec)
        message = hl7.parse(text.replace("\r\n", "\r").replace("\n", "\r"))
        # What an answer needs.
        message.create_ack()
    except UnicodeDecodeError as error:
        raise UnreadableMessage(
            "the message is not in the character set that MSH-18 names, UTF-8 without one"
        ) from error
    except Exception as error:
        # The library raises whatever a malformed header leads to, and assertions too.
        raise UnreadableMessage("the message cannot be read") from error
    return message


def kind_of(message: hl7.Message) -> str:
    """What a message says that it is, as `ADT^A08`; `other` where it is no word of the standard's, which may be
    anybody's name.
    """
    found = "^".join(_part(message[0], 9, component=number) for number in (1, 2))
    return found if _KIND.fullmatch(found) else "other"


def said(message: hl7.Message, issuers: Mapping[str, str]) -> tuple[Said, ...]:
    """What a message says of patients.

    Args:
        issuers: assigning authority → IssuerOfPatientID as instances have it; others keep their names.

    Raises:
        UnsupportedMessage: it is no ADT of these kinds.
        UnreadableMessage: a field that is needed is missing or malformed.
    """
    kind, trigger = (_part(message[0], 9, component=number) for number in (1, 2))
    if kind != "ADT" or trigger not in {*UPDATES, MERGE}:
        raise UnsupportedMessage(f"ADT with {', '.join(sorted({*UPDATES, MERGE}))} is taken in here, and nothing else")
    found: list[Said] = []
    patient: hl7.Segment | None = None
    for segment in message:
        name = str(segment[0])
        if name == "PID":
            patient = segment
            if trigger in UPDATES:
                found.append(PatientUpdate(_identifiers(segment, 3, issuers), _demographics(segment)))
        elif name == "MRG" and trigger == MERGE:
            if patient is None:
                raise UnreadableMessage("an MRG segment has no PID segment before it")
            found.append(_merge(patient, segment, issuers))
    if not found:
        raise UnreadableMessage("the PID segment is missing" if trigger in UPDATES else "the MRG segment is missing")
    return tuple(found)


def _merge(patient: hl7.Segment, prior: hl7.Segment, issuers: Mapping[str, str]) -> PatientMerge:
    """Each prior identifier goes into the surviving one of the same authority, or else into the first."""
    surviving = _identifiers(patient, 3, issuers)
    pairs = []
    for identifier in _identifiers(prior, 1, issuers):
        of_authority = [one for one in surviving if one.issuer_of_patient_id == identifier.issuer_of_patient_id]
        pairs.append((identifier, (of_authority or surviving)[0]))
    differing = tuple(pair for pair in pairs if pair[0] != pair[1])
    if not differing:
        raise UnreadableMessage("MRG-1 names the patient of PID-3")
    return PatientMerge(differing, _demographics(patient))


def _identifiers(segment: hl7.Segment, field: int, issuers: Mapping[str, str]) -> tuple[Identifier, ...]:
    """The patient numbers of a field of type CX, in their order."""
    found: dict[Identifier, None] = {}
    for repetition in range(1, _repetitions(segment, field) + 1):
        number = _part(segment, field, repetition, 1)
        authority = _part(segment, field, repetition, 4) or _part(segment, field, repetition, 4, 2)
        if number and number != _NULL and _part(segment, field, repetition, 5) not in _NO_PATIENT_NUMBERS:
            found[Identifier(number, issuers.get(authority, authority))] = None
    if not found:
        raise UnreadableMessage(f"{segment[0]}-{field} has no patient's number")
    return tuple(found)


def _demographics(pid: hl7.Segment) -> dict[str, str]:
    found: dict[str, str] = {}
    if _part(pid, 5) == _NULL:
        found["PatientName"] = ""
    elif name := _name(pid):
        found["PatientName"] = name
    if born := _part(pid, 7):
        if born != _NULL and not is_date(born[:8]):
            raise UnreadableMessage("PID-7 is no date")
        found["PatientBirthDate"] = "" if born == _NULL else born[:8]
    if sex := _part(pid, 8):
        found["PatientSex"] = _SEXES.get(sex, "")
    return found


def _name(pid: hl7.Segment) -> str:
    """XPN (HL7 2.5 2.A.89) → PN (PS3.5 6.2.1): of each representation the first; prefix before suffix."""
    groups = {"A": "", "I": "", "P": ""}
    for repetition in range(1, _repetitions(pid, 5) + 1):
        family, given, middle, suffix, prefix = (_clean(_part(pid, 5, repetition, number)) for number in range(1, 6))
        group = _part(pid, 5, repetition, 8) or "A"
        if group in groups and not groups[group]:
            groups[group] = "^".join((family, given, middle, prefix, suffix)).rstrip("^")
    name = "=".join(groups.values()).rstrip("=")
    if len(name) > _LONGEST_NAME:
        raise UnreadableMessage(f"PID-5 is longer than {_LONGEST_NAME} characters")
    return name


def _clean(component: str) -> str:
    """Without what parts a name's components and groups, and its values (PS3.5 6.2.1.1)."""
    return "" if component == _NULL else component.translate(dict.fromkeys(map(ord, "^=\\"), " "))


def _repetitions(segment: hl7.Segment, field: int) -> int:
    return len(segment(field)) if field < len(segment) else 0


def _part(segment: hl7.Segment, field: int, repetition: int = 1, component: int = 1, subcomponent: int = 1) -> str:
    """A part of a field, trimmed and without escapes; empty where it is missing."""
    try:
        text = str(segment.extract_field(1, field, repetition, component, subcomponent))
    except IndexError:
        return ""
    return "".join(character for character in text if character.isprintable()).strip()
