"""`reindex --from pacs`: series whose pixel data has left are fetched by the worker, and embedded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import Orthanc
from arriving import arrive
from dicom_factory import mr_instance, uid
from sqlalchemy import text
from stored import let_go, rows
from untrained import TWO_NUMBERS, Untrained, save_untrained

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.pacs.retrieve import retrieve_series
from pacs_cbir.reindex import start_reindex
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import jobs
from pacs_cbir.worker import Worker
from tests.conftest import free_port

pytestmark = pytest.mark.peer


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder(60, 4096) as opened:
        yield opened


@pytest.fixture
def gone(pacs: Orthanc, settings: Settings, database: Database, decoder: Decoder, tmp_path: Path) -> Settings:
    """A series that one encoder has embedded and that has left, another beside it, and a PACS that has it."""
    one, other = (
        Untrained.of(save_untrained(tmp_path / f"{name}.safetensors", TWO_NUMBERS, seed=seed))
        for seed, name in enumerate(("one", "other"))
    )
    peer = pacs.peer("c-get")
    pacs.add(mr_instance(number=number, size=32) for number in (1, 2))
    retrieve_series(peer, str(uid("study")), str(uid("study", "series")), settings, database)
    one.add(settings, database, active=True)
    work(settings, database, decoder)
    other.add(settings, database)
    let_go(database, settings)
    return settings.model_copy(update={"peers": {"pacs": peer}})


def work(settings: Settings, database: Database, decoder: Decoder) -> None:
    worker = Worker(settings, database, decoder)
    while worker.work_once():
        pass


def embedded(database: Database) -> list[str]:
    with database.transaction() as connection:
        names = text("SELECT name FROM stacks JOIN encoders ON encoders.id = encoder_id ORDER BY name")
        return list(connection.scalars(names))


def test_what_has_left_is_fetched_where_that_is_allowed(gone: Settings, database: Database, decoder: Decoder) -> None:
    start_reindex(database, "other", hours=None, workers=None, from_pacs=False)
    work(gone, database, decoder)
    [job] = rows(database, jobs)
    assert job.status == "parked"
    assert "`pacs-cbir reindex --encoder other --from pacs` fetches it" in job.error
    assert embedded(database) == ["one"]
    start_reindex(database, "other", hours=None, workers=None, from_pacs=True)
    work(gone, database, decoder)
    assert rows(database, jobs) == []
    assert embedded(database) == ["one", "other"]
    with database.transaction() as connection:
        encoders.activate(connection, "other")


def test_what_has_left_is_fetched_when_more_of_it_arrives(
    gone: Settings, pacs: Orthanc, database: Database, decoder: Decoder
) -> None:
    late = mr_instance(number=3, size=32)
    pacs.add([late])
    arrive(database, gone, late, sender="ORTHANC")
    work(gone, database, decoder)
    assert rows(database, jobs) == []
    assert embedded(database) == ["one", "other"]
    with database.transaction() as connection:
        counts = text("SELECT DISTINCT cardinality(sop_instance_uids) FROM stacks")
        assert list(connection.scalars(counts)) == [3]


def test_a_pacs_that_is_away_is_waited_for(gone: Settings, database: Database, decoder: Decoder) -> None:
    there = gone.peers["pacs"]
    away = gone.model_copy(update={"peers": {"pacs": there.model_copy(update={"port": free_port()})}})
    start_reindex(database, "other", hours=None, workers=None, from_pacs=True)
    for _ in range(gone.job_attempts + 1):
        work(away, database, decoder)
        [job] = rows(database, jobs)
        assert (job.status, job.attempts) == ("waiting", 0)
        assert "does not answer" in job.error
        with database.transaction() as connection:
            wait = connection.scalar(text("SELECT extract(epoch FROM not_before - clock_timestamp()) FROM jobs"))
            assert 0 < wait <= 60
            connection.execute(text("UPDATE jobs SET not_before = clock_timestamp()"))
    work(gone, database, decoder)
    assert rows(database, jobs) == []
    assert embedded(database) == ["one", "other"]
