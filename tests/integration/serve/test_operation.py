"""Health, metrics, status, documentation, and what is answered where something is missing or broken."""

from __future__ import annotations

import re
import shutil
import time
from types import SimpleNamespace
from typing import cast

import anyio
import anyio.to_thread
import httpx
import pytest
from archives import as_file
from dicom_factory import mr_instance
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from served import Api, listening
from sqlalchemy import text
from structlog.testing import capture_logs

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.settings import Settings
from pacs_cbir.store import jobs, schema
from pacs_cbir.store.session import Database

NOWHERE = "postgresql://nobody@/nothing?host=/tmp/no-such-folder"


@pytest.fixture
def without_database(settings: Settings, database: Database, decoder: Decoder) -> TestClient:
    follower = Follower(database, settings.index_dir)
    follower.catch_up()
    away = Database(NOWHERE)
    return TestClient(create_app(settings, away, Searcher(away, follower), decoder))


def test_ready(api: Api) -> None:
    assert api.client.get("/health/live").status_code == 200
    assert api.client.get("/health/ready").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_a_load_balancer_may_ask_with_head(api: Api, path: str) -> None:
    assert api.client.head(path).status_code == 200


def test_live_while_every_thread_is_busy(api: Api) -> None:
    async def ask() -> int:
        threads = anyio.to_thread.current_default_thread_limiter()
        for _ in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(object())
        transport = httpx.ASGITransport(api.client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            with anyio.fail_after(5):
                return (await client.get("/health/live")).status_code

    assert anyio.run(ask) == 200


def test_not_ready_without_an_index(settings: Settings, database: Database, decoder: Decoder) -> None:
    searcher = Searcher(database, Follower(database, settings.index_dir))
    answer = TestClient(create_app(settings, database, searcher, decoder)).get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the index is not loaded yet"]


def test_not_ready_on_another_schema(api: Api, owner_url: str) -> None:
    owner = Database(owner_url, role=None)
    schema.downgrade(owner, "base")
    owner.close()
    answer = api.client.get("/health/ready")
    assert answer.status_code == 503
    assert "pacs-cbir db upgrade" in answer.json()["reasons"][0]


@pytest.mark.parametrize(
    "path", ["/similar/studies?example=1", "/similar/series?example=1", "/dicom-web/studies", "/status"]
)
def test_the_database_is_away(without_database: TestClient, path: str) -> None:
    answer = without_database.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1


def test_health_and_metrics_outlive_the_database(without_database: TestClient) -> None:
    assert without_database.get("/health/live").status_code == 200
    assert without_database.get("/health/ready").status_code == 503
    metrics = without_database.get("/metrics")
    assert metrics.status_code == 200
    assert "pacs_cbir_database_up 0.0" in metrics.text


def test_metrics_name_routes_and_no_one(api: Api) -> None:
    api.add("1.2.3", "1.2.3.1")
    api.client.get("/dicom-web/studies?PatientName=Doe^Jane")
    api.client.get("/dicom-web/studies/1.2.3/series")
    api.client.get("/similar/studies?example=9")
    api.client.get("/nowhere/1.2.3")
    api.client.request("INVENTED", "/nowhere")
    metrics = api.client.get("/metrics").text
    counted = dict(re.findall(r"^pacs_cbir_http_requests_total\{(.*)\} ([0-9.]+)$", metrics, re.MULTILINE))
    assert counted == {
        'method="GET",route="/dicom-web/studies",status="204"': "1.0",
        'method="GET",route="/dicom-web/studies/{study}/series",status="200"': "1.0",
        'method="GET",route="/similar/studies",status="404"': "1.0",
        'method="GET",route="unmatched",status="404"': "1.0",
        'method="other",route="unmatched",status="404"': "1.0",
    }
    assert "pacs_cbir_index_slices 1.0" in metrics
    assert 'pacs_cbir_jobs{state="parked"} 0.0' in metrics
    assert "pacs_cbir_workers 0.0" in metrics
    assert 'pacs_cbir_http_request_seconds_count{route="/similar/studies"} 1.0' in metrics
    assert re.search(r"^pacs_cbir_disk_free_bytes [1-9]", metrics, re.MULTILINE)
    assert "pacs_cbir_disk_reserve_bytes 1.073741824e+09" in metrics
    assert "Doe" not in metrics
    assert "1.2.3" not in metrics


def gauge(api: Api, name: str) -> float:
    """A metric's value."""
    found = re.search(rf"^{name} ([-0-9.e+]+)$", api.client.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def test_the_queue_is_as_old_as_the_arrival_that_is_due_longest(api: Api) -> None:
    assert gauge(api, "pacs_cbir_queue_seconds") == 0
    with api.database.transaction() as connection:
        jobs.enqueue(connection, api.add("1.2.3", "1.2.3.1"), 300)
    assert gauge(api, "pacs_cbir_queue_seconds") == 0
    with api.database.transaction() as connection:
        connection.execute(text("UPDATE jobs SET not_before = clock_timestamp() - interval '100 seconds'"))
    assert 100 <= gauge(api, "pacs_cbir_queue_seconds") < 200
    with api.database.transaction() as connection:
        connection.execute(text("UPDATE jobs SET status = 'running'"))
    assert gauge(api, "pacs_cbir_queue_seconds") == 0


def test_instances_are_counted_by_status(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = ("0000", "0110", "A700", "A900", "C000")

    def counted() -> list[float]:
        return [gauge(api, rf'pacs_cbir_stores_total\{{status="{status}"\}}') for status in statuses]

    def store(content: bytes, study: str = "") -> int:
        headers = {"Content-Type": "application/dicom"}
        return api.client.post(f"/dicom-web/studies{study}", content=content, headers=headers).status_code

    assert counted() == [0, 0, 0, 0, 0]
    instance = as_file(mr_instance())
    assert [store(instance), store(b"nothing"), store(instance, "/1.2.3")] == [200, 409, 409]
    assert counted() == [1, 0, 0, 1, 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert store(as_file(mr_instance(number=2))) == 507
    assert counted() == [1, 0, 1, 1, 1]


def test_the_index_says_how_far_it_is_behind(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.follower.catch_up()
    assert gauge(api, "pacs_cbir_index_behind_seconds") < 50
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    assert 100 <= gauge(api, "pacs_cbir_index_behind_seconds") < 200
    api.follower.catch_up()
    assert gauge(api, "pacs_cbir_index_behind_seconds") < 50


def test_status(api: Api) -> None:
    api.add("1.2.3", "1.2.3.1", study={"PatientName": "Doe^Jane"})
    answer = api.client.get("/status")
    assert (answer.json()["studies"], answer.json()["embedded"], answer.json()["encoder"]) == (1, 1, "two")
    assert answer.json()["studies_without_patient_id"] == ["1.2.3"]
    assert "Doe" not in answer.text


def test_the_log_names_routes_and_no_one(api: Api) -> None:
    with capture_logs() as lines:
        api.client.get("/dicom-web/studies/1.2.3/series?PatientName=Doe^Jane")
        api.client.get("/dicom-web/studies?PatientBirthDate=Doe^Jane")
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/dicom-web/studies/{study}/series", 204),
        ("/dicom-web/studies", 400),
    ]
    assert "Doe" not in repr(lines)
    assert "1.2.3" not in repr(lines)


def test_what_nobody_foresaw_is_a_problem_without_its_cause(api: Api, owner_url: str) -> None:
    owner = Database(owner_url, role=None)
    with owner.transaction() as connection:
        connection.execute(text("DROP TABLE study_patients"))
    owner.close()
    with capture_logs() as lines:
        answer = api.client.get("/status")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "study_patients" not in answer.text
    broken = next(line for line in lines if line["event"] == "request broke")
    assert broken["kind"] == "ProgrammingError"
    assert "study_patients" not in repr(lines)
    assert any("store/status.py" in frame for frame in broken["frames"])


def test_an_answer_whose_field_cannot_be_sent_is_an_internal_error(api: Api) -> None:
    app = cast("FastAPI", api.client.app)
    app.get("/broken")(lambda: Response(headers={"Warning": "a\r\nX-Injected: yes"}))
    with listening(api) as url:
        answer = httpx.get(f"{url}/broken")
        counted = httpx.get(f"{url}/metrics").text
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "x-injected" not in answer.headers
    assert re.search(r'route="/broken"[^}]*status="500"[^}]*} 1|status="500"[^}]*route="/broken"[^}]*} 1', counted)


def test_an_unknown_path_and_method(api: Api) -> None:
    for answer, status in ((api.client.get("/nowhere"), 404), (api.client.delete("/similar/studies"), 405)):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status


def test_documentation_needs_no_other_host(api: Api) -> None:
    page = api.client.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert assets
    assert all(asset.startswith("/") and api.client.get(asset).status_code == 200 for asset in assets)


def test_openapi_says_what_this_is_and_is_not(api: Api) -> None:
    described = api.client.get("/openapi.json").json()
    assert "Not a medical device" in described["info"]["description"]
    assert "no probability of a diagnosis" in described["info"]["description"]
    assert {"/similar/studies", "/dicom-web/studies", "/health/ready", "/status"} <= described["paths"].keys()
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies", 200),
        ("/dicom-web/studies", 200),
        ("/similar/studies?example=1", 200),
        ("/studies/1/labels", 200),
        ("/studies?PatientID=1", 400),
        ("/nothing", 404),
    ],
)
def test_no_cache_keeps_what_is_told_of_patients(api: Api, path: str, status: int) -> None:
    api.add("1", "1.1", 0)
    api.add("2", "2.1", 10)
    answer = api.client.get(path)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
