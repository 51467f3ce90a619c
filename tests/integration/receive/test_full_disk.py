"""A real disk that fills up: what comes is refused before it is full, and taken again by itself."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dicom_factory import mr_instance
from disks import small_disk
from running import scp_thread
from scu import association, store
from stored import files, rows

from pacs_cbir.errors import DiskFull
from pacs_cbir.settings import Settings
from pacs_cbir.store import files as store_files
from pacs_cbir.store.incoming import LOOK_AT_ROOM_BYTES
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.room import MEBIBYTE, require_room, room
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DISK_MEGABYTES = 96
RESERVE_MEGABYTES = 32


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """With the data directory on a small disk of its own, all of it free."""
    with small_disk(tmp_path / "disk", f"{DISK_MEGABYTES}m") as disk:
        made = settings.model_copy(update={"data_dir": disk / "data", "disk_reserve_megabytes": RESERVE_MEGABYTES})
        store_files.prepare(made)
        yield made


def fill(settings: Settings, *, but: int) -> Path:
    """A file that leaves so many MiB above the reserve."""
    filler = settings.data_dir / "filler"
    filler.write_bytes(bytes(room(settings).free - (RESERVE_MEGABYTES + but) * MEBIBYTE))
    return filler


def test_out_of_resources_below_the_reserve_and_accepted_once_there_is_room(
    settings: Settings, database: Database
) -> None:
    with scp_thread(settings, database), association(settings) as asked:
        assert store(asked, mr_instance(number=1)) == SUCCESS
        filler = fill(settings, but=-1)
        assert store(asked, mr_instance(number=2)) == OUT_OF_RESOURCES
        assert len(rows(database, instances)) == len(files(settings)) == 1
        filler.unlink()
        assert store(asked, mr_instance(number=2)) == SUCCESS
    assert len(rows(database, instances)) == len(files(settings)) == 2


def test_a_large_transfer_ends_at_the_reserve_and_gives_its_room_back(settings: Settings, database: Database) -> None:
    ds = mr_instance(number=1)
    ds.NumberOfFrames, ds.Rows, ds.Columns = 10, 2048, 2048
    ds.PixelData = bytes(80 * MEBIBYTE)
    with scp_thread(settings, database), association(settings) as asked, ThreadPoolExecutor(1) as beside:
        fill(settings, but=10)
        before = lowest = room(settings).free
        sent = beside.submit(store, asked, ds)
        while not sent.done():
            lowest = min(lowest, room(settings).free)
            time.sleep(0.001)
        assert sent.result() == OUT_OF_RESOURCES
        assert RESERVE_MEGABYTES * MEBIBYTE - LOOK_AT_ROOM_BYTES - MEBIBYTE < lowest < before
        assert room(settings).free == before
        assert store(asked, mr_instance(number=2)) == SUCCESS


@pytest.mark.peer
def test_storescu_is_refused_and_tries_again(
    settings: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    for number in range(3):
        mr_instance(number=number).save_as(tmp_path / "out" / str(number), enforce_file_format=True)
    send = [peer("storescu"), "-v", "-aec", settings.ae_title, "+sd", settings.dicom_host, str(settings.dicom_port)]
    with scp_thread(settings, database):
        filler = fill(settings, but=-1)
        refused = subprocess.run([*send, str(tmp_path / "out")], capture_output=True, text=True, check=False)
        assert "OutOfResources" in refused.stdout + refused.stderr
        assert rows(database, instances) == []
        filler.unlink()
        subprocess.run([*send, str(tmp_path / "out")], capture_output=True, check=True)
    assert len(rows(database, instances)) == 3


def test_every_door_is_shut(settings: Settings, database: Database) -> None:
    require_room(settings)
    received = settings.incoming_dir / "transfer.part"
    mr_instance().save_as(received, enforce_file_format=True)
    fill(settings, but=-1)
    with pytest.raises(DiskFull, match="31 MiB free, 32 kept in reserve"):
        ingest(received, Source("TEST"), database, settings)
    assert files(settings) == []
