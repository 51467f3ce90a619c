"""Which studies a PACS has, all of them, although it may answer only so many at once.

What is in doubt or short (see `AnswerLimit`) is asked for in fewer days, down to one, and then by StudyTime down to a
second. What leaves out is said in several ways: a status (PS3.4 Table C.4-1, A700H), an end as if the query had been
cancelled (Orthanc), or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from pydicom.dataset import Dataset

from pacs_cbir.errors import PeerAway, PeerError, PeerRefuses, PeerSilent
from pacs_cbir.pacs.archive import AnswerLimit, Archive, Level, identifier_of, is_short, number_of, texts_of

# Of studies from before it nobody's clock was right, and some databases know no day before it.
FIRST_DAY = date(1900, 1, 1)
DAY = timedelta(days=1)
SECONDS_OF_DAY = 86400
# So many days are asked for at first, and more where they have few studies.
FIRST_DAYS = 31
FEW_STUDIES = 2000
# Points and colons are of older versions of the standard (PS3.5 6.2); a time may end after its hours or minutes.
DATE = re.compile(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})")
TIME = re.compile(r"([0-9]{2})(?::?([0-9]{2}))?(?::?([0-9]{2}))?(?:\.[0-9]*)?")

Answers = dict[str, Dataset]


@dataclass
class StudySearch:
    """Searches of one PACS, which learn how many answers it gives, and of how many days it gives them.

    Attributes:
        modality: one of the study's modalities; empty for any.
        body_part: BodyPartExamined of a series of that modality; empty for any.
        incomplete: of the last search: what could not be asked for, be split further, or be named, in words.
    """

    archive: Archive
    modality: str = ""
    body_part: str = ""
    incomplete: list[str] = field(default_factory=list)
    _days: int = FIRST_DAYS

    def __post_init__(self) -> None:
        self._limit = AnswerLimit(self.archive.peer)

    def at_once(self) -> tuple[dict[str, int | None], bool]:
        """All studies, by a query that names no date.

        Returns:
            StudyInstanceUID → how many instances the PACS says it has, None where it does not say; and whether these
            are all. Otherwise they are those without a StudyDate that were among the answers.

        Raises:
            PeerError, PeerAway, PeerRefuses: as `Archive.find`.
        """
        self.incomplete.clear()
        try:
            answers, short = self._ask(StudyDate="")
            short = short and not self._is_all(answers)
        except (PeerAway, PeerRefuses):
            raise
        except PeerError:
            # Some refuse what asks for too much, or are silent over it.
            answers, short = {}, True
        if short:
            answers = {uid: one for uid, one in answers.items() if not any(_digits({uid: one}, "StudyDate", DATE))}
            self.incomplete.append(
                f"studies without a StudyDate, before {FIRST_DAY.year} or after today: the PACS does not name all of "
                f"its studies at once, and {len(answers)} without a StudyDate were among those that it named"
            )
        return self._wanted(answers), not short

    def _is_all(self, answers: Answers) -> bool:
        """Whether answers that are in doubt are all: their halves, by date, are fewer, and bring nothing else."""
        days = sorted(_digits(answers, "StudyDate", DATE))
        if not days:
            return False
        middle = days[len(days) // 2]
        halves = [self._ask(StudyDate=half) for half in (f"-{middle}", f"{middle}-")]
        return all(not short and half.keys() <= answers.keys() for half, short in halves)

    def some_days(self, first: date, last: date) -> tuple[dict[str, int | None], date]:
        """The studies of as many days, from the first on, as one answer has; those without a StudyDate are in none.

        Returns:
            as `at_once`; and the last of these days, `last` at the latest.

        Raises:
            as `Archive.find`; and PeerError where the PACS ignores StudyDate.
        """
        self.incomplete.clear()
        try:
            return self._some_days(first, last)
        except PeerSilent:
            # It may have too much to look through.
            self._days = max(1, self._days // 2)
            raise

    def _some_days(self, first: date, last: date) -> tuple[dict[str, int | None], date]:
        until = first + min(self._days - 1, (last - first).days) * DAY
        answers, short = self._between(first, until)
        more = not short and len(answers) < FEW_STUDIES
        while short and until > first:
            until = first + (until - first) // 2
            answers, short = self._between(first, until)
        if short:
            answers |= self._seconds(first, 0, SECONDS_OF_DAY - 1, answers)
        self._days = ((until - first).days + 1) * (2 if more else 1)
        return self._wanted(answers), until

    def _between(self, first: date, last: date) -> tuple[Answers, bool]:
        asked = f"{first:%Y%m%d}-{last:%Y%m%d}"
        answers, short = self._ask(StudyDate=asked)
        if any(not f"{first:%Y%m%d}" <= day <= f"{last:%Y%m%d}" for day in _digits(answers, "StudyDate", DATE)):
            raise PeerError(
                f"{self.archive.peer.ae_title} was asked for the studies of {asked} and answered with others"
            )
        return answers, short

    def _seconds(self, day: date, start: int, end: int, whole: Answers) -> Answers:
        """The studies of a part of a day; `whole` is what the day, or more of it, was answered with."""
        if start == end and not whole:
            raise PeerError(f"{self.archive.peer.ae_title} has too many answers to every query, and gives none")
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
        missing = list(found.missing)
        answers = {}
        for one in found.answers:
            try:
                answers[identifier_of(one, "StudyInstanceUID")] = one
            except PeerError:
                # One bad row of an old archive does not keep the others there.
                asked = keys["StudyDate"] or "all studies"
                missing.append(f"{asked}: the PACS names one without a valid StudyInstanceUID")
        self.incomplete += [what for what in dict.fromkeys(missing) if what not in self.incomplete]
        return answers, self._limit.leaves_out(found)

    def _wanted(self, answers: Mapping[str, Dataset]) -> dict[str, int | None]:
        return {
            uid: number_of(answer, "NumberOfStudyRelatedInstances") or None
            for uid, answer in sorted(answers.items())
            if self._is_wanted(uid, answer)
        }

    def _is_wanted(self, uid: str, answer: Dataset) -> bool:
        modalities = texts_of(answer, "ModalitiesInStudy")
        if self.modality and modalities and self.modality not in modalities:
            return False
        if not self.body_part and (modalities or not self.modality):
            return True
        # The PACS does not say which modalities a study has, and no study has a body part: its series do.
        keys = {"StudyInstanceUID": uid, "SeriesInstanceUID": "", "Modality": "", "BodyPartExamined": ""}
        found = self.archive.find("SERIES", keys)
        return bool(is_short(found, self.archive.peer)) or any(
            (not self.modality or self.modality in texts_of(one, "Modality"))
            and (not self.body_part or self.body_part in texts_of(one, "BodyPartExamined"))
            for one in found.answers
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
        as `Archive.find`; and PeerError where the PACS does not name all of them.
    """
    above = {"StudyInstanceUID": study_instance_uid}
    asked = {"SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
    counts = {}
    for series, answer in _all_below(archive, "SERIES", above | asked, "SeriesInstanceUID").items():
        count = number_of(answer, "NumberOfSeriesRelatedInstances")
        below = above | {"SeriesInstanceUID": series, "SOPInstanceUID": ""}
        counts[series] = count or len(_all_below(archive, "IMAGE", below, "SOPInstanceUID"))
    return counts


def _all_below(archive: Archive, level: Level, keys: Mapping[str, str], unique: str) -> Answers:
    found = archive.find(level, keys)
    if is_short(found, archive.peer):
        raise PeerError(
            f"{archive.peer.ae_title} has more {'series' if level == 'SERIES' else 'instances'} of study "
            f"{keys['StudyInstanceUID']} than it names at once: raise its limit of answers"
        )
    return {identifier_of(one, unique): one for one in found.answers}
