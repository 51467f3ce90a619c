"""Which files each embedded stack consists of, and whose they are: what a training set is made of."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text


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


def stack_files(connection: Connection) -> list[StackFile]:
    """The current instances of all embedded stacks, in the order in which they came."""
    rows = (row._mapping for row in connection.execute(_STACK_FILES))
    return [StackFile(**{**row, "labels": tuple(row["labels"])}) for row in rows]
