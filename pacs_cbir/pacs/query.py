"""What a PACS is asked over an association: C-FIND in the Study Root or the Patient Root model (PS3.4 C.6.2, C.6.1).

Study Root is taken where the peer accepts it. Some offer Patient Root alone: there every query below the level PATIENT
names one patient (C.4.1.2.1), unless relational queries are agreed on (C.5.1.1). So patients are asked for first, and
then the studies of each. Whose a study is, is kept in memory alone, and told to nobody but the PACS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes its names at run time
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
)

from pacs_cbir.errors import PeerError, PeerRefuses, PeerSilent
from pacs_cbir.pacs import dimse
from pacs_cbir.pacs.archive import MOST_ANSWERS, AnswerLimit, Found, Level, is_short, texts_of
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store import holdings
from pacs_cbir.store.session import Database

STUDY_ROOT, PATIENT_ROOT = StudyRootQueryRetrieveInformationModelFind, PatientRootQueryRetrieveInformationModelFind
MODELS = (STUDY_ROOT, PATIENT_ROOT)
RETRIEVALS_BY_PATIENT = {PatientRootQueryRetrieveInformationModelGet, PatientRootQueryRetrieveInformationModelMove}
# Of all bytes of PS3.4 Table C.5-1 the first alone.
RELATIONAL = b"\x01"
MESSAGE_ID = 1
# A PatientID is an LO (PS3.5 Table 6.2-1), in which these are wildcards or part values (PS3.4 C.2.2.2.4).
LONGEST_PATIENT_ID = 64
WILD = set("*?\\")
CHARACTERS = {chr(code) for code in range(0x20, 0x7F)}
NAMELESS = "patients without a PatientID: of the models of a query the PACS offers Patient Root alone, which asks by it"


@dataclass
class Patients:
    """Whose the studies of one PACS are, as far as that was needed.

    Attributes:
        database: what is here tells whose a study probably is.
        of_study: StudyInstanceUID → PatientID.
        all_known: whether every patient's studies are in it.
    """

    database: Database
    of_study: dict[str, str] = field(default_factory=dict)
    all_known: bool = False


def find_contexts() -> list[PresentationContext]:
    """For an association over which a `Query` may be needed."""
    return [build_context(model, dimse.SYNTAXES) for model in MODELS]


def relational_queries() -> SOPClassExtendedNegotiation:
    """The wish to ask for studies without naming their patient (PS3.4 C.5.1.1.1)."""
    wish = SOPClassExtendedNegotiation()
    wish.sop_class_uid = PATIENT_ROOT
    wish.service_class_application_information = RELATIONAL
    return wish


def find(peer: Peer, settings: Settings, patients: Patients, level: Level, keys: Mapping[str, str]) -> Found:
    """Ask over an association of its own; as `Archive.find`."""
    with dimse.associate(peer, settings, MODELS, negotiated=[relational_queries()]) as (association, _):
        return Query(association, peer, patients).find(level, keys)


@dataclass(frozen=True)
class Query:
    """Asks over an association that stands, and that has `find_contexts` and the wish for `relational_queries`."""

    association: Association
    peer: Peer
    patients: Patients

    def find(self, level: Level, keys: Mapping[str, str]) -> Found:
        """As `Archive.find`, whatever the model."""
        if not self._needs_patient:
            return self._ask(level, keys)
        if level == "STUDY":
            return self._by_patient(keys)
        return self._ask(level, {"PatientID": self.patient_of(keys["StudyInstanceUID"]), **keys})

    def patient_of(self, study_instance_uid: str) -> str:
        """The PatientID under which the peer has a study.

        Raises:
            PeerError: it does not have the study.
            PeerSilent, PeerRefuses, DatabaseUnavailable.
        """
        known = self.patients.of_study
        if study_instance_uid not in known:
            self._look_for(study_instance_uid)
        if study_instance_uid not in known:
            raise PeerError(f"{dimse.named(self.peer)} does not have study {study_instance_uid}")
        return known[study_instance_uid]

    def _look_for(self, study: str) -> None:
        asked = {"StudyInstanceUID": study}
        if not self._needs_patient:
            self._remember(self._ask("STUDY", {"PatientID": "", **asked}))
            return
        with self.patients.database.reading() as connection:
            probable = holdings.patient_id(connection, study)
        if probable:
            self._remember(self._ask("STUDY", {"PatientID": probable, **asked}), probable)
        if study not in self.patients.of_study and not self.patients.all_known:
            for patient in self._patient_ids([]):
                self._remember(self._ask("STUDY", {"PatientID": patient, "StudyInstanceUID": ""}), patient)
            self.patients.all_known = True

    def _remember(self, found: Found, patient: str = "") -> None:
        for answer in found.answers:
            for study in texts_of(answer, "StudyInstanceUID"):
                self.patients.of_study[study] = next(iter(texts_of(answer, "PatientID")), patient)

    def _by_patient(self, keys: Mapping[str, str]) -> Found:
        answers: list[Dataset] = []
        missing: list[str] = []
        truncated = False
        for patient in self._patient_ids(missing):
            found = self._ask("STUDY", {"PatientID": patient, **keys})
            self._remember(found, patient)
            answers += found.answers
            truncated |= bool(is_short(found, self.peer)) or len(answers) > MOST_ANSWERS
            if truncated:
                break
        return Found(tuple(answers), truncated, tuple(missing))

    def _patient_ids(self, missing: list[str]) -> Iterator[str]:
        """Every PatientID once, by what they start with where an answer has not all of them; `missing` is added to."""
        limit, seen, unconfirmed = AnswerLimit(self.peer), {""}, set[str]()
        starts = [""]
        while starts:
            start = starts.pop()
            found = self._ask("PATIENT", {"PatientID": f"{start}*" if start else ""})
            named = {next(iter(texts_of(answer, "PatientID")), "") for answer in found.answers}
            if "" in named and NAMELESS not in missing:
                missing.append(NAMELESS)
            unconfirmed -= named
            if limit.leaves_out(found) and len(start) < LONGEST_PATIENT_ID:
                if all(one.casefold().startswith(start.casefold()) for one in named):
                    starts += [start + character for character in _characters_after(start, named)]
                    unconfirmed |= named - {start, ""}
                    named.add(start)
                else:
                    unconfirmed.add(f"{start}*")
            yield from sorted(named - seen)
            seen |= named
        if unconfirmed:
            missing.append("patients: the PACS names some of them at once, and does not search by a PatientID's start")

    def _ask(self, level: str, keys: Mapping[str, str]) -> Found:
        """One C-FIND."""
        model, name = self._model, dimse.named(self.peer)
        answers: list[Dataset] = []
        too_many = False
        for status, answer in self.association.send_c_find(dimse.identifier(level, keys), model, MESSAGE_ID):
            code = status.get("Status")
            if code is None:
                break
            if code in dimse.PENDING:
                if answer is None:
                    raise PeerError(f"{name} answered a query with what is no data set")
                if len(answers) < MOST_ANSWERS:
                    answers.append(answer)
                elif not too_many:
                    too_many = True
                    self.association.send_c_cancel(MESSAGE_ID, query_model=model)
            elif code == dimse.SUCCESS:
                return Found(tuple(answers), truncated=too_many or None)
            elif code in {dimse.TOO_MANY_MATCHES, dimse.CANCELLED}:
                # Some end a query with "cancelled" that nobody cancelled: Orthanc, after LimitFindResults answers.
                return Found(tuple(answers), truncated=True)
            else:
                raise PeerError(f"{name} answered a query with status {code:04X}H{dimse.comment_of(status)}")
        raise PeerSilent(
            f"{name} ended a query before it was answered, or was silent for {self.peer.timeout_seconds:g} s; some do "
            f"so where they do not know our AE title {self.association.ae.ae_title}"
        )

    @property
    def _model(self) -> UID:
        model = dimse.accepted(self.association, MODELS)
        if model is None:
            raise PeerRefuses(f"{dimse.named(self.peer)} does not offer us {STUDY_ROOT.name} or {PATIENT_ROOT.name}")
        return model

    @property
    def _needs_patient(self) -> bool:
        agreed: bytes = self.association.acceptor.sop_class_extended.get(PATIENT_ROOT, b"")
        return self._model == PATIENT_ROOT and agreed[:1] != RELATIONAL


def _characters_after(start: str, named: set[str]) -> set[str]:
    """With what a PatientID may go on that starts like this: those of others than ASCII are learnt from answers."""
    others = {one[len(start)] for one in named if len(one) > len(start)}
    return (CHARACTERS | others) - WILD - (set() if start else {" "})


def retrieve_identifier(query: Query, model: UID, study_instance_uid: str, series_instance_uid: str | None) -> Dataset:
    """The identifier of a C-MOVE or C-GET of a study or of one of its series, in the model of the given SOP class.

    Raises:
        PeerError, PeerSilent, PeerRefuses, DatabaseUnavailable: it must name the patient, which the peer does not.
    """
    keys = {"StudyInstanceUID": study_instance_uid}
    if series_instance_uid is not None:
        keys["SeriesInstanceUID"] = series_instance_uid
    if model in RETRIEVALS_BY_PATIENT:
        keys["PatientID"] = query.patient_of(study_instance_uid)
    return dimse.identifier("STUDY" if series_instance_uid is None else "SERIES", keys)
