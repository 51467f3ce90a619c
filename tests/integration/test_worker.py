"""The worker: from settled series to embeddings over exactly what was received, whatever is in the files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from arriving import Receive
from notes import note
from running import wait_for_blocked, wait_until
from sqlalchemy import Connection, select, text
from stored import let_go

from pacs_cbir import worker as worker_module
from pacs_cbir.embed.checkpoint import DEFAULT_NAME, card_of, default_checkpoint_path, load_checkpoint, save_checkpoint
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import CheckpointError, DecodingError, EncoderRefused
from pacs_cbir.kept_encoders import activate_first, add_encoder, retire_encoder
from pacs_cbir.reindex import start_reindex
from pacs_cbir.series_plan import SeriesPlan
from pacs_cbir.settings import Settings
from pacs_cbir.store import embeddings as stored_embeddings
from pacs_cbir.store import encoders, removal, retention
from pacs_cbir.store.claims import claim
from pacs_cbir.store.encoders import State
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.jobs import enqueue
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import embeddings, instances, jobs, stacks, thumbnails
from pacs_cbir.store.tables import encoders as encoder_rows
from pacs_cbir.worker import Worker, run_worker
from tests.dicom_factory import composite, mr_instance
from tests.untrained import TWO_NUMBERS, Untrained, save_untrained

JPEG = b"\xff\xd8\xff"


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(60, 4096) as made:
        yield made


@pytest.fixture
def worker(settings: Settings, database: Database, decoder: Decoder) -> Worker:
    return Worker(settings, database, decoder)


def work(worker: Worker) -> int:
    done = 0
    while worker.work_once():
        done += 1
    return done


def rows(database: Database, query: object) -> list[tuple[object, ...]]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(query)]  # type: ignore[call-overload]


def test_a_series_gets_an_embedding_a_slice_and_one_for_the_stack(
    worker: Worker, receive: Receive, database: Database
) -> None:
    for number in (3, 1, 5, 2, 4):
        receive(mr_instance(number=number, size=32, ImagePositionPatient=["-120", "-120", str(6 * number)]))
    assert work(worker) == 1
    [(stack_id, sequence, plane, body_part, reason, uids)] = rows(
        database,
        select(
            stacks.c.id,
            stacks.c.sequence,
            stacks.c.plane,
            stacks.c.body_part,
            stacks.c.not_embedded,
            stacks.c.sop_instance_uids,
        ),
    )
    assert (sequence, plane, body_part, reason) == ("T2", "AXIAL", "BRAIN", None)
    in_order = [str(mr_instance(number=number, size=32).SOPInstanceUID) for number in range(1, 6)]
    assert uids == in_order
    found = rows(database, select(embeddings).where(embeddings.c.stack_id == stack_id).order_by(embeddings.c.slice))
    assert [row[2] for row in found] == ["", *in_order]
    assert np.diff([row[4] for row in found[1:]]) == pytest.approx([6.0] * 4)
    vectors = np.array([np.frombuffer(row[5], "<f4") for row in found])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert rows(database, select(jobs)) == []


def test_pixel_data_leaves_while_the_worker_runs(
    receive: Receive, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "RETENTION_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "RETENTION_SHARE", 0)
    monkeypatch.setattr(retention, "QUIET_SECONDS", 0.0)
    receive(mr_instance(number=1, size=32))
    stop = threading.Event()
    none = settings.model_copy(update={"retention": "none"})
    running = threading.Thread(target=run_worker, args=(none, database, stop))
    running.start()
    try:
        wait_until(lambda: rows(database, select(instances.c.file)) == [(None,)], 60)
    finally:
        stop.set()
        running.join()
    assert len(rows(database, select(stacks))) == 1
    assert not list(settings.instances_dir.rglob("*.dcm"))


def test_an_error_that_nobody_foresaw_does_not_keep_pixel_data(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def broken(*_: object) -> int:
        tries.append(1)
        raise RuntimeError

    monkeypatch.setattr(worker_module, "RETENTION_SECONDS", 0.01)
    monkeypatch.setattr(worker_module, "RETENTION_SHARE", 0)
    monkeypatch.setattr(retention, "let_go", broken)
    stop = threading.Event()
    running = threading.Thread(target=worker_module._keep_retention, args=(settings, database, stop))
    running.start()
    try:
        wait_until(lambda: len(tries) > 1)
    finally:
        stop.set()
        running.join()


def test_an_encoder_that_embeds_nothing_is_not_added(settings: Settings, database: Database, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save_untrained(tmp_path / "whole.safetensors", TWO_NUMBERS))
    nothing = {name: np.zeros_like(weight) for name, weight in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "nothing.safetensors", checkpoint.card, nothing)
    with pytest.raises(CheckpointError, match="vectors of length"):
        add_encoder(settings, database, tmp_path / "nothing.safetensors")
    assert rows(database, select(encoder_rows)) == []
    assert list(settings.encoders_dir.iterdir()) == []


@pytest.mark.parametrize("correct", ["deletion", "rejection"])
def test_a_series_in_which_nothing_was_found_ends_beside_corrections(
    worker: Worker, receive: Receive, database: Database, monkeypatch: pytest.MonkeyPatch, correct: str
) -> None:
    ds = mr_instance(number=1, size=32)
    receive(ds)
    with database.transaction() as connection:
        encoder = encoders.active(connection)
        assert encoder is not None
        job = claim(connection, "worker", worker._settings, [encoder])
    assert job is not None
    save, begun = stored_embeddings.save, threading.Event()

    def save_late(*given: Any) -> None:
        begun.set()
        wait_for_blocked(database)
        save(*given)

    monkeypatch.setattr(stored_embeddings, "save", save_late)
    nothing = SeriesPlan({encoder.id: Encoder(load_checkpoint(default_checkpoint_path()))}, frozenset(), (), {})
    with ThreadPoolExecutor(1) as pool:
        saved = pool.submit(worker._save, job, nothing)
        assert begun.wait(30)
        if correct == "rejection":
            receive(note([ds]))
        else:
            with database.transaction() as connection:
                removal.begin(connection, removal.owner(connection, ds.StudyInstanceUID), "test", 0)
        saved.result(60)
    assert rows(database, select(instances.c.rejected).where(instances.c.rejected.is_(None))) == []


def test_small_pictures_stay_and_are_replaced_with_what_they_show(
    worker: Worker, receive: Receive, database: Database
) -> None:
    for number in (1, 2):
        receive(mr_instance(number=number, size=32, ImagePositionPatient=["-120", "-120", str(6 * number)]))
    assert work(worker) == 1
    every = select(thumbnails).order_by(thumbnails.c.instance_id)
    first = rows(database, every)
    assert [frame for _, frame, _ in first] == [1, 1]
    assert all(bytes(picture).startswith(JPEG) for _, _, picture in first)  # type: ignore[arg-type]
    with database.transaction() as connection:
        enqueue(connection, connection.execute(select(instances.c.series_id).limit(1)).scalar_one(), 0)
    assert work(worker) == 1
    assert rows(database, every) == first
    # Other pixels: the picture of the earlier ones is gone at once.
    other = mr_instance(number=1, size=32, ImagePositionPatient=["-120", "-120", "6"])
    other.PixelData = other.PixelData[::-1]
    receive(other)
    assert rows(database, every) == first[1:]
    assert work(worker) == 1
    second = rows(database, every)
    assert second[1] == first[1]
    assert second[0][:2] == first[0][:2]
    assert second[0] != first[0]
    with database.transaction() as connection:
        connection.execute(instances.delete())
    assert rows(database, every) == []


def test_a_late_instance_of_a_series_whose_files_left_costs_no_embeddings(
    worker: Worker, receive: Receive, database: Database, settings: Settings
) -> None:
    receive(mr_instance(number=1, size=32))
    assert work(worker) == 1
    before = rows(database, select(stacks)), rows(database, select(embeddings))
    let_go(database, settings)
    receive(mr_instance(number=2, size=32))
    assert work(worker) == settings.job_attempts
    assert rows(database, select(jobs.c.status, jobs.c.error)) == [
        ("parked", "PixelDataGone: the pixel data has left this service's cache; PEER sent it")
    ]
    assert before == (rows(database, select(stacks)), rows(database, select(embeddings)))


def test_a_late_instance_has_the_series_embedded_anew(worker: Worker, receive: Receive, database: Database) -> None:
    receive(mr_instance(number=1, size=32))
    work(worker)
    receive(mr_instance(number=2, size=32))
    assert work(worker) == 1
    [(uids,)] = rows(database, select(stacks.c.sop_instance_uids))
    assert len(uids) == 2  # type: ignore[arg-type]


def test_a_series_of_which_a_slice_is_rejected_is_embedded_from_the_others(
    worker: Worker, receive: Receive, database: Database
) -> None:
    placed = [
        mr_instance(number=number, size=32, ImagePositionPatient=["-120", "-120", str(6 * number)])
        for number in range(1, 5)
    ]
    for ds in placed:
        receive(ds)
    assert work(worker) == 1
    receive(note([placed[1]]))
    assert work(worker) == 2
    left = [str(ds.SOPInstanceUID) for ds in placed if ds is not placed[1]]
    of_images = stacks.c.sequence == "T2"
    query = select(stacks.c.not_embedded, stacks.c.sop_instance_uids, stacks.c.missing_slices).where(of_images)
    assert rows(database, query) == [(None, left, 1)]
    found = rows(
        database, select(embeddings.c.sop_instance_uid, embeddings.c.position_mm).order_by(embeddings.c.slice).offset(1)
    )
    assert [uid for uid, _ in found] == left
    assert np.diff([float(str(position)) for _, position in found]) == pytest.approx([12, 6])


def test_what_is_no_mr_image_is_listed_and_no_error(worker: Worker, receive: Receive, database: Database) -> None:
    receive(composite("1.2.840.10008.5.1.4.1.1.88.11", "SR"))
    receive(mr_instance(series="localiser", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    work(worker)
    reasons = sorted(str(reason) for (reason,) in rows(database, select(stacks.c.not_embedded)))
    assert reasons == ["not embedded: Basic Text SR Storage", "not embedded: localiser"]
    assert rows(database, select(jobs)) == []


def test_a_series_that_cannot_be_decoded_is_parked_and_the_next_one_goes_through(
    worker: Worker, receive: Receive, database: Database, settings: Settings
) -> None:
    broken = mr_instance(series="broken", size=32)
    broken.PixelData = broken.PixelData[:100]
    receive(broken)
    receive(mr_instance(series="good", size=32))
    assert work(worker) == settings.job_attempts + 1
    [(status, attempts, error)] = rows(database, select(jobs.c.status, jobs.c.attempts, jobs.c.error))
    assert (status, attempts) == ("parked", settings.job_attempts)
    assert str(error).startswith("DecodingError")
    assert len(rows(database, select(stacks))) == 1


def test_a_corrected_instance_takes_a_parked_series_back(worker: Worker, receive: Receive, database: Database) -> None:
    broken = mr_instance(size=32)
    broken.PixelData = broken.PixelData[:100]
    receive(broken)
    work(worker)
    receive(mr_instance(size=32))
    work(worker)
    assert rows(database, select(jobs)) == []
    assert rows(database, select(stacks.c.not_embedded)) == [(None,)]


def test_a_file_that_vanished_parks_its_series(
    worker: Worker, receive: Receive, database: Database, settings: Settings
) -> None:
    receive(mr_instance(size=32))
    for path in settings.instances_dir.rglob("*.dcm"):
        path.unlink()
    work(worker)
    assert [status for (status,) in rows(database, select(jobs.c.status))] == ["parked"]


def test_a_crash_a_hang_and_hunger_end_in_the_child() -> None:
    with Decoder(1.5, 1024) as decoder:
        with pytest.raises(DecodingError, match="died"):
            decoder.run(os.abort)
        with pytest.raises(DecodingError, match="longer than"):
            decoder.run(time.sleep, 60)
        with pytest.raises(DecodingError, match="PACS_CBIR_DECODE_MEGABYTES"):
            decoder.run(bytearray, 4 << 30)
        assert decoder.run(sum, (1, 2)) == 3


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Untrained]:
    """Three encoders of different weights; the last looks at larger slices."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made = (save_untrained(folder / f"{name}.safetensors", TWO_NUMBERS, seed=seed) for seed, name in enumerate("ab"))
    large = save_untrained(folder / "large.safetensors", TWO_NUMBERS, seed=2, size=96)
    return [Untrained.of(path) for path in (*made, large)]


