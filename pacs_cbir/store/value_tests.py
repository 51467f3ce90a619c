"""One matching key's value → a condition over a stored value of that attribute (PS3.4 C.2.2.2).

Dates and times match one by one, never combined to a moment; offsets from UTC are not looked at. Beyond the standard,
numbers and ages match ranges too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from pydicom.datadict import dictionary_VR
from sqlalchemy import ColumnElement, Numeric, String, and_, case, cast, false, func, literal_column, or_, true

from pacs_cbir.errors import InvalidQuery

Test = Callable[[ColumnElement[str]], ColumnElement[bool]]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH = 64
# One way to read each text: alternatives that overlap take quadratic time to fail.
_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_NUMBER_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})?")
_AGE = r"[0-9]{3}[DWMY]"
_AGE_RANGE = re.compile(rf"({_AGE})?\s*-\s*({_AGE})?")
_AGE_DAYS = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
# Between the components of a name, and the words of one (PS3.5 6.2.1).
_NAME_SEPARATORS = "[\\^=,. -]+"
_COMBINING = "[\u0300-\u036f]"
_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_WILDCARD_TEXT = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"})
_PLAIN_TEXT = frozenset({"AS", "UR"})
_BACKSLASH_TEXT = frozenset({"LT", "ST", "UR", "UT"})
"""VRs of one value, in which a backslash is a character (PS3.5 6.2)."""
_DIGITS = {"DA": 8, "TM": 12, "DT": 20}
"""Digits of a full value: YYYYMMDD, HHMMSSFFFFFF, and both."""
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?")
_YEAR_MONTH = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])?")
_UTC_OFFSET = r"[+-][0-9]{4}$"
_PN_GROUPS = 3
MAX_VALUE_CHARACTERS = 1024
"""Nothing longer is stored, so nothing longer matches."""
MAX_UIDS = 1000
MAX_MODALITIES = 100
_ESCAPE = "/"


def value_test(keyword: str, text: str, *, fuzzy: bool = False) -> Test | None:
    """What one of the attribute's values must hold; None where all do, universal matching (PS3.4 C.2.2.2.3).

    Args:
        keyword: of the attribute.
        text: the key's value; wildcards, ranges and lists as its VR allows them.
        fuzzy: text without regard to case and accents; a name by the beginnings of its words, in any order
            (PS3.4 C.2.2.2.1.1 leaves it to the implementation).

    Raises:
        InvalidQuery: names the key and what it accepts.
    """
    text = text.strip()
    vr = dictionary_VR(keyword).split(" or ")[0]
    if vr not in _NUMBERS | _WILDCARD_TEXT | _PLAIN_TEXT | _DIGITS.keys() | {"PN", "UI"}:
        raise InvalidQuery(f"{keyword} ({vr}) is no matching key; accepted are text, names, numbers, dates and UIDs")
    if "\0" in text:
        raise InvalidQuery(f"{keyword} holds a NUL character")
    if text in {"", "*"}:
        return None
    if vr == "UI":
        return _uid_test(keyword, text)
    if len(text) > MAX_VALUE_CHARACTERS:
        raise InvalidQuery(f"{keyword} accepts at most {MAX_VALUE_CHARACTERS} characters")
    if vr in _NUMBERS:
        return _number_test(keyword, text)
    if vr in _DIGITS:
        return _range_test(keyword, vr, text)
    return _words_test(keyword, vr, text, fuzzy=fuzzy)


def _words_test(keyword: str, vr: str, text: str, *, fuzzy: bool) -> Test:
    listed = _modalities(text) if keyword == "ModalitiesInStudy" else [text]
    if vr not in _BACKSLASH_TEXT and any("\\" in value for value in listed):
        raise InvalidQuery(f"{keyword} accepts one value; lists are for UIDs and ModalitiesInStudy")
    if vr == "AS" and (ages := _AGE_RANGE.fullmatch(text)) and any(ages.groups()):
        return _age_test(*ages.groups())
    if vr == "AS" and not re.fullmatch(_AGE, text):
        raise InvalidQuery(f"{keyword} accepts an age, as 045Y (or D, W, M), and the ranges A-B, A- and -B")
    if vr == "PN":
        return _fuzzy_name_test(text) if fuzzy else _name_test(keyword, text)
    tests = [_text_test(value.strip(), wildcards=vr in _WILDCARD_TEXT, fuzzy=fuzzy) for value in listed]
    return lambda value: or_(*(test(value) for test in tests))


def _modalities(text: str) -> list[str]:
    listed = text.split("\\" if "\\" in text else ",")
    if len(listed) > MAX_MODALITIES:
        raise InvalidQuery(f"ModalitiesInStudy accepts at most {MAX_MODALITIES} values")
    return listed


def _uid_test(keyword: str, text: str) -> Test:
    """List of UID matching (PS3.4 C.2.2.2.2)."""
    uids = list(dict.fromkeys(uid.strip() for uid in re.split(r"[\\,]", text)))
    if len(uids) > MAX_UIDS:
        raise InvalidQuery(f"{keyword} accepts at most {MAX_UIDS} UIDs")
    if not all(is_uid(uid) for uid in uids):
        raise InvalidQuery(f"{keyword} accepts UIDs, several with a comma or backslash between them, and no wildcards")
    return lambda value: value.in_(uids)


def is_uid(text: str) -> bool:
    """Whether a text is a UID (PS3.5 9.1; components may begin with a zero, as some devices write them)."""
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Whether a text is a DA (PS3.5 6.2): YYYYMMDD, of a day that the calendar has."""
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return len(text) == _DIGITS["DA"] and text.isascii() and text.isdecimal()


