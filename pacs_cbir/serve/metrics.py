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
from pacs_cbir.settings import Settings
from pacs_cbir.store.room import room
from pacs_cbir.store.session import Database
from pacs_cbir.store.status import count_jobs

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
        with contextlib.suppress(DiskUnavailable):
            disk = room(self._settings)
            yield GaugeMetricFamily("pacs_cbir_disk_free_bytes", "Free on the data directory's disk.", disk.free)
            yield GaugeMetricFamily(
                "pacs_cbir_disk_reserve_bytes", "While less is free, nothing is received.", disk.reserve
            )
        try:
            with self._database.transaction() as connection:
                counted = count_jobs(connection)
        except DatabaseUnavailable:
            counted = None
        yield GaugeMetricFamily("pacs_cbir_database_up", "1 while the database answers.", int(counted is not None))
        if counted is not None:
            jobs = GaugeMetricFamily("pacs_cbir_jobs", "Jobs by state; parked ones need a person.", labels=["state"])
            for state, count in counted.items():
                jobs.add_metric([state], count)
            yield jobs
