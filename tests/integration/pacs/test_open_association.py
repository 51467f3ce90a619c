"""Answers over associations that we open."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynetdicom.association
import pytest
from dicom_factory import mr_instance
from pynetdicom import build_context
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.sop_class import Verification
from running import scp_thread

from pacs_cbir.errors import PeerAway
from pacs_cbir.pacs import dimse, query
from pacs_cbir.pacs.association import open_association
from pacs_cbir.pacs.send import send
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database


class Slow(threading.Event):
    """As where the association's own thread is put off just before it looks for messages."""

    def wait(self, timeout: float | None = None) -> bool:
        found = super().wait(timeout)
        if getattr(threading.current_thread(), "is_requestor", False):
            time.sleep(0.3)
        return found


def test_an_answer_reaches_who_asked_on_a_busy_machine(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    send_msg = DIMSEServiceProvider.send_msg

    def send_slowly(provider: DIMSEServiceProvider, *arguments: Any) -> None:
        send_msg(provider, *arguments)
        if provider.assoc.is_requestor:
            time.sleep(0.6)

    paths = [tmp_path / str(number) for number in range(2)]
    for number, path in enumerate(paths):
        mr_instance(number=number).save_as(path, enforce_file_format=True)
    with scp_thread(settings, database):
        monkeypatch.setattr(pynetdicom.association, "threading", SimpleNamespace(**vars(threading) | {"Event": Slow}))
        monkeypatch.setattr(DIMSEServiceProvider, "send_msg", send_slowly)
        sent = send(paths, settings.dicom_host, settings.dicom_port, called=settings.ae_title, calling="PEER")
        assert [one.accepted for one in sent] == [True] * 2


def test_no_data_set_waits_for_an_acknowledgement(settings: Settings, database: Database) -> None:
    with scp_thread(settings, database):
        association = open_association(
            settings.dicom_host,
            settings.dicom_port,
            [build_context(Verification)],
            called=settings.ae_title,
            calling="PEER",
            answer_seconds=10,
        )
        assert association.is_established
        assert association.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        association.release()


def test_an_association_that_ends_before_it_is_used_is_a_peer_that_is_away(
    settings: Settings, database: Database
) -> None:
    peer = Peer(ae_title=settings.ae_title, host=settings.dicom_host, port=settings.dicom_port)

    def ask() -> None:
        with dimse.associate(peer, settings, query.MODELS) as (association, model):
            assert model == query.STUDY_ROOT
            association.abort()
            query.Query(association, peer, query.Patients(database)).find("STUDY", {"StudyInstanceUID": ""})

    with scp_thread(settings, database), pytest.raises(PeerAway, match="ended the association too early"):
        ask()
