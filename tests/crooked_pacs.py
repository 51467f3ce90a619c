"""An archive on the loopback that can be told to lie, to limit its answers silently, and to be slow."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileDataset
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from tests.conftest import free_port

UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
OLD_FORMS = {"StudyDate": r".\1.\2", "StudyTime": r":\1:\2"}


class CrookedPacs:
    """C-FIND and C-MOVE over instances in memory.

    Attributes:
        limit: most answers to one query; it says nothing of the others.
        ignores: matching keys that it does not look at.
        silent_about: attributes that it does not answer.
        counts: StudyInstanceUID → what it says for NumberOfStudyRelatedInstances.
        names: StudyInstanceUID → what it says instead.
        old_forms: whether it writes dates and times as 2024.01.31 and 10:11:12.
        delays: seconds before each of the next queries is answered.
        broken: SOP Instance UIDs that it cannot send.
        moved: StudyInstanceUID → how often it was asked to send it.
    """

    def __init__(self, ours: Settings) -> None:
        self._ours, self._held, self._port = ours, list[FileDataset](), free_port()
        self.limit: int | None = None
        self.ignores: set[str] = set()
        self.silent_about: set[str] = set()
        self.counts: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.old_forms = False
        self.delays: list[float] = []
        self.broken: set[str] = set()
        self.moved: Counter[str] = Counter()

    def __enter__(self) -> CrookedPacs:
        ae = AE(ae_title="CROOKED")
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        ae.requested_contexts = StoragePresentationContexts
        self._server = ae.start_server(
            ("127.0.0.1", self._port),
            block=False,
            evt_handlers=[(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)],
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()

    def hold(self, instances: Iterable[FileDataset]) -> None:
        """Have some more instances."""
        self._held += instances

    def peer(self, **options: Any) -> Peer:
        """Its entry in our settings."""
        given: dict[str, Any] = {"ae_title": "CROOKED", "host": "127.0.0.1", "port": self._port, "timeout_seconds": 20}
        return Peer(**(given | options))

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.delays:
            time.sleep(self.delays.pop(0))
        asked, unique = event.identifier, UNIQUE[event.identifier.QueryRetrieveLevel]
        groups: dict[str, list[FileDataset]] = {}
        for ds in self._held:
            groups.setdefault(str(ds[unique].value), []).append(ds)
        matching = [group for group in groups.values() if self._matches(asked, group)]
        for group in matching[: self.limit]:
            yield 0xFF00, self._answer(asked, group)

    def _matches(self, asked: Dataset, group: list[FileDataset]) -> bool:
        for element in asked:
            wanted = str(element.value or "")
            if wanted and element.keyword not in self.ignores | {"QueryRetrieveLevel"}:
                has = (
                    {ds.Modality for ds in group}
                    if element.keyword == "ModalitiesInStudy"
                    else {str(group[0].get(element.keyword, ""))}
                )
                low, dash, high = wanted.partition("-")
                if not any(low <= one <= high if dash else one == wanted for one in has):
                    return False
        return True

    def _answer(self, asked: Dataset, group: list[FileDataset]) -> Dataset:
        answer = Dataset()
        answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
        study = str(group[0].StudyInstanceUID)
        for keyword in (element.keyword for element in asked):
            if keyword in self.silent_about | {"QueryRetrieveLevel"}:
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
        held = [ds for ds in self._held if ds.StudyInstanceUID == asked.StudyInstanceUID]
        held = [ds for ds in held if asked.get("SeriesInstanceUID") in (None, ds.SeriesInstanceUID)]
        if event.move_destination != self._ours.ae_title:
            yield None, None
            return
        self.moved[str(asked.StudyInstanceUID)] += 1
        yield self._ours.dicom_host, self._ours.dicom_port
        yield len(held)
        for ds in held:
            yield 0xFF00, _unsendable(ds) if ds.SOPInstanceUID in self.broken else ds


def _unsendable(ds: FileDataset) -> Dataset:
    """What has an instance's UID and a SOP class that no association has."""
    broken = Dataset()
    broken.SOPClassUID = "1.2.3.4"
    broken.SOPInstanceUID = ds.SOPInstanceUID
    return broken
