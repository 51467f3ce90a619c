"""STOW-RS: what is answered with 200 is durable, what is not is answered with its reason, and nothing else is left."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from dicom_factory import mr_instance, uid
from fastapi.testclient import TestClient
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage
from running import START_SECONDS, command, listens, wait_until
from served import Api, listening
from stored import everything, files, rows

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve import stored_parts, stow
from pacs_cbir.serve.app import create_app
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, jobs, patients, studies

DICOM = "application/dicom"
RELATED = f'multipart/related; type="{DICOM}"; boundary=b'
END = b"--b--\r\n"
DOES_NOT_MATCH, CANNOT_UNDERSTAND, PROCESSING_FAILURE = 0xA900, 0xC000, 0x0110
MEGABYTE = 1 << 20


def encoded(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def part(content: bytes, media_type: str = DICOM) -> bytes:
    return b"--b\r\nContent-Type: %s\r\n\r\n%s\r\n" % (media_type.encode(), content)


def body(*data_sets: Dataset) -> bytes:
    return b"".join(part(encoded(ds)) for ds in data_sets) + END


def post(client: TestClient | httpx.Client, content: Any, study: str = "", **headers: str) -> httpx.Response:
    return client.post(
        f"/dicom-web/studies{'/' if study else ''}{study}", content=content, headers={"Content-Type": RELATED} | headers
    )


def module(answer: httpx.Response) -> Dataset:
    """The Store Instances Response Module."""
    assert answer.headers["content-type"] == "application/dicom+json"
    return Dataset.from_json(answer.text)


def failures(answer: httpx.Response) -> dict[str, int]:
    return {item.ReferencedSOPInstanceUID: item.FailureReason for item in module(answer).FailedSOPSequence}


def client_of(settings: Settings, database: Database, decoder: Decoder) -> TestClient:
    """The API with settings of its own."""
    return TestClient(
        create_app(settings, database, Searcher(database, Follower(database, settings.index_dir)), decoder)
    )


def test_instances_of_several_studies_are_stored_as_c_store_stores_them(api: Api) -> None:
    sent = [mr_instance(number=1), mr_instance(number=2), mr_instance(study="other", patient="P2")]
    answer = post(api.client, body(*sent))
    assert answer.status_code == 200
    stored = module(answer)
    assert "FailedSOPSequence" not in stored
    assert "OtherFailuresSequence" not in stored
    assert not stored.RetrieveURL
    assert [item.ReferencedSOPInstanceUID for item in stored.ReferencedSOPSequence] == [
        ds.SOPInstanceUID for ds in sent
    ]
    assert {item.ReferencedSOPClassUID for item in stored.ReferencedSOPSequence} == {MRImageStorage}
    assert stored.ReferencedSOPSequence[0].RetrieveURL.endswith(
        f"/dicom-web/studies/{uid('study')}/series/{uid('study', 'series')}/instances/{sent[0].SOPInstanceUID}"
    )
    kept = rows(api.database, instances)
    assert {row.calling_ae_title for row in kept} == {"STOW-RS"}
    contents = {(api.settings.instances_dir / row.file).read_bytes() for row in kept}
    assert contents == {encoded(ds) for ds in sent}
    assert (len(rows(api.database, studies)), len(rows(api.database, jobs))) == (2, 2)
    assert len(files(api.settings)) == 3


def test_what_is_here_already_is_stored_again_without_a_change(api: Api) -> None:
    assert post(api.client, body(mr_instance())).status_code == 200
    before = everything(api.database, api.settings)
    answer = post(api.client, body(mr_instance()), uid("study"))
    assert answer.status_code == 200
    assert module(answer).RetrieveURL.endswith(f"/dicom-web/studies/{uid('study')}")
    assert everything(api.database, api.settings) == before


def test_one_instance_may_be_the_body_itself(api: Api) -> None:
    assert post(api.client, encoded(mr_instance()), **{"Content-Type": DICOM}).status_code == 200
    assert [row.sop_instance_uid for row in rows(api.database, instances)] == [mr_instance().SOPInstanceUID]
    assert post(api.client, b"", **{"Content-Type": DICOM}).status_code == 400


def test_a_deflated_instance_is_named_in_the_answer_too(api: Api) -> None:
    deflated = mr_instance()
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    answer = post(api.client, body(deflated))
    assert answer.status_code == 200
    assert module(answer).ReferencedSOPSequence[0].ReferencedSOPInstanceUID == mr_instance().SOPInstanceUID


def test_another_study_than_the_paths_is_refused_and_the_others_are_stored(api: Api) -> None:
    mine, other = mr_instance(), mr_instance(study="other")
    answer = post(api.client, body(mine, other), uid("study"))
    assert answer.status_code == 202
    assert failures(answer) == {other.SOPInstanceUID: DOES_NOT_MATCH}
    assert [item.ReferencedSOPInstanceUID for item in module(answer).ReferencedSOPSequence] == [mine.SOPInstanceUID]
    assert len(files(api.settings)) == 1
    answer = post(api.client, body(other), uid("study"))
    assert answer.status_code == 409
    assert failures(answer) == {other.SOPInstanceUID: DOES_NOT_MATCH}
    assert "ReferencedSOPSequence" not in module(answer)


def test_what_is_no_instance_fails_for_itself(api: Api) -> None:
    nameless = mr_instance(SeriesInstanceUID=None)
    cut_off = encoded(mr_instance(number=2))[:-100]
    content = part(b"no DICOM at all") + part(encoded(nameless)) + part(cut_off) + part(encoded(mr_instance())) + END
    answer = post(api.client, content)
    assert answer.status_code == 202
    assert [item.FailureReason for item in module(answer).OtherFailuresSequence] == [CANNOT_UNDERSTAND] * 2
    assert failures(answer) == {mr_instance(number=2).SOPInstanceUID: CANNOT_UNDERSTAND}
    assert len(rows(api.database, instances)) == len(files(api.settings)) == 1
    assert post(api.client, part(b"no DICOM at all") + END).status_code == 409


def test_what_nobody_foresaw_is_a_processing_failure(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError

    with monkeypatch.context() as patched:
        patched.setattr(stored_parts, "ingest", broken)
        answer = post(api.client, body(mr_instance()))
    assert (answer.status_code, failures(answer)) == (409, {mr_instance().SOPInstanceUID: PROCESSING_FAILURE})
    assert files(api.settings) == []


BROKEN: dict[str, tuple[str, bytes, int, str]] = {
    "no part": (RELATED, END, 400, "no instance"),
    "no boundary": (f'multipart/related; type="{DICOM}"', END, 400, "boundary"),
    "another boundary": (RELATED, b"--c\r\n\r\n\r\n--c--\r\n", 400, "boundary"),
    "a picture": (RELATED, part(b"\x89PNG", "image/png") + END, 415, DICOM),
    "metadata and bulk data": ('multipart/related; type="application/dicom+json"; boundary=b', END, 415, DICOM),
    "a form": ("multipart/form-data; boundary=b", END, 415, "multipart/related"),
    "JSON": ("application/json", b"{}", 415, "multipart/related"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_requests_are_refused(api: Api, name: str) -> None:
    media_type, content, status, says = BROKEN[name]
    answer = post(api.client, content, **{"Content-Type": media_type})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert says in answer.json()["detail"]
    assert everything(api.database, api.settings)[1] == {}


def test_what_cannot_be_answered_or_told_apart_is_not_read(api: Api) -> None:
    assert post(api.client, body(mr_instance()), Accept="application/dicom+xml").status_code == 406
    assert post(api.client, body(mr_instance()), "1.2.x").status_code == 400
    assert post(api.client, body(mr_instance()), **{"Content-Encoding": "gzip"}).status_code == 415
    assert rows(api.database, instances) == []


def test_a_body_that_is_cut_off_keeps_what_was_whole(api: Api) -> None:
    answer = post(api.client, part(encoded(mr_instance(number=1))) + part(encoded(mr_instance(number=2)))[:-200])
    assert answer.status_code == 400
    assert [row.sop_instance_uid for row in rows(api.database, instances)] == [mr_instance(number=1).SOPInstanceUID]
    assert len(files(api.settings)) == 1


def test_limits(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_parts, "MAX_INSTANCES", 2)
    answer = post(api.client, body(*(mr_instance(number=number) for number in range(3))))
    assert (answer.status_code, len(rows(api.database, instances))) == (413, 2)
    monkeypatch.setattr(stored_parts, "MAX_INSTANCE_BYTES", 5000)
    assert post(api.client, body(mr_instance(number=5, size=64))).status_code == 413
    assert len(files(api.settings)) == 2


def test_only_listed_senders_may_store(settings: Settings, database: Database, decoder: Decoder) -> None:
    def status(*listed: str) -> int:
        listing = settings.model_copy(update={"calling_ae_titles": listed})
        return post(client_of(listing, database, decoder), body(mr_instance())).status_code

    assert status("PACS") == 403
    assert rows(database, instances) == []
    assert status("PACS", "STOW-RS") == 200


def test_the_sites_issuer_is_that_of_stow_rs(settings: Settings, database: Database, decoder: Decoder) -> None:
    site = settings.model_copy(update={"default_issuers": {"STOW-RS": "HOSPITAL"}})
    assert post(client_of(site, database, decoder), body(mr_instance())).status_code == 200
    assert [row.issuer_of_patient_id for row in rows(database, patients)] == ["HOSPITAL"]


def test_503_while_the_database_is_away(settings: Settings, decoder: Decoder) -> None:
    away = Database("postgresql://nobody@/nothing?host=/tmp/no-such-folder")
    answer = post(client_of(settings, away, decoder), body(mr_instance()))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert files(settings) == []


def test_507_while_the_disk_is_full(settings: Settings, database: Database, decoder: Decoder) -> None:
    full = settings.model_copy(update={"disk_reserve_megabytes": 1 << 30})
    answer = post(client_of(full, database, decoder), body(mr_instance()))
    assert (answer.status_code, rows(database, instances), files(settings)) == (507, [], [])


def test_503_while_the_disk_is_away(api: Api) -> None:
    aside = api.settings.incoming_dir.rename(api.settings.data_dir / "aside")
    assert post(api.client, body(mr_instance())).status_code == 503
    aside.rename(api.settings.incoming_dir)
    assert post(api.client, body(mr_instance())).status_code == 200


def half_sent(url: str) -> socket.socket:
    """A connection on which the first instance is whole, and the second one begun."""
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {RELATED}\r\nContent-Length: 10000000\r\n\r\n"
    connection.sendall(
        head.encode() + part(encoded(mr_instance(number=1))) + part(encoded(mr_instance(number=2)))[:-200]
    )
    return connection


def test_a_sender_that_breaks_off_leaves_what_was_whole_and_no_part(api: Api) -> None:
    with listening(api) as url, httpx.Client(base_url=url) as client:
        connection = half_sent(url)
        wait_until(lambda: len(files(api.settings)) == 2)
        connection.close()
        wait_until(lambda: len(files(api.settings)) == 1)
        assert len(rows(api.database, instances)) == 1
        assert post(client, body(*(mr_instance(number=number) for number in (1, 2)))).status_code == 200
    assert len(rows(api.database, instances)) == len(files(api.settings)) == 2


def test_a_sender_that_falls_silent_is_let_go(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow, "SILENT_SECONDS", 0.3)
    with listening(api) as url:
        connection = half_sent(url)
        connection.settimeout(30)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: len(files(api.settings)) == 1)
        connection.close()


def test_so_many_at_once_and_the_others_are_told_to_come_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(api) as url, httpx.Client(base_url=url) as client:
        connections = [half_sent(url) for _ in range(stow.MAX_STORES)]
        wait_until(lambda: len(files(api.settings)) == 1 + stow.MAX_STORES, 30)
        refused = post(client, body(mr_instance(number=3)))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert client.get("/dicom-web/studies").status_code == 200
        for connection in connections:
            connection.close()
        wait_until(lambda: len(files(api.settings)) == 1, 30)
        assert post(client, body(mr_instance(number=3))).status_code == 200


@pytest.mark.slow
def test_memory_does_not_grow_with_the_study(
    settings: Settings, environment: dict[str, str], database: Database, tmp_path: Path
) -> None:
    big = mr_instance(number=1)
    big.NumberOfFrames, big.Rows, big.Columns = 25, 2048, 2048
    big.PixelData = bytes(25 * 2048 * 2048 * 2)
    content = encoded(big)

    def pieces() -> Iterator[bytes]:
        yield b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        for start in range(0, len(content), MEGABYTE):
            yield content[start : start + MEGABYTE]
        yield b"\r\n" + END

    with command("api", environment, tmp_path / "api.log") as process:
        wait_until(lambda: listens(settings.http_port), START_SECONDS)
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.http_port}", timeout=120) as client:
            assert post(client, body(mr_instance(number=2))).status_code == 200
            memory = psutil.Process(process.pid).memory_info
            before = peak = memory().rss
            done = threading.Event()

            def watch() -> None:
                nonlocal peak
                while not done.wait(0.01):
                    peak = max(peak, memory().rss)

            watcher = threading.Thread(target=watch)
            watcher.start()
            assert post(client, pieces()).status_code == 200
            done.set()
            watcher.join()
    assert peak - before < 30 * MEGABYTE
    assert max(row.file_size for row in rows(database, instances)) == len(content)
