"""The encoder in the API: what it draws and embeds is what the worker did."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import pytest
from arriving import arrive
from dicom_factory import mr_instance
from pydicom import Dataset
from running import wait_until
from sqlalchemy import delete, select, update
from stack_rows import make_active
from stored import let_go
from untrained import Untrained

from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import EncoderBusy, EncoderMismatch, PixelDataGone, SeriesChanged, UnknownExample
from pacs_cbir.serve.embedder import WAITING, Embedder
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import embeddings, instances, jobs, stacks
from pacs_cbir.worker import Worker

PREPROCESSING = load_checkpoint(default_checkpoint_path()).card.preprocessing


def turn(embedder: Embedder) -> AbstractContextManager[Encoder]:
    """A turn with the active encoder."""
    with embedder._database.transaction() as connection:
        return embedder.turn(encoders.active(connection))


@pytest.fixture
def worker(settings: Settings, database: Database, decoder: Decoder) -> Worker:
    return Worker(settings, database, decoder)


@pytest.fixture
def embedder(settings: Settings, database: Database) -> Iterator[Embedder]:
    with Embedder(settings, database) as opened:
        yield opened


def receive(settings: Settings, database: Database, *instances: Dataset) -> None:
    for ds in instances:
        arrive(database, settings, ds)


def test_stored_slices_are_drawn_as_they_were_embedded(
    settings: Settings, database: Database, worker: Worker, embedder: Embedder
) -> None:
    # Two echoes: two stacks, told apart by the whole series alone.
    for number in range(1, 5):
        for echo in (1, 2):
            uids = {"SOPInstanceUID": f"1.2.{number}.{echo}", "EchoTime": f"{50 * echo}", "EchoNumbers": echo}
            receive(settings, database, mr_instance(number=number, size=32, **uids))
    assert worker.work_once()
    with database.transaction() as connection:
        rows = connection.execute(select(embeddings).where(embeddings.c.slice > 0)).all()
    assert len({row.stack_id for row in rows}) == 2
    with turn(embedder) as encoder:
        for row in rows:
            pixels = embedder.slice_pixels(row.stack_id, row.slice, PREPROCESSING)
            assert pixels.shape == (encoder.card.preprocessing.size,) * 2
            assert encoder.embed(pixels[None])[0] == pytest.approx(np.frombuffer(row.vector, "<f4"), abs=1e-4)
        for stack, number in ((rows[0].stack_id, len(rows)), (rows[0].stack_id, 0), (uuid.uuid4(), 1)):
            with pytest.raises(UnknownExample):
                embedder.slice_pixels(stack, number, PREPROCESSING)


def test_a_series_that_changed_meanwhile_is_not_taken_for_what_it_was(
    settings: Settings, database: Database, worker: Worker, embedder: Embedder
) -> None:
    receive(settings, database, mr_instance(number=1, size=32))
    worker.work_once()
    receive(settings, database, mr_instance(number=1, size=32, EchoTime="17"))
    with database.transaction() as connection:
        stack = connection.execute(select(stacks.c.id)).scalar_one()
    with turn(embedder), pytest.raises(SeriesChanged, match="changed"):
        embedder.slice_pixels(stack, 1, PREPROCESSING)


def test_a_series_that_grows_is_drawn_as_it_was_embedded(
    settings: Settings, database: Database, worker: Worker, embedder: Embedder
) -> None:
    receive(settings, database, *(mr_instance(number=number, size=32) for number in range(5, 9)))
    worker.work_once()
    # Below the others: the numbers of the slices would move.
    receive(settings, database, *(mr_instance(number=number, size=32) for number in range(1, 5)))
    with database.transaction() as connection:
        rows = connection.execute(select(embeddings).where(embeddings.c.slice > 0)).all()
    with turn(embedder) as encoder:
        for row in rows:
            drawn = encoder.embed(embedder.slice_pixels(row.stack_id, row.slice, PREPROCESSING)[None])[0]
            assert drawn == pytest.approx(np.frombuffer(row.vector, "<f4"), abs=1e-4)


def test_a_slice_is_drawn_from_the_picture_that_was_embedded_or_not_at_all(
    settings: Settings, database: Database, worker: Worker, embedder: Embedder
) -> None:
    receive(settings, database, *(mr_instance(number=number, size=32) for number in range(1, 5)))
    worker.work_once()
    with database.transaction() as connection:
        stack = connection.execute(select(stacks.c.id)).scalar_one()

    def is_refused() -> bool:
        with turn(embedder):
            try:
                embedder.slice_pixels(stack, 3, PREPROCESSING)
            except SeriesChanged:
                return True
        return False

    assert not is_refused()
    # The same picture of a corrected patient: nothing that is drawn has changed, and nothing is embedded anew.
    receive(settings, database, mr_instance("P2", number=1, size=32))
    assert not is_refused()
    for column, value in ((embeddings.c.position_mm, 999.0), (embeddings.c.frame_number, 2)):
        with database.transaction() as connection:
            row = (embeddings.c.stack_id == stack) & (embeddings.c.slice == 3)
            before = connection.execute(select(column).where(row)).scalar_one()
            connection.execute(update(embeddings).where(row).values({column: value}))
        assert is_refused()
        with database.transaction() as connection:
            connection.execute(update(embeddings).where(row).values({column: before}))
    assert not is_refused()
    # Other pixels under the same UID, and then gone.
    other = mr_instance(number=1, size=32)
    other.PixelData = other.PixelData[::-1]
    receive(settings, database, other)
    assert is_refused()
    with database.transaction() as connection:
        connection.execute(delete(jobs))
    assert not is_refused()
    with database.transaction() as connection:
        connection.execute(delete(instances).where(instances.c.sop_instance_uid == other.SOPInstanceUID))
    assert is_refused()


def test_a_slice_whose_pixel_data_has_left_is_not_drawn(
    settings: Settings, database: Database, worker: Worker, embedder: Embedder
) -> None:
    receive(settings, database, *(mr_instance(number=number, size=32) for number in (1, 2)))
    worker.work_once()
    let_go(database, settings, mr_instance(number=2).SOPInstanceUID)
    with database.transaction() as connection:
        stack = connection.execute(select(stacks.c.id)).scalar_one()
    with turn(embedder), pytest.raises(PixelDataGone, match="PEER sent it"):
        embedder.slice_pixels(stack, 1, PREPROCESSING)


def test_without_an_active_encoder_nothing_is_embedded(embedder: Embedder) -> None:
    with pytest.raises(EncoderMismatch, match="start a worker"), turn(embedder):
        pass


def test_an_encoder_that_needs_another_device_is_refused(
    settings: Settings, database: Database, embedder: Embedder
) -> None:
    new = replace(Untrained.of(default_checkpoint_path()).new, precision="bfloat16")
    with database.transaction() as connection:
        make_active(connection, new)
    with pytest.raises(EncoderMismatch, match="GPU"), turn(embedder):
        pass


def test_one_at_a_time_and_the_others_wait_or_come_again(embedder: Embedder, worker: Worker) -> None:
    inside, waiting, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        with turn(embedder):
            inside.set()
            waiting.wait()

    def follow() -> None:
        with turn(embedder):
            done.append(waiting.is_set())

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    followers = [threading.Thread(target=follow) for _ in range(WAITING)]
    for thread in followers:
        thread.start()
    try:
        # Its own count: what a refused caller would tell, the one that is let in would wait to tell.
        wait_until(lambda: embedder._places._value == 0, 60)
        with pytest.raises(EncoderBusy, match="under way"), turn(embedder):
            pass
    finally:
        waiting.set()
        for thread in (holder, *followers):
            thread.join()
    assert done == [True] * WAITING
    with turn(embedder):
        pass


def test_the_api_does_not_import_torch_before_it_is_needed() -> None:
    code = "import sys, pacs_cbir.serve.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
