"""Uploads that mean harm, or are broken: a clear 4xx, nothing left behind, and the others are answered meanwhile."""

from __future__ import annotations

import io
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicom_factory import mr_instance
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from running import wait_until
from served import Api, listening

from pacs_cbir.embed.outside import MAX_INFLATED_BYTES
from pacs_cbir.embed.preprocess import MAX_SLICES
from pacs_cbir.serve.asked import MAX_EXAMPLES
from pacs_cbir.serve.body import MAX_UPLOADS
from pacs_cbir.serve.upload import MAX_FIELD_BYTES, MAX_PARTS
from pacs_cbir.settings import Settings
from pacs_cbir.store import room

DICOM = "application/dicom"
RELATED = f'multipart/related; type="{DICOM}"; boundary=b'
FORM = "multipart/form-data; boundary=b"


@pytest.fixture(autouse=True)
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"upload_megabytes": 8})


@pytest.fixture(autouse=True)
def _nothing_stays(api: Api) -> Iterator[None]:
    api.add("1", "1.1", 0)
    api.add("2", "2.1", 60)
    yield
    assert list(api.settings.uploads_dir.iterdir()) == []


def encoded(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def compressed(syntax: str, frame: bytes, **header: object) -> bytes:
    ds = mr_instance(size=32, **header)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    return encoded(ds)


def with_group_length(whole: bytes, length: int) -> bytes:
    """A file that says another length of its file meta information."""
    return whole[:140] + struct.pack("<I", length) + whole[144:]


def deflated() -> bytes:
    ds = mr_instance(size=32)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return encoded(ds)


def bomb() -> bytes:
    """A deflated data set of a few hundred kB that inflates to more than is read."""
    ds = mr_instance(size=32)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.PixelData = b""
    whole = encoded(ds)
    start = 144 + int.from_bytes(whole[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = zlib.decompress(whole[start:], -zlib.MAX_WBITS).removesuffix(
        struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0)
    )
    size = MAX_INFLATED_BYTES + 2**20
    parts = [deflater.compress(header + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size))]
    zeros = bytes(2**20)
    parts += [deflater.compress(zeros) for _ in range(size // 2**20)]
    return whole[:start] + b"".join(parts) + deflater.flush()


def png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"".join(chunk(name, content) for name, content in (*chunks, (b"IDAT", data)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def good_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.pad(np.full((20, 20), 200, np.uint8), 10)).save(stream, "PNG")
    return stream.getvalue()


def dicom_in_png() -> bytes:
    whole = bytearray(encoded(mr_instance(size=32)))
    whole[:8] = b"\x89PNG\r\n\x1a\n"
    return bytes(whole)


def truncated() -> bytes:
    return encoded(mr_instance(size=32))[:-500]


HOSTILE = {
    "zip bomb": (bomb, "file 1 inflates to more than"),
    "zip bomb behind a false length": (
        lambda: with_group_length(bomb(), 0x7FFFFFFF),
        "file 1 inflates to more than",
    ),
    "4 GB of pixels, plain": (lambda: encoded(mr_instance(size=32, Rows=65535, Columns=32768)), "pixels, and"),
    "4 GB of pixels, compressed": (
        lambda: compressed(JPEG2000Lossless, b"\xff\x4f\xff\x51" + bytes(60), Rows=65535, Columns=65535),
        "pixels, and",
    ),
    "4 GB of pixels, in frames": (
        lambda: encoded(mr_instance(size=32, NumberOfFrames=2_000_000)),
        "pixels, and",
    ),
    "other size than decoded": (lambda: encoded(mr_instance(size=32, Rows=2000, Columns=2000)), "cannot be decoded"),
    "damaged codestream": (lambda: compressed(RLELossless, bytes(64)), "cannot be decoded"),
    "cut off": (truncated, "file 1 is no DICOM instance"),
    "no UIDs": (lambda: encoded(mr_instance(size=32, StudyInstanceUID="1..2/../x")), "StudyInstanceUID is no UID"),
    "polyglot of DICOM and PNG": (dicom_in_png, "PNG and DICOM at once"),
    "PNG bomb by size": (lambda: png(60000, 60000, zlib.compress(bytes(100))), "more than"),
    "PNG whose data lack": (lambda: png(5000, 5000, zlib.compress(bytes(100))), "damaged picture"),
    "PNG with a text bomb": (
        lambda: png(9, 9, zlib.compress(bytes(90)), (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**27), 9))),
        "file 1",
    ),
    "PNG strip": (lambda: png(1, 100_000, zlib.compress(bytes(200_000))), "is a strip"),
    "one colour": (lambda: png(9, 9, zlib.compress(bytes(90))), "file 1: the volume shows nothing"),
    "JPEG of two bytes": (lambda: b"\xff\xd8\xff", "damaged picture"),
    "GIF": (lambda: b"GIF89a" + bytes(200), "is no DICOM file (PS3.10), PNG or JPEG"),
    "nothing": (lambda: b"", "is no DICOM file (PS3.10), PNG or JPEG"),
    "ZIP": (lambda: b"PK\x03\x04" + bytes(400), "is no DICOM file (PS3.10), PNG or JPEG"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_number_and_reason(api: Api, name: str) -> None:
    make, says = HOSTILE[name]
    answer = api.client.post("/similar/studies", files=[("file", ("secret-name.dcm", make()))])
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
    assert says in answer.json()["detail"]
    assert "secret-name" not in answer.text
    assert "Test^" not in answer.text


@pytest.mark.parametrize("length", [0, 10, 1000, 0x7FFFFFFF])
def test_a_false_length_of_the_meta_information_hides_nothing_and_harms_nothing(api: Api, length: int) -> None:
    files = [("file", ("a", with_group_length(deflated(), length)))]
    assert api.client.post("/similar/studies", files=files).status_code in {200, 204}


def stacks(count: int) -> list[bytes]:
    """One instance each of so many series."""
    return [
        encoded(mr_instance("a", "a", str(number), size=32, SeriesDescription="t2_tse_tra")) for number in range(count)
    ]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(lambda: [good_png()] * (MAX_EXAMPLES + 1), id="pictures"),
        pytest.param(lambda: stacks(MAX_EXAMPLES + 1), id="stacks"),
        pytest.param(lambda: [good_png()] * 51 + stacks(50), id="both"),
    ],
)
def test_more_pictures_and_stacks_than_examples_are_refused(api: Api, files: Callable[[], list[bytes]]) -> None:
    contents = files()
    answer = api.client.post("/similar/studies", files=[("file", ("a", content)) for content in contents])
    assert answer.status_code == 422, answer.text
    assert f"more than {MAX_EXAMPLES} pictures" in answer.json()["detail"]
    answer = api.client.post("/similar/studies", files=[("file", ("a", content)) for content in contents[1:]])
    assert answer.status_code in {200, 204}, answer.text


def towers(count: int, rows: int) -> list[bytes]:
    """So many coronal series of 60 mm, fine enough to be resliced, of so many rows that are 5 mm high."""
    pixels = np.zeros((rows, 16), np.uint16)
    pixels[2:-2, 4:12] = 500
    header = {
        "Rows": rows,
        "PixelData": pixels.tobytes(),
        "PixelSpacing": ["5", "5"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "0", "-1"],
        "SliceThickness": "1",
        "SpacingBetweenSlices": "1",
        "SeriesDescription": "t2_tse_cor",
    }
    return [
        encoded(mr_instance("a", "a", str(series), at, ImagePositionPatient=["0", str(at), "0"], **header))
        for series in range(count)
        for at in range(61)
    ]


@pytest.mark.parametrize(("count", "rows"), [(1, 1200), (2, 600)])
def test_more_slices_than_are_drawn_are_refused(api: Api, count: int, rows: int) -> None:
    files = [("file", ("a", content)) for content in towers(count, rows)]
    answer = api.client.post("/similar/studies", files=files)
    assert answer.status_code == 422, answer.text
    assert f"{MAX_SLICES} " in answer.json()["detail"]
    assert "slices" in answer.json()["detail"]


def part(content: bytes, *headers: str) -> bytes:
    return b"--b\r\n" + "".join(f"{header}\r\n" for header in headers).encode() + b"\r\n" + content + b"\r\n"


def form_part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    return part(content, f'Content-Disposition: form-data; name="{name}"{named}')


END = b"--b--\r\n"
FILE = form_part("file", good_png(), "a")
BODIES = {
    "no end": (FORM, FILE, 400, "cut off"),
    "another boundary": (FORM.replace("=b", "=c"), FILE + END, 400, "no multipart/form-data with this boundary"),
    "no boundary": ("multipart/form-data", FILE + END, 400, "needs its boundary"),
    "endless boundary": ("multipart/form-data; boundary=" + "b" * 5000, FILE + END, 400, "with this boundary"),
    "empty": (FORM, b"", 400, "cut off"),
    "no file": (FORM, form_part("example", b"1") + END, 400, "brings no picture"),
    "file by another name": (FORM, form_part("picture", good_png(), "a") + END, 400, "under the name file"),
    "no name": (FORM, part(good_png(), "Content-Disposition: form-data") + END, 400, "has a name"),
    "endless header": (FORM, part(b"", "X: " + "y" * 100_000) + END, 400, "no multipart/form-data"),
    "many headers": (FORM, part(b"", *["X: y"] * 1000) + END, 400, "no multipart/form-data"),
    "no text": (FORM, FILE + form_part("PatientSex", b"\xff\xfe") + END, 400, "no multipart/form-data"),
    "thousands of parts": (FORM, form_part("file", b"", "a") * (MAX_PARTS + 1) + END, 413, "2000 parts"),
    "long fields": (FORM, FILE + form_part("x", b"y" * (MAX_FIELD_BYTES + 1)) + END, 413, "What is no file"),
    "oversize": (FORM, form_part("file", bytes(9 << 20), "a") + END, 413, "PACS_CBIR_UPLOAD_MEGABYTES"),
    "region": (
        FORM,
        FILE + form_part("region", b"0,0,1,1") + form_part("example", b"1/1.1/1.1.1") + END,
        400,
        "region",
    ),
    "thousands of likes": (FORM, FILE + form_part("like", b"1") * 1500 + END, 400, "at most 100"),
    "unknown name": (FORM, FILE + form_part("Nonsense", b"1") + END, 400, "Nonsense"),
    "two sequences": (FORM, FILE + form_part("sequence", b"T1,T2") + END, 400, "compared as one, or as any"),
    "JSON": ("application/json", b"{}", 415, "multipart/related"),
    "mixed": ("multipart/mixed; boundary=b", FILE + END, 415, "multipart/related"),
    "related without type": ("multipart/related; boundary=b", part(b"") + END, 415, DICOM),
    "related XML": ('multipart/related; type="application/dicom+xml"; boundary=b', part(b"") + END, 415, DICOM),
    "related with a PNG part": (RELATED, part(good_png(), "Content-Type: image/png") + END, 415, DICOM),
}


@pytest.mark.parametrize("name", BODIES)
def test_broken_bodies_are_refused(api: Api, name: str) -> None:
    media_type, body, status, says = BODIES[name]
    answer = api.client.post("/similar/series", content=body, headers={"Content-Type": media_type})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert says in answer.json()["detail"]


def test_what_does_not_say_its_length_is_cut_off_too(api: Api) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(9):
            yield bytes(2**20)

    answer = api.client.post("/similar/series", content=pieces(), headers={"Content-Type": FORM})
    assert answer.status_code == 413


def test_parameters_of_related_bodies_are_in_the_url_alone(api: Api) -> None:
    body = part(encoded(mr_instance(size=32)), f"Content-Type: {DICOM}") + END
    asked = {"headers": {"Content-Type": RELATED}, "content": body}
    assert api.client.post("/similar/series?limit=0", **asked).status_code == 400
    assert api.client.post(f"/similar/series?PatientComments={'x' * 9000}", **asked).status_code == 414
    answer = api.client.post("/similar/series?limit=1", content=FILE + END, headers={"Content-Type": FORM})
    assert "in the body" in answer.json()["detail"]


def folders(api: Api) -> list[Path]:
    return list(api.settings.uploads_dir.iterdir())


def test_an_upload_that_trickles_or_breaks_off_leaves_nothing_and_holds_nobody_up(api: Api) -> None:
    with listening(api) as url, httpx.Client(base_url=url) as other:
        port = int(url.rpartition(":")[2])
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for opened in sockets:
            head = (
                f"POST /similar/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 100000\r\n\r\n"
            )
            opened.sendall(head.encode() + form_part("file", b"\x89PNG", "a")[:-2])
        wait_until(lambda: len(folders(api)) == MAX_UPLOADS, 60)
        refused = other.post("/similar/studies", files=[("file", ("a", good_png()))])
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "uploads are under way" in refused.json()["detail"]
        assert other.get("/similar/studies", params={"example": "1"}).status_code == 200
        assert other.get("/health/ready").status_code == 200
        assert len(folders(api)) == MAX_UPLOADS
        for opened in sockets:
            opened.close()
        wait_until(lambda: not folders(api), 60)
        assert other.post("/similar/studies", files=[("file", ("a", good_png()))], timeout=60).status_code < 300


def test_an_upload_leaves_room_on_the_disk(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MEBIBYTE", 2**62)
    answer = api.client.post("/similar/studies", files=[("file", ("a", good_png()))])
    assert (answer.status_code, answer.headers["content-type"]) == (507, "application/problem+json")
    assert "disk full" in answer.json()["detail"]


def test_an_upload_stops_where_the_disk_fills_meanwhile(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces() -> Iterator[bytes]:
        yield form_part("file", b"\x89PNG", "a")
        monkeypatch.setattr(room, "MEBIBYTE", 2**62)
        yield form_part("file", bytes(1000), "b")
        yield bytes(1000)

    with listening(api) as url:
        answer = httpx.post(f"{url}/similar/studies", content=pieces(), headers={"Content-Type": FORM})
    assert answer.status_code == 507
    assert "disk full" in answer.json()["detail"]


def test_short_uploads_at_one_time_are_all_answered(api: Api) -> None:
    with listening(api) as url:

        def send(_: int) -> int:
            return httpx.post(f"{url}/similar/studies", files=[("file", ("a", good_png()))], timeout=120).status_code

        with ThreadPoolExecutor(14) as senders:
            assert set(senders.map(send, range(14))) <= {200, 204}


@pytest.mark.slow
def test_queries_are_answered_beside_bombs(api: Api) -> None:
    heavy, statuses = bomb(), []

    def send(url: str) -> None:
        answer = httpx.post(f"{url}/similar/studies", files=[("file", ("a", heavy))], timeout=120)
        statuses.append(answer.status_code)

    with listening(api) as url, httpx.Client(base_url=url) as other:
        senders = [threading.Thread(target=send, args=(url,)) for _ in range(8)]
        for sender in senders:
            sender.start()
        beside = 0
        while len(statuses) < len(senders):
            assert other.get("/similar/studies", params={"example": "1"}, timeout=30).status_code == 200
            beside += len(statuses) < len(senders)
        for sender in senders:
            sender.join()
        assert beside > 1
        # One is looked at and the others wait; who waits too long is told to come again.
        assert set(statuses) <= {422, 503}
        assert statuses.count(422) >= 5
