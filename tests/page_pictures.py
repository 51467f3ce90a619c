"""The README's pictures: `python -m tests.page_pictures http://127.0.0.1:8000 results`, while `make demo` runs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.browser import Watched, chromium, first_picture_seconds, watched
from tests.conftest import free_port
from tests.running import command, listens, wait_until

# Of the demonstration's patients, one whose lesion is like another's.
STUDY_DATE, SEQUENCE, SLICE = "2019-09-02", "FLAIR", 17
START_SECONDS = 120.0


def main(url: str, folder: str) -> None:
    """Take them from a running service, whose patients must be simulated, and from one that has none yet."""
    os.environ["PAGE_PICTURES"] = folder
    path = shutil.which("chromium")
    if path is None:
        sys.exit("chromium is not installed (Debian: apt install chromium)")
    with chromium(path) as browser:
        print("seconds to the first picture:", first_picture_seconds(browser, url))
        with watched(browser, url) as seen:
            _walk(seen)
        with _empty_service() as empty, watched(browser, empty) as seen:
            seen.open()
            seen.page.locator(".state.empty").wait_for()
            seen.shot("empty")


@contextmanager
def _empty_service() -> Iterator[str]:
    """A service of its own that has received nothing; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="cbir-", dir="/tmp") as folder:
        dicom, http = free_port(), free_port()
        environment = os.environ | {
            "PACS_CBIR_DATA_DIR": f"{folder}/data",
            "PACS_CBIR_DICOM_PORT": str(dicom),
            "PACS_CBIR_HTTP_PORT": str(http),
        }
        url = f"http://127.0.0.1:{http}"
        with command("serve", environment, Path(folder, "log")):
            wait_until(lambda: listens(http) and httpx.get(f"{url}/health/ready").is_success, START_SECONDS)
            yield url


def _walk(seen: Watched) -> None:
    seen.open()
    seen.settled()
    seen.shot("list")
    seen.open_study(STUDY_DATE)
    stage = seen.stage(SEQUENCE)
    stage.focus()
    while (at := int(stage.get_attribute("aria-valuenow") or 0)) != SLICE:
        seen.page.keyboard.press("ArrowDown" if at < SLICE else "ArrowUp")
    seen.settled()
    seen.shot("study")
    seen.page.keyboard.press("f")
    seen.page.locator(".card, .state.empty").first.wait_for()
    if seen.page.locator(".state.empty").count():
        seen.page.get_by_role("button", name="anyway").click()
    seen.page.locator(".card").first.wait_for()
    seen.settled()
    seen.shot("similar")
    seen.page.locator(".card").first.focus()
    seen.page.keyboard.press("Enter")
    seen.drawn()
    seen.page.keyboard.press("h")
    seen.page.locator("figcaption").filter(has_text="brighter").wait_for()
    seen.settled()
    seen.shot("compare")


if __name__ == "__main__":
    main(*sys.argv[1:])
