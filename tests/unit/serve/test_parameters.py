"""Query parameters → examples, matching keys and return keys."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.serve.parameters import ReturnKeys, example_of, matching_keys
from pacs_cbir.store.examples import Example


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("1.2", Example("1.2")),
        ("1.2/3.4", Example("1.2", "3.4")),
        ("1.2/3.4/5.6", Example("1.2", "3.4", "5.6")),
        ("1.2/3.4/5.6/7", Example("1.2", "3.4", "5.6", 7)),
    ],
)
def test_examples(text: str, example: Example) -> None:
    assert example_of(text) == example


@pytest.mark.parametrize(
    "text",
    ["", "/", "1.2/", "1.2//3", "1.2/../3", "x", "1." * 40, "1.2/3.4/5.6/7/8"]
    + [f"1.2/3.4/5.6/{frame}" for frame in ("0", "-1", "1.0", "²", "9" * 30)],
)
def test_other_examples_are_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match="example accepts"):
        example_of(text)


def parameters(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def test_all_but_the_reserved_are_matching_keys() -> None:
    found = matching_keys(parameters("limit=3&PatientSex=F&00080060=MR&StudyDate="), {"limit"})
    assert found == {"PatientSex": "F", "Modality": "MR", "StudyDate": ""}


@pytest.mark.parametrize("query", ["PatientSex=F&PatientSex=M", "PatientSex=F&00100040=M", "Limit=3"])
def test_other_parameters_are_refused(query: str) -> None:
    with pytest.raises(InvalidQuery):
        matching_keys(parameters(query), {"limit"})


def test_return_keys() -> None:
    there = {"StudyID": [""], "PatientSex": ["F"], "PatientAge": ["001Y"]}
    keys = ReturnKeys(["PatientAge, 00100040", "StudyTime"], ["Modality"])
    assert keys.requested == ("PatientAge", "PatientSex", "StudyTime", "Modality")
    assert keys.of(there, ["StudyID"]) == ("StudyID", "PatientAge", "PatientSex")
    assert set(ReturnKeys(["all"], []).of(there, ["StudyDate"])) == {"StudyDate", *there}
    with pytest.raises(InvalidQuery, match="Nonsense"):
        ReturnKeys(["Nonsense"], [])