def embedded_by(database: Database) -> dict[str, set[int]]:
    """Name of each encoder → the series that it has embedded, each once."""
    names = select(encoder_rows.c.name, stacks.c.series_id).join(stacks, stacks.c.encoder_id == encoder_rows.c.id)
    found: dict[str, set[int]] = {}
    for name, series_id in rows(database, names):
        assert series_id not in found.setdefault(str(name), set())
        found[str(name)].add(int(str(series_id)))
    return found


def reindex(database: Database, name: str) -> None:
    start_reindex(database, name, hours=None, workers=None, from_pacs=False)


def test_the_first_worker_brings_the_packaged_encoder(worker: Worker, settings: Settings, database: Database) -> None:
    with database.transaction() as connection:
        active = encoders.active(connection)
    assert active is not None
    assert (active.name, active.precision) == (DEFAULT_NAME, "float32")
    assert worker is not None
    assert [path.stem for path in settings.encoders_dir.iterdir()] == [active.checkpoint_sha256]


def test_workers_that_start_first_at_once_agree(settings: Settings, database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: activate_first(settings, database), range(4)))
    with database.transaction() as connection:
        [row] = encoders.listed(connection)
    assert row.state is State.ACTIVE
    # All of the card but whom it was trained on, which every look at the row would carry along.
    packaged = load_checkpoint(default_checkpoint_path()).card
    unknown = packaged.training.model_copy(update={"patient_digests": None})
    assert card_of(row.card) == packaged.model_copy(update={"training": unknown})


