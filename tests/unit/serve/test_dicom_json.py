"""Attributes as text → JSON, whatever a PACS wrote into them."""

from __future__ import annotations

import json
import uuid
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from pacs_cbir.dicom.private_block import PRIVATE_CREATOR
from pacs_cbir.search.query import Picture, SeriesMatch, SliceMatch, StudyMatch
from pacs_cbir.serve.answers import (
    OUTSIDE_DOMAIN,
    Uids,
    series_model,
    series_plain,
    study_model,
    study_plain,
)
from pacs_cbir.serve.dicom_json import model, plain
from pacs_cbir.serve.parameters import ReturnKeys
from pacs_cbir.store.embeddings import Source

ATTRIBUTES = {
    "StudyInstanceUID": ["1.2"],
    "PatientName": ["Yamada^Tarou=山田^太郎"],
    "NumberOfStudyRelatedSeries": ["2"],
    "PatientWeight": ["70.5"],
    "OtherPatientIDs": ["a", "b"],
    "Rows": ["256"],
    "PatientSize": ["tall"],
    "StudyID": [],
}
KEYWORDS = [
    "PatientName", "PatientID", "PatientSize", "StudyDate", "StudyTime", "SeriesNumber", "EchoTime", "Rows",
    "PatientAge", "Modality", "RetrieveURL", "StudyInstanceUID", "AcquisitionDateTime", "RescaleSlope", "B1rms",
    "StudyComments",
]  # fmt: skip
VALUE = st.one_of(
    st.text(max_size=12), st.sampled_from(["1", "-1.5", "1e400", "nan", "inf", "1\\2", "", "=", "^^", "9" * 40])
)


def test_the_dicom_json_model() -> None:
    found = model(ATTRIBUTES, [*ATTRIBUTES, "StudyDate"])
    assert found["0020000D"] == {"vr": "UI", "Value": ["1.2"]}
    assert found["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]}
    assert found["00201206"] == {"vr": "IS", "Value": [2]}
    assert found["00101030"] == {"vr": "DS", "Value": [70.5]}
    assert found["00101000"] == {"vr": "LO", "Value": ["a", "b"]}
    assert found["00280010"] == {"vr": "US", "Value": [256]}
    assert found["00080020"] == {"vr": "DA"}
    assert "00101020" not in found


def test_an_empty_value_among_several_is_null() -> None:
    given = {
        "StudyDescription": ["a", "", "c"],
        "PixelSpacing": ["1.5", "", "2"],
        "OtherPatientNames": ["", "A^B", "=="],
        "StudyID": ["", ""],
        "EchoTime": ["", ""],
    }
    found = model(given, given)
    assert found["00081030"] == {"vr": "LO", "Value": ["a", None, "c"]}
    assert found["00280030"] == {"vr": "DS", "Value": [1.5, None, 2]}
    assert found["00101001"] == {"vr": "PN", "Value": [None, {"Alphabetic": "A^B"}, None]}
    assert found["00200010"] == {"vr": "SH"}
    assert found["00180081"] == {"vr": "DS"}


def test_plain_json() -> None:
    assert plain(ATTRIBUTES, [*ATTRIBUTES, "StudyDate"]) == {
        "StudyInstanceUID": "1.2",
        "PatientName": "Yamada^Tarou=山田^太郎",
        "NumberOfStudyRelatedSeries": 2,
        "PatientWeight": 70.5,
        "OtherPatientIDs": ["a", "b"],
        "Rows": 256,
    }


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), st.lists(VALUE, max_size=3)))
def test_whatever_was_stored_is_valid_json(attributes: dict[str, list[str]]) -> None:
    with warnings.catch_warnings():
        # pydicom's warnings quote values, and warnings go to the log.
        warnings.simplefilter("error")
        encoded = json.dumps(model(attributes, attributes), allow_nan=False)
        json.dumps(plain(attributes, attributes), allow_nan=False)
        warnings.simplefilter("ignore")
        Dataset.from_json(encoded)


def series_match(series_id: int, *, in_domain: bool = True) -> SeriesMatch:
    slices = SliceMatch(Picture(OURS, 4), Picture(THEIRS, 9), 0.875) if in_domain else None
    return SeriesMatch(series_id, 1, "FLAIR", 0.75, "9.8.7", in_domain, {"lesion": 0.8123, "grey": 1.0}, slices)


OURS, THEIRS = uuid.uuid4(), uuid.uuid4()
UIDS = Uids({7: "1.2.7"}, {(OURS, 4): Source("9.8.7.4", 1), (THEIRS, 9): Source("1.2.7.9", 2)})


def test_a_study_carries_its_similarity_in_a_private_block() -> None:
    match = StudyMatch(1, 0.5, 1.0, (series_match(7, in_domain=False), series_match(8)), False)
    ds = Dataset.from_json(study_model(match, ATTRIBUTES, UIDS, ReturnKeys([], [])))
    block = ds.private_block(0x0075, PRIVATE_CREATOR)
    assert (block[0x01].value, block[0x02].value, block[0x03].value) == (0.5, 1.0, OUTSIDE_DOMAIN)
    (item,) = block[0x10].value
    inner = item.private_block(0x0075, PRIVATE_CREATOR)
    assert item.SeriesInstanceUID == "1.2.7"
    assert (inner[0x01].value, inner[0x04].value, inner[0x05].value) == (0.75, "FLAIR", "9.8.7")
    assert ds.PatientName == "Yamada^Tarou=山田^太郎"


def test_a_series_likewise() -> None:
    attributes = {**ATTRIBUTES, "SeriesInstanceUID": ["1.2.7"], "Modality": ["MR"]}
    ds = Dataset.from_json(series_model(series_match(7), attributes, UIDS, ReturnKeys([], [])))
    block = ds.private_block(0x0075, PRIVATE_CREATOR)
    assert (ds.SeriesInstanceUID, ds.Modality, ds.StudyInstanceUID) == ("1.2.7", "MR", "1.2")
    assert (block[0x01].value, 0x03 in block) == (0.75, False)
    slices = [block[number].value for number in (0x06, 0x07, 0x08, 0x09, 0x0A)]
    assert slices == ["1.2.7.9", 2, "9.8.7.4", 1, 0.875]
    assert list(block[0x0D].value) == ["lesion:0.812", "grey:1.000"]


def test_a_slice_that_is_gone_is_not_named() -> None:
    gone = Uids(UIDS.series, {(OURS, 4): Source("9.8.7.4", 1)})
    found = series_plain(series_match(7), ATTRIBUTES, gone, ReturnKeys([], []))
    assert "slice" not in found
    assert found["similarity"] == 0.75


def test_a_study_as_plain_json() -> None:
    match = StudyMatch(1, 0.5, 1.0, (series_match(7, in_domain=False),), False)
    assert study_plain(match, ATTRIBUTES, UIDS, ReturnKeys(["PatientWeight"], [])) == {
        "StudyInstanceUID": "1.2",
        "PatientWeight": 70.5,
        "labels": [],
        "similarity": 0.5,
        "coverage": 1.0,
        "notes": [OUTSIDE_DOMAIN],
        "series": [
            {
                "SeriesInstanceUID": "1.2.7",
                "sequence": "FLAIR",
                "similarity": 0.75,
                "parts": {"lesion": 0.8123, "grey": 1.0},
                "like": "9.8.7",
                "notes": [OUTSIDE_DOMAIN],
            }
        ],
    }
