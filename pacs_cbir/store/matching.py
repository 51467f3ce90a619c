"""Matching keys → conditions over the tables, as C-FIND matches (PS3.4 C.2.2) and QIDO-RS does (PS3.18 8.3.4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from sqlalchemy import ColumnElement, Connection, Select, Text, cast, exists, func, select
from sqlalchemy.sql.selectable import FromClause

from pacs_cbir.dicom.keywords import PATIENT_STUDY_KEYWORDS, SERIES_KEYWORDS
from pacs_cbir.errors import InvalidQuery
from pacs_cbir.store.tables import instances, series, studies, study_labels
from pacs_cbir.store.value_tests import Test, has_wildcards, value_test

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_COUNTED = frozenset({"NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"})
_OF_STUDY = frozenset({"ModalitiesInStudy", "SOPClassesInStudy"})
COUNTED = _COUNTED | _OF_STUDY | {"InstanceAvailability"}
"""Attributes of a study or series that are counted over what is below it."""
_LONGEST_KEYWORD = 64


class Level(Enum):
    """The levels of the Study Root query model (PS3.4 C.6.2.1); the patient's attributes are the study's."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


_TABLES: dict[Level, FromClause] = {Level.STUDY: studies, Level.SERIES: series, Level.INSTANCE: instances}
_COLUMNS: dict[str, ColumnElement[str]] = {
    "StudyInstanceUID": studies.c.study_instance_uid,
    "SeriesInstanceUID": series.c.series_instance_uid,
    "SOPInstanceUID": instances.c.sop_instance_uid,
    "SOPClassUID": instances.c.sop_class_uid,
}
"""Attributes that are columns, since all else hangs on them."""
INDEXED = frozenset({"PatientID", "AccessionNumber"})
"""Attributes of a study that are asked for by one value as a rule, which few studies have."""


@dataclass(frozen=True)
class Conditions:
    """What rows of `studies`, `series` and `instances` must hold, each over its own table's columns.

    All series conditions are to be met by one series, all instance conditions by one instance of that series.
    """

    study: tuple[ColumnElement[bool], ...]
    series: tuple[ColumnElement[bool], ...]
    instance: tuple[ColumnElement[bool], ...]


def keyword_of(name: str) -> str:
    """The DICOM keyword that a keyword or ggggeeee names (PS3.18 8.3.4).

    Raises:
        InvalidQuery: neither of them.
    """
    keyword = keyword_for_tag(int(name, 16)) if _TAG.fullmatch(name) else name
    if not keyword or tag_for_keyword(keyword) is None:
        raise InvalidQuery(
            f"{name[:_LONGEST_KEYWORD]!r} is no parameter here and no DICOM attribute; accepted are keywords, as "
            "PatientSex, and tags of eight hexadecimal digits, as 00100040"
        )
    return keyword


def matching_keys(parameters: Iterable[tuple[str, str]], reserved: Collection[str]) -> dict[str, str]:
    """A query's parameters that are not `reserved`, as matching keys: keyword → value.

    Raises:
        InvalidQuery: a name is no attribute's, or is given twice.
    """
    keys: dict[str, str] = {}
    for name, value in parameters:
        if name in reserved:
            continue
        keyword = keyword_of(name)
        if keyword in keys:
            raise InvalidQuery(f"{keyword} is given twice; a list of UIDs has a comma between them")
        keys[keyword] = value
    return keys


def level_of(keyword: str) -> Level:
    """The level at which an attribute is kept."""
    if keyword in PATIENT_STUDY_KEYWORDS or keyword in _OF_STUDY:
        return Level.STUDY
    return Level.SERIES if keyword in SERIES_KEYWORDS else Level.INSTANCE


