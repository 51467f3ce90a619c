"""Content negotiation (RFC 9110 12.5.1)."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException

from pacs_cbir.serve.accept import DICOM_JSON, JPEG, JSON, PNG, negotiate

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, DICOM_JSON),
        ("", DICOM_JSON),
        ("*/*", DICOM_JSON),
        ("application/*", DICOM_JSON),
        (BROWSER, DICOM_JSON),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("application/json, application/dicom+json", DICOM_JSON),
        ("application/json, application/dicom+json;q=0.5", JSON),
        ("application/json, */*;q=0.1", JSON),
        ("application/dicom+json;q=0, */*", JSON),
    ],
)
def test_the_best_that_is_accepted(accept: str | None, chosen: str) -> None:
    assert negotiate(accept, (DICOM_JSON, JSON)) == chosen


def test_the_most_specific_range_counts() -> None:
    assert negotiate("image/*, image/jpeg;q=0.2", (JPEG, PNG)) == PNG


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/xml",
        "application/dicom+json;q=0",
        "application/json;q=x",
        'multipart/related; type="a/b"',
    ],
)
def test_nothing_accepted_is_406(accept: str) -> None:
    with pytest.raises(HTTPException) as raised:
        negotiate(accept, (DICOM_JSON, JSON))
    assert raised.value.status_code == 406
    assert DICOM_JSON in raised.value.detail
