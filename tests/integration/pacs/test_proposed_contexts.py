"""What this service proposes to a PACS is what its conformance statement says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, StoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind

from pacs_cbir.errors import PeerError
from pacs_cbir.pacs.commitment import report_to
from pacs_cbir.pacs.retrieve import open_archive
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from tests.conformance import proposed_services
from tests.conftest import free_port

STORAGE = {str(one.abstract_syntax) for one in (*AllStoragePresentationContexts, *StoragePresentationContexts)}
Proposed = list[dict[str, set[str]]]


@contextmanager
def pacs_that_only_finds(proposed: Proposed) -> Iterator[int]:
    """A PACS that answers C-FIND with nothing, and notes what each association proposes."""

    def note(event: Event) -> None:
        contexts: dict[str, set[str]] = {}
        for context in event.assoc.requestor.requested_contexts:
            contexts.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax or ()))
        proposed.append(contexts)

    ae = AE("PACS")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    port = free_port()
    handlers = [(evt.EVT_REQUESTED, note), (evt.EVT_C_FIND, lambda _: iter(()))]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield port
    finally:
        server.shutdown()


@pytest.mark.parametrize("retrieve", ["c-move", "c-get"])
def test_retrieval(retrieve: str, settings: Settings, database: Database) -> None:
    proposed: Proposed = []
    with pacs_that_only_finds(proposed) as port:
        peer = Peer.model_validate({"ae_title": "PACS", "host": "127.0.0.1", "port": port, "retrieve": retrieve})
        with pytest.raises(PeerError):
            open_archive(peer, settings, database).fetch("1.2.3")
    service = f"- {retrieve.removeprefix('c-').upper()}"
    stated = {str(uid) for uid, _, _ in proposed_services() if uid.name.endswith(("- FIND", service))}
    assert set(proposed[-1]) - STORAGE == stated
    assert bool(set(proposed[-1]) & STORAGE) == (retrieve == "c-get")
    little_endian = {str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)}
    assert all(syntaxes == little_endian for syntaxes in proposed[-1].values())


def test_a_report() -> None:
    proposed: Proposed = []
    with pacs_that_only_finds(proposed) as port, pytest.raises(PeerError):
        report_to(Peer(ae_title="PACS", host="127.0.0.1", port=port), "US", None)  # type: ignore[arg-type]  # never sent
    assert set(proposed[-1]) == {str(StorageCommitmentPushModel)}
    assert str(StorageCommitmentPushModel) in {str(uid) for uid, role, _ in proposed_services() if role == "SCP"}
