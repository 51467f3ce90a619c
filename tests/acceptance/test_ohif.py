"""The extension in OHIF's built viewer, from npm and not changed, in a real Chromium, with Orthanc as the PACS."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archives
import httpx
import pytest
from browser import chromium, pictures_folder, watched
from dicom_factory import multi_frame, uid
from playwright.sync_api import Browser, expect
from pydicom import dcmread
from running import command, listens, wait_until
from viewer import BETA, EXTENSION, PATIENCE_MS, STOCK, WEBGL, Viewer, viewer_site

from pacs_cbir.learn.simulate import SimulatedStudy, simulate_cohort
from tests.conftest import free_port

# The first run fetches two viewers of 50 MB, and the first test waits for the cohort too.
pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(1200)]

START_SECONDS = 300.0
PATIENTS = 4
# Of the second patient, a series and a slice that shows the lesion, and a rectangle over a part of it.
SERIES, SLICES_DOWN = "Ax T2 FLAIR", 10
RECTANGLE = (0.57, 0.35), (0.67, 0.52)
OF_UIDS_ALONE = re.compile(
    r"/pacs-cbir/(similar/studies"
    r"|similar/explain[?]example=[0-9.]+(%2F[0-9.]+)*&match=[0-9.]+(%2F[0-9.]+)*(&region=[0-9C%]+)?"
    r"|dicom-web/studies/[0-9.]+/series/[0-9.]+/instances/[0-9.]+(/frames/[0-9]+)?/rendered[?]viewport=[0-9,]+)"
)


@dataclass(frozen=True)
class Hospital:
    """Orthanc and pacs-cbir, both with the same patients."""

    studies: list[str]
    pacs: archives.Orthanc
    service_port: int
    folder: Path
    peer: Callable[[str], str]

    def wait_for(self, instances: int) -> None:
        """Until so many have been forwarded, and are embedded."""

        def embedded() -> bool:
            status = httpx.get(f"http://127.0.0.1:{self.service_port}/status", timeout=60).json()
            return status["instances"] == instances and status["jobs"]["waiting"] == status["jobs"]["running"] == 0

        wait_until(embedded, START_SECONDS)

    @contextmanager
    def without(self, study: str) -> Iterator[None]:
        """Orthanc has not got a study within the block."""
        with httpx.Client(base_url=self.pacs.url, timeout=60) as client:
            [found] = client.post("/tools/find", json={"Level": "Study", "Query": {"StudyInstanceUID": study}}).json()
            archive = client.get(f"/studies/{found}/archive").content
            client.delete(f"/studies/{found}").raise_for_status()
            yield
            client.post("/instances", content=archive).raise_for_status()

    @contextmanager
    def viewer(self, browser: Browser, version: str) -> Iterator[Viewer]:
        """OHIF before both; at the end it has asked nobody else, nothing went wrong, and no identity was told."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        ports = {"pacs_port": self.pacs.http_port, "service_port": self.service_port}
        with viewer_site(self.peer, folder, version, **ports) as url, watched(browser, url) as seen:
            yield Viewer(seen)
            ours = {asked.removeprefix(url) for asked in seen.requests if asked.startswith(f"{url}/pacs-cbir")}
            assert [asked for asked in ours if not OF_UIDS_ALONE.fullmatch(asked)] == []
            assert "/pacs-cbir/similar/studies" in ours
            log = (folder / "access.log").read_text()
            assert "/dicom-web/studies" in log
            assert "?" not in log


@pytest.fixture(scope="module")
def browser(peer: Callable[[str], str]) -> Iterator[Browser]:
    with chromium(peer("chromium"), *WEBGL) as opened:
        yield opened


