"""Which files each embedded stack consists of, and whose they are: what a training set is made of."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES
from pacs_cbir.store.tables import instances, stacks


@dataclass(frozen=True)
class StackFile:
    """One stored instance of an embedded stack.

    Attributes:
        patient_id: empty where the study is a patient of its own.
        file: path below the instances directory.
        labels: what a person has said of the study, in alphabetical order.
    """

    issuer_of_patient_id: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sequence: str
    file: str
    labels: tuple[str, ...]


# An instance that was replaced has one row, the current one; one that was deleted has none, though the stack's list,
# which a worker is about to replace, may still name it.
_STACK_FILES = text("""
    SELECT patients.issuer_of_patient_id, patients.patient_id, studies.study_instance_uid, series.series_instance_uid,
           stacks.sequence, instances.file,
           ARRAY(SELECT label FROM study_labels WHERE study_id = studies.id ORDER BY label COLLATE "C") AS labels
      FROM (SELECT DISTINCT series_id, sequence, unnest(sop_instance_uids) AS sop_instance_uid
              FROM stacks WHERE not_embedded IS NULL) AS stacks
      JOIN instances USING (series_id, sop_instance_uid)
      JOIN series ON series.id = stacks.series_id
      JOIN studies ON studies.id = series.study_id
      JOIN patients ON patients.id = instances.patient_id
     ORDER BY instances.id, stacks.sequence
""")


@dataclass(frozen=True)
class StackOrigin:
    """What one stack was drawn from.

    Attributes:
        separated_by: what tells it from the series' other stacks.
        files: of all the series' MR images, as paths below the instances directory: together they say which stacks
            there are.
    """

    separated_by: Mapping[str, Any]
    files: tuple[str, ...]


def stack_origin(connection: Connection, stack_id: uuid.UUID) -> StackOrigin | None:
    """Where a stack comes from; None where it is gone."""
    rows = connection.execute(
        select(stacks.c.separated_by, instances.c.file)
        .join(instances, instances.c.series_id == stacks.c.series_id)
        .where(stacks.c.id == stack_id, instances.c.sop_class_uid.in_(MR_IMAGE_SOP_CLASSES))
        .order_by(instances.c.id)
    ).all()
    return StackOrigin(rows[0].separated_by, tuple(row.file for row in rows)) if rows else None


def stack_files(connection: Connection) -> list[StackFile]:
    """The current instances of all embedded stacks, in the order in which they came."""
    rows = (row._mapping for row in connection.execute(_STACK_FILES))
    return [StackFile(**{**row, "labels": tuple(row["labels"])}) for row in rows]
