"""dcmtk as the peer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from dicom_factory import mr_instance
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from stored import files, rows

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, series

pytestmark = pytest.mark.peer

# Without it dcmtk waits for acknowledgements between its small writes.
ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}
PATIENCE_SECONDS = 120
Peer = Callable[[str], str]


def run(*command: object) -> None:
    """A peer's program, which must end well."""
    done = subprocess.run(
        [str(part) for part in command],
        env=ENVIRONMENT,
        timeout=PATIENCE_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def write_series(folder: Path, name: str, count: int, size: int = 32) -> dict[str, bytes]:
    """A series' files below a folder of their own; SOP Instance UID → pixel data."""
    (folder / name).mkdir(parents=True)
    written = {}
    for number in range(count):
        ds = mr_instance(series=name, number=number, size=size)
        ds.save_as(folder / name / f"{number}.dcm", enforce_file_format=True)
        written[str(ds.SOPInstanceUID)] = ds.PixelData
    return written


def pixels(settings: Settings, database: Database) -> dict[str, bytes]:
    """SOP Instance UID → decoded pixel data of what is stored."""
    return {
        row.sop_instance_uid: pydicom.dcmread(settings.instances_dir / row.file).pixel_array.astype("<u2").tobytes()
        for row in rows(database, instances)
    }


def test_echoscu(scp: Settings, peer: Peer) -> None:
    run(peer("echoscu"), "-aec", scp.ae_title, scp.dicom_host, scp.dicom_port)


# Transfer syntax → how to make such files, and how storescu proposes them.
SYNTAXES = {
    ExplicitVRLittleEndian: ([], "-xe"),
    ImplicitVRLittleEndian: ([], "-xi"),
    ExplicitVRBigEndian: ([], "-xb"),
    DeflatedExplicitVRLittleEndian: (["dcmconv", "+td"], "-xd"),
    RLELossless: (["dcmcrle"], "-xr"),
    JPEGLosslessSV1: (["dcmcjpeg"], "-xs"),
    JPEGLSLossless: (["dcmcjpls"], "-xt"),
}


@pytest.mark.parametrize("transfer_syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_storescu_in_a_transfer_syntax(
    scp: Settings, database: Database, peer: Peer, tmp_path: Path, transfer_syntax: UID
) -> None:
    sent = write_series(tmp_path / "out", "s", 5)
    compress, propose = SYNTAXES[transfer_syntax]
    for path in (tmp_path / "out" / "s").iterdir():
        if compress:
            run(peer(compress[0]), *compress[1:], path, path)
    run(peer("storescu"), "-aec", scp.ae_title, propose, "+sd", "+r", scp.dicom_host, scp.dicom_port, tmp_path / "out")
    assert {row.transfer_syntax_uid for row in rows(database, instances)} == {transfer_syntax}
    assert pixels(scp, database) == sent


@pytest.mark.parametrize("pdu", [4096, 16384, 131072])
def test_storescu_with_a_pdu_size(scp: Settings, database: Database, peer: Peer, tmp_path: Path, pdu: int) -> None:
    sent = write_series(tmp_path / "out", "s", 3, size=512)
    limits = ["-pdu", pdu, "--max-send-pdu", pdu]
    run(peer("storescu"), *limits, "-aec", scp.ae_title, "+sd", "+r", scp.dicom_host, scp.dicom_port, tmp_path / "out")
    assert pixels(scp, database) == sent


def test_eight_storescu_at_once(scp: Settings, database: Database, peer: Peer, tmp_path: Path) -> None:
    """Eight associations bring one study, a series each, and one series that all of them bring."""
    sent = {}
    for number in range(8):
        sent |= write_series(tmp_path / f"out{number}", f"series {number}", 10)
        sent |= write_series(tmp_path / f"out{number}", "common", 5)
    command = [peer("storescu"), "-aec", scp.ae_title, "+sd", "+r", scp.dicom_host, str(scp.dicom_port)]
    senders = [
        subprocess.Popen([*command, tmp_path / f"out{number}"], env=ENVIRONMENT, stderr=subprocess.PIPE)
        for number in range(8)
    ]
    for sender in senders:
        _, said = sender.communicate(timeout=PATIENCE_SECONDS)
        assert sender.returncode == 0, said
        assert said == b""
    assert pixels(scp, database) == sent
    assert len(files(scp)) == len(sent) == 85
    assert len(rows(database, series)) == 9
