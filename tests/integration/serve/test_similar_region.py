"""A region of a stored frame as the example, with the encoder that ships: only a trained one sees a lesion."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from arriving import arrive
from dicom_factory import mr_instance, uid
from PIL import Image
from pydicom import Dataset
from served import Api
from untrained import Untrained

from pacs_cbir.embed.checkpoint import default_checkpoint_path
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.worker import Worker

PLAIN = {"Accept": "application/json"}
EDGE, SLICES, SHOWN = 96, 5, 3
LEFT, RIGHT = (38, 62), (60, 30)
"""Middles of two lesions, (row, column)."""
LESIONS = {"both": (LEFT, RIGHT), "left": (LEFT,), "right": (RIGHT,), "none": ()}


@pytest.fixture(scope="module")
def untrained() -> Untrained:
    """The packaged checkpoint, which has lesions of its own to show."""
    return Untrained.of(default_checkpoint_path())


def head(study: str, number: int, turned: bool) -> Dataset:
    """A slice of a head with grey and white matter, and the study's lesions in the middle slices."""
    rows, columns = np.mgrid[:EDGE, :EDGE]
    away = np.hypot((rows - 47.5) / 42, (columns - 47.5) / 35)
    picture = np.where(away < 1, 300.0, 10) + 25 * np.cos(away * 12) * (away < 0.9)
    for row, column in LESIONS[study]:
        picture += 500 * (np.hypot(rows - row, columns - column) < (8 if 2 <= number <= 4 else 0))
    picture += np.random.default_rng(number).normal(0, 6, picture.shape)
    ds = mr_instance(study, study, "FLAIR", number, size=EDGE)
    if turned:
        # The same head, stored with its rows from left to right and its columns from back to front.
        picture = picture.T[::-1, ::-1]
        pixel = 240 / EDGE
        ds.ImageOrientationPatient = ["0", "-1", "0", "-1", "0", "0"]
        ds.ImagePositionPatient = [f"{-120 + pixel * (EDGE - 1)}", f"{-120 + pixel * (EDGE - 1)}", f"{number * 5}"]
    ds.SliceThickness = ds.SpacingBetweenSlices = "5"
    ds.ImagePositionPatient[2] = number * 5
    ds.SeriesDescription = ds.ProtocolName = "t2_tirm_dark-fluid"
    ds.ScanningSequence, ds.InversionTime, ds.RepetitionTime = ["SE", "IR"], "2500", "9000"
    ds.PixelData = picture.clip(0, 4095).astype("<u2").tobytes()
    return ds


@pytest.fixture(params=[False, True], ids=["upright", "turned"])
def archive(api: Api, decoder: Decoder, request: pytest.FixtureRequest) -> tuple[Api, bool]:
    for study in LESIONS:
        for number in range(1, SLICES + 1):
            arrive(api.database, api.settings, head(study, number, request.param and study == "both"))
    worker = Worker(api.settings, api.database, decoder)
    while worker.work_once():
        pass
    api.follower.catch_up()
    return api, request.param


def box(middle: tuple[int, int], turned: bool, reach: int = 11) -> str:
    row, column = (EDGE - 1 - middle[1], EDGE - 1 - middle[0]) if turned else middle
    return f"{column - reach},{row - reach},{column + reach + 1},{row + reach + 1}"


EXAMPLE = f"{uid('both')}/{uid('both', 'FLAIR')}/{uid('both', 'FLAIR', SHOWN)}"


