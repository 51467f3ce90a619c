"""Orthanc's own Explorer with our button, in Chromium: from a study there to the studies that look like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import archives
import httpx
import pytest
from browser import Watched, chromium, pictures_folder
from playwright.sync_api import expect
from running import START_SECONDS, command, is_ready, wait_until

from pacs_cbir.learn.simulate import simulate_cohort
from pacs_cbir.settings import Settings

pytestmark = pytest.mark.peer

ARRIVAL_SECONDS = 120.0


@pytest.mark.slow
def test_from_a_study_in_orthanc_to_similar_ones(
    settings: Settings, environment: dict[str, str], peer: Callable[[str], str], tmp_path: Path
) -> None:
    if not archives.PYTHON_PLUGIN.exists():
        peer(str(archives.PYTHON_PLUGIN))
    ours = f"http://127.0.0.1:{settings.http_port}"
    theirs = environment | {
        "PACS_CBIR_URL": f"{ours}/",
        "PACS_CBIR_DICOM_PORT": str(settings.dicom_port),
        "PACS_CBIR_AE_TITLE": settings.ae_title,
    }
    plugins = [str(archives.DICOMWEB_PLUGIN), str(archives.PYTHON_PLUGIN)]
    with (
        command("serve", environment, tmp_path / "serve.log"),
        archives.orthanc(peer, tmp_path / "orthanc", theirs, StableAge=1, Plugins=plugins) as orthanc,
        httpx.Client(base_url=orthanc.url, timeout=60) as client,
        chromium(peer("chromium")) as browser,
    ):
        wait_until(lambda: is_ready(ours), START_SECONDS)
        for patient in simulate_cohort(tmp_path / "cohort", patients=3, seed=5):
            for path in sorted(patient.folder.rglob("*.dcm")):
                client.post("/instances", content=path.read_bytes()).raise_for_status()
        wait_until(lambda: _embedded(ours) == 3, ARRIVAL_SECONDS)
        page = browser.new_page()
        button = page.locator("#study-similar")
        for study in client.get("/studies", params={"expand": ""}).json()[:2]:
            page.goto(f"{orthanc.url}/app/explorer.html#study?uuid={study['ID']}")
            uid = study["MainDicomTags"]["StudyInstanceUID"]
            expect(button).to_have_attribute("href", f"{ours}/#study?study={uid}")
        page.screenshot(path=pictures_folder() / "orthanc-button.png")
        expect(button).to_have_text("Similar studies")
        with page.expect_popup() as opened:
            button.click()
        seen = Watched(opened.value, ours)
        assert opened.value.url.startswith(f"{ours}/#study?study={uid}")
        seen.drawn()
        assert opened.value.locator(".stage").count() == 4
        opened.value.keyboard.press("s")
        opened.value.locator(".card").nth(1).wait_for()


def _embedded(url: str) -> int:
    studies = httpx.get(f"{url}/studies").json() if httpx.get(f"{url}/studies").status_code == 200 else []
    return sum(len(one["series"]) == 4 and all(s["state"] == "embedded" for s in one["series"]) for one in studies)
