"""The page in a real Chromium against `pacs-cbir serve` with simulated patients: the whole path and every state."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from browser import PATIENCE_MS, Watched, chromium, first_picture_seconds, pictures_folder, watched
from dicom_factory import mr_instance
from playwright.sync_api import Browser, Locator, Route, expect
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.misc import is_dicom
from running import command, listens, wait_until

from pacs_cbir.learn.simulate import simulate_cohort
from pacs_cbir.pacs.send import send
from tests.conftest import free_port

pytestmark = pytest.mark.peer

START_SECONDS = 120.0
PATIENTS = 4
HOSTILE = "<img src=/nowhere onerror=document.title='taken'>"
KNEE = "MR knee right"
ODD = f"Odd phantom {HOSTILE}"
SCOUT = "Scout alone"
IDENTITIES = re.compile(r"SIM-0|Simulated\^|Simulated 0|Test\^|ODD-7|A\d{9}")


@dataclass(frozen=True)
class Service:
    """`pacs-cbir serve`, running."""

    url: str
    dicom_port: int
    supervisor: int
    folder: Path
    environment: dict[str, str]

    def receive(self, instances: list[FileDataset]) -> None:
        """Send instances by C-STORE."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        paths = [folder / f"{number}.dcm" for number in range(len(instances))]
        for path, instance in zip(paths, instances, strict=True):
            instance.save_as(path, enforce_file_format=True)
        self.send(paths)

    def send(self, paths: list[Path]) -> None:
        """Send files by C-STORE."""
        sent = send(paths, "127.0.0.1", self.dicom_port, called="PACS_CBIR", calling="TEST")
        assert all(one.accepted for one in sent)

    def embedded(self) -> bool:
        """Whether nothing waits, and the index has what was embedded."""
        jobs = httpx.get(f"{self.url}/status").json()["jobs"]
        return jobs["waiting"] == jobs["running"] == 0

    @contextmanager
    def without_worker(self) -> Iterator[None]:
        """Nothing is embedded within the block."""
        [worker] = [c for c in psutil.Process(self.supervisor).children() if c.cmdline()[-1] == "worker"]
        worker.suspend()
        try:
            yield
        finally:
            worker.resume()


