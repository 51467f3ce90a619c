"""Which series a query means, and which instances each has now: what an export is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from pacs_cbir.store import labels
from pacs_cbir.store.matching import series_filter
from pacs_cbir.store.tables import instances, patients, series, studies, study_patients


@dataclass(frozen=True)
class ExportableSeries:
    """A series, with what may keep it from leaving.

    Attributes:
        row_id: of the series.
        patients: how many its study has; one, unless something went wrong.
        rejected: how many instances a rejection note took out of use.
        excluded: the label that keeps its study out of training sets; None where there is none.
    """

    row_id: int
    study_instance_uid: str
    series_instance_uid: str
    patients: int
    rejected: int
    excluded: str | None


@dataclass(frozen=True)
class ExportableInstance:
    """An instance and whose it is.

    Attributes:
        file: path below the instances directory, which no other content will ever have; None where its pixel data is
            no longer here.
        patient_id: empty where the study is a patient of its own.
    """

    sop_instance_uid: str
    file: str | None
    issuer_of_patient_id: str
    patient_id: str


def series_to_export(
    connection: Connection, keys: Mapping[str, str], *, fuzzy: bool = False, any_of: Collection[str] = ()
) -> list[ExportableSeries]:
    """The series that meet all matching keys, their studies' included, study by study in the order in which they came.

    Args:
        fuzzy: as in `value_test`.
        any_of: the study has one of these labels; none: whatever its labels are.

    Raises:
        InvalidQuery: a key cannot be understood.
    """
    patients_of_study = select(func.count()).where(study_patients.c.study_id == studies.c.id).scalar_subquery()
    rejected = (
        select(func.count())
        .where(instances.c.series_id == series.c.id, instances.c.rejected.is_not(None))
        .scalar_subquery()
    )
    query = (
        select(
            series.c.id,
            studies.c.id,
            studies.c.study_instance_uid,
            series.c.series_instance_uid,
            patients_of_study,
            rejected,
        )
        .join(studies, studies.c.id == series.c.study_id)
        .order_by(studies.c.id, series.c.id)
    )
    condition = series_filter(keys, fuzzy=fuzzy, labels=any_of)
    if condition is not None:
        query = query.where(series.c.id.in_(condition))
    rows = connection.execute(query).all()
    named = labels.of_studies(connection, {row[1] for row in rows})
    return [
        ExportableSeries(row_id, study_uid, series_uid, count, rejected, labels.excluding(named.get(study_id, ())))
        for row_id, study_id, study_uid, series_uid, count, rejected in rows
    ]


def instances_to_export(connection: Connection, series_row_id: int) -> list[ExportableInstance]:
    """A series' instances that count, as they are now, in the order in which they came; none where it is gone."""
    rows = connection.execute(
        select(instances.c.sop_instance_uid, instances.c.file, patients.c.issuer_of_patient_id, patients.c.patient_id)
        .join(patients, patients.c.id == instances.c.patient_id)
        .where(instances.c.series_id == series_row_id, instances.c.rejected.is_(None))
        .order_by(instances.c.id)
    )
    return [ExportableInstance(*row) for row in rows]
