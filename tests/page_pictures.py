"""The README's pictures: `python -m tests.page_pictures http://127.0.0.1:8000 results`, while `make demo` runs."""

from __future__ import annotations

import os
import shutil
import sys

from tests.browser import Watched, chromium, first_picture_seconds, watched

# Of the demonstration's patients, one whose lesion is like another's.
STUDY_DATE, SEQUENCE, SLICE = "2019-09-02", "FLAIR", 17


def main(url: str, folder: str) -> None:
    """Take them from a running service, whose patients must be simulated."""
    os.environ["PAGE_PICTURES"] = folder
    path = shutil.which("chromium")
    if path is None:
        sys.exit("chromium is not installed (Debian: apt install chromium)")
    with chromium(path) as browser:
        print("seconds to the first picture:", first_picture_seconds(browser, url))
        with watched(browser, url) as seen:
            _walk(seen)


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
