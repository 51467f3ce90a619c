"""Uploads are on disk for one request, whoever ends how."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pacs_cbir.errors import DiskUnavailable
from pacs_cbir.settings import Settings
from pacs_cbir.store.uploads import purge_uploads, upload_folder


def test_a_folder_is_gone_after_its_block_however_that_ends(settings: Settings) -> None:
    with upload_folder(settings) as folder:
        (folder / "000001").write_bytes(b"picture")
        assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileNotFoundError), upload_folder(settings) as folder:
        (folder / "000001").rename(folder / "000002" / "nowhere")
    assert list(settings.uploads_dir.iterdir()) == []


def test_what_a_killed_process_left_is_purged_and_what_is_in_use_stays(settings: Settings) -> None:
    code = f"""
import os, signal
from pathlib import Path
from pacs_cbir.settings import load_settings
from pacs_cbir.store.uploads import upload_folder
with upload_folder(load_settings(data_dir=Path({str(settings.data_dir)!r}))) as folder:
    (folder / "000001").write_bytes(b"picture")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(settings.uploads_dir.rglob("000001"))) == 1
    with upload_folder(settings) as used:
        assert purge_uploads(settings) == 1
        assert list(settings.uploads_dir.iterdir()) == [used]
    assert purge_uploads(settings) == 0


def test_a_disk_that_is_away_is_said(settings: Settings) -> None:
    settings.uploads_dir.rmdir()
    with pytest.raises(DiskUnavailable), upload_folder(settings):
        pass