def test_what_arrives_is_embedded_by_all_encoders_and_what_is_here_by_reindexing(
    small: list[Untrained], receive: Receive, settings: Settings, database: Database, decoder: Decoder
) -> None:
    small[0].add(settings, database, active=True)
    worker = Worker(settings, database, decoder)
    receive(mr_instance(series="early", size=32))
    work(worker)
    for one in small[1:]:
        # While the worker runs.
        one.add(settings, database)
    receive(mr_instance(series="late", size=32))
    work(worker)
    assert {name: len(series) for name, series in embedded_by(database).items()} == {"a": 2, "b": 1, "large": 1}
    for one in small[1:]:
        reindex(database, one.new.name)
    assert work(worker) == 2
    assert {name: len(series) for name, series in embedded_by(database).items()} == {"a": 2, "b": 2, "large": 2}
    vectors = rows(database, select(stacks.c.encoder_id, embeddings.c.vector).join(embeddings))
    assert len({vector for _, vector in vectors}) >= 3, "each has its own"


def test_a_retired_encoder_leaves_nothing_behind(
    small: list[Untrained], receive: Receive, settings: Settings, database: Database, decoder: Decoder
) -> None:
    for one in small[:2]:
        one.add(settings, database, active=True)
    worker = Worker(settings, database, decoder)
    receive(mr_instance(size=32))
    work(worker)
    with pytest.raises(EncoderRefused, match="active"):
        retire_encoder(settings, database, "b")
    assert retire_encoder(settings, database, "a") == 1
    assert embedded_by(database).keys() == {"b"}
    assert [path.stem for path in settings.encoders_dir.iterdir()] == [small[1].new.checkpoint_sha256]
    receive(mr_instance(series="after", size=32))
    work(worker)
    assert {name: len(series) for name, series in embedded_by(database).items()} == {"b": 2}
    # What went can come back.
    added = add_encoder(settings, database, small[0].path)
    reindex(database, added.name)
    work(worker)
    assert {name: len(series) for name, series in embedded_by(database).items()} == {"a": 2, "b": 2}


