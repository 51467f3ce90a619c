"""C-FIND and C-GET: the PACS sends over the association that asked it to (PS3.4 C.4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLETransferSyntaxes,
)
from pynetdicom import StoragePresentationContexts, build_context, build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes its names at run time
    PatientRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelGet,
)

from pacs_cbir.errors import InstanceError, StoreError
from pacs_cbir.pacs import dimse
from pacs_cbir.pacs.archive import Fetched, Found, Level, identifier_of, texts_of
from pacs_cbir.pacs.query import Patients, Query, find, find_contexts, relational_queries, retrieve_identifier
from pacs_cbir.pacs.transfer import received_file, stream_transfers
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.session import Database

MODELS = (StudyRootQueryRetrieveInformationModelGet, PatientRootQueryRetrieveInformationModelGet)
# An association may propose 128 presentation contexts (PS3.8 9.3.2.2), and two are C-GET's, two C-FIND's.
STORAGE_CONTEXTS = 124
# Each in a context of its own, so that the PACS can send what it has as it is.
COMPRESSED = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes, *RLETransferSyntaxes)
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True)
class GetArchive:
    """A PACS that sends over our own association; see `Archive`."""

    peer: Peer
    settings: Settings
    database: Database
    patients: Patients

    def find(self, level: Level, keys: Mapping[str, str]) -> Found:
        """By C-FIND."""
        return find(self.peer, self.settings, self.patients, level, keys)

    def fetch(self, study_instance_uid: str, series_instance_uid: str | None = None) -> Fetched:
        """By C-GET; the instances go through `ingest`, as if the SCP had received them."""
        stream_transfers(self.settings)
        storage = self._storage_contexts(study_instance_uid, series_instance_uid)
        roles = [build_role(uid, scp_role=True) for uid in {context.abstract_syntax for context in storage} if uid]
        receiver = _Receiver(self.peer, self.settings, self.database)
        with dimse.associate(
            self.peer,
            self.settings,
            MODELS,
            [*find_contexts(), *storage],
            negotiated=[relational_queries(), *roles],
            handlers=[(evt.EVT_C_STORE, receiver.store)],
        ) as (assoc, model):
            query = Query(assoc, self.peer, self.patients)
            asked = retrieve_identifier(query, model, study_instance_uid, series_instance_uid)
            responses = dimse.while_it_goes_on(self.peer, assoc.send_c_get(asked, model), lambda: receiver.received)
            handed_over = dimse.fetched(self.peer, self.settings, responses, "C-GET")
        return receiver.checked(handed_over)

    def _storage_contexts(self, study: str, series: str | None) -> list[PresentationContext]:
        """Contexts for the SOP classes that there are: all that exist would not fit into one association."""
        classes = sorted(self._sop_classes(study, series))
        if not classes:
            uids = [context.abstract_syntax for context in StoragePresentationContexts if context.abstract_syntax]
            return [build_context(uid, dimse.SYNTAXES) for uid in uids[:STORAGE_CONTEXTS]]
        plain = [build_context(UID(uid), dimse.SYNTAXES) for uid in classes]
        compressed = [build_context(UID(uid), syntax) for uid in classes for syntax in COMPRESSED]
        return [*plain, *compressed][:STORAGE_CONTEXTS]

    def _sop_classes(self, study: str, series: str | None) -> set[str]:
        if series is None:
            found = self.find("SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": ""})
            return {
                uid
                for one in found.answers
                for uid in self._sop_classes(study, identifier_of(one, "SeriesInstanceUID"))
            }
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": "", "SOPClassUID": ""}
        return {uid for one in self.find("IMAGE", keys).answers for uid in texts_of(one, "SOPClassUID")}


@dataclass
class _Receiver:
    """Takes what is sent, and remembers what it could not take."""

    peer: Peer
    settings: Settings
    database: Database
    received: int = 0
    refused: list[str] = field(default_factory=list)
    broken: StoreError | None = None

    def store(self, event: Event) -> int:
        """Ingest one instance; the status that answers it (PS3.4 Table B.2-1)."""
        self.received += 1
        request = cast("C_STORE", event.request)
        uid = str(request.AffectedSOPInstanceUID)
        source = Source(self.peer.ae_title, str(request.AffectedSOPClassUID), uid)
        try:
            ingest(received_file(request), source, self.database, self.settings)
        except StoreError as error:
            # All that follows would fail in the same way.
            self.broken = self.broken or error
            return OUT_OF_RESOURCES
        except InstanceError as error:
            self.refused.append(f"{uid} was refused: {error}")
            return CANNOT_UNDERSTAND
        return dimse.SUCCESS

    def checked(self, handed_over: Fetched) -> Fetched:
        """The peer's account with our own refusals.

        Raises:
            StoreError: the disk or the database did not take something.
        """
        if self.broken is not None:
            raise self.broken
        return Fetched(
            handed_over.completed,
            handed_over.warned,
            max(handed_over.failed, len(self.refused)),
            (*handed_over.failures, *self.refused[: dimse.SHOWN_UIDS]),
        )