@pytest.fixture(scope="module")
def hospital(peer: Callable[[str], str]) -> Iterator[Hospital]:
    """Orthanc, which forwards what it gets as deploy/orthanc/ has it, and `pacs-cbir serve`."""
    for program in ("npm", "nginx"):
        peer(program)
    folder = Path(tempfile.mkdtemp(prefix="cbir-", dir="/tmp"))
    dicom, http = free_port(), free_port()
    environment = os.environ | {
        "PACS_CBIR_DATA_DIR": str(folder / "data"),
        "PACS_CBIR_DICOM_PORT": str(dicom),
        "PACS_CBIR_HTTP_PORT": str(http),
        "PACS_CBIR_SETTLE_SECONDS": "0.5",
    }
    url = f"http://127.0.0.1:{http}"
    with (
        command("serve", environment, folder / "log"),
        archives.orthanc(peer, folder / "orthanc", {"PACS_CBIR_DICOM_PORT": str(dicom)}, StableAge=1) as pacs,
        httpx.Client(base_url=pacs.url, timeout=60) as client,
    ):
        wait_until(lambda: listens(http) and httpx.get(f"{url}/health/ready").is_success, START_SECONDS)
        cohort: list[SimulatedStudy] = []
        for study in simulate_cohort(folder / "cohort", patients=PATIENTS, seed=20261123):
            for path in sorted(study.folder.rglob("*.dcm")):
                client.post("/instances", content=path.read_bytes()).raise_for_status()
            cohort.append(study)

        hospital = Hospital([study.study_instance_uid for study in cohort], pacs, http, folder, peer)
        hospital.wait_for(sum(study.instances for study in cohort))
        yield hospital
    shutil.rmtree(folder)


