"""What Prometheus reads of the SCP: how instances were answered, and who was not let in; no identities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, start_http_server

from pacs_cbir.errors import SettingsError
from pacs_cbir.receive.status import STORE_STATUSES
from pacs_cbir.settings import Settings


class Metrics:
    """One SCP process's registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._stores = Counter(
            "pacs_cbir_stores", "Instances that came, by the status that they got.", ["status"], registry=self._registry
        )
        for code in STORE_STATUSES:
            # Of a first refusal Prometheus sees an increase only where there was a zero before.
            self._stores.labels(f"{code:04X}")
        self._rejected = Counter(
            "pacs_cbir_associations_rejected", "Associations that were asked for in vain.", registry=self._registry
        )

    def answered(self, status: int) -> None:
        """Count an instance by its DIMSE status."""
        self._stores.labels(f"{status:04X}").inc()

    def rejected(self) -> None:
        """Count an association that was rejected."""
        self._rejected.inc()

    @contextmanager
    def served(self, settings: Settings) -> Iterator[None]:
        """Answer Prometheus for as long as the block runs, where the settings name a port.

        Raises:
            SettingsError: the address is taken or not ours.
        """
        if settings.scp_metrics_port is None:
            yield
            return
        host, port = settings.http_host, settings.scp_metrics_port
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port}: {error.strerror}; "
                "set PACS_CBIR_HTTP_HOST and PACS_CBIR_SCP_METRICS_PORT"
            ) from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
