"""Which files each embedded stack consists of, and whose they are: what a training set is made of."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES
from pacs_cbir.errors import PixelDataGone, SeriesChanged
from pacs_cbir.store.embeddings import WHOLE_STACK
from pacs_cbir.store.tables import embeddings


@dataclass(frozen=True)
class StackFile:
    """One stored instance of an embedded stack.

    Attributes:
        patient_id: empty where the study is a patient of its own.
        body_part: canonical, upper case; empty where the headers do not tell, or the series' stacks of that sequence
            show different ones.
        file: path below the instances directory; None where the pixel data is no longer here.
        labels: what a person has said of the study, in alphabetical order.
    """

    issuer_of_patient_id: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sequence: str
    body_part: str
    file: str | None
    labels: tuple[str, ...]


# An instance that was replaced has one row, the current one; one that was deleted has none, though the stack's list,
# which a worker is about to replace, may still name it.
_STACK_FILES = text("""
    SELECT patients.issuer_of_patient_id, patients.patient_id, studies.study_instance_uid, series.series_instance_uid,
           stacks.sequence, stacks.body_part, instances.file,
           ARRAY(SELECT label FROM study_labels WHERE study_id = studies.id ORDER BY label COLLATE "C") AS labels
      FROM (SELECT DISTINCT series_id, sequence, unnest(sop_instance_uids) AS sop_instance_uid,
                   CASE WHEN min(body_part) OVER alike = max(body_part) OVER alike THEN body_part ELSE '' END
                   AS body_part
              FROM stacks JOIN encoders ON encoders.id = encoder_id
             WHERE not_embedded IS NULL AND state = 'active'
            WINDOW alike AS (PARTITION BY series_id, sequence)) AS stacks
      JOIN instances USING (series_id, sop_instance_uid)
      JOIN series ON series.id = stacks.series_id
      JOIN studies ON studies.id = series.study_id
      JOIN patients ON patients.id = instances.patient_id
     ORDER BY instances.id, stacks.sequence
""")


@dataclass(frozen=True)
class SliceOrigin:
    """Which picture a slice is, and where along its plane's normal, in mm."""

    sop_instance_uid: str
    frame_number: int
    position_mm: float


@dataclass(frozen=True)
class StackOrigin:
    """What one stack was drawn from.

    Attributes:
        series_id: row of its series.
        separated_by: what tells it from the series' other stacks.
        files: of all MR images that the series had when it was embedded, as paths below the instances directory:
            together they say which stacks there are.
        slices: of the stack, slice 1 first.
    """

    series_id: int
    separated_by: Mapping[str, Any]
    files: tuple[str, ...]
    slices: tuple[SliceOrigin, ...]


# A series' stacks of one encoder are written together, and name all instances that it had then. One that came again
# has other pixels or another geometry only where there is a job for it: a corrected patient makes none.
_ORIGIN = text("""
    SELECT own.series_id, own.separated_by, own.sop_instance_uids, instances.sop_instance_uid, instances.file,
           instances.calling_ae_title, instances.received_at > own.created_at
           AND EXISTS (SELECT FROM jobs WHERE jobs.series_id = own.series_id
                          AND (jobs.encoder_id IS NULL OR jobs.encoder_id = own.encoder_id)) AS replaced
      FROM stacks AS own
      LEFT JOIN instances ON instances.series_id = own.series_id AND instances.sop_class_uid = ANY(:sop_classes)
       AND EXISTS (SELECT FROM stacks WHERE stacks.series_id = own.series_id AND stacks.encoder_id = own.encoder_id
                      AND instances.sop_instance_uid = ANY(stacks.sop_instance_uids))
     WHERE own.id = :stack_id
     ORDER BY instances.id
""")


def stack_origin(connection: Connection, stack_id: uuid.UUID) -> StackOrigin | None:
    """Where a stack comes from; None where it is gone.

    Raises:
        SeriesChanged: one of its instances is gone or was replaced since it was embedded.
        PixelDataGone: of one of its instances the pixel data is no longer here.
    """
    rows = connection.execute(_ORIGIN, {"stack_id": stack_id, "sop_classes": list(MR_IMAGE_SOP_CLASSES)}).all()
    if not rows:
        return None
    unchanged = {row.sop_instance_uid for row in rows if not row.replaced}
    if not unchanged.issuperset(rows[0].sop_instance_uids):
        raise SeriesChanged("the series has changed since it was embedded")
    for row in rows:
        if row.file is None:
            raise PixelDataGone(row.calling_ae_title)
    drawn = connection.execute(
        select(embeddings.c.sop_instance_uid, embeddings.c.frame_number, embeddings.c.position_mm)
        .where(embeddings.c.stack_id == stack_id, embeddings.c.slice != WHOLE_STACK)
        .order_by(embeddings.c.slice)
    )
    files = tuple(row.file for row in rows)
    return StackOrigin(rows[0].series_id, rows[0].separated_by, files, tuple(SliceOrigin(*row) for row in drawn))


def stack_files(connection: Connection) -> list[StackFile]:
    """The current instances of all stacks that the active encoder embedded, in the order in which they came."""
    rows = (row._mapping for row in connection.execute(_STACK_FILES))
    return [StackFile(**{**row, "labels": tuple(row["labels"])}) for row in rows]
