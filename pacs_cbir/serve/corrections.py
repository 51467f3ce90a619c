"""Corrections by an interface engine: patients and studies are named in bodies, so that no URL tells who they are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from pacs_cbir.serve.schemas import problems
from pacs_cbir.store import corrections
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.session import Database
from pacs_cbir.store.value_tests import is_date

DOOR = "REST"
MAX_LISTED = 1000
# No backslash and no control character (PS3.5 6.2): the values are answered as LO, SH and PN.
_TEXT = r"^[^\\\x00-\x1F\x7F]*$"
_Identifying = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=_TEXT)]
StudyUid = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
_Issuer = Annotated[str, StringConstraints(strip_whitespace=True, max_length=64, pattern=_TEXT)]


def _day(text: str) -> str:
    if text and not is_date(text):
        raise ValueError("no day of the calendar")
    return text


class PatientIdentifier(BaseModel):
    """What tells a patient from others."""

    model_config = ConfigDict(extra="forbid")

    PatientID: _Identifying
    IssuerOfPatientID: _Issuer = Field(
        "", description="As instances have it, or `PACS_CBIR_DEFAULT_ISSUERS` gives it to their sender's."
    )

    def identifier(self) -> Identifier:
        """As the store knows it."""
        return Identifier(self.PatientID, self.IssuerOfPatientID)


class Demographics(BaseModel):
    """What is said of a patient; what is not given stays as it is, and an empty text takes it away."""

    model_config = ConfigDict(extra="forbid")

    PatientName: Annotated[str, StringConstraints(max_length=324, pattern=_TEXT)] | None = Field(
        None, description="Components parted by `^`, the alphabetic, ideographic and phonetic group by `=`."
    )
    PatientBirthDate: Annotated[str, StringConstraints(pattern=r"^([0-9]{8})?$"), AfterValidator(_day)] | None = Field(
        None, description="YYYYMMDD."
    )
    PatientSex: Annotated[str, StringConstraints(pattern=r"^[MFO]?$")] | None = Field(None, description="M, F or O.")

    def values(self) -> dict[str, str]:
        """Keyword → value, of those that are given."""
        return {key: str(value) for key in corrections.DEMOGRAPHICS if (value := getattr(self, key)) is not None}


class PatientUpdate(Demographics):
    """A patient's new demographics."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"patient": {"PatientID": "42"}, "PatientName": "Roe^Jane"}}
    )

    patient: PatientIdentifier


class PatientMerge(Demographics):
    """Two patients who are one, and the survivor's demographics."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"prior": {"PatientID": "41"}, "surviving": {"PatientID": "42"}}}
    )

    prior: PatientIdentifier
    surviving: PatientIdentifier


class StudyCorrection(Demographics):
    """Whose a study is, and what it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"StudyInstanceUID": "2.25.1234", "patient": {"PatientID": "42"}, "AccessionNumber": "A7"}
        }
    )

    StudyInstanceUID: StudyUid
    patient: PatientIdentifier | None = Field(None, description="Whose it is; not given: as it is.")
    AccessionNumber: Annotated[str, StringConstraints(max_length=64, pattern=_TEXT)] | None = None
    StudyDescription: Annotated[str, StringConstraints(max_length=64, pattern=_TEXT)] | None = None
    notes_looked_at: bool = Field(
        False, description="Whether its rejection notes that cannot be read were looked at, and are flagged no more."
    )

    def values(self) -> dict[str, str]:
        """Keyword → value, of those that are given."""
        given = {key: str(value) for key in corrections.STUDY_KEYWORDS if (value := getattr(self, key)) is not None}
        return super().values() | given


class Corrected(BaseModel):
    """What came of it."""

    studies: int = Field(description="How many studies were concerned.")


class MadeCorrection(BaseModel):
    """A correction that was made; no patient's identity."""

    kind: str
    door: str = Field(description="Which way it came: REST, HL7, or the AE title of a rejection note's sender.")
    patient: int = Field(description="The number of the patient here; of a merge, of the one who survived.")
    study_instance_uid: str | None = Field(description="Null where it is of all studies of the patient.")
    keywords: list[str] = Field(description="The attributes that were corrected.")
    made_at: datetime


def corrections_router(database: Database) -> APIRouter:
    """Routes of corrections."""
    router = APIRouter(prefix="/corrections", tags=["corrections"])

    @router.post("/patient-update", responses=problems(400, 404, 415, 503))
    def update_patient(given: PatientUpdate) -> Corrected:
        """Correct a patient's name, birth date or sex, in all studies that are here and those that come.

        An identifier is changed by merging the old one into the new one. What a later correction says overrules what an
        earlier one said; instances that come overrule none.
        """
        with database.transaction() as connection:
            found = corrections.update_patient(connection, given.patient.identifier(), given.values(), DOOR)
        return Corrected(studies=found)

    @router.post("/patient-merge", responses=problems(400, 409, 415, 503))
    def merge_patients(given: PatientMerge) -> Corrected:
        """Make two patients one: what is here of the prior one, or comes, is the surviving one's from now on.

        The identifiers need not be known here, as instances may come that bear them. The same merge again changes
        nothing; one that contradicts an earlier one is refused.
        """
        prior, surviving = given.prior.identifier(), given.surviving.identifier()
        with database.transaction() as connection:
            found = corrections.merge_patients(connection, prior, surviving, given.values(), DOOR)
        return Corrected(studies=found)

    @router.post("/study", responses=problems(400, 404, 409, 415, 503))
    def correct_study(given: StudyCorrection) -> Corrected:
        """Say whose a study is, and what it is; its conflicts count as looked at, rejection notes if you say so.

        It holds for the study's instances that are here and those that come. What another patient's instances said of
        the patient is dropped; demographics that are given hold for this study.
        """
        patient = None if given.patient is None else given.patient.identifier()
        with database.transaction() as connection:
            corrections.correct_study(
                connection,
                given.StudyInstanceUID,
                patient,
                given.values(),
                DOOR,
                notes_looked_at=given.notes_looked_at,
            )
        return Corrected(studies=1)

    @router.get("", responses=problems(400, 503))
    def made(limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="How many.")] = 100) -> list[MadeCorrection]:
        """The corrections that were made, the last first."""
        with database.transaction() as connection:
            found = corrections.history(connection, limit)
        return [MadeCorrection.model_validate(one, from_attributes=True) for one in found]

    return router
