"""Query parameters → examples, matching keys and return keys."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from pacs_cbir.embed.region import Box
from pacs_cbir.errors import InvalidQuery
from pacs_cbir.serve.parameters import ReturnKeys, example_of, region_of
from pacs_cbir.store.examples import Example
from pacs_cbir.store.matching import matching_keys


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


FRAME = Example("1.2", "3.4", "5.6", 7)


def test_a_region_is_a_box_of_the_one_example() -> None:
    assert region_of(" 1,2,30,400 ", [FRAME]) == Box(left=1, top=2, right=30, bottom=400)
    assert region_of("0,0,1,1", [Example("1.2", "3.4", "5.6")]) == Box(0, 0, 1, 1)
    assert region_of("", [Example("1.2"), Example("1.3")]) is None
    for examples in ([], [Example("1.2")], [Example("1.2", "3.4")], [FRAME, FRAME]):
        with pytest.raises(InvalidQuery, match="exactly one example"):
            region_of("0,0,1,1", examples)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1,2,3",
        "1,2,3,4,5",
        "a,b,c,d",
        "3,0,3,1",
        "4,0,3,1",
        "0,3,1,3",
        "0,4,1,3",
        "-1,0,1,1",
        "0,0,1.5,2",
        "0,0,²,2",
    ],
)
def test_other_regions_are_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match="region accepts x0,y0,x1,y1"):
        region_of(text, [FRAME])


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
