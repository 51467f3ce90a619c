"""The DICOM conformance statement is held to the code."""

from __future__ import annotations

from tests.conformance import AT_LEAST, STATEMENT, app_without_database, statement, tables


def test_every_table_is_what_the_code_has() -> None:
    written = STATEMENT.read_text()
    code = tables(app_without_database())
    for name, lines in code.items():
        of_table = written.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0].split("\n")
        stands = [line for line in of_table if line]
        if name in AT_LEAST:
            assert len(stands) > 40
            assert set(stands) <= set(lines), f"{name}: `python -m tests.conformance` writes it"
        else:
            assert stands == lines, f"{name}: `python -m tests.conformance` writes it"


def test_what_is_written_is_what_was_there() -> None:
    app = app_without_database()
    once = statement(STATEMENT.read_text(), app)
    assert statement(once, app) == once
    assert once.startswith("# DICOM conformance statement\n")
    assert once.endswith("<!-- end of storage -->\n")
