from __future__ import annotations

from pathlib import Path

import pytest

from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.errors import DiskUnavailable


def test_files_are_written_whole(tmp_path: Path) -> None:
    with whole_file(tmp_path / "new" / "file") as file:
        file.write(b"content")
        assert not (tmp_path / "new" / "file").exists()
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_what_was_there_stays_where_the_new_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert [other.name for other in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(DiskUnavailable, match=f"{path.name} cannot be written"), whole_file(path) as file:
            file.write(b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
