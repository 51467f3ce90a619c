"""Received instances on disk: a transfer's temporary file becomes durable under a name that is never used twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from pacs_cbir.errors import DiskUnavailable, SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store.embedded import unusable
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import installation, instances

FOLDERS = tuple(f"{number:02x}" for number in range(256))
# Between a file's rename and its rows' commit there are milliseconds; an hour leaves room for a stopped clock.
ORPHAN_SECONDS = 3600.0
SWEEP_BATCH = 1000


@contextmanager
def disk_errors() -> Iterator[None]:
    """Translate what the file system raises.

    Raises:
        DiskUnavailable: the disk is full, read-only, damaged or gone.
    """
    try:
        yield
    except OSError as error:
        raise DiskUnavailable(f"the data directory cannot be used: {os.strerror(error.errno or 0)}") from error


def prepare(settings: Settings) -> None:
    """Make the folders, for this user alone.

    Raises:
        DiskUnavailable: they cannot be made.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        folders = settings.incoming_dir, settings.instances_dir, settings.uploads_dir
        for folder in (*folders, settings.orphans_dir, settings.index_dir, settings.encoders_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in FOLDERS:
            (settings.instances_dir / name).mkdir(mode=0o700, exist_ok=True)
        _sync_folder(settings.instances_dir)
    except OSError as error:
        raise unusable(settings.data_dir, error) from error


def keep(received: Path, instances_dir: Path) -> str:
    """Make a received file durable under a new name: fsync, rename, fsync of the folder.

    Returns:
        its path below the instances directory.

    Raises:
        DiskUnavailable: the disk is full, read-only or gone; nothing is left under the new name.
    """
    name = uuid.uuid4().hex
    target = instances_dir / name[:2] / f"{name}.dcm"
    with disk_errors():
        descriptor = os.open(received, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        received.rename(target)
        try:
            _sync_folder(target.parent)
        except OSError:
            target.unlink(missing_ok=True)
            raise
    return str(target.relative_to(instances_dir))


def discard(path: Path) -> None:
    """Remove a file; one that is gone already is no error."""
    with disk_errors():
        path.unlink(missing_ok=True)


def set_aside(file: str, settings: Settings) -> None:
    """Move a file that no row knows any more to the orphans directory.

    Args:
        file: path below the instances directory; one that is gone already is no error.
    """
    path = settings.instances_dir / file
    with disk_errors(), contextlib.suppress(FileNotFoundError):
        path.rename(settings.orphans_dir / path.name)


def claim(settings: Settings, database: Database) -> None:
    """Tie the instances directory to its database, the first time; refuse it to another one ever after.

    Without this, files that one database knows would be orphans to the other.

    Raises:
        SettingsError: the directory belongs to another database.
        DatabaseUnavailable, DiskUnavailable.
    """
    with database.transaction() as connection:
        ours = str(connection.execute(select(installation.c.id)).scalar_one())
    mark = settings.data_dir / "instances.database"
    with disk_errors():
        with contextlib.suppress(FileExistsError), mark.open("x") as file:
            file.write(ours)
            file.flush()
            os.fsync(file.fileno())
        theirs = mark.read_text()
    if theirs != ours:
        raise SettingsError(
            f"{settings.instances_dir} belongs to another database: set PACS_CBIR_DATABASE_URL and PACS_CBIR_DATA_DIR "
            f"to those that belong together; remove {mark} only if this database holds the rows of these files"
        )


def sweep(settings: Settings, database: Database) -> int:
    """Clear away what processes that died left behind: old transfers, and files that never got their rows.

    Parts of transfers are removed. Whole files are moved to the orphans directory: their senders were not told that
    they are here, but a database that was restored from an older backup may have known them. What a retention other
    than all has let go, and did not come to remove, is removed.

    Returns:
        how many files were cleared away.
    """
    before = time.time() - ORPHAN_SECONDS
    with disk_errors():
        abandoned = [path for path in settings.incoming_dir.iterdir() if _older(path, before)]
        for path in abandoned:
            path.unlink(missing_ok=True)
        return len(abandoned) + sum(_sweep_folder(settings, database, folder, before) for folder in FOLDERS)


def _sweep_folder(settings: Settings, database: Database, folder: str, before: float) -> int:
    candidates = [path for path in (settings.instances_dir / folder).iterdir() if _older(path, before)]
    moved = 0
    for start in range(0, len(candidates), SWEEP_BATCH):
        names = {f"{folder}/{path.name}": path for path in candidates[start : start + SWEEP_BATCH]}
        with database.transaction() as connection:
            known = set(connection.scalars(select(instances.c.file).where(instances.c.file.in_(names))))
        for name in names.keys() - known:
            # Gone meanwhile: replaced, and removed by the one who replaced it.
            with contextlib.suppress(FileNotFoundError):
                if settings.retention != "all" and _has_left(names[name], database):
                    names[name].unlink()
                else:
                    names[name].rename(settings.orphans_dir / names[name].name)
                moved += 1
    return moved


def _has_left(path: Path, database: Database) -> bool:
    """Whether a file without a row is one that retention has let go, and a process died before it was removed."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
    with database.transaction() as connection:
        gone = select(instances.c.id).where(instances.c.file.is_(None), instances.c.file_sha256 == sha256).limit(1)
        return connection.scalar(gone) is not None


def _older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def sync_folders(folders: Iterable[Path]) -> None:
    """Make durable what was removed from some folders."""
    with disk_errors():
        for folder in folders:
            _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
