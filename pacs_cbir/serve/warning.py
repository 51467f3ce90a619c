"""The Warning field (RFC 7234 5.5), as PS3.18 8.3.4.4 has it: what an answer leaves out, in words."""

from __future__ import annotations

import re

MAX_CHARACTERS = 1000
"""What quotes a header is cut off here: fields that are too long are lost on the way."""

_ESCAPED = re.compile(r'(["\\])')
_UNPRINTABLE = re.compile(r"[^ -~]")


def warning(text: str) -> str:
    """One value of the field: printable ASCII, whatever the text quotes; other characters read `?`."""
    printable = _UNPRINTABLE.sub("?", text[:MAX_CHARACTERS])
    escaped = _ESCAPED.sub(r"\\\1", printable)
    return f'299 pacs-cbir "{escaped}"'