def test_from_a_slice_to_its_like_two_up(hospital: Hospital, browser: Browser) -> None:
    with hospital.viewer(browser, STOCK) as viewer:
        example_study = hospital.studies[1]
        viewer.open(example_study)
        example = viewer.load(SERIES, SLICES_DOWN)
        found = viewer.find()
        assert viewer.asked[-1]["example"] == [example.name]
        assert "region" not in viewer.asked[-1]
        ranked(viewer, found, example_study)

        like = viewer.matches.first.get_by_role("button", name="Like", exact=True)
        liked = viewer.answer(like.click)
        best = found[0]
        [series] = best["series"]
        slice_ = f"{best['StudyInstanceUID']}/{series['SeriesInstanceUID']}/{series['slice']['SOPInstanceUID']}"
        assert viewer.asked[-1]["like"] == [f"{slice_}/{series['slice']['frame']}"]
        expect(viewer.matches.first.get_by_role("button", name="Like", exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
        assert liked[0]["StudyInstanceUID"] == best["StudyInstanceUID"]

        viewer.matches.first.get_by_role("button", name="beside the example").click()
        two_up(viewer, liked[0], example.series)
        scrolled_together(viewer)
        viewer.shot(pictures_folder() / "ohif-slice.png")


def test_a_rectangle_is_the_example_and_its_heat_map_is_shown(hospital: Hospital, browser: Browser) -> None:
    with hospital.viewer(browser, STOCK) as viewer:
        viewer.open(hospital.studies[1])
        example = viewer.load(SERIES, SLICES_DOWN)
        viewer.draw_rectangle(*RECTANGLE)
        found = viewer.find()
        assert viewer.asked[-1]["example"] == [example.name]
        corners = viewer.corners()
        first = [min(corner[axis] for corner in corners) for axis in (0, 1)]
        last = [max(corner[axis] for corner in corners) for axis in (0, 1)]
        [region] = viewer.asked[-1]["region"]
        box = [int(edge) for edge in region.split(",")]
        assert [box[0] <= first[0] < box[0] + 1, box[1] <= first[1] < box[1] + 1] == [True, True]
        assert [box[2] - 1 < last[0] <= box[2], box[3] - 1 < last[1] <= box[3]] == [True, True]
        ranked(viewer, found, hospital.studies[1])

        best = viewer.matches.first
        best.get_by_role("button", name="Heat map").click()
        heat = best.get_by_role("img", name="Heat maps of the example and of match 1")
        expect(heat).to_be_visible(timeout=PATIENCE_MS)
        assert heat.evaluate("(image) => image.naturalWidth / image.naturalHeight") == 2
        best.get_by_role("button", name="beside the example").click()
        two_up(viewer, found[0], example.series)
        viewer.seen.settled()
        viewer.shot(pictures_folder() / "ohif.png")


def test_by_the_whole_study_with_filters_unlike_and_a_match_that_the_pacs_lacks(
    hospital: Hospital, browser: Browser
) -> None:
    with hospital.viewer(browser, STOCK) as viewer:
        viewer.open(hospital.studies[1])
        viewer.find()
        found = viewer.answer(viewer.panel.get_by_role("button", name="Whole study").click)
        assert viewer.asked[-1]["example"] == [hospital.studies[1]]
        sequences = [series["sequence"] for series in found[0]["series"]]
        assert sorted(sequences) == ["FLAIR", "T1", "T1CE", "T2"]
        bars = viewer.matches.first.get_by_role("list", name="Similarity by sequence").get_by_role("button")
        expect(bars).to_have_count(len(sequences))

        viewer.panel.locator("summary").click()
        viewer.seen.settled()
        viewer.seen.accessible(".pacs-cbir")
        everything = viewer.answer(lambda: viewer.panel.get_by_label("Similarity of at least").fill("-1"))
        assert len(everything) == PATIENTS - 1
        some = viewer.answer(viewer.panel.get_by_label("T1CE", exact=True).uncheck)
        assert viewer.asked[-1]["sequence"] == ["T1,T2,FLAIR"]
        assert all("T1CE" not in {series["sequence"] for series in match["series"]} for match in some)
        age = int(str(some[0]["PatientAge"])[:3])
        older = viewer.answer(lambda: viewer.panel.get_by_label("Age from").fill(str(age)))
        assert viewer.asked[-1]["PatientAge"] == [f"{age:03}Y-"]
        assert {match["StudyInstanceUID"] for match in older} == {
            match["StudyInstanceUID"] for match in some if int(str(match["PatientAge"])[:3]) >= age
        }
        again = viewer.answer(viewer.panel.get_by_role("button", name="Clear filters").click)
        assert [match["StudyInstanceUID"] for match in again] == [match["StudyInstanceUID"] for match in found]

        without = viewer.answer(viewer.matches.first.get_by_role("button", name="Unlike").click)
        assert viewer.asked[-1]["unlike"] == [found[0]["StudyInstanceUID"]]
        assert found[0]["StudyInstanceUID"] not in {match["StudyInstanceUID"] for match in without}
        viewer.answer(viewer.panel.get_by_role("button", name="Take back").click)
        assert "unlike" not in viewer.asked[-1]

        bars.nth(1).click()
        two_up(viewer, found[0], found[0]["series"][1]["like"], index=1)

        lost = str(found[-1]["StudyInstanceUID"])
        with hospital.without(lost):
            viewer.matches.last.get_by_role("button", name="beside the example").click()
            viewer.seen.page.get_by_text("has not got this series").wait_for()
        assert lost not in {shown.study for shown in viewer.there()}


def test_the_beta_loads_the_same_bundle(hospital: Hospital, browser: Browser) -> None:
    with hospital.viewer(browser, BETA) as viewer:
        viewer.open(hospital.studies[1])
        example = viewer.load(SERIES, SLICES_DOWN)
        found = viewer.find()
        assert viewer.asked[-1]["example"] == [example.name]
        ranked(viewer, found, hospital.studies[1])
        viewer.matches.first.get_by_role("button", name="beside the example").click()
        two_up(viewer, found[0], example.series)


def test_the_site_says_where_it_is_asked_and_ohif_by_whom(hospital: Hospital, browser: Browser) -> None:
    ports = {"pacs_port": hospital.pacs.http_port, "service_port": hospital.service_port}
    config = (EXTENSION / "app-config.js").read_text().replace("$set: '/pacs-cbir'", "$set: '/elsewhere'")
    with viewer_site(hospital.peer, hospital.folder / "site", STOCK, **ports) as url, watched(browser, url) as seen:
        seen.page.route("**/app-config.js", lambda route: route.fulfill(body=config, content_type="text/javascript"))
        viewer = Viewer(seen)
        viewer.open(hospital.studies[0], token="t0k3n")
        with seen.page.expect_request("**/elsewhere/similar/studies") as asked:
            seen.page.locator("[data-cy='SimilarStudies']").click()
        assert asked.value.headers["authorization"] == "Bearer t0k3n"
        # Nothing answers there, and the panel says so.
        expect(viewer.panel.get_by_role("alert")).to_contain_text("pacs-cbir refused")


def test_the_services_own_page_is_there_under_the_prefix(hospital: Hospital, browser: Browser) -> None:
    ports = {"pacs_port": hospital.pacs.http_port, "service_port": hospital.service_port}
    with (
        viewer_site(hospital.peer, hospital.folder / "page", STOCK, **ports) as url,
        watched(browser, f"{url}/pacs-cbir/") as seen,
    ):
        seen.open()
        expect(seen.page.get_by_role("row")).to_have_count(PATIENTS + 1)
        seen.page.get_by_role("row").nth(1).get_by_role("button").click()
        seen.drawn()
        assert seen.page.evaluate("window.crossOriginIsolated")


def test_frames_of_one_instance_are_told_apart(hospital: Hospital, browser: Browser) -> None:
    """Enhanced MR: the same head once more, of another patient, whose slices are frames."""
    folders = sorted(path for path in (hospital.folder / "cohort").iterdir() if path.is_dir())
    slices = [dcmread(path) for path in sorted((folders[1] / "FLAIR").glob("*.dcm"))]
    assert slices[0].StudyInstanceUID == hospital.studies[1]
    hospital.pacs.add([multi_frame(slices, "MULTI", "multi-frame")])
    hospital.wait_for(sum(len(list(folder.rglob("*.dcm"))) for folder in folders) + 1)
    with hospital.viewer(browser, STOCK) as viewer:
        viewer.open(hospital.studies[1])
        example = viewer.load(SERIES, SLICES_DOWN)
        [slice_] = [number for number, one in enumerate(slices, start=1) if one.SOPInstanceUID == example.instance]
        found = viewer.find()
        assert found[0]["StudyInstanceUID"] == str(uid("multi-frame"))
        viewer.matches.first.get_by_role("button", name="beside the example").click()
        two_up(viewer, found[0], example.series)
        viewer.until(lambda: viewer.there()[1].frame == slice_)
        scrolled_together(viewer)
        there = viewer.there()[1]
        viewer.seen.page.locator(".cornerstone-viewport-element").nth(1).click()
        viewer.find()
        assert viewer.asked[-1]["example"] == [f"{there.name}/{there.frame}"]


def ranked(viewer: Viewer, found: list[dict[str, Any]], example_study: str) -> None:
    """What was answered is shown in its order, each with its slice, and the example's own patient is not in it."""
    assert found
    similarities = [match["similarity"] for match in found]
    assert similarities == sorted(similarities, reverse=True)
    studies = [match["StudyInstanceUID"] for match in found]
    assert example_study not in studies
    assert [one.get_attribute("data-study") for one in viewer.matches.all()] == studies
    for rank in range(1, len(found) + 1):
        picture = viewer.panel.get_by_role("img", name=f"Slice of match {rank}", exact=True)
        expect(picture).to_be_visible(timeout=PATIENCE_MS)
        assert picture.evaluate("(image) => image.naturalWidth") > 0


def two_up(viewer: Viewer, match: dict[str, Any], example_series: str, index: int = 0) -> None:
    """The example on the left and the match on the right, at the slices that the answer says are alike."""
    series = match["series"][index]
    slice_ = series["slice"]
    wanted = [
        (example_series, slice_["like"]["SOPInstanceUID"]),
        (series["SeriesInstanceUID"], slice_["SOPInstanceUID"]),
    ]
    assert series["like"] == example_series
    viewer.until(lambda: [one and (one.series, one.instance) for one in viewer.shown()] == wanted)
    assert viewer.there()[1].study == match["StudyInstanceUID"]


def scrolled_together(viewer: Viewer) -> None:
    """Scrolling the example scrolls the match as far, in mm, to the nearest of its slices."""
    before = viewer.there()
    viewer.scroll(3)
    viewer.until(lambda: viewer.there()[1] != before[1])
    viewer.seen.page.wait_for_timeout(1000)
    after = viewer.there()
    moved = [now.z - then.z for now, then in zip(after, before, strict=True)]
    assert abs(moved[0]) > 10
    # Their slices are 5 to 6 mm apart, and tilted a little.
    assert moved[1] == pytest.approx(moved[0], abs=4)
