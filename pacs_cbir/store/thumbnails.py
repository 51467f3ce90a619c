"""Small pictures of what was embedded, for when the pixel data has left.

They are rows: written in the transaction that saves the embeddings, and gone with their instances. In the database
they are one copy for all encoders, which embed the same frames.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from sqlalchemy import Connection, delete, select, text

from pacs_cbir.store.tables import thumbnails


class Thumbnail(Protocol):
    """A picture of a frame (counted from 1), as JPEG."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def frame_number(self) -> int: ...
    @property
    def picture(self) -> bytes: ...


# What is there already, as from another encoder, is not written again.
SAVE = text("""
    INSERT INTO thumbnails (instance_id, frame_number, picture)
    SELECT instances.id, new.frame_number, new.picture
      FROM unnest(CAST(:sop_instance_uids AS text[]), CAST(:frame_numbers AS integer[]), CAST(:pictures AS bytea[]))
        AS new (sop_instance_uid, frame_number, picture)
      JOIN instances USING (sop_instance_uid)
     WHERE instances.series_id = :series_id
       AND NOT EXISTS (SELECT FROM thumbnails AS old WHERE old.instance_id = instances.id
                          AND old.frame_number = new.frame_number AND old.picture = new.picture)
    ON CONFLICT (instance_id, frame_number) DO UPDATE SET picture = excluded.picture
""")


def save(connection: Connection, series_id: int, found: Collection[Thumbnail]) -> None:
    """Keep pictures of a series' frames, in place of earlier ones; those of instances that are gone are left out."""
    if not found:
        return
    connection.execute(
        SAVE,
        {
            "series_id": series_id,
            "sop_instance_uids": [one.sop_instance_uid for one in found],
            "frame_numbers": [one.frame_number for one in found],
            "pictures": [one.picture for one in found],
        },
    )


def forget(connection: Connection, instance_id: int) -> None:
    """Drop the pictures of an instance that has others now."""
    connection.execute(delete(thumbnails).where(thumbnails.c.instance_id == instance_id))


def picture(connection: Connection, instance_id: int, frame_number: int) -> bytes | None:
    """A frame's small picture as JPEG; None where it was not embedded."""
    frame = (thumbnails.c.instance_id == instance_id) & (thumbnails.c.frame_number == frame_number)
    found: bytes | None = connection.scalar(select(thumbnails.c.picture).where(frame))
    return None if found is None else bytes(found)