def conditions(keys: Mapping[str, str], *, fuzzy: bool = False, labels: Collection[str] = ()) -> Conditions:
    """Translate matching keys.

    Args:
        keys: keyword or ggggeeee → value. An empty value and `*` match everything.
        fuzzy: as in `value_test`.
        labels: the study has one of these, letter by letter; none: whatever its labels are.

    Raises:
        InvalidQuery: names the key and what it accepts.
    """
    found: dict[Level, list[ColumnElement[bool]]] = {level: [] for level in Level}
    seen: set[str] = set()
    for name, text in keys.items():
        keyword = keyword_of(name)
        if keyword in seen:
            raise InvalidQuery(f"{keyword} is given twice; each matching key may be given once")
        seen.add(keyword)
        if keyword in _COUNTED:
            raise InvalidQuery(f"{keyword} is counted for the answer and is no matching key")
        test = value_test(keyword, text, fuzzy=fuzzy)
        if test is not None and keyword in INDEXED and not fuzzy and not has_wildcards(text):
            found[Level.STUDY].append(studies.c.attributes[keyword].contains([text.strip()]))
        elif test is not None:
            found[level_of(keyword)].append(_condition(keyword, test))
    if labels:
        labelled = select(study_labels.c.label).where(study_labels.c.study_id == studies.c.id)
        found[Level.STUDY].append(exists(labelled.where(study_labels.c.label.in_(labels)).correlate(studies)))
    return Conditions(tuple(found[Level.STUDY]), tuple(found[Level.SERIES]), tuple(found[Level.INSTANCE]))


def some_series(found: Conditions) -> ColumnElement[bool] | None:
    """Over `studies`: one series meets the series' conditions, with one instance that meets the instance's."""
    parts = [*found.series, *(part for part in [some_instance(found)] if part is not None)]
    if not parts:
        return None
    return exists(select(series.c.id).where(series.c.study_id == studies.c.id, *parts).correlate(studies))


def some_instance(found: Conditions) -> ColumnElement[bool] | None:
    """Over `series`: one instance meets all of the instance's conditions."""
    if not found.instance:
        return None
    return counts(*found.instance)


def counts(*conditions: ColumnElement[bool], of: FromClause = series) -> ColumnElement[bool]:
    """Over `series`, or an alias of it: an instance that was not rejected meets some conditions."""
    own = select(instances.c.id).where(instances.c.series_id == of.c.id, instances.c.rejected.is_(None), *conditions)
    return exists(own.correlate(of))


def study_counts() -> ColumnElement[bool]:
    """Over `studies`: some series of it counts."""
    own = select(series.c.id).where(series.c.study_id == studies.c.id, counts())
    return exists(own.correlate(studies))


def series_filter(
    keys: Mapping[str, str], *, fuzzy: bool = False, labels: Collection[str] = ()
) -> Select[tuple[int]] | None:
    """The ids of the series that meet all keys, their studies' included; None where the keys let every series pass.

    Raises:
        InvalidQuery: as `conditions`.
    """
    found = conditions(keys, fuzzy=fuzzy, labels=labels)
    parts = [*found.study, *found.series, *(part for part in [some_instance(found)] if part is not None)]
    if not parts:
        return None
    return select(series.c.id).join(studies, studies.c.id == series.c.study_id).where(*parts)


def series_ids(connection: Connection, condition: Select[tuple[int]]) -> npt.NDArray[np.int64]:
    """The ids of a `series_filter`, as one text: a row for each would take longer than the search."""
    ids = condition.subquery()
    listed = connection.scalar(select(func.string_agg(cast(ids.c.id, Text), ",")))
    return np.fromstring(listed or "", np.int64, sep=",")


def _condition(keyword: str, test: Test) -> ColumnElement[bool]:
    other = series.alias()
    if keyword in _COLUMNS:
        return test(_COLUMNS[keyword])
    if keyword == "ModalitiesInStudy":
        some = _some_value(other, "Modality", test)
        here = counts(of=other)
        return exists(select(other.c.id).where(other.c.study_id == studies.c.id, some, here).correlate(studies))
    if keyword == "SOPClassesInStudy":
        of_class = counts(test(instances.c.sop_class_uid), of=other)
        return exists(select(other.c.id).where(other.c.study_id == studies.c.id, of_class).correlate(studies))
    return _some_value(_TABLES[level_of(keyword)], keyword, test)


def _some_value(table: FromClause, keyword: str, test: Test) -> ColumnElement[bool]:
    # One matching value of several is enough (PS3.4 C.2.2.3).
    values = func.jsonb_array_elements_text(table.c.attributes[keyword]).table_valued("value")
    return exists(select(values.c.value).where(test(values.c.value)).correlate(table))
