"""One contract for every way to find and fetch: Orthanc and dcmtk by C-MOVE and C-GET, Orthanc by DICOMweb."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pydicom
import pytest
from archives import Orthanc, dcmqrscp
from dicom_factory import composite, mr_instance, uid
from pydicom.uid import EnhancedSRStorage, RLELossless
from stored import rows

from pacs_cbir.errors import DiskFull, PeerAway, PeerError, PeerRefuses, PeerSilent, SettingsError
from pacs_cbir.pacs import dicomweb
from pacs_cbir.pacs.archive import Archive, identifier_of, number_of, texts_of
from pacs_cbir.pacs.retrieve import open_archive, peer_with_series, retrieve, retrieve_series
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, series
from tests.conftest import free_port

pytestmark = pytest.mark.peer

HELD = [
    *(mr_instance(series="a", number=number) for number in range(1, 4)),
    *(mr_instance(series="b", number=number) for number in range(1, 3)),
    composite(EnhancedSRStorage, "SR", CompletionFlag="COMPLETE", StudyDate="20240102", StudyTime="101112"),
    mr_instance(patient="P2", study="later", StudyDate="20240203"),
]
STUDY, LATER = str(uid("study")), str(uid("later"))
RETRIEVALS = ("c-move", "c-get", "dicomweb")


PATIENT_ROOT_ALONE = "--no-study-root"
ARCHIVES = [
    *(f"Orthanc {retrieve}" for retrieve in RETRIEVALS),
    *(f"dcmqrscp {retrieve}{option}" for retrieve in ("c-move", "c-get") for option in ("", f" {PATIENT_ROOT_ALONE}")),
]


@pytest.fixture(params=ARCHIVES)
def archive(
    request: pytest.FixtureRequest, scp: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path
) -> Iterator[Archive]:
    program, retrieve, *options = request.param.split()
    if program == "Orthanc":
        pacs: Orthanc = request.getfixturevalue("pacs")
        pacs.add(HELD)
        yield open_archive(pacs.peer(retrieve), scp, database)
        return
    with dcmqrscp(peer, tmp_path / "dcmqrscp", scp, HELD, *options) as theirs:
        yield open_archive(theirs.model_copy(update={"retrieve": retrieve}), scp, database)


def test_studies_are_found_by_date(archive: Archive) -> None:
    keys = {"StudyInstanceUID": "", "StudyDate": "20240101-20240131", "StudyTime": ""}
    found = archive.find("STUDY", keys)
    assert not found.truncated
    assert [identifier_of(answer, "StudyInstanceUID") for answer in found.answers] == [STUDY]
    assert found.answers[0].StudyDate == "20240102"
    assert archive.find("STUDY", keys | {"StudyDate": "20230101-20230131"}).answers == ()


def test_series_and_instances_are_found_below_their_study(archive: Archive) -> None:
    found = archive.find("SERIES", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "", "Modality": ""})
    assert {identifier_of(one, "SeriesInstanceUID"): texts_of(one, "Modality") for one in found.answers} == {
        uid("study", "a"): ("MR",),
        uid("study", "b"): ("MR",),
        uid("study", "SR"): ("SR",),
    }
    keys = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": str(uid("study", "a")), "SOPInstanceUID": ""}
    images = archive.find("IMAGE", keys)
    assert {identifier_of(one, "SOPInstanceUID") for one in images.answers} == {
        uid("study", "a", number) for number in range(1, 4)
    }


def test_a_study_comes_whole_and_alone(archive: Archive, settings: Settings, database: Database) -> None:
    retrieved = retrieve(archive, database, STUDY)
    assert (retrieved.here, retrieved.fetched.completed, retrieved.fetched.failed) == (6, 6, 0)
    sent = {str(ds.SOPInstanceUID): ds for ds in HELD if ds.StudyInstanceUID == STUDY}
    arrived = {row.sop_instance_uid: row for row in rows(database, instances)}
    assert arrived.keys() == sent.keys()
    for name, row in arrived.items():
        kept = pydicom.dcmread(settings.instances_dir / row.file)
        assert kept.get("PixelData") == sent[name].get("PixelData")
        assert kept.PatientID == sent[name].PatientID
    assert {row.calling_ae_title for row in arrived.values()} == {archive.peer.ae_title}
    assert list(settings.incoming_dir.iterdir()) == []


def test_a_series_comes_alone(archive: Archive, settings: Settings, database: Database) -> None:
    assert retrieve_series(archive.peer, STUDY, str(uid("study", "b")), settings, database) == 2
    assert [row.series_instance_uid for row in rows(database, series)] == [uid("study", "b")]


def test_a_series_comes_back_after_its_pixel_data_left(
    archive: Archive, settings: Settings, database: Database
) -> None:
    wanted = str(uid("study", "a"))
    retrieve(archive, database, STUDY)
    with database.transaction() as connection:
        connection.execute(instances.update().values(file=None))
    theirs = peer_with_series(
        STUDY,
        wanted,
        settings.model_copy(update={"peers": {"x": Peer(ae_title="X", host="x", port=1), "pacs": archive.peer}}),
        database,
    )
    assert theirs == archive.peer
    assert retrieve_series(theirs, STUDY, wanted, settings, database) == 3
    with_pixels = [row for row in rows(database, instances) if row.file is not None]
    assert len(with_pixels) == 3
    assert len(rows(database, instances)) == 6


def test_what_the_pacs_does_not_have_is_named(archive: Archive, settings: Settings, database: Database) -> None:
    with pytest.raises(PeerError):
        retrieve_series(archive.peer, STUDY, str(uid("elsewhere")), settings, database)
    assert rows(database, instances) == []


def test_a_pacs_that_is_away_is_named(archive: Archive, settings: Settings, database: Database) -> None:
    port = free_port()
    changed = {"port": port, "dicomweb_url": f"http://127.0.0.1:{port}/dicom-web"}
    away = open_archive(archive.peer.model_copy(update=changed), settings, database)
    for call in (lambda: away.find("STUDY", {"StudyInstanceUID": ""}), lambda: away.fetch(STUDY)):
        with pytest.raises(PeerAway, match=f"{archive.peer.ae_title} at .*{port}.* does not answer"):
            call()


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=x\r\nContent-Length: 9\r\n\r\n--x"]
)
def test_a_study_over_which_a_pacs_falls_silent_does_not_count_as_a_pacs_that_is_away(
    settings: Settings, database: Database, begun: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}/dicom-web"
        theirs = Peer(ae_title="SILENT", retrieve="dicomweb", dicomweb_url=url, timeout_seconds=0.5)
        silent = open_archive(theirs, settings, database)
        answered: list[socket.socket] = []

        def answer() -> None:
            answered.append(listener.accept()[0])
            answered[0].sendall(begun)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PeerSilent, match=r"was silent for 0\.5 s"):
            silent.fetch(STUDY)
        thread.join()
        answered[0].close()
        with pytest.raises(PeerSilent, match=r"was silent for 0\.5 s"):
            silent.find("STUDY", {"StudyInstanceUID": ""})


@pytest.mark.parametrize(("page", "in_doubt"), [(500, False), (2, True)])
def test_a_pacs_that_knows_no_offset_is_in_doubt_where_its_page_is_full(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, *, page: int, in_doubt: bool
) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", page)
    answers = [{"0020000D": {"vr": "UI", "Value": [study]}} for study in (STUDY, LATER)]

    class Qido(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Qido) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        theirs = Peer(ae_title="QIDO", retrieve="dicomweb", dicomweb_url=url)
        found = open_archive(theirs, settings, database).find("STUDY", {"StudyInstanceUID": ""})
        server.shutdown()
    assert [identifier_of(one, "StudyInstanceUID") for one in found.answers] == [STUDY, LATER]
    assert found.truncated is in_doubt


def test_more_answers_by_dicomweb_than_are_read_are_in_doubt(
    pacs: Orthanc, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 2)
    monkeypatch.setattr(dicomweb, "MOST_ANSWERS", 4)
    archive = open_archive(pacs.peer("dicomweb"), settings, database)
    for number, truncated in ((4, None), (5, True)):
        pacs.add(mr_instance(study=str(one)) for one in range(number))
        found = archive.find("STUDY", {"StudyInstanceUID": ""})
        assert (len(found.answers), found.truncated) == (4, truncated)


@pytest.mark.parametrize("way", ["c-get", "dicomweb"])
def test_a_full_disk_takes_nothing_and_is_told(pacs: Orthanc, settings: Settings, database: Database, way: str) -> None:
    pacs.add(HELD)
    full = settings.model_copy(update={"disk_reserve_megabytes": 1 << 40})
    with pytest.raises(DiskFull):
        retrieve(open_archive(pacs.peer(way), full, database), database, STUDY)
    assert rows(database, instances) == []
    assert list(settings.incoming_dir.iterdir()) == []


@pytest.mark.parametrize("way", RETRIEVALS)
def test_compressed_instances_come_as_they_are(pacs: Orthanc, scp: Settings, database: Database, way: str) -> None:
    packed = mr_instance()
    packed.compress(RLELossless, generate_instance_uid=False)
    pacs.add([packed])
    retrieve_series(pacs.peer(way), STUDY, str(uid("study", "series")), scp, database)
    [row] = rows(database, instances)
    assert row.transfer_syntax_uid == RLELossless


def test_a_destination_that_the_pacs_does_not_know_is_told(pacs: Orthanc, scp: Settings, database: Database) -> None:
    pacs.add(HELD)
    stranger = scp.model_copy(update={"ae_title": "STRANGER"})
    with pytest.raises(PeerError, match="do not know our AE title STRANGER"):
        retrieve(open_archive(pacs.peer("c-move"), stranger, database), database, STUDY)


def test_dcmqrscp_says_that_it_does_not_know_where_to_send(
    scp: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path
) -> None:
    stranger = scp.model_copy(update={"ae_title": "STRANGER"})
    with (
        dcmqrscp(peer, tmp_path / "dcmqrscp", scp, HELD) as theirs,
        pytest.raises(PeerRefuses, match=rf"A801H.*STRANGER.*{scp.dicom_port}"),
    ):
        retrieve(open_archive(theirs, stranger, database), database, STUDY)


def test_a_workstation_has_the_pacs_send_us_a_study(
    scp: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path
) -> None:
    movescu = peer("movescu")
    with dcmqrscp(peer, tmp_path / "dcmqrscp", scp, HELD) as theirs:
        titles = ["-aet", "WORKSTATION", "-aec", theirs.ae_title, "-aem", scp.ae_title]
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
        asked = subprocess.run(
            [movescu, "-S", *titles, *keys, theirs.host, str(theirs.port)],
            env=os.environ | {"TCP_NODELAY": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert asked.returncode == 0, asked.stderr
    here = {row.sop_instance_uid for row in rows(database, instances)}
    assert here == {ds.SOPInstanceUID for ds in HELD if ds.StudyInstanceUID == STUDY}


@pytest.mark.parametrize("program", ["Orthanc", "dcmqrscp"])
def test_a_destination_where_nobody_listens_is_told(
    pacs: Orthanc, settings: Settings, database: Database, peer: Callable[[str], str], tmp_path: Path, *, program: str
) -> None:
    pacs.add(HELD)
    with dcmqrscp(peer, tmp_path / "dcmqrscp", settings, HELD) as another:
        theirs = pacs.peer("c-move") if program == "Orthanc" else another
        with pytest.raises(PeerError, match=rf"C-MOVE.*`pacs-cbir scp` running.* {settings.dicom_port}\?"):
            retrieve_series(theirs, STUDY, str(uid("study", "a")), settings, database)


@pytest.mark.parametrize(("folder", "answer"), [("/dicom-wob", "HTTP 404"), ("", "HTTP 400")])
def test_a_url_where_no_dicomweb_starts_is_told(
    pacs: Orthanc, settings: Settings, database: Database, folder: str, answer: str
) -> None:
    pacs.add(HELD)
    wrong = open_archive(pacs.peer("dicomweb", dicomweb_url=f"{pacs.url}{folder}"), settings, database)
    with pytest.raises(PeerError, match=f"{answer}: is dicomweb_url in PACS_CBIR_PEERS"):
        wrong.find("STUDY", {"StudyInstanceUID": ""})


def test_a_url_where_there_are_pages_is_told(settings: Settings, database: Database, tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("<!DOCTYPE html>")
    with HTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        theirs = Peer(ae_title="A", retrieve="dicomweb", dicomweb_url=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(PeerError, match=r"no DICOMweb \(.*is dicomweb_url in PACS_CBIR_PEERS"):
            open_archive(theirs, settings, database).find("STUDY", {"StudyInstanceUID": ""})
        server.shutdown()


def test_a_wrong_called_ae_title_is_told(scp: Settings, database: Database) -> None:
    """Our own SCP rejects it; its presentation contexts lack C-MOVE too."""
    wrong = Peer(ae_title="WRONG", host="127.0.0.1", port=scp.dicom_port)
    with pytest.raises(PeerRefuses, match="its AE title is not WRONG"):
        open_archive(wrong, scp, database).find("STUDY", {"StudyInstanceUID": ""})
    right = Peer(ae_title=scp.ae_title, host="127.0.0.1", port=scp.dicom_port)
    with pytest.raises(PeerRefuses, match=r"does not offer us .*MOVE.*retrieve"):
        open_archive(right, scp, database).fetch(STUDY)


def test_who_has_a_series_is_its_sender_or_the_only_peer(settings: Settings, database: Database) -> None:
    one = Peer(ae_title="ONE", host="one", port=1)
    only = settings.model_copy(update={"peers": {"one": one}})
    assert peer_with_series(STUDY, str(uid("study", "a")), only, database) == one
    two = settings.model_copy(update={"peers": {"one": one, "two": one.model_copy(update={"ae_title": "TWO"})}})
    with pytest.raises(SettingsError, match=r"was sent by nobody.*PACS_CBIR_PEERS"):
        peer_with_series(STUDY, str(uid("study", "a")), two, database)
    assert number_of(pydicom.Dataset(), "NumberOfStudyRelatedInstances") is None
