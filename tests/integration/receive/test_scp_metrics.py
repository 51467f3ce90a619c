"""What Prometheus reads of the SCP, while it is sent right and wrong things."""

from __future__ import annotations

import re
import socket
import threading

import httpx
import pytest
from dicom_factory import mr_instance
from pydicom.uid import MRImageStorage
from running import listens, scp_thread
from scu import association, store, store_bytes

from pacs_cbir.errors import SettingsError
from pacs_cbir.receive.scp import run_scp
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from tests.conftest import free_port


@pytest.fixture
def measured(settings: Settings) -> Settings:
    return settings.model_copy(update={"scp_metrics_port": free_port(), "calling_ae_titles": ("PEER",)})


def counted(settings: Settings) -> dict[str, float]:
    text = httpx.get(f"http://127.0.0.1:{settings.scp_metrics_port}/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(pacs_cbir_\w+_total\S*) (\S+)$", text, re.MULTILINE)}


def test_instances_are_counted_by_status_and_rejected_associations(measured: Settings, database: Database) -> None:
    with scp_thread(measured, database):
        assert set(counted(measured).values()) == {0}
        with association(measured) as asked:
            for _ in range(2):
                assert store(asked, mr_instance()) == 0x0000
            assert store_bytes(asked, b"no data set", MRImageStorage, "1.2.3") == 0xC000
        with association(measured, calling="STRANGER") as asked:
            assert asked.is_rejected
        assert {name: value for name, value in counted(measured).items() if value} == {
            'pacs_cbir_stores_total{status="0000"}': 2,
            'pacs_cbir_stores_total{status="C000"}': 1,
            "pacs_cbir_associations_rejected_total": 1,
        }
    assert measured.scp_metrics_port is not None
    assert not listens(measured.scp_metrics_port)


def test_a_port_that_is_taken_is_a_setting_to_change(measured: Settings, database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"{port}.*PACS_CBIR_SCP_METRICS_PORT"):
            run_scp(measured.model_copy(update={"scp_metrics_port": port}), database, threading.Event())
    assert not listens(measured.dicom_port)
