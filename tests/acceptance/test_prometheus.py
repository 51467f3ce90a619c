"""A real Prometheus with our rules reads the real service: every metric is there, and what is wrong is an alert."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from deployed import DEPLOY
from dicom_factory import mr_instance
from expressions import alerts, panels, wanted
from pydicom.uid import MRImageStorage
from running import command, listens, wait_until
from scu import association, store, store_bytes
from sqlalchemy import text

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from tests.conftest import free_port

pytestmark = [pytest.mark.peer, pytest.mark.slow]

START_SECONDS = 60.0
JOBS = {"pacs-cbir-api", "pacs-cbir-scp"}
# How much room this machine has is not the test's to say, nor how fast it is.
UNKNOWN_HERE = {"PacsCbirDiskFillsUp", "PacsCbirDiskFull", "PacsCbirQueriesSlow"}


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=30)

    def ask(self, path: str, **parameters: str) -> Any:
        """What it answers."""
        answer = self._client.get(path, params=parameters)
        # While it starts it is 503.
        answer.raise_for_status()
        assert answer.json()["status"] == "success", answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An expression's series now."""
        found: list[dict[str, Any]] = self.ask("/query", query=expression)["result"]
        return found

    def scraped(self) -> bool:
        """Whether it has read every part, as it was before now."""
        try:
            return {one["metric"]["job"] for one in self.query("up == 1")} == JOBS
        except httpx.HTTPError:
            return False

    def alerts(self) -> set[str]:
        """Those that are pending or firing."""
        return {one["labels"]["alertname"] for one in self.ask("/alerts")["alerts"]}


@pytest.fixture
def watched(
    peer: Callable[[str], str], settings: Settings, environment: dict[str, str], tmp_path: Path
) -> Iterator[Prometheus]:
    """SCP and API as processes, and Prometheus with the configuration that we hand out, but for addresses and pace."""
    measured = free_port()
    environment |= {"PACS_CBIR_SCP_METRICS_PORT": str(measured), "PACS_CBIR_CALLING_AE_TITLES": '["PEER"]'}
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
    where = {"pacs-cbir-api": settings.http_port, "pacs-cbir-scp": measured}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{where[job['job_name']]}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with ExitStack() as running:
        for part in ("scp", "api"):
            running.enter_context(command(part, environment, tmp_path / part))
        wait_until(lambda: all(listens(port) for port in where.values()), START_SECONDS)
        log = running.enter_context((tmp_path / "prometheus").open("wb"))
        process = subprocess.Popen(
            [
                peer("prometheus"),
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        running.callback(process.wait, START_SECONDS)
        running.callback(process.terminate)
        made = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(made.scraped, START_SECONDS)
        yield made


def go_wrong(settings: Settings, database: Database) -> None:
    """What an admin must hear of: a refused instance, a stranger, a parked series, one that nobody embeds."""
    with association(settings) as asked:
        assert store(asked, mr_instance()) == 0x0000
        assert store_bytes(asked, b"no data set", MRImageStorage, "1.2.3") == 0xC000
    with association(settings, calling="STRANGER") as asked:
        assert asked.is_rejected
    with database.transaction() as connection:
        connection.execute(text("UPDATE jobs SET not_before = clock_timestamp() - interval '2 hours'"))
        connection.execute(
            text("INSERT INTO jobs (series_id, status, not_before) SELECT series_id, 'parked', not_before FROM jobs")
        )
    url = f"http://127.0.0.1:{settings.http_port}"
    assert httpx.get(f"{url}/similar/studies", params={"example": "1.2.3"}).status_code == 404


def test_every_metric_is_read_and_what_is_wrong_is_an_alert(
    watched: Prometheus, settings: Settings, database: Database
) -> None:
    assert not watched.alerts() - UNKNOWN_HERE - {"PacsCbirNoWorker"}
    go_wrong(settings, database)
    expected = {
        "PacsCbirQueueIsOld",
        "PacsCbirNoWorker",
        "PacsCbirSeriesParked",
        "PacsCbirStoresRefused",
        "PacsCbirAssociationsRejected",
    }
    assert expected <= alerts().keys()
    wait_until(lambda: watched.alerts() - UNKNOWN_HERE == expected, START_SECONDS)
    for name, expression in (alerts() | panels()).items():
        watched.query(expression)
        for one in wanted(expression):
            series = [found["metric"] for found in watched.query(one.metric)]
            assert series, f"{name}: there is no {one.metric}"
            for labels in series:
                assert one.labels <= labels.keys(), f"{name}: {one.metric} has not {one.labels - labels.keys()}"

    def empty() -> set[str]:
        return {name for name, expression in panels().items() if not watched.query(expression)}

    # Nothing was answered with an error of ours; all else has something to show, once it was read twice.
    wait_until(lambda: empty() == {"Answers that are errors A"}, START_SECONDS)


def test_the_rules_are_well_formed(peer: Callable[[str], str]) -> None:
    for kind, name in (("rules", "rules.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            [peer("promtool"), "check", kind, DEPLOY / "prometheus" / name], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_dashboard_shows_every_metric_that_an_alert_is_about() -> None:
    shown, alerted = ({one.metric for expr in given.values() for one in wanted(expr)} for given in (panels(), alerts()))
    assert alerted - shown == {"up"}
