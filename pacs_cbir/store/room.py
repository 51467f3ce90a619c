"""Room on the data directory's disk: below a reserve nothing more is taken in, so that what is here can go on.

The database, the thumbnails and the index snapshots of what has been received already need room too, and an embedded
Postgres stops on a full disk.

There is no second, higher mark above which taking in begins again: each instance is judged by the disk as it is then.
Around the reserve some are taken and some are refused, which costs their senders another try and nothing else; in
return all processes agree without talking, and a restart forgets nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from pacs_cbir.errors import DiskFull
from pacs_cbir.settings import Settings
from pacs_cbir.store.files import disk_errors

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Room:
    """A disk's room, in bytes.

    Attributes:
        free: for this user.
        reserve: what is left free.
    """

    free: int
    reserve: int


def room(settings: Settings) -> Room:
    """The room that there is now: one system call.

    Raises:
        DiskUnavailable: the data directory is not there.
    """
    with disk_errors():
        return Room(shutil.disk_usage(settings.data_dir).free, settings.disk_reserve_megabytes * MEBIBYTE)


def require_room(settings: Settings) -> None:
    """Make sure that the disk may be written to.

    Raises:
        DiskFull: what is free is the reserve.
        DiskUnavailable: the data directory is not there.
    """
    now = room(settings)
    if now.free < now.reserve:
        raise DiskFull(f"disk full: {now.free // MEBIBYTE} MiB free, {now.reserve // MEBIBYTE} kept in reserve")
