"""Kill -9 of every process in turn, while 1000 instances come in."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from dicom_factory import encoded, mr_instance
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from running import command, wait_until
from scu import association, store_bytes
from sqlalchemy import Row, select
from stored import data_set, rows

from pacs_cbir.errors import DatabaseUnavailable
from pacs_cbir.settings import Settings, load_settings
from pacs_cbir.store import embedded, files
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import embeddings, instances, jobs, series, stacks
from tests.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDIES, SERIES, SLICES = 10, 4, 25
SENDERS = 4
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
INGEST_SECONDS = 300.0
EMBED_SECONDS = 300.0
VICTIMS = ("scp", "worker", "postgres", "api", "backend")
# Acknowledged instances between two kills.
KILL_EVERY = 70


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lost association would be some lines."""
    monkeypatch.setattr(logging.getLogger("pynetdicom"), "level", logging.CRITICAL)


@pytest.fixture
def service() -> Iterator[tuple[Settings, dict[str, str]]]:
    """Settings of a service on the embedded Postgres, and the environment that says the same."""
    folder = Path(tempfile.mkdtemp(prefix="cbir-", dir="/tmp"))
    environment = os.environ | {
        "PACS_CBIR_DATA_DIR": str(folder / "data"),
        "PACS_CBIR_DICOM_PORT": str(free_port()),
        "PACS_CBIR_HTTP_PORT": str(free_port()),
        "PACS_CBIR_SETTLE_SECONDS": "1",
        "PACS_CBIR_RETRY_SECONDS": "0",
        "PACS_CBIR_LEASE_SECONDS": "3",
        # The same job can be under way at several kills.
        "PACS_CBIR_JOB_ATTEMPTS": "50",
    }
    settings = load_settings(
        **{
            name.removeprefix("PACS_CBIR_").lower(): value
            for name, value in environment.items()
            if name.startswith("PACS_CBIR_")
        }
    )
    yield settings, environment
    shutil.rmtree(folder)