def _number_test(keyword: str, text: str) -> Test:
    """One number, `low-high` or `low-`; what reads as a number is one, so that -5 is a negative number."""
    if re.fullmatch(_NUMBER, text):
        low, high = text, text
    elif found := _NUMBER_RANGE.fullmatch(text):
        low, high = found[1], found[5]
    else:
        raise InvalidQuery(f"{keyword} accepts a decimal number, and the ranges A-B and A-")

    def test(value: ColumnElement[str]) -> ColumnElement[bool]:
        number = cast(value, Numeric)
        bounds = [number >= cast(Decimal(low), Numeric)]
        if high:
            bounds.append(number <= cast(Decimal(high), Numeric))
        # CASE, since the cast of a value that is no number must not be tried.
        return case((value.regexp_match(f"^{_NUMBER}$"), and_(*bounds)), else_=false())

    return test


def _age_test(low: str | None, high: str | None) -> Test:
    """Ages from one to another, both included: until the end of the last day, week, month or year."""

    def test(value: ColumnElement[str]) -> ColumnElement[bool]:
        unit = func.right(value, 1, type_=String)
        days = cast(func.left(value, 3, type_=String), Numeric) * case(
            *((unit == name, days) for name, days in _AGE_DAYS.items()), else_=0.0
        )
        bounds = []
        if low:
            bounds.append(days >= int(low[:3]) * _AGE_DAYS[low[3]])
        if high:
            bounds.append(days < (int(high[:3]) + 1) * _AGE_DAYS[high[3]])
        return case((value.regexp_match(f"^{_AGE}$"), and_(*bounds)), else_=false())

    return test


def _range_test(keyword: str, vr: str, text: str) -> Test:
    """Single value and range matching of dates and times (PS3.4 C.2.2.2.5); a truncated value is a range itself."""
    low, dash, high = (part.strip() for part in text.partition("-"))
    bounds = [low, high] if dash else [low, low]
    if not any(bounds) or not all(_is_moment(vr, bound) for bound in bounds if bound):
        accepted = {
            "DA": "YYYYMMDD",
            "TM": "HH, HHMM, HHMMSS or HHMMSS.FFFFFF",
            "DT": "YYYYMMDDHHMMSS.FFFFFF, truncated at will, without an offset from UTC",
        }[vr]
        raise InvalidQuery(f"{keyword} accepts {accepted}, and the ranges A-B, A- and -B of them")
    width = _DIGITS[vr]
    first, last = (bound.replace(".", "") for bound in bounds)

    def test(value: ColumnElement[str]) -> ColumnElement[bool]:
        # Colons and points are of older versions of the standard (PS3.5 6.2).
        digits = func.regexp_replace(value, f"[.:]|{_UTC_OFFSET}", "", "g")
        full = func.rpad(digits, width, "0", type_=String).collate("C")
        return and_(
            digits.regexp_match("^[0-9]+$"),
            *([full >= first.ljust(width, "0")] if first else []),
            *([full <= last.ljust(width, "9")] if last else []),
        )

    return test


