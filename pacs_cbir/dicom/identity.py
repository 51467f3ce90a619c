"""The words of an instance that name its patient, whoever saw them, or the site."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pydicom import DataElement, Dataset

# Their values are searched for in whatever text is kept, as names are.
_IDENTITY = (
    "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "AdmissionID",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber",
    "PatientAddress", "PatientTelephoneNumbers", "RequestedProcedureID", "PerformedProcedureStepID",
)  # fmt: skip
_SHORTEST_WORD = 4
"""Of a name or identifier that is searched for: shorter ones are in too many harmless texts."""
_SHORTEST_PART = 5
"""Of one that was cut short, likewise."""


def identity_of(ds: Dataset) -> frozenset[str]:
    """Words, in lower case, that name the patient, whoever saw them, or the site; from all levels."""
    texts: list[str] = []
    for element in elements_of(ds):
        if element.VR == "PN" or element.keyword in _IDENTITY:
            value = element.value
            texts += [text_of(one) for one in (value if is_several(value) else [value])]
    words = {word for text in texts for word in [*re.split(r"[\^=\s,;]+", text), text]}
    return frozenset(word.casefold() for word in words if len(word) >= _SHORTEST_WORD)


def names_someone(text: str, identity: Collection[str]) -> bool:
    """Whether a text holds one of the words, or a word that one of them begins with, as where a name was cut short."""
    folded = text.casefold()
    parts = [part for part in re.split(r"[^a-z0-9]+", folded) if len(part) >= _SHORTEST_PART]
    return any(word in folded or any(word.startswith(part) for part in parts) for word in identity)


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
