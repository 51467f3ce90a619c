"""`pacs-cbir health`: what an orchestrator asks, of real parts, up and down."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from running import command, scp_thread, wait_until

from pacs_cbir import health
from pacs_cbir.errors import Unhealthy
from pacs_cbir.settings import Settings
from pacs_cbir.store.presence import count_workers
from pacs_cbir.store.session import Database

START_SECONDS = 60.0


def healthy(role: str, settings: Settings) -> bool:
    try:
        health.check(role, settings)
    except Unhealthy:
        return False
    return True


@pytest.fixture
def told(settings: Settings) -> Settings:
    """Settings as a container's: it listens on all addresses, and not everybody may associate."""
    given = {"http_host": "0.0.0.0", "dicom_host": "0.0.0.0", "calling_ae_titles": ("PACS",)}
    return settings.model_copy(update=given)


def test_an_scp_is_healthy_while_it_answers(told: Settings, database: Database) -> None:
    with pytest.raises(Unhealthy, match=f"from PACS to PACS_CBIR at 127.0.0.1:{told.dicom_port}"):
        health.check("scp", told)
    with scp_thread(told, database):
        health.check("scp", told)
        with pytest.raises(Unhealthy, match="from STRANGER"):
            health.check("scp", told.model_copy(update={"calling_ae_titles": ("STRANGER",)}))


@pytest.mark.slow
def test_an_api_is_healthy_once_it_is_ready(told: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    elsewhere = told.model_copy(update={"api_url": "http://127.0.0.1:9"})
    with pytest.raises(Unhealthy, match=f"no API answers at http://127.0.0.1:{told.http_port}"):
        health.check("api", elsewhere)
    with command("api", environment, tmp_path / "log"):
        wait_until(lambda: healthy("api", elsewhere), START_SECONDS)


@pytest.mark.slow
def test_a_worker_is_healthy_while_it_speaks(
    settings: Settings, database: Database, environment: dict[str, str], tmp_path: Path
) -> None:
    short = settings.model_copy(update={"lease_seconds": 2.0})
    with pytest.raises(Unhealthy, match="no worker of this machine"):
        health.check("worker", short)
    with command("worker", environment, tmp_path / "log") as process:
        wait_until(lambda: healthy("worker", short), START_SECONDS)
        with database.reading() as connection:
            assert count_workers(connection) == 1
        process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: not healthy("worker", short), START_SECONDS)
            with pytest.raises(Unhealthy, match="has not spoken to the database"):
                health.check("worker", short)
        finally:
            process.send_signal(signal.SIGCONT)
    with database.reading() as connection:
        assert count_workers(connection) == 0
