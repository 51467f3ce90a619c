"""Pictures from outside as examples: what they are answered with, and that nothing of them stays."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests
from arriving import arrive
from dicom_factory import mr_instance, uid
from dicomweb_client import DICOMwebClient
from fastapi.testclient import TestClient
from PIL import Image
from pydicom import Dataset
from served import Api, listening
from sqlalchemy import func, select
from untrained import Untrained, save_untrained

from pacs_cbir.dicom.private_block import EXAMPLE_FILE, PRIVATE_CREATOR
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.errors import SettingsError
from pacs_cbir.reindex import start_reindex
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.store import encoders
from pacs_cbir.store.tables import metadata
from pacs_cbir.worker import Worker

PLAIN = {"Accept": "application/json"}
SLICES = 4


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    """Of all parts, in place of the two numbers that other tests turn to angles."""
    return Untrained.of(save_untrained(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"))


def series(study: str, sequence: str = "T2", **attributes: Any) -> list[Dataset]:
    """A head whose bright lesion is where the study's name says."""
    name = {"T2": "t2_tse_tra", "T1": "t1_se_tra"}[sequence]
    times = {"T2": ("4000", "100"), "T1": ("500", "12")}[sequence]
    rows, columns = np.mgrid[:32, :32]
    place = np.random.default_rng(sum(study.encode())).uniform(11, 20, 2)
    lesion = np.hypot(rows - place[0], columns - place[1]) < 4
    found = []
    for number in range(1, SLICES + 1):
        ds = mr_instance(study, study, sequence, number, size=32, **attributes)
        ds.SeriesDescription = ds.ProtocolName = name
        ds.RepetitionTime, ds.EchoTime = times
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(32, 32).copy()
        pixels[lesion] += 400 * number
        ds.PixelData = pixels.tobytes()
        found.append(ds)
    return found


