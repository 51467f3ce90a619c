"""Files that become durable, and the sweep that removes what nobody knows."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from rows import add_series
from sqlalchemy import text, update

from pacs_cbir.errors import DiskUnavailable, SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store import files
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances


def received(settings: Settings, content: bytes = b"content", name: str = "1.part") -> Path:
    path = settings.incoming_dir / name
    path.write_bytes(content)
    return path


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_folders_are_for_this_user_alone(settings: Settings) -> None:
    files.prepare(settings)
    folders = [settings.incoming_dir, settings.instances_dir, settings.index_dir, settings.instances_dir / "ff"]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert len(list(settings.instances_dir.iterdir())) == 256


def test_a_data_directory_that_is_a_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskUnavailable, match="data directory"):
        files.prepare(settings.model_copy(update={"data_dir": tmp_path / "file"}))


def test_a_kept_file_has_moved_under_a_name_of_its_own(settings: Settings) -> None:
    kept = set()
    for _ in range(20):
        path = received(settings)
        name = files.keep(path, settings.instances_dir)
        assert not path.exists()
        assert (settings.instances_dir / name).read_bytes() == b"content"
        kept.add(name)
    assert len(kept) == 20


def test_what_cannot_be_kept_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(DiskUnavailable):
        files.keep(settings.incoming_dir / "missing", settings.instances_dir)
    with pytest.raises(DiskUnavailable):
        files.keep(received(settings), tmp_path / "missing")
    assert not list(settings.instances_dir.rglob("*.dcm"))


def test_discarding_twice_is_no_error(settings: Settings) -> None:
    path = received(settings)
    files.discard(path)
    files.discard(path)
    assert not path.exists()


def test_an_error_says_why_and_names_no_path(settings: Settings) -> None:
    with pytest.raises(DiskUnavailable, match="No such file") as raised:
        files.keep(settings.incoming_dir / "missing", settings.instances_dir)
    assert "missing" not in str(raised.value)


def test_the_sweep_takes_what_is_old_and_unknown(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SWEEP_BATCH", 2)
    with database.transaction() as connection:
        add_series(connection, "1.2", "1.2.1")
    names = {}
    for label in ("known", "old", "old too", "old as well", "recent"):
        names[label] = files.keep(received(settings), settings.instances_dir)
        if label != "recent":
            age(settings.instances_dir / names[label], files.ORPHAN_SECONDS + 60)
    with database.transaction() as connection:
        connection.execute(update(instances).values(file=names["known"]))
    abandoned, under_way = received(settings, name="old.part"), received(settings, name="new.part")
    age(abandoned, files.ORPHAN_SECONDS + 60)
    assert files.sweep(settings, database) == 4
    left = {str(path.relative_to(settings.instances_dir)) for path in settings.instances_dir.rglob("*.dcm")}
    assert left == {names["known"], names["recent"]}
    assert list(settings.incoming_dir.iterdir()) == [under_way]
    assert files.sweep(settings, database) == 0


def test_whole_files_without_rows_are_kept_apart_and_not_removed(settings: Settings, database: Database) -> None:
    received = settings.incoming_dir / "transfer.part"
    received.write_bytes(b"not acknowledged, or known to a later backup")
    kept = settings.instances_dir / files.keep(received, settings.instances_dir)
    os.utime(kept, (0, 0))
    assert files.sweep(settings, database) == 1
    assert not kept.exists()
    assert [path.read_bytes() for path in settings.orphans_dir.iterdir()] == [
        b"not acknowledged, or known to a later backup"
    ]


def test_an_instances_directory_belongs_to_one_database(settings: Settings, database: Database) -> None:
    files.claim(settings, database)
    files.claim(settings, database)
    with database.transaction() as connection:
        connection.execute(text("UPDATE installation SET id = gen_random_uuid()"))
    with pytest.raises(SettingsError, match="another database"):
        files.claim(settings, database)
