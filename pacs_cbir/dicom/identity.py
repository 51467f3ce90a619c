"""The words of an instance that name its patient, whoever saw them, or the site."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pydicom import DataElement, Dataset

# Their values are searched for in whatever text is kept, as names are.
_IDENTITY = (
    "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "AdmissionID",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber",
    "PatientAddress", "PatientTelephoneNumbers", "RequestedProcedureID", "PerformedProcedureStepID", "StudyID",
)  # fmt: skip
_SHORTEST_WORD = 4
"""Of a name or identifier that is searched for anywhere in a text: shorter ones are in too many harmless texts."""
_SHORTEST_NAME = 2
"""Of a name that is searched for as a word of its own, as Li and Ott."""
_SHORTEST_PART = 5
"""Of one that was cut short."""
_SHORTEST_IN_TERM = 6
"""Of one that is searched for within a defined term: PRIMARY holds a Mary and ORIGINAL a Gina."""
_SHORTEST_PART_AS_TERM = 8
"""Of one that was cut short there: BRAIN begins a Brainard."""
_TWO_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "æ": "ae", "å": "aa"})


def identity_of(ds: Dataset) -> frozenset[str]:
    """Words that name the patient, whoever saw them, the site or a day on which something was done; from all levels.

    In lower case, as a device that knows letters and digits alone may show them: without accents and punctuation,
    umlauts as one letter and as two.
    """
    found: set[str] = set()
    for element in elements_of(ds):
        value = element.value
        texts = [text_of(one) for one in (value if is_several(value) else [value])]
        if element.VR == "PN" or element.keyword in _IDENTITY:
            shortest = _SHORTEST_NAME if element.VR == "PN" else _SHORTEST_WORD
            found |= {word for text in texts for word in _words(text) if len(word) >= shortest}
        if element.VR in {"DA", "DT"}:
            found |= {day for text in texts for day in _as_written(text)}
    return frozenset(found)


def names_someone(text: str, identity: Collection[str], *, term: bool = False) -> bool:
    """Whether a text holds one of the words, or a word that one of them begins with, as where a name was cut short.

    Args:
        term: it may be a defined term, which is to be kept where a word is within it by chance.
    """
    parts = re.findall(r"[a-z0-9]+", text.casefold())
    joined = "".join(parts)
    anywhere = _SHORTEST_IN_TERM if term else _SHORTEST_WORD
    cut_short = tuple(part for part in parts if len(part) >= (_SHORTEST_PART_AS_TERM if term else _SHORTEST_PART))
    return any(
        (word in joined if len(word) >= anywhere else word in parts and not (term and len(word) < _SHORTEST_WORD))
        or any(word.startswith(part) for part in cut_short)
        for word in identity
    )


def bytes_name_someone(content: bytes, identity: Collection[str]) -> bool:
    """Whether one of the words is in what should be numbers; by chance one of that length is not."""
    folded = content.lower()
    return any(word.encode() in folded for word in identity if len(word) >= _SHORTEST_PART)


def number_names_someone(text: str, identity: Collection[str]) -> bool:
    """Whether a number is an identifier or a day."""
    digits = re.sub(r"\.0*$", "", text.lstrip("+-"))
    return bool({digits, digits.lstrip("0")} & set(identity))


def _words(text: str) -> Iterator[str]:
    folded = text.casefold()
    for spelled in {folded, folded.translate(_TWO_LETTERS)}:
        plain = "".join(one for one in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(one))
        for word in [plain, *re.split(r"[\^=\s,;]+", plain)]:
            yield re.sub(r"[^a-z0-9]", "", word)
            yield from re.findall(r"[a-z0-9]+", word)
        for number in re.findall(r"[0-9]{5,}", plain):
            yield number
            if len(number.lstrip("0")) >= _SHORTEST_WORD:
                yield number.lstrip("0")


def _as_written(moment: str) -> Iterator[str]:
    """A DA or DT as texts have days: year, month, day; day, month, year; month, day, year."""
    found = re.match(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})", moment)
    if found:
        year, month, day = found.groups()
        yield from (year + month + day, day + month + year, month + day + year)


def elements_of(ds: Dataset) -> Iterator[DataElement]:
    """The readable elements of all levels, a sequence before what is in it."""
    for tag in list(ds.keys()):
        try:
            element = ds[tag]
        except MemoryError:
            raise
        except Exception:  # noqa: S112 - as in `frames`: what cannot be read says nothing, and is not kept either
            continue
        yield element
        if element.VR == "SQ":
            for item in element.value or ():
                yield from elements_of(item)


def is_several(value: Any) -> bool:
    """Whether an element's value is a list of values; a person's name is one."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes) and not hasattr(value, "components")


def text_of(value: Any) -> str:
    """One value as text, without padding."""
    return "" if value is None else str(value).strip(" \0")
