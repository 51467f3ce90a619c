"""Pictures over HTTP, decoded in the child process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from arriving import arrive
from dicom_factory import mr_instance
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from served import Api
from stored import let_go

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.thumbnail import EDGE
from pacs_cbir.serve.rendered import WINDOW_FIELD
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.tables import thumbnails
from pacs_cbir.worker import Worker

BASE = "/dicom-web/studies/1.2/series/1.3/instances"
PNG = {"Accept": "image/png"}


def send(api: Api, uid: str, pixels: npt.NDArray[Any] | None, **header: object) -> None:
    """Have an instance received."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (
        MRImageStorage,
        UID(uid),
        "1.2",
        "1.3",
    )
    ds.Modality = "MR"
    if pixels is not None:
        ds.Rows, ds.Columns = pixels.shape[-2:]
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.SamplesPerPixel, ds.PixelRepresentation = 15, 1, 0
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelData = pixels.astype("<u2").tobytes()
    for keyword, value in header.items():
        setattr(ds, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uid)
    path = api.settings.incoming_dir / f"{uid}.dcm"
    FileDataset(str(path), ds, file_meta=meta, preamble=b"\0" * 128).save_as(path, enforce_file_format=True)
    ingest(path, Source("TEST"), api.database, api.settings)


def picture(api: Api, path: str, **parameters: str) -> npt.NDArray[np.uint8]:
    answer = api.client.get(BASE + path, params=parameters, headers=PNG)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_the_headers_window(api: Api) -> None:
    send(api, "1.4", np.array([[0, 100], [160, 200]]), WindowCenter="150.5", WindowWidth="101")
    assert picture(api, "/1.4/rendered").tolist() == [[0, 0], [153, 255]]


def test_pixel_data_that_has_left(api: Api) -> None:
    send(api, "1.4", np.zeros((2, 2)))
    let_go(api.database, api.settings)
    for path in ("/1.4/rendered", "/1.4/frames/1/rendered"):
        answer = api.client.get(BASE + path)
        assert (answer.status_code, answer.json()["type"]) == (410, "urn:pacs-cbir:problem:pixel-data-gone")
        assert "TEST sent it" in answer.json()["detail"]