def ask(api: Api, path: str, **parameters: Any) -> Any:
    answer = api.client.get(path, params={"example": EXAMPLE, **parameters}, headers=PLAIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_box_round_a_lesion_finds_the_lesion_that_is_there(archive: tuple[Api, bool]) -> None:
    api, turned = archive
    for study, middle in (("left", LEFT), ("right", RIGHT)):
        found = ask(api, "/similar/studies", region=box(middle, turned))
        assert found[0]["StudyInstanceUID"] == uid(study)
        similar = {one["StudyInstanceUID"]: one["series"][0] for one in found}
        other = similar[uid("right" if study == "left" else "left")]
        assert similar[uid(study)]["parts"]["lesion"] > other["parts"]["lesion"] + 0.3
        # A slice of the middle, where the lesion is, and the example's own beside it.
        matched = similar[uid(study)]["slice"]
        assert matched["SOPInstanceUID"] in {uid(study, "FLAIR", number) for number in (2, 3, 4)}
        assert matched["like"] == {"SOPInstanceUID": uid("both", "FLAIR", SHOWN), "frame": 1}
        series = ask(api, "/similar/series", region=box(middle, turned))
        assert series[0]["SeriesInstanceUID"] == uid(study, "FLAIR")


def hot(api: Api, middle: tuple[int, int] | None, turned: bool, **parameters: str) -> list[npt.NDArray[np.bool_]]:
    """Where the example and the match, which is the same frame, are hot: two of shape (384, 384)."""
    asked = {"match": EXAMPLE, **parameters} | ({} if middle is None else {"region": box(middle, turned)})
    answer = api.client.get("/similar/explain", params={"example": EXAMPLE, **asked})
    assert answer.status_code == 200, answer.text
    pixels = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
    return np.split(pixels[..., 0] - pixels[..., 2] > 60, 2, axis=1)


def near(middle: tuple[int, int], reach: float) -> npt.NDArray[np.bool_]:
    """The square round a place of the stored head, where it is in a picture of it."""
    scale = 240 / EDGE * 384 / 224
    row, column = ((place - 47.5) * scale + 192 for place in middle)
    rows, columns = np.mgrid[:384, :384]
    return np.maximum(abs(rows - row), abs(columns - column)) < reach * scale


def test_a_region_is_explained_by_what_is_in_it(archive: tuple[Api, bool]) -> None:
    api, turned = archive
    for middle, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        # With the fading of its edge, 3 pixels of 1.75 mm in standard deviation.
        for parts in ("lesion:1", "shape:1", "appearance:1", "grey:1", ""):
            example, _ = hot(api, middle, turned, parts=parts)
            assert example.any(), parts
            assert not (example & ~near(middle, 11 + 5)).any(), parts
        _, found = hot(api, middle, turned, parts="lesion:1")
        assert (found & near(middle, 8)).sum() > 10 * (found & near(other, 8)).sum()
    for half in hot(api, None, turned, parts="lesion:1"):
        assert (half & near(LEFT, 8)).any()
        assert (half & near(RIGHT, 8)).any()


def test_scores_of_a_region_are_those_of_the_query(archive: tuple[Api, bool]) -> None:
    api, turned = archive
    asked = {"region": box(LEFT, turned), "min_similarity": "-1"}
    for series in ask(api, "/similar/series", **asked):
        slice_ = series["slice"]
        study = series["StudyInstanceUID"]
        match = f"{study}/{series['SeriesInstanceUID']}/{slice_['SOPInstanceUID']}/{slice_['frame']}"
        (explained,) = ask(api, "/similar/explain", match=match, region=asked["region"])
        assert explained["similarity"] == pytest.approx(slice_["similarity"], abs=1e-5)
        assert explained["parts"] == pytest.approx(series["parts"], abs=1e-5)
        assert explained["slice"]["like"] == slice_["like"]


WRONG = [
    ({"region": "1,2,3"}, 400, "region accepts x0,y0,x1,y1"),
    ({"region": "a,b,c,d"}, 400, "region accepts x0,y0,x1,y1"),
    ({"region": "-1,0,5,5"}, 400, "region accepts x0,y0,x1,y1"),
    ({"region": "1.5,0,5,5"}, 400, "region accepts x0,y0,x1,y1"),
    ({"region": "5,0,5,5"}, 400, "x0 below x1"),
    ({"region": "0,7,5,5"}, 400, "y0 below y1"),
    ({"region": "0,0,97,5"}, 400, "the frame has 96 columns and 96 rows"),
    ({"region": "0,0,99999,99999"}, 400, "the frame has 96 columns and 96 rows"),
    ({"region": "0,0,1,1"}, 400, "224 mm round the head"),
    ({"region": "9,9,40,40", "example": str(uid("both"))}, 400, "names an instance or a frame"),
    ({"region": "9,9,40,40", "example": f"{uid('both')}/{uid('both', 'FLAIR')}"}, 400, "names an instance or a frame"),
    ({"region": "9,9,40,40", "example": [EXAMPLE, str(uid("left"))]}, 400, "exactly one example"),
    ({"region": "9,9,40,40", "example": f"{EXAMPLE}/2"}, 404, "not here"),
    ({"region": "9,9,40,40", "example": "9/9.1/9.1.1"}, 404, "not here"),
    ({"region": "9,9,40,40", "parts": "colour:1"}, 400, "the encoder has"),
]


def test_regions_that_are_not_there_are_said(archive: tuple[Api, bool]) -> None:
    api, _ = archive
    for parameters, status, says in WRONG:
        answer = api.client.get("/similar/studies", params={"example": EXAMPLE, **parameters})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), parameters
        assert says in answer.json()["detail"], parameters
        if not isinstance(parameters.get("example"), list):
            asked = {"example": EXAMPLE, "match": EXAMPLE, **parameters}
            answer = api.client.get("/similar/explain", params=asked)
            assert answer.status_code == status, parameters
            assert says in answer.json()["detail"], parameters


def test_files_that_are_gone_are_no_crash(archive: tuple[Api, bool]) -> None:
    api, turned = archive
    for path in api.settings.instances_dir.rglob("*.dcm"):
        path.unlink()
    answer = api.client.get("/similar/studies", params={"example": EXAMPLE, "region": box(LEFT, turned)})
    assert answer.status_code == 422
