"""`pacs-cbir demo`: the whole mission on one machine, over the real protocols, ending in a picture."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from pacs_cbir.contact_sheet import write_contact_sheet
from pacs_cbir.errors import DemoFailed, SettingsError
from pacs_cbir.learn.simulate import simulate_cohort
from pacs_cbir.pacs.send import send
from pacs_cbir.readiness import becomes_ready
from pacs_cbir.settings import Settings

CALLING_AE_TITLE = "DEMO_PACS"
SEED = 20261123
MATCHES = 5
SETTLE_SECONDS = 1.0
START_SECONDS = 120.0


@dataclass(frozen=True)
class _Demo:
    folder: Path
    url: str
    console: Console
    stop: threading.Event


def run_demo(
    settings: Settings,
    stop: threading.Event,
    *,
    patients: int,
    source: Path | None,
    once: bool,
    report: Path | None,
    console: Console,
) -> None:
    """Start the embedded service, send a cohort, query by example, and show the answer.

    Args:
        source: a folder of DICOM files to send; without it a cohort is simulated.
        report: the folder for contact-sheet.png and report.json; without it one in the temporary folder, kept.

    Raises:
        DemoFailed, SettingsError, PeerError: with what went wrong.
    """
    begun = time.monotonic()
    # Whoever has these ports may be a hospital's own service, which must never be sent a demonstration's patients.
    settings = settings.model_copy(
        update={
            "dicom_port": _free_port(settings.dicom_host, settings.dicom_port),
            "http_port": _free_port(settings.http_host, settings.http_port),
        }
    )
    report = report or Path(tempfile.mkdtemp(prefix="pacs-cbir-demo-report-"))
    report.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cbir-demo-"))
    try:
        with _service(settings, folder, report / "service.log", stop) as url:
            demo = _Demo(folder, url, console, stop)
            cohort = source or _simulate(demo, patients)
            studies = _send(demo, cohort, settings)
            state = _wait_until_embedded(demo)
            query, matches = _query(demo, studies)
            picture = None
            if query is not None:
                picture = write_contact_sheet(url, query, matches, report)
            result = state | {"seconds": round(time.monotonic() - begun, 1), "query": query, "matches": matches}
            (report / "report.json").write_text(json.dumps(result, indent=2) + "\n")
            _show(demo, result, picture, settings)
            if not once:
                console.print("Ctrl-C stops the service and removes its data.")
                stop.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(host: str, wanted: int) -> int:
    """The port, or any free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SettingsError(f"no TCP port can be listened on at {host}; set PACS_CBIR_DICOM_HOST and PACS_CBIR_HTTP_HOST")


