"""What Prometheus reads: counts and seconds of requests, the index, the jobs; no identities."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http import HTTPMethod

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pacs_cbir.errors import DatabaseUnavailable, DiskUnavailable
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.stored_parts import STATUSES
from pacs_cbir.settings import Settings
from pacs_cbir.store.presence import count_workers
from pacs_cbir.store.room import room
from pacs_cbir.store.session import Database
from pacs_cbir.store.status import count_jobs, queue_seconds

_METHODS = frozenset(HTTPMethod)


class Metrics:
    """One API process's registry."""

    def __init__(self, settings: Settings, database: Database, searcher: Searcher) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_State(settings, database, searcher))
        self._requests = Counter(
            "pacs_cbir_http_requests",
            "Requests by route template and status.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "pacs_cbir_http_request_seconds", "Seconds until the answer was sent.", ["route"], registry=self._registry
        )

        self._stores = Counter(
            "pacs_cbir_stores", "Instances that came, by the status that they got.", ["status"], registry=self._registry
        )
        for code in STATUSES:
            # Of a first refusal Prometheus sees an increase only where there was a zero before.
            self._stores.labels(f"{code:04X}")

    def stored(self, status: int) -> None:
        """Count an instance that was sent by STOW-RS, by what would be its DIMSE status."""
        self._stores.labels(f"{status:04X}").inc()

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        # A client may invent methods without end.
        self._requests.labels(method if method in _METHODS else "other", route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Prometheus' exposition format."""
        return generate_latest(self._registry)


class _State(Collector):
    """Read at each scrape, so that nothing runs between them."""

    def __init__(self, settings: Settings, database: Database, searcher: Searcher) -> None:
        self._settings, self._database, self._searcher = settings, database, searcher

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing in advance: a registration must not wait for the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The index and, where the database answers, the jobs."""
        yield GaugeMetricFamily("pacs_cbir_index_slices", "Embedded slices in the index.", self._searcher.size)
        yield GaugeMetricFamily("pacs_cbir_index_ready", "1 once the index is loaded.", int(self._searcher.ready))
        yield GaugeMetricFamily(
            "pacs_cbir_index_behind_seconds",
            "Since all that was committed by then was in the index.",
            self._searcher.behind_seconds,
        )
        with contextlib.suppress(DiskUnavailable):
            disk = room(self._settings)
            yield GaugeMetricFamily("pacs_cbir_disk_free_bytes", "Free on the data directory's disk.", disk.free)
            yield GaugeMetricFamily(
                "pacs_cbir_disk_reserve_bytes", "While less is free, nothing is received.", disk.reserve
            )
        told: list[GaugeMetricFamily] = []
        with contextlib.suppress(DatabaseUnavailable):
            told = self._in_the_database()
        yield GaugeMetricFamily("pacs_cbir_database_up", "1 while the database answers.", int(bool(told)))
        yield from told

    def _in_the_database(self) -> list[GaugeMetricFamily]:
        with self._database.transaction() as connection:
            counted = count_jobs(connection)
            seconds, workers = queue_seconds(connection), count_workers(connection)
        jobs = GaugeMetricFamily("pacs_cbir_jobs", "Jobs by state; parked ones need a person.", labels=["state"])
        for state, count in counted.items():
            jobs.add_metric([state], count)
        return [
            jobs,
            GaugeMetricFamily("pacs_cbir_queue_seconds", "What arrived and is due waits at most for so long.", seconds),
            GaugeMetricFamily("pacs_cbir_workers", "Worker processes that are connected.", workers),
        ]
