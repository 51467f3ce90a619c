"""The worker: from settled series to embeddings over exactly what was received, whatever is in the files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from running import wait_until
from sqlalchemy import select, text
from stored import let_go

from pacs_cbir import worker as worker_module
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.errors import DecodingError, EncoderMismatch
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders, retention
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import embeddings, instances, jobs, stacks
from pacs_cbir.worker import Worker, run_worker
from tests.dicom_factory import composite, mr_instance

Receive = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(60, 4096) as made:
        yield made


@pytest.fixture
def worker(settings: Settings, database: Database, decoder: Decoder) -> Worker:
    return Worker(settings, database, decoder)


@pytest.fixture
def receive(settings: Settings, database: Database) -> Receive:
    def ingest_one(ds: Dataset) -> None:
        path = settings.incoming_dir / "transfer.part"
        ds.save_as(path, enforce_file_format=True)
        ingest(path, Source("TEST"), database, settings)

    return ingest_one


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
        ("parked", "PixelDataGone: the pixel data has left this service's cache; TEST sent it")
    ]
    assert before == (rows(database, select(stacks)), rows(database, select(embeddings)))


def test_a_late_instance_has_the_series_embedded_anew(worker: Worker, receive: Receive, database: Database) -> None:
    receive(mr_instance(number=1, size=32))
    work(worker)
    receive(mr_instance(number=2, size=32))
    assert work(worker) == 1
    [(uids,)] = rows(database, select(stacks.c.sop_instance_uids))
    assert len(uids) == 2  # type: ignore[arg-type]


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


def test_another_encoder_is_refused_until_everything_is_embedded_with_it(
    settings: Settings, database: Database, decoder: Decoder, worker: Worker
) -> None:
    with database.transaction() as connection:
        connection.execute(text("UPDATE encoders SET identity = 'another'"))
    with pytest.raises(EncoderMismatch, match="reindex --re-embed"):
        Worker(settings, database, decoder)
    Worker(settings, database, decoder, re_embed=True)
    with database.transaction() as connection:
        active = encoders.active(connection)
    assert active is not None
    assert active.identity != "another"


def test_a_worker_whose_encoder_was_replaced_claims_nothing_more(
    worker: Worker, receive: Receive, database: Database
) -> None:
    receive(mr_instance(size=32))
    with database.transaction() as connection:
        encoders.activate(connection, "another", {})
    with pytest.raises(EncoderMismatch, match="reindex --re-embed"):
        worker.work_once()
    assert rows(database, select(jobs.c.status, jobs.c.attempts)) == [("waiting", 0)]


SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom"


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
