"""OHIF as the peer: its built viewer from npm, our extension as `npm run build` makes it, and nginx over both."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from browser import Watched
from PIL import Image
from playwright.sync_api import Locator, Request, Response
from running import START_SECONDS, listens, wait_until

from tests.conftest import free_port

ROOT = Path(__file__).parents[1]
EXTENSION = ROOT / "deploy" / "ohif"
CACHE = ROOT / ".cache" / "ohif"
STOCK, BETA = "3.13.2", "3.14.0-beta.6"
NPM_SECONDS = 600
# Chromium's own software renderer: OHIF draws by WebGL, and CI has no GPU.
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE_MS = 90_000
LOOK_MS = 100
# Two clicks of a wheel; OHIF takes closer ones for one.
WHEEL_MS = 60
QUERY = "/pacs-cbir/similar/studies"
# What OHIF shows, from itself: services and cornerstone are globals of its stock builds.
_SHOWN = """() => [...window.services.viewportGridService.getState().viewports.keys()].map((id) => {
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const imageId = viewport?.getCurrentImageId?.();
  const instance = imageId && window.cornerstone.metaData.get('instance', imageId);
  return instance ? [instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.SOPInstanceUID,
                     Number(imageId.split('/').at(-1)),
                     window.cornerstone.metaData.get('imagePlaneModule', imageId).imagePositionPatient[2]] : null;
})"""
_INDEX = """() => window.services.cornerstoneViewportService.getCornerstoneViewport(
  [...window.services.viewportGridService.getState().viewports.keys()][0]).getCurrentImageIdIndex()"""


@dataclass(frozen=True)
class Shown:
    """What one viewport shows: a frame, from 1, and where it lies along the patient's axis, in mm."""

    study: str
    series: str
    instance: str
    frame: int
    z: float

    @property
    def name(self) -> str:
        """As `example` takes it."""
        return f"{self.study}/{self.series}/{self.instance}"