class Senders:
    """Several peers that send until each of their instances was acknowledged."""

    def __init__(self, settings: Settings, instances: list[Dataset]) -> None:
        self.sent = {str(ds.SOPInstanceUID): encoded(ds) for ds in instances}
        self.acknowledged: set[str] = set()
        self.statuses: dict[int | None, int] = defaultdict(int)
        self._settings = settings
        uids = list(self.sent)
        share = len(uids) // SENDERS
        self._threads = [
            threading.Thread(target=self._send, args=(uids[number * share : (number + 1) * share],), daemon=True)
            for number in range(SENDERS)
        ]

    @contextmanager
    def sending(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        yield
        for thread in self._threads:
            thread.join()

    def _send(self, waiting: list[str]) -> None:
        while waiting:
            with association(self._settings) as asked:
                while waiting and asked.is_established:
                    status = store_bytes(asked, self.sent[waiting[0]], MRImageStorage, waiting[0])
                    self.statuses[status] += 1
                    if status != SUCCESS:
                        break
                    self.acknowledged.add(waiting.pop(0))
            time.sleep(0.1)


def kill(victim: str, supervisor: int, settings: Settings) -> bool:
    """Kill -9 one of the service's processes; False where there is none at the moment."""
    try:
        if victim in {"postgres", "backend"}:
            server = psutil.Process(int((settings.postgres_dir / "postmaster.pid").read_text().splitlines()[0]))
            backends = [child for child in server.children() if "pacs_cbir" in " ".join(child.cmdline())]
            found = [server] if victim == "postgres" else backends[:1]
        else:
            found = [
                child
                for child in psutil.Process(supervisor).children()
                if child.cmdline()[-2:] == ["pacs_cbir", victim]
            ]
        for process in found:
            process.send_signal(signal.SIGKILL)
    except (psutil.NoSuchProcess, FileNotFoundError, IndexError, ValueError):
        return False
    return bool(found)


def open_embedded(settings: Settings) -> Database:
    """A look at the embedded Postgres that does not keep it alive, as a service's own handle would."""
    socket_folder = (settings.postgres_dir / "postmaster.pid").read_text().splitlines()[4]
    return Database(f"postgresql://{embedded.SERVICE_LOGIN}@/{embedded.DATABASE}?host={socket_folder}", pool_size=1)


def test_no_acknowledged_instance_is_lost_and_every_stack_is_embedded(
    service: tuple[Settings, dict[str, str]], tmp_path: Path
) -> None:
    settings, environment = service
    sent = [
        mr_instance(f"P{study}", f"study {study}", f"series {study} {name}", number, size=32)
        for study in range(STUDIES)
        for name in range(SERIES)
        for number in range(SLICES)
    ]
    senders = Senders(settings, sent)
    killed: dict[str, int] = defaultdict(int)
    with command("serve", environment, tmp_path / "serve.log") as supervisor:
        try:
            with senders.sending():
                for number in range(1, len(sent) // KILL_EVERY + 1):
                    wait_until(lambda: len(senders.acknowledged) >= number * KILL_EVERY, INGEST_SECONDS)  # noqa: B023
                    victim = VICTIMS[number % len(VICTIMS)]
                    wait_until(lambda: kill(victim, supervisor.pid, settings), INGEST_SECONDS)  # noqa: B023
                    killed[victim] += 1
            for victim in ("worker", "postgres", "worker", "backend"):
                # In the middle of a job, each of which is done again.
                wait_until(lambda: worker_at_work(settings), EMBED_SECONDS)
                # At once or a moment later: a backend that ends of itself while they are listed is no failure.
                wait_until(partial(kill, victim, supervisor.pid, settings), EMBED_SECONDS)
                killed[victim] += 1
            wait_until(lambda: read_jobs(settings) == [], EMBED_SECONDS)
        finally:
            print("killed", dict(killed), "answers", dict(senders.statuses))
        assert min(killed[victim] for victim in VICTIMS) >= 2
        assert senders.statuses.keys() <= {SUCCESS, OUT_OF_RESOURCES, None}
        assert senders.acknowledged == senders.sent.keys()
        database = open_embedded(settings)
        check_instances(database, settings, senders.sent)
        check_embeddings(database, sent)
        database.close()
        check_answers(settings, sent)
        supervisor.terminate()
        assert supervisor.wait(60) == 0


def read_jobs(settings: Settings) -> list[Row[Any]] | None:
    """All jobs, in whatever state; None while the database is away."""
    try:
        database = open_embedded(settings)
    except (FileNotFoundError, IndexError):
        return None
    try:
        return rows(database, jobs)
    except DatabaseUnavailable:
        return None
    finally:
        database.close()


def worker_at_work(settings: Settings) -> bool:
    """Whether a worker that is alive has a job."""
    running = [job for job in read_jobs(settings) or [] if job.status == "running"]
    return any(psutil.pid_exists(int(job.worker.split(":")[1])) for job in running)


def check_instances(database: Database, settings: Settings, sent: Mapping[str, bytes]) -> None:
    """Each instance has one row, and its file is what was sent; nothing else stays behind a sweep."""
    kept = rows(database, instances)
    assert {row.sop_instance_uid: data_set(settings.instances_dir / row.file) for row in kept} == sent
    on_disk = {str(path.relative_to(settings.instances_dir)) for path in settings.instances_dir.glob("*/*")}
    assert {row.file for row in kept} <= on_disk
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "ORPHAN_SECONDS", 0)
        files.sweep(settings, database)
    assert {str(path.relative_to(settings.instances_dir)) for path in settings.instances_dir.glob("*/*")} == {
        row.file for row in kept
    }
    assert not list(settings.incoming_dir.iterdir())


def check_embeddings(database: Database, sent: list[Dataset]) -> None:
    """Each series is one stack over exactly its instances, with one embedding a slice and one for the whole."""
    expected = defaultdict(set)
    for ds in sent:
        expected[str(ds.SeriesInstanceUID)].add(str(ds.SOPInstanceUID))
    with database.transaction() as connection:
        found = connection.execute(
            select(stacks, series.c.series_instance_uid).join(series, series.c.id == stacks.c.series_id)
        ).all()
        slices: dict[object, list[Row[tuple[object, int, str]]]] = defaultdict(list)
        for row in connection.execute(
            select(embeddings.c.stack_id, embeddings.c.slice, embeddings.c.sop_instance_uid).order_by(
                embeddings.c.slice
            )
        ):
            slices[row.stack_id].append(row)
    assert len(found) == len(expected)
    for stack in found:
        assert stack.not_embedded is None
        assert sorted(stack.sop_instance_uids) == sorted(expected[stack.series_instance_uid])
        whole, *others = slices.pop(stack.id)
        assert whole.slice == 0
        assert [row.slice for row in others] == list(range(1, len(others) + 1))
        assert {row.sop_instance_uid for row in others} <= expected[stack.series_instance_uid]
        assert len(others) > SLICES / 2
    assert not slices


def check_answers(settings: Settings, sent: list[Dataset]) -> None:
    """The API finds all studies like the first one."""
    studies = {str(ds.StudyInstanceUID) for ds in sent}
    example = str(sent[0].StudyInstanceUID)

    def found() -> bool:
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{settings.http_port}/similar/studies",
                params={"example": example, "limit": 100, "min_similarity": -1},
                headers={"Accept": "application/json"},
            )
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            return False
        return {match["StudyInstanceUID"] for match in answer.json()} == studies - {example}

    wait_until(found, 60)
