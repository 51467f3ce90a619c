"""Which studies a PACS has between two days, all of them, although it may answer only so many at once.

A PACS that leaves answers out may say so (PS3.4 Table C.4-1, A700H), end as if it had been cancelled (Orthanc), or say
nothing. What it says, and what the settings say of it, is taken. Otherwise: a PACS that gave so many answers once has
no lower limit, so that fewer answers than the most seen so far are all. Only as many or more are in doubt. What is in
doubt or short is asked for again in halves, down to a day, and then by StudyTime down to a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from pydicom.dataset import Dataset

from pacs_cbir.errors import PeerError
from pacs_cbir.pacs.archive import Archive, Found, identifier_of, number_of, texts_of

DAY = timedelta(days=1)
SECONDS_OF_DAY = 86400
# Fewer answers than this are never in doubt: nobody sets a lower limit.
LOWEST_LIMIT = 20
# Points and colons are of older versions of the standard (PS3.5 6.2); a time may end after its hours or minutes.
DATE = re.compile(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})")
TIME = re.compile(r"([0-9]{2})(?::?([0-9]{2}))?(?::?([0-9]{2}))?(?:\.[0-9]*)?")

Answers = dict[str, Dataset]


@dataclass(frozen=True)
class FoundStudy:
    """A study at the PACS.

    Attributes:
        instances: how many the PACS says it has; None where it does not say.
    """

    study_instance_uid: str
    instances: int | None


@dataclass
class StudySearch:
    """Searches of one PACS, which learn how many answers it gives.

    Attributes:
        modality: one of the study's modalities; empty for any.
        body_part: BodyPartExamined of a series of that modality; empty for any.
        incomplete: of the last search: what could not be split further, or not be named, in words.
    """

    archive: Archive
    modality: str = ""
    body_part: str = ""
    incomplete: list[str] = field(default_factory=list)
    _most: int = LOWEST_LIMIT

    def between(self, first: date, last: date) -> list[FoundStudy]:
        """The studies of these days, both included, in the order of their UIDs; those without a StudyDate are in none.

        Raises:
            PeerError, PeerAway, PeerRefuses: as `Archive.find`; and PeerError where the PACS ignores StudyDate.
        """
        self.incomplete.clear()
        answers = self._days(first, last)
        return [
            FoundStudy(uid, number_of(answer, "NumberOfStudyRelatedInstances") or None)
            for uid, answer in sorted(answers.items())
            if self._is_wanted(uid, answer)
        ]

    def _days(self, first: date, last: date) -> Answers:
        asked = f"{first:%Y%m%d}-{last:%Y%m%d}"
        answers, short = self._ask(StudyDate=asked)
        if any(not f"{first:%Y%m%d}" <= day <= f"{last:%Y%m%d}" for day in _digits(answers, "StudyDate", DATE)):
            raise PeerError(
                f"{self.archive.peer.ae_title} was asked for the studies of {asked} and answered with others"
            )
        if not short:
            return answers
        if first == last:
            return answers | self._seconds(first, 0, SECONDS_OF_DAY - 1, answers)
        middle = first + (last - first) // 2
        return answers | self._days(first, middle) | self._days(middle + DAY, last)

    def _seconds(self, day: date, start: int, end: int, whole: Answers) -> Answers:
        """The studies of a part of a day; `whole` is what the day, or more of it, was answered with."""
        if start == end:
            self.incomplete.append(f"{day:%Y-%m-%d} {_time(start)}: as many studies as one answer has, or more")
            return {}
        middle = (start + end) // 2
        found: Answers = {}
        for one, other in ((start, middle), (middle + 1, end)):
            answers, short = self._ask(StudyDate=f"{day:%Y%m%d}", StudyTime=f"{_time(one)}-{_time(other)}.999999")
            if any(not _time(one) <= time <= _time(other) for time in _digits(answers, "StudyTime", TIME)):
                self.incomplete.append(f"{day:%Y-%m-%d}: the PACS ignores StudyTime, and the day has too many studies")
                return found
            found |= answers
            if short:
                found |= self._seconds(day, one, other, answers)
        if start == 0 and end == SECONDS_OF_DAY - 1 and whole.keys() - found.keys():
            self.incomplete.append(f"{day:%Y-%m-%d}: too many studies, and some have no StudyTime to ask by")
        return found

    def _ask(self, **keys: str) -> tuple[Answers, bool]:
        """The answers by StudyInstanceUID, and whether there may be more."""
        wanted = {"StudyInstanceUID": "", "StudyTime": "", "NumberOfStudyRelatedInstances": ""}
        found = self.archive.find("STUDY", wanted | {"ModalitiesInStudy": self.modality} | keys)
        answers = {}
        for one in found.answers:
            try:
                answers[identifier_of(one, "StudyInstanceUID")] = one
            except PeerError:
                # One bad row of an old archive does not keep the others there.
                what = f"{keys['StudyDate']}: the PACS names one without a valid StudyInstanceUID"
                if what not in self.incomplete:
                    self.incomplete.append(what)
        return answers, self._is_short(found)

    def _is_short(self, found: Found) -> bool:
        count, limit = len(found.answers), self.archive.peer.find_limit
        in_doubt = count >= self._most
        self._most = max(self._most, count)
        return found.truncated or (in_doubt if limit is None else count >= limit)

    def _is_wanted(self, uid: str, answer: Dataset) -> bool:
        modalities = texts_of(answer, "ModalitiesInStudy")
        if self.modality and modalities and self.modality not in modalities:
            return False
        if not self.body_part and (modalities or not self.modality):
            return True
        # The PACS does not say which modalities a study has, and no study has a body part: its series do.
        keys = {"StudyInstanceUID": uid, "SeriesInstanceUID": "", "Modality": "", "BodyPartExamined": ""}
        return any(
            (not self.modality or self.modality in texts_of(one, "Modality"))
            and (not self.body_part or self.body_part in texts_of(one, "BodyPartExamined"))
            for one in self.archive.find("SERIES", keys).answers
        )


def _digits(answers: Answers, keyword: str, form: re.Pattern[str]) -> Iterator[str]:
    """Dates or times as digits, those in older forms too; what is neither tells nothing of what was asked."""
    for answer in answers.values():
        for text in texts_of(answer, keyword):
            if found := form.fullmatch(text):
                yield "".join(part or "00" for part in found.groups())


def _time(second: int) -> str:
    return f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"


def instances_of_series(archive: Archive, study_instance_uid: str) -> dict[str, int]:
    """SeriesInstanceUID → how many instances the PACS has of it, by its own count or by counting its answers.

    Raises:
        PeerError, PeerAway, PeerRefuses: as `Archive.find`.
    """
    keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
    counts = {}
    for one in archive.find("SERIES", keys).answers:
        series = identifier_of(one, "SeriesInstanceUID")
        count = number_of(one, "NumberOfSeriesRelatedInstances")
        below = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series, "SOPInstanceUID": ""}
        counts[series] = count or len(archive.find("IMAGE", below).answers)
    return counts
