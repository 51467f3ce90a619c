"""The Warning field stays one field, whatever a text quotes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pacs_cbir.serve.warning import MAX_CHARACTERS, warning


def test_what_would_end_the_quoted_string_is_escaped() -> None:
    assert warning('a "b" \\ c') == r'299 pacs-cbir "a \"b\" \\ c"'


def test_what_is_no_printable_ascii_is_replaced() -> None:
    assert warning("RGB\r\nX: ü\x7f") == '299 pacs-cbir "RGB??X: ??"'


@given(st.text())
def test_the_field_is_short_and_printable(text: str) -> None:
    value = warning(text * 50)
    assert value.isascii()
    assert value.isprintable()
    assert len(value) <= 2 * MAX_CHARACTERS + 20