def _is_moment(vr: str, text: str) -> bool:
    if vr == "TM":
        return _TIME.fullmatch(text) is not None
    date, time = text[:8], text[8:]
    if len(date) < 8:
        return vr == "DT" and not time and _YEAR_MONTH.fullmatch(date) is not None
    return is_date(date) and (not time or (vr == "DT" and _TIME.fullmatch(time) is not None))


def _name_test(keyword: str, text: str) -> Test:
    """Person names: any case, any component group, or the groups that `=` names (PS3.4 C.2.2.2.1, PS3.5 6.2.1)."""
    wanted = [group.strip() for group in text.split("=")]
    if len(wanted) > _PN_GROUPS:
        raise InvalidQuery(f"{keyword} accepts at most {_PN_GROUPS} component groups, with = between them")

    def group_test(value: ColumnElement[str], number: int, group: str) -> ColumnElement[bool]:
        stored = func.lower(func.split_part(value, "=", number, type_=String))
        if has_wildcards(group):
            return stored.like(func.lower(_pattern(group), type_=String), escape=_ESCAPE)
        # Trailing empty components say nothing.
        return func.rtrim(stored, "^ ", type_=String) == func.lower(group.rstrip("^ "), type_=String)

    def test(value: ColumnElement[str]) -> ColumnElement[bool]:
        if len(wanted) == 1:
            return or_(*(group_test(value, number, wanted[0]) for number in range(1, _PN_GROUPS + 1)))
        return and_(
            true(),
            *(group_test(value, number, group) for number, group in enumerate(wanted, 1) if group not in {"", "*"}),
        )

    return test


def _fuzzy_name_test(text: str) -> Test:
    """Every word begins a word of the name."""
    words = re.sub(_NAME_SEPARATORS, " ", _folded(text)).split()

    def test(value: ColumnElement[str]) -> ColumnElement[bool]:
        stored = func.regexp_replace(folded_column(value), _NAME_SEPARATORS, " ", "g", type_=String)
        begun = func.concat(" ", stored, type_=String)
        return and_(true(), *(begun.like(f"% {_pattern(word)}%", escape=_ESCAPE) for word in words))

    return test


def _folded(text: str) -> str:
    """Without case and accents."""
    return re.sub(_COMBINING, "", unicodedata.normalize("NFKD", text)).lower()


def folded_column(value: ColumnElement[str]) -> ColumnElement[str]:
    """Text without case and accents."""
    decomposed = func.normalize(value, literal_column("NFKD"), type_=String)
    return func.lower(func.regexp_replace(decomposed, _COMBINING, "", "g", type_=String), type_=String)


def _text_test(text: str, *, wildcards: bool, fuzzy: bool) -> Test:
    if fuzzy:
        literal = _text_test(_folded(text), wildcards=wildcards, fuzzy=False)
        return lambda value: literal(folded_column(value))
    if wildcards and has_wildcards(text):
        pattern = _pattern(text)
        return lambda value: value.like(pattern, escape=_ESCAPE)
    return lambda value: value == text


def has_wildcards(text: str) -> bool:
    """Whether a value is a pattern (PS3.4 C.2.2.2.4)."""
    return "*" in text or "?" in text


def _pattern(text: str) -> str:
    """Wildcards (PS3.4 C.2.2.2.4) as LIKE has them, all else literally."""
    literal = re.sub(r"[/%_]", lambda special: _ESCAPE + special[0], text)
    return literal.replace("*", "%").replace("?", "_")
