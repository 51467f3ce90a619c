"""C-FIND and C-MOVE: the PACS sends to our own SCP, which must be running (PS3.4 C.4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes its names at run time
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelMove,
)

from pacs_cbir.pacs import dimse
from pacs_cbir.pacs.archive import Fetched, Found, Level
from pacs_cbir.pacs.query import Patients, Query, find, find_contexts, relational_queries, retrieve_identifier
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store import holdings

MODELS = (StudyRootQueryRetrieveInformationModelMove, PatientRootQueryRetrieveInformationModelMove)


@dataclass(frozen=True)
class MoveArchive:
    """A PACS that is asked to send to our AE title; see `Archive`."""

    peer: Peer
    settings: Settings
    patients: Patients

    def find(self, level: Level, keys: Mapping[str, str]) -> Found:
        """By C-FIND."""
        return find(self.peer, self.settings, self.patients, level, keys)

    def fetch(self, study_instance_uid: str, series_instance_uid: str | None = None) -> Fetched:
        """By C-MOVE to our AE title."""
        wish = [relational_queries()]
        with dimse.associate(self.peer, self.settings, MODELS, find_contexts(), negotiated=wish) as (assoc, model):
            query = Query(assoc, self.peer, self.patients)
            asked = retrieve_identifier(query, model, study_instance_uid, series_instance_uid)
            responses = dimse.while_it_goes_on(
                self.peer,
                assoc.send_c_move(asked, self.settings.ae_title, model),
                partial(self._last_arrival, study_instance_uid, series_instance_uid),
                dimse.can_it_send(self.settings),
            )
            return dimse.fetched(self.peer, self.settings, responses, "C-MOVE")

    def _last_arrival(self, study_instance_uid: str, series_instance_uid: str | None) -> datetime | None:
        with self.patients.database.reading() as connection:
            return holdings.last_arrival(connection, study_instance_uid, series_instance_uid)