@pytest.fixture(scope="module")
def browser(peer: Callable[[str], str]) -> Iterator[Browser]:
    with chromium(peer("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def empty_service(browser: Browser) -> Iterator[Service]:
    """A service that has received nothing yet."""
    folder = Path(tempfile.mkdtemp(prefix="cbir-", dir="/tmp"))
    service_ports = dicom, http = free_port(), free_port()
    environment = os.environ | {
        "PACS_CBIR_DATA_DIR": str(folder / "data"),
        "PACS_CBIR_DICOM_PORT": str(dicom),
        "PACS_CBIR_HTTP_PORT": str(http),
        "PACS_CBIR_SETTLE_SECONDS": "0.5",
        "PACS_CBIR_REPORT_URL": "https://reports.example/{AccessionNumber}",
    }
    with command("serve", environment, folder / "log") as supervisor:
        service = Service(f"http://127.0.0.1:{http}", dicom, supervisor.pid, folder, environment)
        wait_until(lambda: all(map(listens, service_ports)) and ready(service), START_SECONDS)
        yield service
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def service(empty_service: Service) -> Service:
    """The same with heads of simulated patients, two knees, a head like none of them, and a scout."""
    cohort = empty_service.folder / "cohort"
    for study in simulate_cohort(cohort, patients=PATIENTS, seed=20261123):
        empty_service.send(sorted(study.folder.rglob("*.dcm")))
    for side in ("left", "right"):
        knee = {"BodyPartExamined": "KNEE", "StudyDescription": KNEE if side == "right" else "MR knee left"}
        empty_service.receive(slices(f"knee {side}", patient=f"KNEE-{side}", **knee))
    empty_service.receive(slices("odd", patient="ODD-7", StudyDescription=ODD, SeriesDescription=HOSTILE))
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "localizer"}
    empty_service.receive(slices("scout", patient="SCOUT", StudyDescription=SCOUT, **scout))
    wait_until(empty_service.embedded, START_SECONDS)
    example = listed(empty_service, StudyDescription="MR knee*")[0]["StudyInstanceUID"]
    wait_until(lambda: httpx.get(f"{empty_service.url}/similar/studies", params={"example": example}).is_success)
    return empty_service


@pytest.fixture
def seen(browser: Browser, service: Service) -> Iterator[Watched]:
    with watched(browser, service.url) as opened:
        opened.open()
        yield opened


def ready(service: Service) -> bool:
    return httpx.get(f"{service.url}/health/ready").is_success


def slices(study: str, *, patient: str, **header: Any) -> list[FileDataset]:
    return [mr_instance(patient, study, number=number, size=64, **header) for number in range(5)]


def listed(service: Service, **keys: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{service.url}/studies", params=keys).json()
    return found


def head(service: Service) -> str:
    """The date of the first simulated head, which all the others are similar to; no other study has it."""
    dates = [str(study["StudyDate"]) for study in listed(service, order="received") if len(study["series"]) == 4]
    return re.sub(r"(\d{4})(\d\d)(\d\d)", r"\1-\2-\3", dates[0])


def size_of(service: Service) -> tuple[int, int]:
    """Columns and rows of the head's slices."""
    keys = {"StudyDate": head(service).replace("-", ""), "limit": "1"}
    [instance] = httpx.get(f"{service.url}/dicom-web/instances", params=keys).json()
    return instance["00280011"]["Value"][0], instance["00280010"]["Value"][0]


def value(slider: Locator) -> int:
    return int(slider.get_attribute("aria-valuenow") or 0)


def pixels(stage: Locator) -> str:
    """What is drawn on a stage."""
    return str(stage.locator("canvas").evaluate("(canvas) => canvas.toDataURL()"))


def test_an_archive_without_studies_says_how_they_come(browser: Browser, empty_service: Service) -> None:
    if listed_status(empty_service) != 204:
        pytest.fail("this test is the module's first: no study may have been sent yet")
    with watched(browser, empty_service.url) as seen:
        seen.open()
        expect(seen.page.locator(".state.empty")).to_contain_text("C-STORE")
        expect(seen.page.get_by_text("Not a medical device.")).to_be_visible()
        seen.accessible()
        seen.shot("state-empty")


def listed_status(service: Service) -> int:
    return httpx.get(f"{service.url}/studies").status_code


def test_the_path_from_search_to_comparison_by_mouse(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.accessible()
    seen.shot("list")
    page.get_by_label("Description").fill("knee")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("tbody tr")).to_have_count(PATIENTS + 4)

    seen.open_study(head(service))
    scroll_together(seen)
    page.get_by_role("button", name="Find similar studies").click()
    look_at_matches(seen)
    page.locator(".card").nth(1).get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("match 2")
    compare(seen)

    page.go_back()
    expect(page.locator(".card")).to_have_count(PATIENTS - 1)
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')").startswith("Match 2.")
    page.get_by_role("navigation").get_by_role("button", name="Studies").click()
    page.get_by_role("heading", level=1, name="Studies").wait_for()


def scroll_together(seen: Watched) -> None:
    """The wheel over one sequence moves all of them."""
    seen.accessible()
    flair, t2 = seen.stage("FLAIR"), seen.stage("T2")
    before, others = value(flair), value(t2)
    flair.hover()
    seen.page.mouse.wheel(0, 120)
    expect(flair).to_have_attribute("aria-valuenow", str(before + 3))
    expect(t2).to_have_attribute("aria-valuenow", str(others + 3))
    seen.settled()
    seen.shot("study")


def look_at_matches(seen: Watched) -> None:
    """The grid is ranked, and each match has its slice, its links and its similarity by sequence."""
    cards = seen.page.locator(".card")
    expect(cards).to_have_count(PATIENTS - 1)
    for card in cards.all():
        card.locator("canvas.found.drawn").wait_for()
        card.locator("canvas.inset.drawn").wait_for()
    expect(cards.first).to_contain_text("all sequences compared")
    report, viewer = (cards.first.get_by_role("link", name=name).get_attribute("href") for name in ("Report", "Viewer"))
    assert re.fullmatch(r"https://reports\.example/A\d+", report or "")
    uids = "&".join(
        rf"{name}=[\d.]+" for name in ("StudyInstanceUIDs", "initialSeriesInstanceUID", "initialSOPInstanceUID")
    )
    assert re.fullmatch(rf"http://localhost:3000/viewer\?{uids}", viewer or "")
    scores = [float(text) for text in cards.locator(".number").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    seen.accessible()
    seen.shot("similar")
    t1ce = cards.first.get_by_role("button", name="T1CE, similarity")
    t1ce.click()
    expect(t1ce).to_have_attribute("aria-pressed", "true")


def compare(seen: Watched) -> None:
    """Example and match scroll together until they are unlinked."""
    page = seen.page
    seen.drawn()
    left, right = page.get_by_role("slider").all()
    at = value(left), value(right)
    left.hover()
    page.mouse.wheel(0, -80)
    expect(left).to_have_attribute("aria-valuenow", str(at[0] - 2))
    moved = value(right)
    assert moved != at[1]
    page.get_by_role("button", name="Link scrolling").click()
    left.hover()
    page.mouse.wheel(0, 80)
    expect(left).to_have_attribute("aria-valuenow", str(at[0]))
    assert value(right) == moved
    page.get_by_role("button", name="Back to the matching slices").click()
    assert (value(left), value(right)) == at
    seen.settled()
    seen.accessible()
    seen.shot("compare")


def test_the_same_by_keyboard_alone(seen: Watched) -> None:
    page, press = seen.page, seen.page.keyboard.press
    press("/")
    page.keyboard.type("schaedel")
    expect(page.locator("tbody tr")).to_have_count(2)
    tab_to(seen, "button.open")
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("ArrowDown")
    expect(page.locator("button.open").nth(1)).to_be_focused()
    press("ArrowUp")
    expect(page.locator("button.open").first).to_be_focused()
    press("Enter")
    seen.drawn()
    t1 = seen.stage("T1")
    expect(t1).to_be_focused()
    at = value(t1)
    press("ArrowDown")
    press("PageUp")
    expect(t1).to_have_attribute("aria-valuenow", str(at - 4))
    press("Home")
    expect(t1).to_have_attribute("aria-valuenow", "1")
    press("ArrowRight")
    expect(seen.stage("T1CE")).to_be_focused()
    press("s")
    cards = page.locator(".card")
    expect(cards).to_have_count(PATIENTS - 1)
    tab_to(seen, ".card")
    press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    press("ArrowLeft")
    press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("match 1")
    compare_by_keyboard(seen)
    press("Escape")
    expect(cards).to_have_count(PATIENTS - 1)


def tab_to(seen: Watched, selector: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(60):
        seen.page.keyboard.press("Tab")
        if seen.page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab does not lead to {selector}")


def compare_by_keyboard(seen: Watched) -> None:
    page, press = seen.page, seen.page.keyboard.press
    seen.drawn()
    left, right = page.get_by_role("slider").all()
    expect(left).to_be_focused()
    at, other = value(left), value(right)
    press("ArrowUp")
    press("ArrowUp")
    expect(left).to_have_attribute("aria-valuenow", str(at - 2))
    assert value(right) < other
    press("2")
    expect(page.get_by_role("button", name=", similarity").nth(1)).to_have_attribute("aria-pressed", "true")
    press("n")
    expect(page.get_by_role("heading", level=1)).to_contain_text("match 2")
    press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    seen.accessible()
    press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_windows_are_of_the_values_and_not_of_the_drawing(seen: Watched, service: Service) -> None:
    seen.open_study(head(service))
    stage = seen.stage("FLAIR")
    stage.focus()
    before, words = pixels(stage), stage.locator(".window").inner_text()
    for _ in range(6):
        seen.page.keyboard.press("[")
    expect(stage.locator(".window")).not_to_have_text(words)
    seen.until(lambda: pixels(stage) != before)
    asked = [url for url in seen.requests if "window=" in url]
    assert asked
    assert all("linear-exact" in url for url in asked)
    box = stage.bounding_box() or {}
    seen.page.mouse.move(box["x"] + 50, box["y"] + 50)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + 90, box["y"] + 20, steps=4)
    seen.page.mouse.up()
    seen.page.keyboard.press("0")
    expect(stage.locator(".window")).to_have_text(words)
    seen.until(lambda: pixels(stage) == before)


def test_a_finger_scrolls(browser: Browser, service: Service) -> None:
    with watched(browser, service.url, touch=True, width=390) as seen:
        seen.open()
        seen.open_study(head(service))
        stage = seen.stage("T1")
        at = value(stage)
        box = stage.bounding_box() or {}
        session = seen.page.context.new_cdp_session(seen.page)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, down in (("touchStart", 0), ("touchMove", 30), ("touchMove", 60)):
            points = [{"x": x, "y": y + down}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert value(stage) > at


def test_every_view_fits_a_phone(browser: Browser, service: Service) -> None:
    with watched(browser, service.url, touch=True, width=390) as seen:
        page = seen.page

        def fits() -> None:
            seen.settled()
            assert page.evaluate("() => document.documentElement.scrollWidth") == 390
            seen.accessible()

        seen.open()
        page.locator("tbody tr").first.wait_for()
        fits()
        seen.open_study(head(service))
        fits()
        page.get_by_role("button", name="Find similar studies").click()
        cards = page.locator(".card")
        expect(cards).to_have_count(PATIENTS - 1)
        fits()
        cards.first.get_by_role("button", name="Compare", exact=True).click()
        seen.drawn()
        fits()


def test_a_slice_and_a_box_are_asked_about(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    page.keyboard.press("f")
    page.locator(".card").first.wait_for()
    assert re.search(r"example=[\d.]+%2F[\d.]+%2F[\d.]+%2F\d+&", seen.requests_to("/similar/studies")[-1])
    page.go_back()
    seen.drawn()
    box = seen.stage("FLAIR").bounding_box() or {}
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.get_by_role("button", name="Draw a box").click()
    page.mouse.move(middle[0] - 40, middle[1] - 40)
    page.mouse.down()
    page.mouse.move(middle[0] + 30, middle[1] + 20, steps=5)
    page.mouse.up()
    expect(page.locator(".box:not([hidden])")).to_have_count(1)
    seen.accessible()
    page.get_by_role("button", name="Find similar: box").click()
    page.get_by_role("heading", level=1, name="Similar to the box").wait_for()
    answered(seen)
    drawn = seen.region()
    scale = box["width"] / max(size_of(service))
    assert (drawn[2] - drawn[0]) * scale == pytest.approx(70, abs=5)
    assert (drawn[3] - drawn[1]) * scale == pytest.approx(60, abs=5)


def answered(seen: Watched) -> None:
    """Wait for the answer to a box; the first loads the encoder."""
    seen.page.locator(".card, .state.empty").first.wait_for(timeout=60_000)


def test_a_box_by_keyboard(seen: Watched, service: Service) -> None:
    press = seen.page.keyboard.press
    seen.open_study(head(service))
    press("b")
    press("ArrowLeft")
    press("ArrowDown")
    press("Shift+ArrowRight")
    press("Enter")
    seen.page.get_by_role("heading", level=1, name="Similar to the box").wait_for()
    answered(seen)
    x0, y0, x1, y1 = seen.region()
    assert x1 - x0 > y1 - y0 > 0
    columns, rows = size_of(service)
    assert (x0 + x1 - columns) / 2 < 0 < (y0 + y1 - rows) / 2
    press("Escape")
    seen.drawn()
    box = seen.page.locator(".box:not([hidden])")
    expect(box).to_have_count(1)
    press("Escape")
    expect(box).to_have_count(0)


def test_back_reload_and_a_link_show_the_study_as_it_was(browser: Browser, seen: Watched, service: Service) -> None:
    """Sequence, slice, window and box: after the answers, after a reload, and in another browser by the link alone."""
    page, press = seen.page, seen.page.keyboard.press
    seen.open_study(head(service))
    seen.stage("T2").focus()
    for key in ("ArrowDown", "ArrowDown", "[", "[", "+", "b", "ArrowLeft", "Shift+ArrowDown"):
        press(key)
    left = in_hand(seen, "T2")
    others = value(seen.stage("FLAIR"))
    press("f")
    page.get_by_role("heading", level=1, name="Similar to the slice").wait_for()
    page.locator(".card, .state.empty").first.wait_for()
    press("Escape")
    expect(seen.stage("T2")).to_be_focused()
    assert in_hand(seen, "T2") == left
    assert value(seen.stage("FLAIR")) == others
    seen.accessible()
    page.wait_for_timeout(500)
    page.reload()
    expect(seen.stage("T2")).to_be_focused()
    assert in_hand(seen, "T2") == left
    assert page.url.startswith(f"{service.url}/#study?study=")
    with watched(browser, page.url) as other:
        other.page.goto(page.url)
        expect(other.stage("T2")).to_be_focused()
        assert in_hand(other, "T2") == left
        assert value(other.stage("FLAIR")) == others
        other.page.keyboard.press("Enter")
        other.page.get_by_role("heading", level=1, name="Similar to the box").wait_for()
        linked = other.page.url
        other.page.keyboard.press("Escape")
        assert in_hand(other, "T2") == left
        other.page.goto(linked)
        other.page.get_by_role("heading", level=1, name="Similar to the box").wait_for()
        answered(other)
        other.page.get_by_role("navigation").get_by_role("button", name="Studies").click()
        other.page.get_by_role("heading", level=1, name="Studies").wait_for()
        assert other.page.url == f"{service.url}/"


def in_hand(seen: Watched, name: str) -> tuple[str | None, ...]:
    """A sequence's slice, window and box, once they are drawn."""
    stage = seen.stage(name)
    box = stage.locator(".box")
    expect(box).to_be_visible()
    seen.settled()
    texts = (stage.get_attribute("aria-valuenow"), stage.locator(".window").inner_text(), box.get_attribute("style"))
    assert seen.page.locator(".viewport.current h2 .name").inner_text() == name
    return texts


@pytest.mark.parametrize(
    "fragment",
    ["study", "study?study=1.2%27", "study?study=<img>", "similar?example=../1", "similar", "nowhere?study=1", "%"],
)
def test_an_address_that_names_nothing_shows_the_list(seen: Watched, service: Service, fragment: str) -> None:
    seen.page.goto("about:blank")
    seen.page.goto(f"{service.url}/#{fragment}")
    seen.page.get_by_role("heading", level=1, name="Studies").wait_for()
    assert seen.page.url == f"{service.url}/"


def test_what_is_typed_stands_in_no_address(seen: Watched, service: Service) -> None:
    page = seen.page
    page.get_by_label("Description").fill("schaedel")
    expect(page.locator("tbody tr")).to_have_count(2)
    assert page.url == f"{service.url}/"
    seen.row("Schaedel").get_by_role("button").click()
    seen.drawn()
    page.keyboard.press("s")
    page.get_by_label("Description").fill("schaedel")
    seen.until(lambda: "schaedel" in seen.requests_to("/similar/studies")[-1])
    assert "schaedel" not in page.url
    page.reload()
    expect(page.get_by_label("Description")).to_have_value("schaedel")


def test_the_list_is_sorted_by_its_heads(seen: Watched) -> None:
    page = seen.page
    heads = {name: page.get_by_role("columnheader", name=name) for name in ("Date", "Study", "Received")}

    def column(name: str) -> list[str]:
        return page.locator(f"tbody .col-{name}").all_inner_texts()

    def sorted_by(name: str, direction: str) -> None:
        expect(heads[name]).to_have_attribute("aria-sort", direction)
        expect(page.locator("[aria-sort]")).to_have_count(1)
        expect(page.locator(".results")).to_have_attribute("aria-busy", "false")

    page.locator("tbody tr").first.wait_for()
    sorted_by("Date", "descending")
    dates = column("date")
    assert dates == sorted(dates, reverse=True)
    assert len(set(dates)) > 2
    tab_to(seen, "[data-column=Date] button")
    page.keyboard.press("Enter")
    sorted_by("Date", "ascending")
    assert column("date") == sorted(dates)
    assert page.evaluate("() => document.activeElement.textContent") == "Date"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    sorted_by("Study", "ascending")
    assert column("study") == sorted(column("study"), key=str.lower)
    seen.accessible()
    heads["Received"].get_by_role("button").click()
    sorted_by("Received", "descending")
    received = column("received")
    assert received == sorted(received, reverse=True)
    page.reload()
    sorted_by("Received", "descending")
    page.locator("button.open").first.click()
    seen.drawn()
    page.keyboard.press("Escape")
    sorted_by("Received", "descending")
    assert column("received") == received


def test_keys_walk_through_the_list(seen: Watched) -> None:
    press, rows = seen.page.keyboard.press, seen.page.locator("button.open")
    rows.nth(PATIENTS - 1).wait_for()
    last = rows.count() - 1
    walk = {
        "ArrowDown": 0,
        "End": last,
        "ArrowUp": last - 1,
        "PageUp": max(last - 6, 0),
        "Home": 0,
        "PageDown": min(5, last),
    }
    for key, row in walk.items():
        press(key)
        expect(rows.nth(row)).to_be_focused()


def test_the_skip_link_stays_in_the_view(seen: Watched, service: Service) -> None:
    seen.open_study(head(service))
    seen.page.locator(".skip").focus()
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#content")).to_be_focused()
    expect(seen.stage("T1")).to_be_visible()


def test_feedback_by_key_leaves_the_card_in_hand(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    page.keyboard.press("s")
    card = page.locator(".card").nth(1)
    card.locator("canvas.found.drawn").wait_for()
    card.focus()
    study = card.get_attribute("data-study")
    page.keyboard.press("l")
    expect(page.locator(f'.card[data-study="{study}"] [data-act=like]')).to_have_attribute("aria-pressed", "true")
    expect(page.locator(":focus")).to_have_attribute("data-study", str(study))


def test_feedback_is_one_click_and_can_be_taken_back(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    page.keyboard.press("s")
    cards = page.locator(".card")
    expect(cards).to_have_count(PATIENTS - 1)
    liked = cards.nth(1).get_attribute("data-study")
    cards.nth(1).get_by_role("button", name="Like", exact=True).click()
    expect(page.locator(f'.card[data-study="{liked}"] [data-act=like]')).to_have_attribute("aria-pressed", "true")
    assert f"&like={liked}" in seen.requests_to("/similar/studies")[-1]
    expect(page.locator(".feedback h2")).to_have_text(["More like"])
    expect(page.get_by_role("heading", level=1)).to_contain_text("by similarity to the refined example")
    expect(page.locator(".bars button").first).to_have_attribute("title", "The bar goes from 0 to 1")
    cards.first.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator(".compare .about")).to_contain_text(re.compile(r"Similarity [\d.]+ to the refined example"))
    page.go_back()
    unliked = cards.last.get_attribute("data-study")
    cards.last.get_by_role("button", name="Unlike").click()
    expect(page.locator(f'.card[data-study="{unliked}"]')).to_have_count(0)
    assert f"&unlike={unliked}" in seen.requests_to("/similar/studies")[-1]
    expect(page.locator(".chips.unlike li")).to_have_count(1)
    expect(page.locator(".feedback h2")).to_have_text(["More like", "Fewer like"])
    seen.accessible()
    page.reload()
    expect(page.locator(".chips.unlike li")).to_have_count(1)
    for chips in (".chips.unlike", ".chips.like"):
        page.locator(chips).get_by_role("button").click()
        expect(page.locator(chips)).to_have_count(0)
    expect(cards).to_have_count(PATIENTS - 1)


def test_filters_and_weights(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    page.keyboard.press("s")
    cards = page.locator(".card")
    expect(cards).to_have_count(PATIENTS - 1)
    ages = sorted(int(s["PatientAge"][:3]) for s in listed(service, order="received") if len(s["series"]) == 4)[1:]
    bar = cards.first.locator(".bars button").first
    expect(bar).to_have_attribute("title", re.compile(r"begins at 0\.\d\d, which unrelated patients usually reach"))
    floor = float(re.findall(r"0\.\d\d", bar.get_attribute("title") or "")[0])
    full = float(bar.locator(".meter").evaluate("(meter) => meter.style.getPropertyValue('--share')"))
    assert full == pytest.approx((float(bar.locator(".value").inner_text()) - floor) / (1 - floor), abs=0.1)
    page.get_by_label("Age from").fill("-5")
    expect(page.locator(".field .problem").filter(has_text="From 0 to 120 years")).to_have_count(1)
    page.get_by_label("Age from").fill(str(ages[-1]))
    expect(page.locator(".field .problem").filter(has_text="From 0 to 120 years")).to_have_count(0)
    expect(cards).not_to_have_count(PATIENTS - 1)
    page.get_by_role("button", name="Clear filters").click()
    expect(cards).to_have_count(PATIENTS - 1)
    page.get_by_role("checkbox", name="T2").uncheck()
    page.get_by_label("What grey counts").fill("0")
    seen.until(lambda: "parts=" in seen.requests_to("/similar/studies")[-1])
    asked = seen.requests_to("/similar/studies")[-1]
    assert re.search(r"sequence=FLAIR%2CT1%2CT1CE&", asked + "&")
    assert re.search(r"parts=appearance%3A0\.\d+%2Clesion%3A0\.\d+%2Cshape%3A0\.\d+%2Cgrey%3A0(&|$)", asked)
    expect(cards.first.locator(".bars li")).to_have_count(3)
    expect(page.locator(".filters")).to_contain_text(
        re.compile(r"unrelated patients usually reach \(FLAIR 0\.\d\d, T1 0")
    )
    page.get_by_label("similarity of at least").fill("0.9999")
    state = page.locator(".state.empty")
    expect(state).to_contain_text("No study reaches your floor of 0.9999")
    expect(state).to_contain_text(re.compile(r"The most similar reaches 0\.\d\d\."))
    seen.accessible()
    state.get_by_role("button", name="Clear the floor").click()
    expect(cards).to_have_count(PATIENTS - 1)
    page.get_by_label("Study date from").fill("2999-01-01")
    expect(state).to_contain_text("No study passes the filters")


def test_nothing_similar_says_how_many_were_left_out(seen: Watched) -> None:
    seen.open_study("Odd phantom")
    seen.page.keyboard.press("s")
    state = seen.page.locator(".state.empty")
    expect(state).to_contain_text("Nothing is similar enough")
    expect(state).to_contain_text(re.compile(rf"(?<!\d)({PATIENTS}|{PATIENTS + 2}) studies were compared"))
    expect(state).to_contain_text(re.compile(r"The most similar reaches 0\.\d+, and 0\.\d+ counts"))
    expect(state).to_contain_text("one slice, or a box on it")
    seen.accessible()
    seen.shot("state-nothing-similar")
    state.get_by_role("button", name="Show them anyway").click()
    seen.page.locator(".card").first.wait_for()


def test_what_the_encoder_was_not_trained_for_is_marked(seen: Watched) -> None:
    seen.open_study(KNEE)
    expect(seen.page.locator(".viewport .badge.warn")).to_have_text("outside domain")
    seen.page.keyboard.press("s")
    card = seen.page.locator(".card").filter(has_text="MR knee left")
    expect(card.locator(".badge.warn")).to_have_text("outside domain")
    seen.accessible()
    seen.shot("state-outside-domain")


def test_what_cannot_be_searched_by_says_why(seen: Watched) -> None:
    seen.page.get_by_role("row").filter(has_text=SCOUT).get_by_role("button").click()
    expect(seen.page.locator(".viewport .badge")).to_have_text("not searchable")
    seen.accessible()
    seen.page.keyboard.press("s")
    expect(seen.page.locator(".state.error")).to_contain_text("The example has no embeddings")
    seen.accessible()
    seen.shot("state-error")


def test_a_service_that_is_away_is_asked_again(seen: Watched, service: Service) -> None:
    seen.open_study(head(service))
    seen.page.context.set_offline(True)
    seen.page.keyboard.press("s")
    expect(seen.page.locator(".state.error")).to_contain_text("The service does not answer")
    seen.accessible()
    seen.page.context.set_offline(False)
    seen.page.get_by_role("button", name="Try again").click()
    expect(seen.page.locator(".card")).to_have_count(PATIENTS - 1)


def test_what_is_still_embedding_is_waited_for(seen: Watched, service: Service) -> None:
    with service.without_worker():
        late = slices("late", patient="LATE", StudyDescription="Late arrival", BodyPartExamined="KNEE")
        service.receive(late)
        seen.page.get_by_label("Description").fill("late")
        expect(seen.row("Late arrival").locator(".status.waiting")).to_contain_text("0 of 1 series ready")
        seen.accessible()
        seen.open_study("Late arrival")
        seen.page.keyboard.press("s")
        expect(seen.page.locator(".state.wait")).to_contain_text("Still embedding")
        seen.accessible()
        seen.shot("state-still-embedding")
    seen.page.locator(".card, .state.empty").first.wait_for(timeout=60_000)
    assert len(seen.requests_to("/similar/studies")) > 1


def test_what_a_header_says_is_text_and_no_markup(seen: Watched) -> None:
    page = seen.page
    expect(seen.row("Odd phantom")).to_contain_text(HOSTILE)
    seen.open_study("Odd phantom")
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    expect(page.locator(".viewport .note")).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert "taken" not in page.title()
    assert not any("nowhere" in url for url in seen.requests)


def test_labels_are_kept_shown_and_taken_away(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    page.get_by_label("Add a label").fill(f"glioma {HOSTILE}")
    page.keyboard.press("Enter")
    label = page.get_by_role("list", name="Labels").get_by_role("listitem")
    expect(label).to_contain_text(f"glioma {HOSTILE}")
    seen.accessible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    others = page.get_by_role("row").filter(has_text="MRT Schaedel").filter(has_not_text=head(service))
    others.first.get_by_role("button").click()
    seen.drawn()
    page.keyboard.press("s")
    expect(page.locator(".card .chips li").first).to_have_text(f"glioma {HOSTILE}")
    page.get_by_label("Label", exact=True).fill("something else")
    expect(page.locator(".state.empty")).to_contain_text("No study passes the filters")
    page.go_back()
    page.go_back()
    seen.open_study(head(service))
    label.get_by_role("button").click()
    expect(label).to_have_count(0)


def test_labels_that_somebody_else_changed_are_shown_and_not_lost(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    label = page.get_by_role("list", name="Labels").get_by_role("listitem")
    page.get_by_label("Add a label").fill("mine")
    [study] = listed(service, StudyDate=head(service).replace("-", ""))
    path = f"{service.url}/studies/{study['StudyInstanceUID']}/labels"
    assert httpx.put(path, json=["theirs"]).is_success
    page.keyboard.press("Enter")
    expect(page.locator(".labels .problem")).to_contain_text("Somebody else changed the labels")
    expect(label).to_have_text([re.compile("theirs")])
    assert httpx.get(path).json() == ["theirs"]
    seen.accessible()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(label).to_have_count(2)
    expect(page.locator(".labels .problem")).to_have_text("")
    assert httpx.get(path).json() == ["mine", "theirs"]
    assert httpx.put(path, json=[]).is_success


def test_heat_on_demand(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    page.keyboard.press("s")
    card = page.locator(".card").first
    card.locator("canvas.found.drawn").wait_for()
    card.get_by_role("button", name="Heat map").click()
    expect(card.get_by_role("button", name="Heat map")).to_have_attribute("aria-pressed", "true")
    # The first one loads the encoder.
    expect(card.locator("canvas.found")).to_have_js_property("width", 768, timeout=60_000)
    seen.accessible()
    seen.shot("heat")
    card.get_by_role("button", name="Compare", exact=True).click()
    seen.drawn()
    page.keyboard.press("h")
    for whose in ("example", "match"):
        expect(page.get_by_role("img", name=f"Heat map of the {whose}")).to_have_js_property("width", 384)
    caption = page.locator("figcaption")
    expect(caption).to_contain_text("outlines no lesion")
    expect(caption.locator(".legend")).to_have_text("adds littleadds most")
    left, right = page.get_by_role("slider").all()
    which = f"of example slice {value(left)} and match slice {value(right)}"
    heat_map = page.get_by_role("img", name="Heat map of the match")
    expect(caption).to_contain_text(f"Heat map {which}.")
    expect(heat_map).to_have_css("opacity", "1")
    seen.accessible()
    left.focus()
    page.keyboard.press("ArrowDown")
    expect(caption).to_contain_text(f"Not of the slices above, but {which}")
    expect(heat_map).to_have_css("opacity", "0.35")
    seen.accessible()
    page.keyboard.press("r")
    expect(caption).to_contain_text(f"Heat map {which}.")
    expect(heat_map).to_have_css("opacity", "1")


def test_where_the_slices_are_not_known_nothing_of_another_sequence_is_shown(seen: Watched, service: Service) -> None:
    page = seen.page
    without: list[str] = []

    def leave_out(route: Route) -> None:
        """As of a series whose slices are not known yet."""
        answer = route.fetch()
        matches = answer.json()
        for match in matches:
            del match["series"][1]["slice"]
            without.append(match["series"][1]["SeriesInstanceUID"])
        route.fulfill(response=answer, json=matches)

    page.route("**/similar/studies?*", leave_out)
    seen.open_study(head(service))
    page.keyboard.press("s")
    card = page.locator(".card").first
    card.locator("canvas.found.drawn").wait_for()
    card.locator('[data-index="1"]').click()
    expect(card.locator(".message")).to_have_text("No slice is known yet")
    for canvas in card.locator("canvas").all():
        expect(canvas).to_be_hidden()
    viewer = re.compile(rf"initialSeriesInstanceUID={re.escape(without[0])}&initialSOPInstanceUID=$")
    expect(card.get_by_role("link", name="Viewer")).to_have_attribute("href", viewer)
    card.locator('[data-index="0"]').click()
    expect(card.locator("canvas.found")).to_be_visible()
    card.get_by_role("button", name="Compare", exact=True).click()
    seen.drawn()
    page.keyboard.press("h")
    page.get_by_role("img", name="Heat map of the match").wait_for(timeout=60_000)
    page.keyboard.press("2")
    expect(page.locator(".two-up").first).to_have_text("Which slices are alike is not known yet.")
    expect(page.locator("figure.heat")).to_be_empty()
    expect(page.get_by_role("link", name="Viewer")).to_have_attribute("href", viewer)
    seen.accessible()


def test_a_picture_that_comes_late_is_not_drawn_over_another_sequences(seen: Watched, service: Service) -> None:
    page = seen.page
    held: list[Route] = []
    seen.open_study(head(service))
    page.keyboard.press("s")
    card = page.locator(".card").first
    for canvas in ("found", "inset"):
        card.locator(f"canvas.{canvas}.drawn").wait_for()
    seen.settled()

    def drawn() -> list[str]:
        return [canvas.evaluate("(canvas) => canvas.toDataURL()") for canvas in card.locator("canvas").all()]

    def hold(route: Route) -> None:
        held.append(route)

    before = drawn()
    page.route("**/rendered?*", hold)
    card.locator('[data-index="1"]').click()
    seen.until(lambda: len(held) == 2)
    card.locator('[data-index="0"]').click()
    for late in held:
        late.continue_()
    seen.settled()
    assert drawn() == before
    card.locator('[data-index="1"]').click()
    seen.until(lambda: all(now != then for now, then in zip(drawn(), before, strict=True)))


def test_a_heat_map_that_is_not_ready_is_asked_for_again(seen: Watched, service: Service) -> None:
    page = seen.page
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        """As where the example waits to be embedded again; no other way to have that within a second."""
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        body = {"title": "The example is not embedded yet", "status": 409, "detail": "Ask again."}
        route.fulfill(status=409, headers={"Retry-After": "2"}, json=body)

    page.route("**/similar/explain?*", refuse_once)
    seen.open_study(head(service))
    page.keyboard.press("s")
    card = page.locator(".card").first
    card.locator("canvas.found.drawn").wait_for()
    card.get_by_role("button", name="Heat map").click()
    expect(card.locator(".message")).to_contain_text("not embedded yet; this page asks again in 2 seconds")
    expect(card.locator("canvas.found")).to_have_js_property("width", 768, timeout=60_000)
    expect(card.locator(".message")).to_have_text("")
    refused.clear()
    card.get_by_role("button", name="Compare", exact=True).click()
    seen.drawn()
    page.keyboard.press("2")
    page.keyboard.press("h")
    expect(page.locator("figcaption")).to_contain_text("asks again in 2 seconds")
    expect(page.get_by_role("img", name="Heat map of the match")).to_have_js_property("width", 384, timeout=60_000)


def test_nobody_learns_who_the_patients_are(seen: Watched, service: Service) -> None:
    """Neither the page nor what it was sent names a patient; the address names studies, and tells no server of them."""
    bodies: list[str] = []
    seen.page.on(
        "response",
        lambda answer: bodies.append(answer.text()) if "json" in (answer.headers.get("content-type") or "") else None,
    )
    seen.page.reload()
    seen.open_study(head(service))
    seen.page.keyboard.press("s")
    seen.page.locator(".card").first.focus()
    assert not IDENTITIES.search(seen.page.content().replace("https://reports.example/A", ""))
    seen.page.keyboard.press("Enter")
    seen.drawn()
    assert not IDENTITIES.search(seen.page.content().replace("https://reports.example/A", ""))
    assert re.fullmatch(rf"{service.url}/#similar\?example=[\d.]+", seen.page.url)
    assert not any("#" in url for url in seen.requests)
    assert len(bodies) > 5
    assert not [
        found
        for found in map(IDENTITIES.search, (body.replace("https://reports.example/A", "") for body in bodies))
        if found
    ]
    assert not any(IDENTITIES.search(url) for url in seen.requests)


def test_names_are_shown_and_searched_where_the_site_says_so(browser: Browser, service: Service) -> None:
    port = free_port()
    environment = service.environment | {"PACS_CBIR_HTTP_PORT": str(port), "PACS_CBIR_SHOW_IDENTITY": "true"}
    with command("api", environment, service.folder / "log"):
        wait_until(lambda: listens(port), START_SECONDS)
        with watched(browser, f"http://127.0.0.1:{port}") as seen:
            seen.open()
            seen.page.get_by_label("Name").fill("simulated")
            expect(seen.page.locator("tbody tr")).to_have_count(PATIENTS)
            seen.page.get_by_label("Patient ID").fill("SIM-00001")
            expect(seen.page.locator("tbody tr")).to_have_count(1)
            expect(seen.page.locator(".col-patient").last).to_contain_text("Simulated^00001 · SIM-00001")
            seen.accessible()


def test_the_first_picture(browser: Browser, service: Service) -> None:
    """Measured, not judged: the seconds from the load to the first picture go where the screenshots go."""
    seconds = first_picture_seconds(browser, service.url)
    (pictures_folder() / "page-first-picture.json").write_text(json.dumps({"seconds": seconds}) + "\n")
    assert all(0 < one < 60 for one in seconds)


@pytest.mark.slow
def test_a_long_list_is_kept_up_to_date(seen: Watched, service: Service) -> None:
    """More rows than the service answers at once, of which those that wait stand on the first pages alone."""
    page = seen.page
    with service.without_worker():
        scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "StudyDescription": "Many"}
        service.receive([mr_instance("MANY", f"many {n}", number=0, size=16, **scout) for n in range(5 * 25)])
        seen.open()
        rows = page.locator("tbody tr")
        for pages in range(1, 6):
            expect(rows).to_have_count(pages * 25)
            page.get_by_role("button", name="Show more").click()
        expect(page.get_by_role("button", name="Show more")).to_have_count(0)
        shown = rows.count()
        assert shown > 125
        expect(rows.last.locator(".status")).not_to_contain_text("embedding")
        service.receive(
            slices("newest", patient="NEWEST", StudyDescription="Newest of many", ImageType=scout["ImageType"])
        )
        expect(rows.first).to_contain_text("Newest of many", timeout=PATIENCE_MS)
        expect(rows).to_have_count(shown)
        expect(page.get_by_role("button", name="Show more")).to_be_visible()
    # The other tests look for their studies on the first page of the list.
    of_many = {"patient": {"PatientID": "MANY"}}
    assert httpx.post(f"{service.url}/corrections/patient-deletion", json=of_many, timeout=60).json()["proved"]


def test_more_answers_are_of_the_first_pages_ranking(seen: Watched, service: Service) -> None:
    page = seen.page

    def receive(name: str) -> str:
        twin = slices(name, patient=name, StudyDescription=name, BodyPartExamined="KNEE")
        service.receive(twin)
        return str(twin[0].StudyInstanceUID)

    def is_found(uid: str) -> bool:
        asked = {"example": example, "limit": "100", "min_similarity": "-1"}
        answer = httpx.get(f"{service.url}/similar/studies", params=asked, headers={"Accept": "application/json"})
        return answer.status_code == 200 and uid in {match["StudyInstanceUID"] for match in answer.json()}

    example, *others = [receive(f"Twin {number}") for number in range(14)]
    wait_until(lambda: all(map(is_found, others)), START_SECONDS)
    seen.open()
    seen.open_study("Twin 0")
    page.keyboard.press("s")
    cards = page.locator(".card")
    expect(cards).to_have_count(12)
    newcomer = receive("Twin newcomer")
    wait_until(lambda: is_found(newcomer), START_SECONDS)
    page.get_by_role("button", name="Show more").click()
    expect(cards).not_to_have_count(12)
    shown = cards.evaluate_all("(cards) => cards.map((card) => card.dataset.study)")
    assert len(set(shown)) == len(shown)
    assert newcomer not in shown
    assert "as_of=" in seen.requests_to("/similar/studies")[-1]


def test_a_box_on_a_small_picture_lies_where_it_was_drawn(seen: Watched, service: Service) -> None:
    """Where the pixel data has left, boxes keep their place, and what cannot be done is not offered."""
    page, press = seen.page, seen.page.keyboard.press
    sent = [mr_instance("GONE", "gone", number=n, size=256, StudyDescription="Gone phantom") for n in range(5)]
    service.receive(sent)
    uid = sent[0].StudyInstanceUID
    wait_until(lambda: listed(service, StudyInstanceUID=uid)[0]["series"][0]["state"] == "embedded", START_SECONDS)
    for path in (service.folder / "data" / "instances").rglob("*"):
        if path.is_file() and is_dicom(path) and dcmread(path, stop_before_pixels=True).StudyInstanceUID == uid:
            path.unlink()
    at = f"study={uid}&series={sent[1].SeriesInstanceUID}&instance={sent[1].SOPInstanceUID}"
    page.goto("about:blank")
    page.goto(f"{service.url}/#study?{at}&region=64,64,192,192")
    seen.drawn()
    stage = page.locator(".stage")
    expect(stage.locator(".reduced")).to_contain_text("Small picture")
    box, around = stage.locator(".box").bounding_box() or {}, stage.bounding_box() or {}
    assert box["width"] == pytest.approx(min(around["width"], around["height"]) / 2, abs=3)
    assert box["x"] + box["width"] / 2 == pytest.approx(around["x"] + around["width"] / 2, abs=3)
    expect(page.get_by_role("button", name="Find similar: box")).to_be_hidden()
    expect(page.get_by_role("button", name="Draw a box")).to_be_disabled()
    for key in ("[", "+", "b", "Enter"):
        press(key)
    page.wait_for_timeout(500)
    assert "window=" not in page.url
    assert not seen.requests_to("/similar/studies")
    assert not [url for url in seen.requests if "window=" in url]
    seen.accessible()
    seen.shot("state-small-picture")
    page.goto("about:blank")
    example = f"{uid}/{sent[1].SeriesInstanceUID}/{sent[1].SOPInstanceUID}/1"
    page.goto(f"{service.url}/#similar?example={example}&region=64,64,192,192")
    expect(page.locator(".state.error")).to_be_visible(timeout=60_000)
    page.locator(".example canvas.drawn").wait_for()

    def is_yellow() -> bool:
        """The middle of the left edge of the box, on a picture of 192 pixels."""
        red, green, blue, _ = page.locator(".example canvas").evaluate(
            "(canvas) => [...canvas.getContext('2d').getImageData(48, 96, 1, 1).data]"
        )
        return bool(red > 200 > blue and green > 150)

    seen.until(is_yellow)


def test_typing_keeps_the_focus_after_the_way_back(seen: Watched, service: Service) -> None:
    page = seen.page
    seen.open_study(head(service))
    page.keyboard.press("Escape")
    expect(page.locator("button.open:focus")).to_have_count(1)
    field = page.get_by_label("Description")
    field.focus()
    page.keyboard.type("schaedel", delay=80)
    expect(page.locator("tbody tr")).to_have_count(2)
    page.wait_for_timeout(600)
    expect(field).to_be_focused()
    expect(field).to_have_value("schaedel")


def test_the_way_back_leads_to_the_place_in_a_long_list(seen: Watched, service: Service) -> None:
    page = seen.page
    scout = {
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        "StudyDescription": "One of many",
        "StudyDate": "19900102",
    }
    service.receive([mr_instance(f"SEVERAL-{n}", f"several {n}", number=0, size=16, **scout) for n in range(30)])
    seen.open()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(25)
    page.get_by_role("button", name="Show more").click()
    expect(rows).not_to_have_count(25)
    shown = rows.count()
    button = rows.nth(29).get_by_role("button")
    button.scroll_into_view_if_needed()
    study, scrolled = button.get_attribute("data-study"), page.evaluate("() => window.scrollY")
    assert scrolled > 0
    button.click()
    seen.drawn()
    page.keyboard.press("Escape")
    expect(rows).to_have_count(shown)
    expect(page.locator(f'button.open[data-study="{study}"]')).to_be_focused()
    assert page.evaluate("() => window.scrollY") == scrolled


def test_what_cannot_be_asked_is_said_beside_its_field(seen: Watched) -> None:
    page = seen.page
    page.locator("tbody tr").first.wait_for()
    page.get_by_label("Age from").fill("-5")
    problem = page.locator(".field .problem:not(:empty)")
    expect(problem).to_have_text("From 0 to 120 years")
    seen.accessible()
    page.get_by_label("Age from").fill("")
    expect(problem).to_have_count(0)
    page.get_by_label("Description").fill("a\\b")
    expect(problem).to_have_text("A backslash cannot be searched for")
    page.wait_for_timeout(600)
    assert not [url for url in seen.requests_to("/studies") if "PatientAge=" in url or "%5C" in url]
    page.get_by_role("button", name="Clear").click()
    expect(problem).to_have_count(0)


def test_a_window_that_nothing_is_drawn_with_is_left_out(seen: Watched, service: Service) -> None:
    [study] = listed(service, StudyDescription=KNEE)
    page = seen.page
    page.goto("about:blank")
    at = f"study={study['StudyInstanceUID']}&series={study['series'][0]['SeriesInstanceUID']}"
    page.goto(f"{service.url}/#study?{at}&window=1e300,1e-300")
    seen.drawn()
    assert not [url for url in seen.requests if "1e%2B300" in url]
    assert "1e" not in page.url


def test_back_from_an_error_that_a_link_led_to_is_the_list(seen: Watched, service: Service) -> None:
    page = seen.page
    page.goto("about:blank")
    page.goto(f"{service.url}/#similar?example=1.2.3")
    page.locator(".state.error").get_by_role("button", name="Back").click()
    page.get_by_role("heading", level=1, name="Studies").wait_for()


def test_letters_at_the_edges_say_how_a_picture_lies(seen: Watched, service: Service) -> None:
    page = seen.page
    page.get_by_label("Description").fill(KNEE)
    seen.open_study(KNEE)
    for side, letter in {"left": "R", "right": "L", "top": "A", "bottom": "P"}.items():
        expect(page.locator(f".stage .edge.{side}")).to_have_text(letter)

    def edges(*orientation: float) -> dict[str, str] | None:
        found: dict[str, str] | None = page.evaluate(
            "async (orientation) => (await import('/page/orientation.js')).edgesOf(orientation)", list(orientation)
        )
        return found

    assert edges(0, 1, 0, 0, 0, -1) == {"left": "A", "right": "P", "top": "H", "bottom": "F"}
    assert edges(1, 0, 0, 0, 0, -1) == {"left": "R", "right": "L", "top": "H", "bottom": "F"}
    assert edges(0.97, 0.1, 0.2, 0, 0.87, -0.5) == {"left": "R", "right": "L", "top": "AH", "bottom": "PF"}
    assert edges(0.7, 0.5, 0.5, 0, 1, 0) == {"left": "RA", "right": "LP", "top": "A", "bottom": "P"}
    assert edges() is None
    assert edges(0, 0, 0, 0, 1, 0) is None
    page.keyboard.press("s")
    page.locator(".card").first.get_by_role("button", name="Compare", exact=True).click()
    seen.drawn()
    expect(page.locator(".stage .edge.left")).to_have_text(["R", "R"])
    seen.accessible()