def test_a_small_picture_stands_for_pixel_data_that_has_left(api: Api, decoder: Decoder) -> None:
    paths = []
    for number in (1, 2, 3):
        ds = mr_instance(number=number, size=256)
        paths.append(
            f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
        )
        arrive(api.database, api.settings, ds, sender="ARCHIVE")
    assert Worker(api.settings, api.database, decoder).work_once()
    whole = api.client.get(f"{paths[0]}/rendered", headers=PNG, params={"viewport": "64,64"})
    assert "warning" not in whole.headers
    let_go(api.database, api.settings)
    for path in (f"{paths[0]}/rendered", f"{paths[0]}/frames/1/rendered"):
        answer = api.client.get(path, headers=PNG, params={"viewport": "64,64", "window": "1,2,linear"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert "pixel data is no longer here; ARCHIVE sent it" in answer.headers["warning"]
        assert WINDOW_FIELD not in answer.headers
        one, other = (np.asarray(Image.open(io.BytesIO(found.content)), float) for found in (whole, answer))
        assert np.abs(one - other).mean() < 6
    small = api.client.get(f"{paths[0]}/rendered", headers=PNG)
    assert Image.open(io.BytesIO(small.content)).size == (EDGE, EDGE)
    # Of what was not embedded there is none.
    with api.database.transaction() as connection:
        connection.execute(thumbnails.delete())
    assert api.client.get(f"{paths[0]}/rendered").status_code == 410


def test_percentiles_where_there_is_no_window(api: Api) -> None:
    ramp = np.arange(10000).reshape(100, 100)
    ramp[0, 0] = 65535
    send(api, "1.4", ramp)
    drawn = picture(api, "/1.4/rendered")
    assert (drawn[0, 0], drawn[0, 1], drawn[-1, -1]) == (255, 0, 255)
    assert abs(int(drawn[50, 0]) - 128) <= 2


def test_another_window_is_of_rescaled_values(api: Api) -> None:
    send(api, "1.4", np.array([[0, 55], [80, 100]]), RescaleSlope="2", RescaleIntercept="-10", WindowCenter="0")
    assert picture(api, "/1.4/rendered", window="90,200,linear-exact").tolist() == [[0, 140], [204, 255]]
    assert picture(api, "/1.4/frames/1/rendered", window="90.5,201,linear").tolist() == [[0, 140], [204, 255]]
    sigmoid = picture(api, "/1.4/rendered", window="90,200,sigmoid")
    assert (sigmoid[0, 1], sigmoid[1, 1]) == tuple(round(255 / (1 + np.exp(-x))) for x in (0.2, 2))


def test_the_answer_says_which_window_it_was_drawn_with(api: Api) -> None:
    send(api, "1.4", np.arange(64).reshape(8, 8), WindowCenter="30", WindowWidth="20")
    send(api, "1.5", np.arange(101).reshape(1, 101))

    def said(uid: str, **parameters: str) -> str:
        return api.client.get(f"{BASE}/{uid}/rendered", params=parameters).headers["pacs-cbir-window"]

    assert said("1.4") == "30,20,linear"
    assert said("1.5") == "50,98,linear-exact"
    assert said("1.4", window="7,0.25,sigmoid") == "7,0.25,sigmoid"


def test_a_window_that_is_none_is_refused(api: Api) -> None:
    send(api, "1.4", np.zeros((2, 2)))
    for window in ("", "1,2", "1,2,linear,3", "a,2,linear", "1,0,linear-exact", "1,0.5,linear", "nan,1,linear",
                   "1,inf,linear", "1e300,1,linear", "1,2,cubic", "1,-5,sigmoid", "1,1e-300,sigmoid"):  # fmt: skip
        answer = api.client.get(f"{BASE}/1.4/rendered", params={"window": window})
        assert answer.status_code == 400, window
        assert "centre,width,function" in answer.json()["detail"]


def test_jpeg_is_the_default(api: Api) -> None:
    send(api, "1.4", np.arange(64).reshape(8, 8))
    for accept in ("*/*", "image/*", "image/avif,image/webp,*/*;q=0.8"):
        answer = api.client.get(f"{BASE}/1.4/rendered", headers={"Accept": accept})
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    assert api.client.get(f"{BASE}/1.4/rendered", headers={"Accept": "video/mp4"}).status_code == 406


def test_frames(api: Api) -> None:
    frames = np.stack([np.full((4, 4), value) for value in (0, 120, 200)])
    send(api, "1.4", frames, NumberOfFrames=3, WindowCenter="100.5", WindowWidth="201")
    assert [picture(api, f"/1.4/frames/{number}/rendered")[0, 0] for number in (1, 2, 3)] == [0, 153, 255]
    assert picture(api, "/1.4/rendered")[0, 0] == 153
    assert api.client.get(f"{BASE}/1.4/frames/4/rendered").status_code == 404
    assert api.client.get(f"{BASE}/1.4/frames/0/rendered").status_code == 400


def test_the_viewport_keeps_the_proportions(api: Api) -> None:
    send(api, "1.4", np.arange(800).reshape(20, 40))
    assert picture(api, "/1.4/rendered", viewport="100,100").shape == (50, 100)
    assert picture(api, "/1.4/rendered", viewport="10,1").shape == (1, 2)


def test_other_viewports_are_refused(api: Api) -> None:
    send(api, "1.4", np.zeros((2, 2)))
    for viewport in ("", "1", "0,1", "a,b", "5000,1", "1,1,1,1", "-1,5"):
        answer = api.client.get(f"{BASE}/1.4/rendered", params={"viewport": viewport})
        assert answer.status_code == 400, viewport
    assert api.client.get(f"{BASE}/1.4/rendered?viewport=10,10&viewport=20,20").status_code == 400


def test_what_is_no_picture_is_said(api: Api) -> None:
    send(api, "1.4", None)
    send(api, "1.5", np.zeros((2, 2)), Rows=4000)
    for uid in ("1.4", "1.5"):
        answer = api.client.get(f"{BASE}/{uid}/rendered")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    send(api, "1.6", np.zeros((2, 2)))
    assert picture(api, "/1.6/rendered").shape == (2, 2)


def test_what_is_not_here_is_not_found(api: Api) -> None:
    send(api, "1.4", np.zeros((2, 2)))
    for path in (f"{BASE}/9.9/rendered", "/dicom-web/studies/1.2/series/9.9/instances/1.4/rendered"):
        answer = api.client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_file_that_is_gone_is_no_crash(api: Api) -> None:
    send(api, "1.4", np.zeros((2, 2)))
    for file in Path(api.settings.instances_dir).rglob("*.dcm"):
        file.unlink()
    assert api.client.get(f"{BASE}/1.4/rendered").status_code == 410
