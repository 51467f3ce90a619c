"""The database or the disk away, transfers broken off, and memory."""

from __future__ import annotations

import itertools
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg2
import pytest
from dicom_factory import encoded, mr_instance
from pydicom.uid import MRImageStorage
from pynetdicom.association import Association
from running import scp_thread, wait_until
from scu import association, fragments, store, store_bytes
from sqlalchemy import make_url
from stored import data_set, everything, files, rows

from pacs_cbir.settings import Settings
from pacs_cbir.store import embedded, session
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
MEGABYTE = 1 << 20


@contextmanager
def database_away(server: embedded.EmbeddedPostgres, database_url: str) -> Iterator[None]:
    """Every connection to one database is cut, and none is let in."""
    name = make_url(database_url).database
    raw = psycopg2.connect(server.url(embedded.OWNER, "postgres").replace("+psycopg2", ""))
    raw.autocommit = True
    with raw.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    raw.close()


def test_out_of_resources_while_the_database_is_away_and_accepted_afterwards(
    scp: Settings, database: Database, postgres: embedded.EmbeddedPostgres, database_url: str
) -> None:
    with association(scp) as asked:
        assert store(asked, mr_instance(number=1)) == SUCCESS
        before = everything(database, scp)
        with database_away(postgres, database_url):
            assert store(asked, mr_instance(number=2)) == OUT_OF_RESOURCES
            assert store(asked, mr_instance(number=1, PatientID="P2")) == OUT_OF_RESOURCES
        assert everything(database, scp) == before
        assert store(asked, mr_instance(number=2)) == SUCCESS
    assert len(rows(database, instances)) == len(files(scp)) == 2


def test_out_of_resources_while_another_keeps_the_rows_for_too_long(
    settings: Settings, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STATEMENT_SECONDS", 1)
    impatient = Database(database_url)
    with scp_thread(settings, impatient), association(settings) as asked:
        assert store(asked, mr_instance()) == SUCCESS
        before = everything(database, settings)
        with database.transaction() as connection:
            connection.exec_driver_sql("SELECT id FROM instances FOR UPDATE")
            assert store(asked, mr_instance(PatientName="Test^Later")) == OUT_OF_RESOURCES
        assert everything(database, settings) == before
        assert store(asked, mr_instance(PatientName="Test^Later")) == SUCCESS
    impatient.close()


@pytest.mark.parametrize("folder", ["incoming", "instances"])
def test_out_of_resources_while_a_folder_is_away_and_accepted_afterwards(
    scp: Settings, database: Database, folder: str
) -> None:
    path = scp.data_dir / folder
    aside = path.rename(scp.data_dir / "aside")
    path.write_bytes(b"in the way")
    with association(scp) as asked:
        assert store(asked, mr_instance()) == OUT_OF_RESOURCES
        assert rows(database, instances) == []
        path.unlink()
        aside.rename(path)
        assert files(scp) == []
        assert store(asked, mr_instance()) == SUCCESS
    assert len(rows(database, instances)) == len(files(scp)) == 1


def test_out_of_resources_while_the_disk_is_full_and_accepted_afterwards(
    scp_process: subprocess.Popen[bytes], settings: Settings, database: Database
) -> None:
    # No file may grow beyond a megabyte: the process' writes fail as those on a full disk do.
    big, small = mr_instance(number=1, size=1024), mr_instance(number=2)
    before = resource.prlimit(scp_process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(scp_process.pid, resource.RLIMIT_FSIZE, (MEGABYTE, before[1]))
    with association(settings) as asked:
        assert store(asked, big) == OUT_OF_RESOURCES
        assert files(settings) == []
        assert store(asked, small) == SUCCESS
        resource.prlimit(scp_process.pid, resource.RLIMIT_FSIZE, before)
        assert store(asked, big) == SUCCESS
    assert len(rows(database, instances)) == len(files(settings)) == 2


def _half_sent(asked: Association, size: int = 1024) -> None:
    """The beginning of a transfer whose end never comes."""
    ds = mr_instance(size=size)
    some = fragments(asked, encoded(ds), MRImageStorage, ds.SOPInstanceUID)
    for fragment in itertools.islice(some, 8):
        asked.dul.send_pdu(fragment)


@pytest.mark.parametrize("how", ["abort", "connection lost", "released"])
def test_a_transfer_that_is_broken_off_leaves_nothing(scp: Settings, database: Database, how: str) -> None:
    with association(scp) as asked:
        _half_sent(asked)
        wait_until(lambda: len(files(scp)) == 1)
        if how == "abort":
            asked.abort()
        elif how == "released":
            asked.release()
        else:
            asked.dul.socket.socket.shutdown(2)
        wait_until(lambda: files(scp) == [])
    with association(scp) as asked:
        assert store(asked, mr_instance()) == SUCCESS
    assert len(rows(database, instances)) == 1


@pytest.mark.slow
def test_the_end_of_the_service_leaves_no_transfer(scp_process: subprocess.Popen[bytes], settings: Settings) -> None:
    with association(settings) as asked:
        _half_sent(asked)
        wait_until(lambda: len(files(settings)) == 1)
        scp_process.terminate()
        assert scp_process.wait(30) == 0
        assert files(settings) == []


def test_transfers_under_way_are_finished_before_the_service_ends(
    scp_process: subprocess.Popen[bytes], settings: Settings, database: Database
) -> None:
    ds = mr_instance(size=1024)
    with association(settings) as asked:
        some = list(fragments(asked, encoded(ds), MRImageStorage, ds.SOPInstanceUID))
        for fragment in some[:8]:
            asked.dul.send_pdu(fragment)
        wait_until(lambda: len(files(settings)) == 1)
        scp_process.terminate()
        time.sleep(1)
        for fragment in some[8:]:
            asked.dul.send_pdu(fragment)
        wait_until(lambda: len(rows(database, instances)) == 1)
    assert scp_process.wait(30) == 0
    assert [data_set(path) for path in files(settings)] == [encoded(ds)]


def test_memory_does_not_grow_with_the_instance(
    scp_process: subprocess.Popen[bytes], settings: Settings, database: Database
) -> None:
    ds = mr_instance(number=1)
    process = psutil.Process(scp_process.pid)
    with association(settings) as asked:
        assert store(asked, mr_instance(number=2)) == SUCCESS
        before = process.memory_info().rss
        peak = before
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.01):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        ds.NumberOfFrames, ds.Rows, ds.Columns = 25, 2048, 2048
        ds.PixelData = bytes(25 * 2048 * 2048 * 2)
        sent = encoded(ds)
        assert len(sent) > 200 * 1000**2
        assert store_bytes(asked, sent, MRImageStorage, ds.SOPInstanceUID) == SUCCESS
        done.set()
        watcher.join()
    assert peak - before < 30 * MEGABYTE
    assert max(row.file_size for row in rows(database, instances)) > len(sent)
