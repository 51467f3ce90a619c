"""Chromium as the peer: a page that notes whatever it must not do, and axe-core's word on what it shows."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, sync_playwright

PATIENCE_MS = 20_000
LOOK_MS = 50
QUIET_MS = 300
SIZE = {"width": 1440, "height": 900}
AXE_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
# A browser writes every refused request to its console; what the page makes of it is tested.
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d|ERR_INTERNET_DISCONNECTED")


@dataclass
class Watched:
    """A page, and what came of it.

    Attributes:
        url: of the service.
        requests: every URL that was asked for.
        wrongs: errors of scripts, violations of the policy, and whatever else the browser complains of.
        under_way: requests that have not ended yet.
    """

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    under_way: set[Request] = field(default_factory=set)

    def open(self) -> None:
        """Load the page, and wait for the list."""
        self.page.goto(self.url)
        self.page.get_by_role("heading", level=1, name="Studies").wait_for()

    def open_study(self, description: str) -> None:
        """From the list, by mouse; waits for the first picture of every sequence."""
        self.row(description).get_by_role("button").click()
        self.drawn()

    def row(self, description: str) -> Locator:
        """A study in the list, by its description."""
        return self.page.get_by_role("row").filter(has_text=description).first

    def drawn(self) -> None:
        """Wait until every stage shows a picture."""
        self.page.locator(".stage").first.wait_for()
        for stage in self.page.locator(".stage").all():
            stage.locator("xpath=self::*[contains(@class, 'drawn')]").wait_for()

    def stage(self, name: str) -> Locator:
        """A sequence's slices."""
        return self.page.get_by_role("slider", name=f"{name}, slices")

    def settled(self) -> None:
        """Wait until nothing has been fetched for a while."""
        quiet = 0

        def is_quiet() -> bool:
            nonlocal quiet
            quiet = 0 if self.under_way else quiet + LOOK_MS
            return quiet > QUIET_MS

        self.until(is_quiet)

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for what no locator can be asked."""
        for _ in range(PATIENCE_MS // LOOK_MS):
            if happened():
                return
            self.page.wait_for_timeout(LOOK_MS)
        raise AssertionError(f"it did not happen within {PATIENCE_MS} ms")

    def requests_to(self, path: str) -> list[str]:
        """The URLs of the requests to a path, in turn."""
        return [url for url in self.requests if urlsplit(url).path == path]

    def region(self) -> list[int]:
        """The box of the last query."""
        [found] = parse_qs(urlsplit(self.requests_to("/similar/studies")[-1]).query)["region"]
        return [int(number) for number in found.split(",")]

    def accessible(self, within: str | None = None) -> None:
        """axe-core finds nothing to complain of in what is shown now, or in a part of it, by its selector."""
        self.page.wait_for_timeout(50)
        found = Axe().run(self.page, within, AXE_RULES).response
        told = [
            f"{violation['id']}: {violation['help']}: {node['html'][:200]} {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]
        assert told == [], "\n".join(told)
        assert len(found["passes"]) > 10

    def shot(self, name: str) -> Path:
        """Keep a picture of what is shown: below PAGE_PICTURES, where it is set, else with the artefacts."""
        path = pictures_folder() / f"page-{name}.png"
        shot = Image.open(io.BytesIO(self.page.screenshot()))
        shot.convert("RGB").quantize(256).save(path, optimize=True)
        return path


def pictures_folder() -> Path:
    """Where pictures and measurements of the page are kept."""
    folder = Path(os.environ.get("PAGE_PICTURES", "artefacts/page"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def chromium(path: str, *options: str) -> Iterator[Browser]:
    """Debian's Chromium, without a window; `options` are its own."""
    with sync_playwright() as playwright:
        # Root has no sandbox, and CI's containers no /dev/shm to speak of.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", *options]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, url: str, *, touch: bool = False, width: int = SIZE["width"]) -> Iterator[Watched]:
    """A fresh profile's page; at the end it has spoken with nobody else and broken no rule."""
    context = browser.new_context(viewport={"width": width, "height": SIZE["height"]}, has_touch=touch)
    context.set_default_timeout(PATIENCE_MS)
    seen = Watched(context.new_page(), url)

    def asked(request: Request) -> None:
        seen.requests.append(request.url)
        seen.under_way.add(request)

    def ended(request: Request) -> None:
        seen.under_way.discard(request)

    def said(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _REFUSED.search(message.text):
            seen.wrongs.append(message.text)

    seen.page.on("request", asked)
    for end in ("requestfinished", "requestfailed"):
        seen.page.on(end, ended)
    seen.page.on("console", said)
    seen.page.on("pageerror", lambda error: seen.wrongs.append(str(error)))
    seen.page.add_init_script(
        "document.addEventListener('securitypolicyviolation', (event) => console.error(`policy ${event.blockedURI}`))"
    )
    try:
        yield seen
        assert seen.wrongs == []
        # What a page has made itself has no host.
        asked_of = {urlsplit(asked_url).netloc for asked_url in seen.requests if not asked_url.startswith("blob:")}
        assert asked_of <= {urlsplit(url).netloc}
    finally:
        context.close()


def first_picture_seconds(browser: Browser, url: str, loads: int = 5) -> list[float]:
    """Seconds from the start of a load to the first picture on the page, each in a fresh profile, in rising order."""
    seconds = []
    for _ in range(loads):
        with watched(browser, url) as seen:
            seen.open()
            seen.page.locator("canvas.drawn").first.wait_for()
            ms = seen.page.evaluate("() => performance.getEntriesByName('first-picture')[0].startTime")
            seconds.append(round(float(ms) / 1000, 3))
    return sorted(seconds)
