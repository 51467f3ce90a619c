"""Which part of the body an image shows."""

from __future__ import annotations

import re

from pydicom import Dataset

from pacs_cbir.dicom.frames import flattened_header, value_of
from pacs_cbir.dicom.words import BODY_PARTS, spaced


def body_part(ds: Dataset) -> str:
    """The part of the body in upper case, HEAD, SKULL and their like as BRAIN; empty where it cannot be told.

    Body Part Examined decides (PS3.16 Annex L), then the coded region, then words of the descriptions and the coil.
    """
    flat = flattened_header(ds)
    if examined := str(value_of(flat, "BodyPartExamined") or "").strip():
        return canonical(examined)
    for keyword in ("AnatomicRegionSequence", "ProcedureCodeSequence"):
        for item in value_of(flat, keyword) or ():
            if part := _named_part(spaced(str(value_of(item, "CodeMeaning") or ""))):
                return part
    for keyword in (
        "SeriesDescription",
        "ProtocolName",
        "StudyDescription",
        "PerformedProcedureStepDescription",
        "RequestedProcedureDescription",
        "ReceiveCoilName",
    ):
        if part := _named_part(spaced(str(value_of(flat, keyword) or ""))):
            return part
    return ""


def canonical(name: str) -> str:
    """A part's name as `body_part` writes it: of what it does not know the letters and digits, in upper case."""
    return _named_part(spaced(name)) or re.sub(r"[^A-Z0-9]", "", name.upper())


def _named_part(words: str) -> str:
    """The one body part that the words name; none where they name several."""
    found = {part for part, pattern in BODY_PARTS if pattern.search(words)}
    return found.pop() if len(found) == 1 else ""
