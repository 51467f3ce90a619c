"""An archive on the loopback that can be told to lie, to limit its answers silently, and to be slow."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from tests.conftest import free_port

STUDY_ROOT = (StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove)
PATIENT_ROOT = (PatientRootQueryRetrieveInformationModelFind, PatientRootQueryRetrieveInformationModelMove)
UNIQUE = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
OLD_FORMS = {"StudyDate": r".\1.\2", "StudyTime": r":\1:\2"}


class CrookedPacs:
    """C-FIND and C-MOVE over instances in memory; in Patient Root a patient must be named below the level PATIENT.

    Args:
        models: SOP classes that it offers.

    Attributes:
        held: its instances.
        relational: whether it agrees to relational queries.
        limit: most answers to one query; it says nothing of the others.
        refuses_all: whether it refuses queries that name no StudyDate (status C001H).
        too_many: whether it says of every query that it has too many answers (A700H), and gives none.
        literal: whether it takes a "*" for a letter.
        repeats: how often it gives each answer and sends each instance.
        strays: instances that it sends beside those that were asked for.
        ignores: matching keys that it does not look at.
        silent_about: attributes that it does not answer.
        counts: StudyInstanceUID → what it says for NumberOfStudyRelatedInstances.
        names: StudyInstanceUID → what it says instead.
        old_forms: whether it writes dates and times as 2024.01.31 and 10:11:12.
        delays: seconds before each of the next queries is answered.
        pause: seconds before each answer.
        broken: SOP Instance UIDs that it cannot send.
        endless: whether it says, for as long as this is set, that it is sending, and sends nothing.
        asked: identifiers of the queries.
        cancelled: how many queries were cancelled.
        moved: StudyInstanceUID → how often it was asked to send it.
    """

    def __init__(self, ours: Settings, models: tuple[str, ...] = STUDY_ROOT) -> None:
        self._ours, self._models, self.held, self._port = ours, models, list[FileDataset](), free_port()
        self.relational = False
        self.limit: int | None = None
        self.refuses_all = self.too_many = self.literal = False
        self.repeats = 1
        self.strays: list[FileDataset] = []
        self.ignores: set[str] = set()
        self.silent_about: set[str] = set()
        self.counts: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.old_forms = False
        self.delays: list[float] = []
        self.pause = 0.0
        self.broken: set[str] = set()
        self.endless = False
        self.asked: list[Dataset] = []
        self.cancelled = 0
        self.moved: Counter[str] = Counter()

    def __enter__(self) -> CrookedPacs:
        ae = AE(ae_title="CROOKED")
        for model in self._models:
            ae.add_supported_context(model)
        ae.requested_contexts = StoragePresentationContexts
        self._server = ae.start_server(
            ("127.0.0.1", self._port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_FIND, self._find),
                (evt.EVT_C_MOVE, self._move),
                (evt.EVT_SOP_EXTENDED, self._agree),
            ],
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()

    def hold(self, instances: Iterable[FileDataset]) -> None:
        """Have some more instances."""
        self.held += instances

    def let_go(self, study: str) -> None:
        """Have a study no more."""
        self.held = [ds for ds in self.held if ds.StudyInstanceUID != study]

    def peer(self, **options: Any) -> Peer:
        """Its entry in our settings."""
        given: dict[str, Any] = {"ae_title": "CROOKED", "host": "127.0.0.1", "port": self._port, "timeout_seconds": 20}
        return Peer(**(given | options))

    def _agree(self, event: Event) -> dict[UID, bytes]:
        return {uid: wish[:1] if self.relational else b"\0" for uid, wish in event.app_info.items()}

    def _lacks_patient(self, event: Event) -> bool:
        asked = event.identifier
        named = str(asked.get("PatientID") or "")
        if event.request.AffectedSOPClassUID not in PATIENT_ROOT or asked.QueryRetrieveLevel == "PATIENT":
            return False
        is_find = event.request.AffectedSOPClassUID == PATIENT_ROOT[0]
        return not named and not (is_find and self.relational)

    def _refusal(self, event: Event) -> int:
        asked = event.identifier
        if self._lacks_patient(event):
            return 0xA900
        if self.refuses_all and asked.QueryRetrieveLevel == "STUDY" and not asked.get("StudyDate"):
            return 0xC001
        return 0xA700 if self.too_many else 0

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append(event.identifier)
        if self.delays:
            time.sleep(self.delays.pop(0))
        if status := self._refusal(event):
            yield status, None
            return
        asked, unique = event.identifier, UNIQUE[event.identifier.QueryRetrieveLevel]
        groups: dict[str, list[FileDataset]] = {}
        for ds in self.held:
            groups.setdefault(str(ds[unique].value), []).append(ds)
        matching = [group for group in groups.values() if self._matches(asked, group)]
        for group in matching[: self.limit] * self.repeats:
            time.sleep(self.pause)
            if event.is_cancelled:
                self.cancelled += 1
                yield 0xFE00, None
                return
            yield 0xFF00, self._answer(asked, group)

    def _matches(self, asked: Dataset, group: list[FileDataset]) -> bool:
        for element in asked:
            wanted = str(element.value or "")
            if wanted and element.keyword not in self.ignores | {"QueryRetrieveLevel", "SpecificCharacterSet"}:
                has = (
                    {ds.Modality for ds in group}
                    if element.keyword == "ModalitiesInStudy"
                    else {str(group[0].get(element.keyword, ""))}
                )
                if not any(self._is_like(one, wanted, is_date=element.keyword in OLD_FORMS) for one in has):
                    return False
        return True

    def _is_like(self, value: str, wanted: str, *, is_date: bool) -> bool:
        low, dash, high = wanted.partition("-")
        if is_date and dash:
            return value != "" and low <= value <= (high or "~")
        return value == wanted if self.literal else fnmatchcase(value, wanted)

    def _answer(self, asked: Dataset, group: list[FileDataset]) -> Dataset:
        answer = Dataset()
        answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
        answer.SpecificCharacterSet = "ISO_IR 192"
        study = str(group[0].StudyInstanceUID)
        for keyword in (element.keyword for element in asked):
            if keyword in self.silent_about | {"QueryRetrieveLevel", "SpecificCharacterSet"}:
                continue
            if keyword == "ModalitiesInStudy":
                answer.ModalitiesInStudy = sorted({ds.Modality for ds in group})
            elif keyword.startswith("NumberOf"):
                count = self.counts.get(study, len(group))
                answer.add(DataElement(keyword, "IS", str(count), validation_mode=config.IGNORE))
            elif keyword == "StudyInstanceUID":
                answer.add(DataElement(keyword, "UI", self.names.get(study, study), validation_mode=config.IGNORE))
            elif self.old_forms and keyword in OLD_FORMS:
                old = re.sub(r"(..)(..)$", OLD_FORMS[keyword], str(group[0].get(keyword, "")))
                answer.add(DataElement(keyword, dictionary_VR(keyword), old, validation_mode=config.IGNORE))
            else:
                setattr(answer, keyword, group[0].get(keyword, ""))
        return answer

    def _move(self, event: Event) -> Iterator[Any]:
        asked = event.identifier
        held = [ds for ds in self.held if ds.StudyInstanceUID == asked.StudyInstanceUID]
        held = [ds for ds in held if asked.get("SeriesInstanceUID") in (None, ds.SeriesInstanceUID)]
        held = [*held * self.repeats, *self.strays]
        if self._lacks_patient(event) or asked.get("PatientID") not in (None, held[0].PatientID):
            raise ValueError("the request names another patient, or none")
        if event.move_destination != self._ours.ae_title:
            yield None, None
            return
        self.moved[str(asked.StudyInstanceUID)] += 1
        while self.endless and event.assoc.is_established:
            self._say_pending(event, len(held))
            time.sleep(0.1)
        yield self._ours.dicom_host, self._ours.dicom_port
        yield len(held)
        for ds in held:
            yield 0xFF00, _unsendable(ds) if ds.SOPInstanceUID in self.broken else ds

    def _say_pending(self, event: Event, remaining: int) -> None:
        response = C_MOVE()
        response.MessageIDBeingRespondedTo = event.request.MessageID
        response.AffectedSOPClassUID = event.request.AffectedSOPClassUID
        response.Status, response.NumberOfRemainingSuboperations = 0xFF00, remaining
        event.assoc.dimse.send_msg(response, event.context.context_id)


def _unsendable(ds: FileDataset) -> Dataset:
    """What has an instance's UID and a SOP class that no association has."""
    broken = Dataset()
    broken.SOPClassUID = "1.2.3.4"
    broken.SOPInstanceUID = ds.SOPInstanceUID
    return broken