def encoded(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def picture(kind: str = "PNG", mode: str = "L", size: tuple[int, int] = (40, 50)) -> bytes:
    rows, columns = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    head = np.where(rows**2 + columns**2 < 0.6, 120, 4) + np.where(np.hypot(rows, columns - 0.3) < 0.2, 100, 0)
    stream = io.BytesIO()
    Image.fromarray(head.astype(np.uint8)).convert(mode).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def archive(api: Api, decoder: Decoder) -> Api:
    """Three patients with two sequences each, received and embedded."""
    for study in "abc":
        for ds in series(study) + series(study, "T1"):
            arrive(api.database, api.settings, ds)
    api.activate()
    worker = Worker(api.settings, api.database, decoder)
    while worker.work_once():
        pass
    api.follower.catch_up()
    return api


def ask(api: Api, path: str, *files: bytes, headers: dict[str, str] = PLAIN, **fields: Any) -> httpx.Response:
    """Upload files in a form; their names are never looked at."""
    parts = [("file", ("../../../etc/passwd", content)) for content in files]
    return api.client.post(path, files=parts, data={"min_similarity": "-1", **fields}, headers=headers)


def left_behind(api: Api) -> tuple[list[Path], dict[str, int]]:
    """The files of uploads, and how many rows each table has."""
    with api.database.transaction() as connection:
        rows = {
            name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in metadata.tables.items()
        }
    return list(api.settings.uploads_dir.iterdir()), rows


def rounded(found: Any) -> Any:
    """An answer without what the example's row alone tells, and numbers as far as a batch leaves them alone."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items() if key != "days"}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return round(found, 3) if isinstance(found, float) else found


def test_what_is_uploaded_is_answered_as_if_it_were_stored(archive: Api) -> None:
    before = left_behind(archive)
    files = [encoded(ds) for ds in series("a") + series("a", "T1")]
    for path in ("/similar/studies", "/similar/series"):
        uploaded = ask(archive, path, *files)
        assert uploaded.status_code == 200, uploaded.text
        assert "warning" not in uploaded.headers
        stored = archive.client.get(path, params={"example": uid("a"), "min_similarity": -1}, headers=PLAIN)
        assert rounded(uploaded.json()) == rounded(stored.json())
    assert left_behind(archive) == before
    assert before[0] == []


def test_a_study_that_is_not_here_finds_what_is(archive: Api) -> None:
    copy = [encoded(ds) for ds in series("b")]
    anonymous = []
    for number, ds in enumerate(series("b"), start=1):
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = "2.25.1", "2.25.2", f"2.25.3.{number}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        anonymous.append(encoded(ds))
    best, *_ = ask(archive, "/similar/studies", *anonymous).json()
    assert (best["StudyInstanceUID"], best["coverage"]) == (uid("b"), 1.0)
    assert best["similarity"] == pytest.approx(1, abs=1e-4)
    (matched,) = best["series"]
    assert (matched["sequence"], matched["like"]) == ("T2", "2.25.2")
    # The same slice of the same stack, and whichever the two owe most to.
    number = matched["slice"]["like"]["SOPInstanceUID"].rpartition(".")[2]
    assert matched["slice"]["SOPInstanceUID"] == uid("b", "T2", int(number))
    # Under its own name it is the example, and no answer.
    found = ask(archive, "/similar/studies", *copy).json()
    assert {study["StudyInstanceUID"] for study in found} == {uid("a"), uid("c")}
    found = ask(archive, "/similar/studies", *copy, own_patient="true", example=uid("a")).json()
    assert {study["StudyInstanceUID"] for study in found} == {uid("c")}


def test_one_instance_finds_its_slice(archive: Api) -> None:
    # The last one is the brightest: alone it is drawn as among the others.
    ds = series("c")[-1]
    ds.StudyInstanceUID = "2.25.1"
    best, *_ = ask(archive, "/similar/series", encoded(ds)).json()
    assert best["SeriesInstanceUID"] == uid("c", "T2")
    assert best["slice"]["SOPInstanceUID"] == uid("c", "T2", SLICES)
    assert best["slice"]["like"] == {"SOPInstanceUID": ds.SOPInstanceUID, "frame": 1}


def test_dicomweb_client_stores_nothing_and_gets_an_answer(archive: Api) -> None:
    before, answers = left_behind(archive), []
    session = requests.Session()
    session.hooks["response"].append(lambda response, *_, **__: answers.append(response))
    with listening(archive) as url:
        client = DICOMwebClient(url, session=session, stow_url_prefix="similar")
        # Its reader expects what STOW-RS answers, one data set.
        with contextlib.suppress(AttributeError):
            client.store_instances(series("a"), additional_params={"min_similarity": -1, "PatientID": "b"})
    assert answers[0].status_code == 200, answers[0].text
    (found,) = (Dataset.from_json(one) for one in answers[0].json())
    assert found.StudyInstanceUID == uid("b")
    assert left_behind(archive) == before


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_is_compared_with_all_or_with_one_sequence(archive: Api, kind: str, mode: str) -> None:
    content = picture(kind, mode)
    answer = ask(archive, "/similar/studies", content)
    assert answer.headers["warning"].startswith('299 pacs-cbir "A PNG or JPEG tells neither plane nor scale')
    found = answer.json()
    assert {study["StudyInstanceUID"] for study in found} == {uid(study) for study in "abc"}
    assert {(study["coverage"], len(study["series"])) for study in found} == {(0.0, 2)}
    assert all(series["slice"]["like"] == {"file": 1} and "like" not in series for series in found[0]["series"])
    found = ask(archive, "/similar/studies", content, sequence="T1").json()
    assert {(study["coverage"], len(study["series"]), study["series"][0]["sequence"]) for study in found} == {
        (1.0, 1, "T1")
    }
    best = Dataset.from_json(ask(archive, "/similar/series", content, headers={}).json()[0])
    block = best.private_block(0x0075, PRIVATE_CREATOR)
    assert block[EXAMPLE_FILE].value == 1
    assert left_behind(archive)[0] == []


def test_feedback_moves_a_picture_too(archive: Api) -> None:
    def similar(**fields: Any) -> dict[str, float]:
        found = ask(archive, "/similar/studies", picture(), sequence="T2", **fields).json()
        return {study["StudyInstanceUID"]: study["similarity"] for study in found}

    before = similar()
    for study in map(uid, "abc"):
        assert similar(like=study)[study] > before[study] + 0.05


def test_grey_of_sixteen_bits_and_transparency(archive: Api) -> None:
    deep, clear = io.BytesIO(), io.BytesIO()
    grey = np.asarray(Image.open(io.BytesIO(picture())))
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep, "PNG")
    colours = np.dstack([grey, grey, grey, np.where(grey > 60, 255, 0).astype(np.uint8)])
    Image.fromarray(colours).save(clear, "PNG")
    plain, sixteen, see_through = (
        {s["SeriesInstanceUID"]: s["similarity"] for s in ask(archive, "/similar/series", content).json()}
        for content in (picture(), deep.getvalue(), clear.getvalue())
    )
    assert sixteen == pytest.approx(plain, abs=1e-3)
    # What is see-through was darker than the head's threshold.
    assert see_through == pytest.approx(plain, abs=0.05)


def test_what_was_not_compared_is_said(archive: Api) -> None:
    localiser = mr_instance("a", "a", "localiser", size=32, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    answer = ask(archive, "/similar/studies", *map(encoded, series("a")), encoded(localiser))
    assert answer.status_code == 200
    assert "not embedded: localiser" in answer.headers["warning"]
    alone = ask(archive, "/similar/studies", encoded(localiser))
    assert alone.status_code == 422
    assert "not embedded: localiser" in alone.json()["detail"]


def test_what_a_header_holds_does_not_break_the_warning(archive: Api) -> None:
    odd = series("a", "T1")[0]
    odd.add_new("PhotometricInterpretation", "LO", 'RGB\r\nX-Injected: "yes"\xdc')
    with listening(archive) as url:
        files = [("file", ("a", encoded(ds))) for ds in [*series("a"), odd]]
        answer = httpx.post(f"{url}/similar/studies", files=files, data={"min_similarity": "-1"}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "x-injected" not in answer.headers
    assert "RGB??X-Injected" in answer.headers["warning"]


def test_the_sites_rules_hold_for_what_is_uploaded(archive: Api, decoder: Decoder, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nsequence = "localiser"\nwhen.SeriesDescription = "t1_se*"\n')
    settings = archive.settings.model_copy(update={"sequence_rules": rules})
    searcher = Searcher(archive.database, archive.follower)
    with TestClient(create_app(settings, archive.database, searcher, decoder)) as client:
        ruled = replace(archive, client=client)
        assert ask(ruled, "/similar/studies", *map(encoded, series("a"))).status_code == 200
        refused = ask(ruled, "/similar/studies", *map(encoded, series("a", "T1")))
    assert "can be embedded: not embedded: localiser" in refused.json()["detail"]
    rules.write_text("[[rule]]")
    with pytest.raises(SettingsError, match="rule 1"):
        create_app(settings, archive.database, searcher, decoder)


def test_a_checkpoint_that_is_gone_is_said(archive: Api) -> None:
    for path in archive.settings.encoders_dir.iterdir():
        path.unlink()
    answer = ask(archive, "/similar/studies", picture())
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "pacs-cbir encoder add" in answer.json()["detail"]


def test_uploads_are_embedded_by_the_encoder_that_answers(archive: Api, decoder: Decoder, tmp_path: Path) -> None:
    # Of other weights, and of another size of slices.
    other = Untrained.of(save_untrained(tmp_path / "other.safetensors", seed=1, size=48))
    other.add(archive.settings, archive.database)
    start_reindex(archive.database, "other", hours=None, workers=None, from_pacs=False)
    worker = Worker(archive.settings, archive.database, decoder)
    while worker.work_once():
        pass
    assert ask(archive, "/similar/series", picture(), encoder="other").status_code == 503
    archive.follower.catch_up()

    def answered(**parameters: str) -> tuple[str, list[float]]:
        answer = ask(archive, "/similar/series", picture(), **parameters)
        assert answer.status_code == 200, answer.text
        return answer.headers["Pacs-Cbir-Encoder"].split(";")[0], [one["similarity"] for one in answer.json()]

    before, named = answered(), answered(encoder="other")
    assert (before[0], named[0]) == ("untrained", "other")
    assert before[1] != named[1]
    with archive.database.transaction() as connection:
        encoders.activate(connection, "other")
    # Until this process has followed, all of it answers by the former.
    assert answered() == before
    archive.follower.catch_up()
    assert answered() == named
