"""How much of a study or series is here, and who sent it: what a PACS is asked for depends on it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from pacs_cbir.store.tables import instances, series, studies

Selected = TypeVar("Selected", bound=Select[Any])


def now(connection: Connection) -> datetime:
    """The database's clock."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def count_known(connection: Connection, study_instance_uid: str, series_instance_uid: str | None = None) -> int:
    """Instances of a study, or of one of its series, that were ever received, their pixel data here or not."""
    return connection.execute(_counted(study_instance_uid, series_instance_uid)).scalar_one()


def known_of(study_instance_uid: ColumnElement[str]) -> ColumnElement[int]:
    """The same of the study that a query's row names."""
    return _counted(study_instance_uid, None).scalar_subquery()


def count_here(
    connection: Connection, study_instance_uid: str, series_instance_uid: str | None, since: datetime
) -> int:
    """Those of them whose pixel data is here, or has come since a moment and may have left again."""
    here = or_(instances.c.file.is_not(None), instances.c.received_at >= since)
    return connection.execute(_counted(study_instance_uid, series_instance_uid, here)).scalar_one()


def last_arrival(
    connection: Connection, study_instance_uid: str, series_instance_uid: str | None = None
) -> datetime | None:
    """When the last of them was received; None where none was."""
    query = _of_them(select(func.max(instances.c.received_at)), study_instance_uid, series_instance_uid)
    last: datetime | None = connection.execute(query).scalar_one()
    return last


def _counted(
    study_uid: str | ColumnElement[str], series_uid: str | None, *conditions: ColumnElement[bool]
) -> Select[int]:
    return _of_them(select(func.count()), study_uid, series_uid).where(*conditions)


def _of_them(query: Selected, study_uid: str | ColumnElement[str], series_uid: str | None) -> Selected:
    query = query.select_from(instances.join(series, series.c.id == instances.c.series_id).join(studies)).where(
        studies.c.study_instance_uid == study_uid
    )
    return query if series_uid is None else query.where(series.c.series_instance_uid == series_uid)


def senders(connection: Connection, study_instance_uid: str, series_instance_uid: str) -> tuple[str, ...]:
    """The calling AE titles that a series' instances came from."""
    query = (
        select(instances.c.calling_ae_title)
        .distinct()
        .select_from(instances.join(series, series.c.id == instances.c.series_id).join(studies))
        .where(studies.c.study_instance_uid == study_instance_uid, series.c.series_instance_uid == series_instance_uid)
        .order_by(instances.c.calling_ae_title)
    )
    return tuple(connection.scalars(query))


def patient_id(connection: Connection, study_instance_uid: str) -> str:
    """The PatientID of a study that is here, corrected; empty where it is not here, or has none."""
    said = studies.c.attributes["PatientID"][0].astext
    query = select(said).where(studies.c.study_instance_uid == study_instance_uid)
    return connection.execute(query).scalar_one_or_none() or ""