@contextmanager
def _service(settings: Settings, folder: Path, logs: Path, stop: threading.Event) -> Iterator[str]:
    """`pacs-cbir serve` in a data directory of its own; gives the API's URL once it is ready."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PACS_CBIR_DATABASE")}
    environment = kept | {
        "PACS_CBIR_DATA_DIR": str(folder / "data"),
        "PACS_CBIR_DICOM_PORT": str(settings.dicom_port),
        "PACS_CBIR_HTTP_PORT": str(settings.http_port),
        "PACS_CBIR_SETTLE_SECONDS": str(SETTLE_SECONDS),
    }
    url = f"http://{settings.http_host}:{settings.http_port}"
    with logs.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_cbir", "serve"], env=environment, stderr=sink, start_new_session=True
        )
        try:
            if not becomes_ready(process, url, START_SECONDS, stop):
                raise DemoFailed(f"the service did not start; {logs} says why")
            yield url
        finally:
            process.terminate()
            process.wait()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _simulate(demo: _Demo, patients: int) -> Path:
    out = demo.folder / "cohort"
    with _progress(demo.console) as progress:
        for _ in progress.track(
            simulate_cohort(out, patients=patients, seed=SEED), patients, description="Simulating patients"
        ):
            _go_on(demo)
    return out


def _send(demo: _Demo, cohort: Path, settings: Settings) -> list[str]:
    """Send every DICOM file below a folder; returns the studies, in the order in which they were sent."""
    paths = sorted(path for path in cohort.rglob("*") if path.is_file())
    studies: dict[str, int] = {}
    other = refused = 0
    with _progress(demo.console) as progress:
        sending = send(
            paths, settings.dicom_host, settings.dicom_port, called=settings.ae_title, calling=CALLING_AE_TITLE
        )
        for sent in progress.track(sending, len(paths), description="Sending by C-STORE"):
            _go_on(demo)
            if sent.accepted:
                studies[sent.study_instance_uid] = studies.get(sent.study_instance_uid, 0) + 1
            elif sent.status is None:
                other += 1
            else:
                refused += 1
    if refused:
        demo.console.print(f"{refused} instances were refused; the service's log says why")
    if not studies:
        raise DemoFailed(f"no DICOM instance could be sent from {cohort} ({other} other files)")
    return list(studies)


def _wait_until_embedded(demo: _Demo) -> dict[str, Any]:
    """Until no series is waiting; returns the report's counts."""
    with _progress(demo.console) as progress:
        task = progress.add_task("Embedding series", total=None)
        while True:
            _go_on(demo)
            state = httpx.get(f"{demo.url}/status", timeout=30).raise_for_status().json()
            left = state["jobs"].get("waiting", 0) + state["jobs"].get("running", 0)
            progress.update(task, total=state["series"], completed=state["series"] - left)
            if left == 0:
                break
            demo.stop.wait(0.3)
    return {
        "studies": state["studies"],
        "series": state["series"],
        "embedded": state["embedded_series"],
        "parked": state["jobs"].get("parked", 0),
    }


def _query(demo: _Demo, studies: list[str]) -> tuple[str | None, list[dict[str, Any]]]:
    """Ask for studies like the first one that is embedded."""
    for study in studies:
        # The index takes over what was committed within two seconds; an example is asked for again until then.
        for _ in range(20):
            answer = httpx.get(
                f"{demo.url}/similar/studies",
                params={"example": study, "limit": MATCHES, "min_similarity": -1},
                headers={"Accept": "application/json"},
                timeout=30,
            )
            expected = min(MATCHES, len(studies) - 1)
            if answer.status_code in {404, 422} or (answer.is_success and len(_listed(answer)) >= expected):
                break
            demo.stop.wait(0.2)
        if answer.is_success:
            return study, _listed(answer)
    return None, []


def _listed(answer: httpx.Response) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [] if answer.status_code == HTTPStatus.NO_CONTENT else answer.json()
    return found


def _go_on(demo: _Demo) -> None:
    if demo.stop.is_set():
        raise DemoFailed("stopped")


def _show(demo: _Demo, result: dict[str, Any], picture: Path | None, settings: Settings) -> None:
    console = demo.console
    console.print(
        f"{result['studies']} studies, {result['series']} series, {result['embedded']} embedded, "
        f"{result['parked']} parked, {result['seconds']} s"
    )
    if result["query"] is None:
        console.print("No study could be embedded, so there is nothing to query by; `pacs-cbir status` tells why.")
    else:
        table = Table("Rank", Column("StudyInstanceUID", overflow="fold"), "Similarity", "Sequences")
        table.title = f"Studies like {result['query']}"
        for rank, match in enumerate(result["matches"], start=1):
            sequences = ", ".join(f"{one['sequence']} {one['similarity']:.3f}" for one in match["series"])
            table.add_row(str(rank), match["StudyInstanceUID"], f"{match['similarity']:.3f}", sequences)
        console.print(table)
    if picture is not None:
        console.print(f"picture     {picture}")
        console.print(f"report      {picture.parent / 'report.json'}")
    console.print(f"query       {demo.url}/similar/studies?example={result['query']}", soft_wrap=True)
    console.print(f"page        {demo.url}/")
    console.print(f"API         {demo.url}/docs")
    console.print(f"DIMSE       {settings.ae_title} at {settings.dicom_host}:{settings.dicom_port}")
    console.print("For research and teaching, not a medical device. Similar in appearance is not alike in diagnosis.")