def test_a_checkpoint_that_is_gone_keeps_no_arrival_from_the_other_encoders(
    small: list[Untrained], receive: Receive, settings: Settings, database: Database, decoder: Decoder
) -> None:
    for one in small[:2]:
        one.add(settings, database, active=True)
    lost = settings.encoders_dir / f"{small[0].new.checkpoint_sha256}.safetensors"
    lost.unlink()
    worker = Worker(settings, database, decoder)
    receive(mr_instance(size=32))
    work(worker)
    assert embedded_by(database).keys() == {"b"}
    [(status, error)] = rows(database, select(jobs.c.status, jobs.c.error))
    assert status == "parked"
    assert str(error).startswith("CheckpointError")
    with pytest.raises(EncoderRefused, match="added already"):
        add_encoder(settings, database, small[0].path)
    reindex(database, "a")
    work(worker)
    assert embedded_by(database).keys() == {"a", "b"}


def test_an_encoder_that_needs_a_gpu_waits_for_a_worker_that_has_one(
    small: list[Untrained], receive: Receive, settings: Settings, database: Database, decoder: Decoder
) -> None:
    small[0].add(settings, database, active=True)
    with database.transaction() as connection:
        encoders.add(connection, replace(small[1].new, precision="bfloat16"))
    worker = Worker(settings, database, decoder)
    if worker._encoders.can_load(replace(encoder_row(database, "b"))):
        pytest.skip("there is a GPU")
    receive(mr_instance(size=32))
    work(worker)
    assert embedded_by(database).keys() == {"a"}
    assert rows(database, select(jobs.c.status, jobs.c.attempts)) == [("waiting", 0)]


def encoder_row(database: Database, name: str) -> encoders.EncoderRow:
    with database.transaction() as connection:
        return encoders.named(connection, name)


