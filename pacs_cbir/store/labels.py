"""Curated labels: what a person says a study shows, `glioblastoma` or `follow-up`, in the site's own words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.store.prepared import Prepared
from pacs_cbir.store.tables import studies, study_labels

MAX_CHARACTERS = 64
"""Labels are answered as LO (PS3.5 6.2), which has no control characters and no backslash either."""
MAX_LABELS = 100
EXCLUDED = "excluded"
"""A label that is this, or begins with it and a colon, as `excluded: motion`, keeps a study out of training sets."""


def checked(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels as they are kept: trimmed, composed (Unicode's NFC), each once, in alphabetical order.

    Raises:
        InvalidQuery: one cannot be kept, or there are too many.
    """
    kept = sorted({unicodedata.normalize("NFC", label).strip() for label in labels})
    if len(kept) > MAX_LABELS:
        raise InvalidQuery(f"at most {MAX_LABELS} labels are accepted")
    if not all(1 <= len(label) <= MAX_CHARACTERS and all(map(_is_kept, label)) for label in kept):
        raise InvalidQuery(
            f"a label is text of 1 to {MAX_CHARACTERS} characters without control characters, invisible format "
            "characters and backslashes"
        )
    return tuple(kept)


def _is_kept(character: str) -> bool:
    # Surrogates stand for no character, and no database takes them; format characters make two labels look the same.
    return character != "\\" and unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def excluding(labels: Iterable[str]) -> str | None:
    """The label that keeps a study out of training sets; None where there is none."""
    return next((label for label in labels if label.partition(":")[0].strip().casefold() == EXCLUDED), None)


OF_STUDIES = Prepared("labels", "SELECT study_id, label FROM study_labels WHERE study_id = ANY($1)", "bigint[]")


def of_studies(connection: Connection, study_ids: Collection[int]) -> dict[int, tuple[str, ...]]:
    """Study row id → its labels in alphabetical order; studies without any are left out."""
    found: dict[int, list[str]] = {}
    for row in OF_STUDIES.rows(connection, list(study_ids)):
        found.setdefault(row.study_id, []).append(row.label)
    return {study_id: tuple(sorted(labels)) for study_id, labels in found.items()}


def of_study(connection: Connection, study_instance_uid: str, *, lock: bool = False) -> tuple[str, ...] | None:
    """A study's labels in alphabetical order; None where it is not here.

    Args:
        lock: nobody else replaces them before the transaction ends.
    """
    study_id = _study_id(connection, study_instance_uid, lock=lock)
    return None if study_id is None else of_studies(connection, [study_id]).get(study_id, ())


def add(connection: Connection, study_instance_uid: str, given: Iterable[str]) -> tuple[str, ...] | None:
    """Give a study more labels.

    Returns:
        all that it has now; None where it is not here.

    Raises:
        InvalidQuery: as `checked`.
    """
    return _changed(connection, study_instance_uid, lambda found: checked([*found, *given]))


def remove(connection: Connection, study_instance_uid: str, given: Iterable[str]) -> tuple[str, ...] | None:
    """Take labels from a study.

    Returns:
        all that it has now; None where it is not here.

    Raises:
        InvalidQuery: it has no such label, and keeps all; or as `checked`.
    """
    taken = checked(given)

    def left(found: tuple[str, ...]) -> tuple[str, ...]:
        if missing := [label for label in taken if label not in found]:
            raise InvalidQuery(f"the study has no label '{missing[0]}'; it has {', '.join(found) or 'none'}")
        return tuple(label for label in found if label not in taken)

    return _changed(connection, study_instance_uid, left)


def _changed(
    connection: Connection, study_instance_uid: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> tuple[str, ...] | None:
    study_id = _study_id(connection, study_instance_uid, lock=True)
    if study_id is None:
        return None
    changed = change(of_studies(connection, [study_id]).get(study_id, ()))
    _write(connection, study_id, changed)
    return changed


def counted(connection: Connection) -> dict[str, int]:
    """Every label → how many studies have it, in alphabetical order."""
    rows = select(study_labels.c.label, func.count()).group_by(study_labels.c.label)
    return dict(sorted((label, count) for label, count in connection.execute(rows)))


def replace(connection: Connection, study_instance_uid: str, labels: Collection[str]) -> bool:
    """Give a study these labels and no others; those that it had already keep the time at which they were set.

    Args:
        labels: as `checked` gives them.

    Returns:
        False where the study is not here.
    """
    # Locked: of two lists that come at once one wins, and not their union.
    study_id = _study_id(connection, study_instance_uid, lock=True)
    if study_id is None:
        return False
    _write(connection, study_id, labels)
    return True


def _study_id(connection: Connection, study_instance_uid: str, *, lock: bool) -> int | None:
    query = select(studies.c.id).where(studies.c.study_instance_uid == study_instance_uid)
    return connection.scalar(query.with_for_update(key_share=True) if lock else query)


def _write(connection: Connection, study_id: int, labels: Collection[str]) -> None:
    own = study_labels.c.study_id == study_id
    connection.execute(delete(study_labels).where(own, study_labels.c.label.not_in(labels)))
    if labels:
        rows = [{"study_id": study_id, "label": label} for label in labels]
        connection.execute(insert(study_labels).values(rows).on_conflict_do_nothing())
