"""Deletions of patients: who goes is named in a body, so that no URL tells who it was."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.exceptions import HTTPException

from pacs_cbir.search import forget
from pacs_cbir.serve.corrections import DOOR, PatientIdentifier, StudyUid
from pacs_cbir.serve.schemas import problems
from pacs_cbir.settings import Settings
from pacs_cbir.store import removal
from pacs_cbir.store.session import Database

# How long an answer waits for the indexes, which follow within two seconds.
PATIENCE_SECONDS = 20.0


class PatientDeletion(BaseModel):
    """Who is to be deleted: by an identifier, or by a study, which is one patient's."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"StudyInstanceUID": "2.25.1234"}})

    patient: PatientIdentifier | None = None
    StudyInstanceUID: StudyUid | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> PatientDeletion:
        if (self.patient is None) == (self.StudyInstanceUID is None):
            raise ValueError("one of patient and StudyInstanceUID is given")
        return self


def patient_deletions_router(settings: Settings, database: Database) -> APIRouter:
    """Routes of deletions."""
    router = APIRouter(prefix="/corrections", tags=["corrections"])

    @router.post("/patient-deletion", responses=problems(400, 404, 415, 503))
    def delete_patient(given: PatientDeletion) -> forget.Report:
        """Delete a patient: rows, files, pictures, embeddings, and what the indexes and their snapshots hold.

        `proved`: it was looked for in every table, folder, index and snapshot, and nothing was left. Else it goes on by
        itself, and the same number tells later how far it is. What arrives for the patient afterwards is new data.
        """
        with database.transaction() as connection:
            if given.patient is not None:
                row = removal.named(connection, given.patient.identifier())
            else:
                row = removal.owner(connection, given.StudyInstanceUID or "")
            begun = removal.begin(connection, row, DOOR, settings.settle_seconds)
        return forget.see_through(settings, database, begun, PATIENCE_SECONDS)

    @router.get("/patient-deletions/{number}", responses=problems(400, 404, 503))
    def deleted(number: Annotated[int, Path(ge=1, le=2**63 - 1)]) -> forget.Report:
        """How far a deletion is."""
        found = forget.report(database, number)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no deletion of that number.")
        return found

    return router