def test_a_damaged_or_foreign_checkpoint_is_not_added(
    small: list[Untrained], settings: Settings, database: Database, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(small[0].path.read_bytes()[:-1] + b"?")
    broken.with_suffix(".json").write_bytes(small[0].path.with_suffix(".json").read_bytes())
    with pytest.raises(CheckpointError, match="SHA-256"):
        add_encoder(settings, database, broken)
    with pytest.raises(EncoderRefused, match="small letters"):
        add_encoder(settings, database, small[0].path, "Our Hospital")
    with database.transaction() as connection:
        assert encoders.listed(connection) == []
    assert list(settings.encoders_dir.iterdir()) == []


def test_the_next_series_is_begun_while_one_is_embedded_and_no_third(
    receive: Receive, worker: Worker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        receive(mr_instance(series=name, size=32))
    stop, seen = threading.Event(), []
    embed = Encoder.embed

    def look_and_embed(self: Encoder, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        seen.append(sorted(str(status) for (status,) in rows(database, select(jobs.c.status))))
        stop.set()
        return embed(self, pixels)

    monkeypatch.setattr(Encoder, "embed", look_and_embed)
    worker.run(stop)
    assert seen[0] == ["running", "running", "waiting", "waiting"]
    assert [status for (status,) in rows(database, select(jobs.c.status))] == ["waiting"] * 2, "begun is finished"
    assert {name: len(series) for name, series in embedded_by(database).items()} == {DEFAULT_NAME: 2}


def test_a_series_that_cannot_be_drawn_does_not_take_the_next_one_along(
    small: list[Untrained], receive: Receive, settings: Settings, database: Database, decoder: Decoder
) -> None:
    small[0].add(settings, database, active=True)
    broken = mr_instance(series="broken", size=32)
    broken.PixelData = broken.PixelData[:100]
    receive(broken)
    for name in "ab":
        receive(mr_instance(series=name, size=32))
    stop = threading.Event()
    working = threading.Thread(target=Worker(settings, database, decoder).run, args=(stop,))
    working.start()
    try:
        wait_until(lambda: [status for (status,) in rows(database, select(jobs.c.status))] == ["parked"], 30)
    finally:
        stop.set()
        working.join()
    assert {name: len(series) for name, series in embedded_by(database).items()} == {"a": 2}


def test_reindexing_draws_no_thumbnails_that_are_there(
    small: list[Untrained], receive: Receive, settings: Settings, database: Database, decoder: Decoder
) -> None:
    small[0].add(settings, database, active=True)
    receive(mr_instance(size=32))
    worker = Worker(settings, database, decoder)
    work(worker)
    (before,) = rows(database, text("SELECT count(*), sum(length(picture)) FROM thumbnails"))
    assert before[0] == 1
    for one in small[1:]:
        one.add(settings, database)
    with database.transaction() as connection:
        series_id = connection.execute(text("SELECT id FROM series")).scalar_one()
        alike, larger = encoder_row_id(connection, "b"), encoder_row_id(connection, "large")
        assert stored_embeddings.drawn_alike(connection, series_id, alike)
        assert not stored_embeddings.drawn_alike(connection, series_id, larger)
    for one in small[1:]:
        reindex(database, one.new.name)
    work(worker)
    assert rows(database, text("SELECT count(*), sum(length(picture)) FROM thumbnails")) == [before]


def encoder_row_id(connection: Connection, name: str) -> int:
    return encoders.named(connection, name).id


SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real series are not here")
def test_real_series_go_through(worker: Worker, settings: Settings, database: Database) -> None:
    for path in sorted(SHARED.rglob("*.dcm")):
        copy = settings.incoming_dir / "transfer.part"
        copy.write_bytes(path.read_bytes())
        ingest(copy, Source("TEST"), database, settings)
    work(worker)
    found = rows(
        database,
        text("""
            SELECT series.attributes->'Manufacturer'->>0 AS maker, sequence, plane, stacks.body_part,
                   coalesce(not_embedded, '') AS reason,
                   (SELECT count(*) FROM embeddings WHERE stack_id = stacks.id AND slice > 0) AS slices
            FROM stacks JOIN series ON series.id = series_id
        """),
    )
    # The reference: what each folder's README and headers say it is.
    assert ("GE Medical Systems", "PD", "AXIAL", "BRAIN", "", 20) in found
    mprage = [slices for maker, sequence, _, _, _, slices in found if maker == "SIEMENS" and sequence == "T1"]
    assert len(mprage) == 1
    enhanced = [row for row in found if row[0] == "Siemens Healthineers"]
    assert [row[1:5] for row in enhanced] == [("T1", "AXIAL", "BRAIN", "")] * 2
    assert {row[3] for row in found if row[0] == "Acme Medical Devices"} == {"KNEE"}
    assert all(slices or str(reason).startswith("not a volume") for *_, reason, slices in found)
    assert rows(database, select(jobs)) == []
