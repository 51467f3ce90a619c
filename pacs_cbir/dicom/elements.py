"""The top-level elements of an encoded data set, one by one, in memory that no data set can make grow.

pydicom defers large values but parses a sequence of undefined length whole, and takes a value that ends before its
length for a short one. A store that stays flat and refuses cut-off files needs both told apart here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct, calcsize, iter_unpack
from typing import BinaryIO

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32, PN_DELIMS, TEXT_VR_DELIMS

MAX_VALUE_BYTES = 4096
"""Longer values are passed over: no attribute that a query matches or returns is as long."""
MAX_DEPTH = 100
"""Sequences of undefined length inside one another."""

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_VRS = {str(vr).encode("ascii") for vr in EXPLICIT_VR_LENGTH_16 | EXPLICIT_VR_LENGTH_32}
_LONG_VRS = {str(vr).encode("ascii") for vr in EXPLICIT_VR_LENGTH_32}
_ISO_TERM = re.compile(r"ISO.(2022.)?IR.[0-9]+")
_SINGLE_TEXT = {"LT", "ST", "UT", "UR"}
_MULTIPLE_TEXT = {"SH", "LO", "UC", "PN"}
_ASCII = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"}
# Characters behind which an escape to another character set no longer holds (PS3.5 6.1.2.5.3).
_DELIMITERS = TEXT_VR_DELIMS | {ord("\\")}
_PN_DELIMITERS = _DELIMITERS | PN_DELIMS | {ord("=")}
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}


class MalformedDataSet(Exception):
    """The bytes cannot be walked as a data set: cut off, nested without end, or no elements at all."""


@dataclass(frozen=True)
class Element:
    """One element of the top level.

    Attributes:
        tag: group and element number in one.
        vr: the value representation; from the data dictionary where the encoding has none, empty for private ones.
        value_at: where its value begins in the stream.
        length: of the value in bytes; 0xFFFFFFFF where it is undefined.
        value: the encoded value; None for sequences, the last element that was asked for, and lengths over
            the longest that was asked for.
        little_endian: the byte order of `value`.
    """

    tag: int
    vr: str
    value_at: int
    length: int
    value: bytes | None
    little_endian: bool


class _Walk:
    """A position in a stream of elements (PS3.5 7.1)."""

    def __init__(self, stream: BinaryIO, end: int, little_endian: bool) -> None:
        self.stream = stream
        self.end = end
        order = "<" if little_endian else ">"
        self.tag = Struct(order + "HH")
        self.short = Struct(order + "H")
        self.long = Struct(order + "I")

    def take(self, count: int) -> bytes:
        taken = self.stream.read(count)
        if len(taken) < count:
            raise MalformedDataSet("the data set ends inside an element")
        return taken

    def skip(self, count: int) -> None:
        target = self.stream.tell() + count
        if target > self.end:
            raise MalformedDataSet("an element claims more bytes than there are")
        self.stream.seek(target)

    def header(self, implicit: bool) -> tuple[int, bytes, int]:
        """Tag, VR (empty where there is none) and length of the element that begins here."""
        group, number = self.tag.unpack(self.take(4))
        tag = group << 16 | number
        rest = self.take(4)
        vr = rest[:2]
        # Some writers switch to implicit VR within an explicit data set; letters are no plausible length.
        if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            return tag, b"", self.long.unpack(rest)[0]
        if vr in _LONG_VRS:
            return tag, vr, self.long.unpack(self.take(4))[0]
        return tag, vr, self.short.unpack(rest[2:])[0]

    def skip_undefined(self, implicit: bool) -> None:
        """Pass over the rest of a value of undefined length, fragments or nested items (PS3.5 7.5, A.4)."""
        levels = [implicit]
        while levels:
            tag, vr, length = self.header(levels[-1])
            if tag in (_ITEM_END, _SEQUENCE_END):
                levels.pop()
            elif length == _UNDEFINED:
                # The items of a UN value are in implicit VR whatever surrounds them (PS3.5 6.2.2).
                levels.append(levels[-1] or vr == b"UN")
            else:
                self.skip(length)
            if len(levels) > MAX_DEPTH:
                raise MalformedDataSet(f"sequences are nested deeper than {MAX_DEPTH}")


def read_elements(
    stream: BinaryIO,
    end: int,
    *,
    implicit: bool,
    little_endian: bool,
    only_group: int | None = None,
    until: frozenset[int] = frozenset(),
    longest: int = MAX_VALUE_BYTES,
) -> Iterator[Element]:
    """The elements from the stream's position on.

    An element whose `value` is None is yielded before its extent is looked at: who asks for the next element, even
    after the last one, learns whether it was cut off.

    Args:
        stream: seekable.
        end: the position at which the data set must end.
        only_group: stop before the first element of another group; the stream then stands at its beginning.
        until: tags of elements behind which nothing is read.
        longest: values of more bytes are passed over.

    Raises:
        MalformedDataSet: while iterating.
    """
    walk = _Walk(stream, end, little_endian)
    while (begin := stream.tell()) < end:
        tag, encoded_vr, length = walk.header(implicit)
        if only_group is not None and tag >> 16 != only_group:
            stream.seek(begin)
            return
        if tag >> 16 == 0xFFFE:
            raise MalformedDataSet("an item stands outside of a sequence")
        value_at = stream.tell()
        vr = _vr(tag, encoded_vr)
        if length > longest or vr == "SQ" or tag in until:
            yield Element(tag, vr, value_at, length, None, little_endian)
            if length == _UNDEFINED:
                walk.skip_undefined(implicit or encoded_vr == b"UN")
            else:
                walk.skip(length)
        else:
            yield Element(tag, vr, value_at, length, walk.take(length), little_endian)
        if tag in until:
            return


def _vr(tag: int, encoded: bytes) -> str:
    if encoded in _VRS and encoded != b"UN":
        return encoded.decode("ascii")
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return ""
    # Where the dictionary leaves a choice, Pixel Representation decides about the sign of pixel values, which no
    # query asks for.
    return vr if len(vr) == 2 else vr.split(" or ")[0]


def encodings_of(specific_character_set: bytes) -> list[str]:
    """Python's names of the character sets in a value of (0008,0005), ISO 2022 escapes included (PS3.3 C.12.1.1.2)."""
    names = [name.strip() for name in specific_character_set.decode("latin-1").split("\\")]
    # pydicom takes any codec of Python's for a character set, and mends terms with other punctuation.
    return convert_encodings([name if name in python_encoding or _ISO_TERM.fullmatch(name) else "" for name in names])


def text_values(element: Element, encodings: Sequence[str]) -> list[str]:
    """An element's values as text, without padding and NULs; none where it is empty or not of a kind that has text.

    Raises:
        ValueError, struct.error: the value is not one of its VR.
    """
    if not element.value:
        return []
    if element.vr in _NUMBERS:
        code = ("<" if element.little_endian else ">") + _NUMBERS[element.vr]
        if len(element.value) % calcsize(code):
            raise ValueError("the value's length is no multiple of its VR's")
        return [str(number) for (number,) in iter_unpack(code, element.value)]
    if element.vr in _ASCII:
        text = element.value.decode("latin-1")
    elif element.vr in _SINGLE_TEXT | _MULTIPLE_TEXT:
        text = decode_bytes(element.value, encodings, _PN_DELIMITERS if element.vr == "PN" else _DELIMITERS)
        # UTF-8, in which all text is kept and sent, has no lone surrogates.
        text = text.encode("utf-8", "replace").decode("utf-8")
    else:
        return []
    text = text.replace("\0", "")
    if element.vr in _SINGLE_TEXT:
        return [text.rstrip()] if text.strip() else []
    values = [value.strip() for value in text.split("\\")]
    return values if any(values) else []
