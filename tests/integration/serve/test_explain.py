"""Why a match is like the example: pictures and scores."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx import Response
from PIL import Image
from served import Api
from sqlalchemy import delete
from untrained import Untrained

from pacs_cbir.embed.checkpoint import default_checkpoint_path
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.learn.simulate import SimulatedStudy, simulate_cohort
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.tables import instances
from pacs_cbir.worker import Worker

PLAIN = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def untrained() -> Untrained:
    """The packaged checkpoint, which has a heat of its own to show."""
    return Untrained.of(default_checkpoint_path())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[SimulatedStudy]:
    return list(simulate_cohort(tmp_path_factory.mktemp("cohort") / "two", patients=2, seed=4))


@pytest.fixture
def studies(api: Api, cohort: list[SimulatedStudy], decoder: Decoder, tmp_path: Path) -> list[str]:
    """Two studies, of each FLAIR and T1CE."""
    for study in cohort:
        for path in sorted(file for name in ("FLAIR", "T1CE") for file in (study.folder / name).iterdir()):
            received = api.settings.incoming_dir / "transfer.part"
            received.write_bytes(path.read_bytes())
            ingest(received, Source("TEST"), api.database, api.settings)
    worker = Worker(api.settings, api.database, decoder)
    while worker.work_once():
        pass
    api.follower.catch_up()
    return [study.study_instance_uid for study in cohort]


def explained(api: Api, accept: str = "application/json", **parameters: Any) -> Response:
    return api.client.get("/similar/explain", params=parameters, headers={"Accept": accept})


def named(study: str, pair: dict[str, Any], api: Api) -> str:
    found = api.client.get("/dicom-web/instances", params={"SOPInstanceUID": pair["SOPInstanceUID"]}).json()
    (series,) = found[0]["0020000E"]["Value"]
    return f"{study}/{series}/{pair['SOPInstanceUID']}/{pair['frame']}"


def test_studies_are_explained_by_sequence_part_and_slice(api: Api, studies: list[str]) -> None:
    one, two = studies
    answer = explained(api, example=one, match=two)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert {series["sequence"] for series in found} == {"FLAIR", "T1CE"}
    assert [series["similarity"] for series in found] == sorted((s["similarity"] for s in found), reverse=True)
    ranked = api.client.get("/similar/studies", params={"example": one, "min_similarity": -1}, headers=PLAIN).json()
    of_query = {series["sequence"]: series for series in ranked[0]["series"]}
    for series in found:
        slices = series.pop("slices")
        of_answer = of_query[series["sequence"]]
        # Sums of float32 depend on what is summed beside them.
        assert series == {**of_answer, "similarity": pytest.approx(of_answer["similarity"], abs=1e-6)}
        assert len(slices) > 15
        like = [pair["like"]["SOPInstanceUID"] for pair in slices]
        assert len(set(like)) == len(like)
        assert series["slice"]["like"] in [pair["like"] for pair in slices]


@pytest.mark.slow
def test_two_slices_are_explained_as_they_are_named(api: Api, studies: list[str]) -> None:
    one, two = studies
    for series in explained(api, example=one, match=two).json():
        last = series["slices"][-1]
        of_slices = explained(api, example=named(one, last["like"], api), match=named(two, last, api)).json()
        (pair,) = of_slices[0]["slices"]
        assert of_slices[0]["slice"] == pair
        assert pair == {**last, "similarity": pytest.approx(last["similarity"], abs=1e-5)}
        assert of_slices[0]["similarity"] == pytest.approx(last["similarity"], abs=1e-5)
        of_one = explained(api, example=one, match=named(two, series["slice"], api), sequence=series["sequence"]).json()
        assert {"SOPInstanceUID": of_one[0]["slice"]["SOPInstanceUID"], "frame": of_one[0]["slice"]["frame"]} == {
            "SOPInstanceUID": series["slice"]["SOPInstanceUID"],
            "frame": series["slice"]["frame"],
        }


def test_heat_is_drawn_on_both_slices(api: Api, studies: list[str]) -> None:
    one, two = studies
    pictures = {}
    for parts in ("lesion:1", "grey:1"):
        answer = explained(api, "image/png", example=one, match=two, sequence="FLAIR", parts=parts)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(answer.content))
        assert image.size == (768, 384)
        pictures[parts] = np.asarray(image).astype(int)
    # Heat is yellow: red without blue. Of lesions it is in one place, of grey levels all over the head.
    hot = {parts: (pixels[..., 0] - pixels[..., 2]) > 60 for parts, pixels in pictures.items()}
    for half in (slice(0, 384), slice(384, 768)):
        assert hot["lesion:1"][:, half].sum() > 0
        assert hot["grey:1"][:, half].mean() > 2 * hot["lesion:1"][:, half].mean()


def test_what_is_not_comparable_or_not_here_is_said(api: Api, studies: list[str]) -> None:
    one, two = studies
    for parameters, status, words in (
        ({"example": "1.2.3", "match": two}, 404, "not here"),
        ({"example": one, "match": "1.2.3"}, 404, "not here"),
        ({"example": one, "match": "x"}, 400, "accepts {study}"),
        ({"example": one, "match": two, "sequence": "T2"}, 400, "none of it counts"),
        ({"example": one, "match": two, "parts": "lesions:1"}, 400, "lesion"),
        ({"example": one}, 400, "match"),
        *(
            ({"example": one, "match": two, name: "1"}, 400, f"{name}: ")
            for name in ("like", "unlike", "weights", "PatientName", "window")
        ),
        ({"example": [one, two], "match": two}, 400, "example: given more than once"),
    ):
        answer = explained(api, **parameters)
        assert answer.status_code == status, answer.text
        assert words in answer.json()["detail"]
    assert explained(api, "text/csv", example=one, match=two).status_code == 406


@pytest.mark.slow
def test_the_index_of_another_encoder_is_not_explained_by_this_one(
    api: Api, studies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = studies
    # The moment of a switch: the encoder is the active one, and the index that answers is still the former one's.
    current = api.follower.current
    assert current.encoder is not None
    former = replace(current, encoder=replace(current.encoder, identity="former"))
    monkeypatch.setattr(type(api.follower), "current", property(lambda _: former))
    assert explained(api, example=one, match=two).status_code == 200
    answer = explained(api, "image/png", example=one, match=two)
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "urn:pacs-cbir:problem:encoder-mismatch"


@pytest.mark.slow
def test_a_series_that_is_not_what_was_embedded_is_a_conflict_and_no_wrong_picture(
    api: Api, studies: list[str]
) -> None:
    one, two = studies
    answer = explained(api, example=one, match=two, sequence="FLAIR").json()
    with api.database.transaction() as connection:
        gone = answer[0]["slice"]["like"]["SOPInstanceUID"]
        connection.execute(delete(instances).where(instances.c.sop_instance_uid == gone))
    answer = explained(api, "image/png", example=one, match=two, sequence="FLAIR")
    assert answer.status_code == 409, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:pacs-cbir:problem:series-changed"
    assert "embedded anew" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.slow
def test_a_picture_whose_file_is_gone_is_a_problem_and_no_crash(api: Api, studies: list[str]) -> None:
    one, two = studies
    for path in api.settings.instances_dir.rglob("*"):
        if path.is_file():
            path.unlink()
    assert explained(api, example=one, match=two).status_code == 200
    answer = explained(api, "image/png", example=one, match=two)
    assert answer.status_code in {422, 503}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