@dataclass
class Viewer:
    """OHIF in a page, and what passed between the extension and pacs-cbir.

    Attributes:
        asked: the parameters of each query, in turn.
        answered: what each was answered with.
    """

    seen: Watched
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    answered: list[list[dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen from now on."""

        def sent(request: Request) -> None:
            if request.url.endswith(QUERY):
                self.asked.append(parse_qs(request.post_data or ""))

        def came(response: Response) -> None:
            if response.url.endswith(QUERY):
                self.answered.append(response.json() if response.status == 200 else [])

        self.seen.page.set_default_timeout(PATIENCE_MS)
        self.seen.page.on("request", sent)
        self.seen.page.on("response", came)

    @property
    def panel(self) -> Locator:
        """Ours."""
        return self.seen.page.locator(".pacs-cbir")

    @property
    def matches(self) -> Locator:
        """In their order."""
        return self.panel.get_by_role("list", name="Matches", exact=True).locator("> li")

    def open(self, study: str, token: str = "") -> None:
        """A study, as a person comes to it for the first time, with OHIF's tour and its notice closed.

        Args:
            token: of whoever is logged in, as a portal hands it to OHIF.
        """
        page = self.seen.page
        page.goto(f"{self.seen.url}/viewer?StudyInstanceUIDs={study}{token and f'&token={token}'}")
        page.get_by_text("Skip all").click()
        page.get_by_text("Confirm and hide").click()
        self.until(lambda: self.shown() != [None])

    def load(self, series: str, downwards: int) -> Shown:
        """A series of the open study by its description, and so many slices down."""
        page = self.seen.page
        before = self.shown()
        page.get_by_text(series, exact=True).first.dblclick()
        self.until(lambda: None not in self.shown() and self.shown() != before)
        self.scroll(downwards)
        return self.there()[0]

    def scroll(self, slices: int) -> None:
        """In the first viewport, by the wheel."""
        page = self.seen.page
        page.locator(".cornerstone-viewport-element").first.hover()
        wanted = page.evaluate(_INDEX) + slices
        for _ in range(slices):
            page.mouse.wheel(0, 100)
            page.wait_for_timeout(WHEEL_MS)
        self.until(lambda: page.evaluate(_INDEX) == wanted)

    def draw_rectangle(self, corner: tuple[float, float], opposite: tuple[float, float]) -> None:
        """With OHIF's own tool, in shares of the first viewport's width and height."""
        page = self.seen.page
        page.locator("[data-cy='MeasurementTools-split-button-secondary']").click()
        page.locator("[data-cy='RectangleROI']").first.click()
        box = page.locator(".cornerstone-viewport-element").first.bounding_box()
        assert box is not None
        ends = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (corner, opposite)]
        page.mouse.move(*ends[0])
        page.mouse.down()
        page.mouse.move(*ends[1], steps=8)
        page.mouse.up()

    def find(self) -> list[dict[str, Any]]:
        """By the toolbar's button; returns what was answered."""
        return self.answer(lambda: self.seen.page.locator("[data-cy='SimilarStudies']").click())

    def answer(self, act: Callable[[], None]) -> list[dict[str, Any]]:
        """To what an act asks, once it is shown."""
        before = len(self.answered)
        act()
        self.until(lambda: len(self.answered) > before)
        answer = self.answered[-1]
        self.until(lambda: self.matches.count() == len(answer))
        return answer

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for what no locator can be asked; OHIF takes its time without a GPU."""
        for _ in range(PATIENCE_MS // LOOK_MS):
            if happened():
                return
            self.seen.page.wait_for_timeout(LOOK_MS)
        raise AssertionError(f"it did not happen within {PATIENCE_MS} ms")

    def shown(self) -> list[Shown | None]:
        """By viewport, from left to right."""
        return [None if one is None else Shown(*one) for one in self.seen.page.evaluate(_SHOWN)]

    def there(self) -> list[Shown]:
        """The same, where all viewports show something."""
        shown = [one for one in self.shown() if one is not None]
        assert shown
        return shown

    def corners(self) -> list[list[float]]:
        """Of the last rectangle, columns and rows in its picture, by cornerstone's own reckoning."""
        found: list[list[float]] = self.seen.page.evaluate(
            """() => {
              const drawn = window.services.measurementService.getMeasurements().at(-1);
              return drawn.points.map((point) =>
                [...window.cornerstone.utilities.worldToImageCoords(drawn.referencedImageId, point)]);
            }"""
        )
        return found

    def shot(self, path: Path) -> None:
        """Keep a picture of all that is shown, in few colours."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = Image.open(io.BytesIO(self.seen.page.screenshot()))
        shot.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, kmeans=6).save(path, optimize=True)


def built_viewer(npm: str, version: str) -> Path:
    """OHIF's built viewer, fetched once; nothing of it is changed."""
    folder = CACHE / version
    dist = folder / "package" / "dist"
    if not dist.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        part = folder / "part"
        part.mkdir(parents=True)
        _run(npm, "pack", "--silent", f"@ohif/app@{version}", cwd=folder)
        (packed,) = folder.glob("*.tgz")
        with tarfile.open(packed) as archive:
            archive.extractall(part, filter="data")
        packed.unlink()
        (part / "package").rename(folder / "package")
    return dist


def built_extension(npm: str) -> Path:
    """The extension, type-checked and bundled as a person does it."""
    if not (EXTENSION / "node_modules").is_dir():
        _run(npm, "ci", "--no-audit", "--no-fund", cwd=EXTENSION)
    _run(npm, "run", "build", cwd=EXTENSION)
    return EXTENSION / "dist"


@contextmanager
def viewer_site(
    peer: Callable[[str], str], folder: Path, version: str, *, pacs_port: int, service_port: int
) -> Iterator[str]:
    """OHIF, an archive's DICOMweb and pacs-cbir under one origin, with the files that we hand out; yields its URL."""
    npm, nginx = peer("npm"), peer("nginx")
    port = free_port()
    (folder / "tmp").mkdir(parents=True)
    for name in ("nginx.conf", "app-config.js"):
        shutil.copy(EXTENSION / name, folder)
    (folder / "viewer").symlink_to(built_viewer(npm, version))
    (folder / "extension").symlink_to(built_extension(npm))
    (folder / "site.conf").write_text(
        f"listen 127.0.0.1:{port};\nset $pacs 127.0.0.1:{pacs_port};\nset $pacs_cbir 127.0.0.1:{service_port};\n"
    )
    # As root its workers would be nobody, who cannot read what is below root's home.
    options = ["-g", "user root;"] if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([nginx, "-p", folder, "-c", "nginx.conf", *options], stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), START_SECONDS)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=NPM_SECONDS, check=False)
    assert done.returncode == 0, f"{json.dumps(command)}: {done.stdout}{done.stderr}"
