"""`pacs-cbir bench query`: what a query by example costs, beside the same search in bare faiss."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pacs_cbir.bench.clients import ask, client_process
from pacs_cbir.bench.cohort import Cohort
from pacs_cbir.bench.fill import fill
from pacs_cbir.bench.peer import Peer
from pacs_cbir.bench.questions import KINDS, SEQUENCE, Kind
from pacs_cbir.bench.report import Measured, Report, Speed
from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.checkpoint import default_checkpoint_path
from pacs_cbir.errors import BenchFailed
from pacs_cbir.learn.report import commit_of_program, device_in_words
from pacs_cbir.readiness import becomes_ready
from pacs_cbir.settings import load_settings
from pacs_cbir.store.bulk import analyse
from pacs_cbir.store.session import open_database, open_owner

HOST = "127.0.0.1"
START_SECONDS = 900.0
"""A million embeddings take minutes to read."""


def bench_query(sizes: Sequence[int], clients: Sequence[int], seconds: float, console: Console) -> Report:
    """Measure every kind of query over cohorts of each size.

    Args:
        sizes: embeddings of slices.
        clients: how many ask at once.
        seconds: for which each kind is asked by each number of clients.

    Raises:
        BenchFailed: the API did not start, or answered with an error.
    """
    card = json.loads(default_checkpoint_path().with_suffix(".json").read_text())
    architecture = Architecture.model_validate(card["architecture"])
    measured: list[Measured] = []
    with _progress(console) as progress, client_process() as process:
        for size in sizes:
            cohort = Cohort(architecture, size)
            with tempfile.TemporaryDirectory(prefix="cbir-", ignore_cleanup_errors=True) as folder:
                measured += _measure(
                    Path(folder), cohort, card, clients=clients, seconds=seconds, process=process, progress=progress
                )
    return Report(
        dimension=architecture.embedding_dimension,
        seconds=seconds,
        device=f"{device_in_words()}, {os.cpu_count()} cores",
        commit=commit_of_program(),
        measured=measured,
    )


def _measure(
    folder: Path,
    cohort: Cohort,
    card: dict[str, Any],
    *,
    clients: Sequence[int],
    seconds: float,
    process: Executor,
    progress: Progress,
) -> Iterator[Measured]:
    size = f"{cohort.slices:,} slices"
    writing = progress.add_task(f"{size}: rows", total=cohort.studies)
    settings = load_settings(data_dir=folder, database_url=None)
    with open_database(settings) as database:
        fill(database, cohort, card, lambda count: progress.advance(writing, count))
        with open_owner(settings) as owner, owner.transaction() as connection:
            analyse(connection)
        peer = Peer(cohort, SEQUENCE)
        with _api(folder) as url:
            asking = progress.add_task(f"{size}: queries", total=len(KINDS))
            for kind in KINDS:
                # Before and after: a machine's speed changes while it is measured.
                bare = [_bare(peer, kind, cohort)]
                speeds = []
                for many in clients:
                    load = process.submit(ask, url, kind.paths(cohort), kind.accept, many, seconds).result()
                    p50, p95, p99 = (float(ms) for ms in np.percentile(load.milliseconds, (50, 95, 99)))
                    rate = len(load.milliseconds) / load.seconds
                    speeds.append(Speed(clients=many, p50=p50, p95=p95, p99=p99, per_second=rate))
                bare.append(_bare(peer, kind, cohort))
                yield Measured(slices=cohort.slices, kind=kind.name, bare=float(np.mean(bare)), speeds=tuple(speeds))
                progress.advance(asking)


def _bare(peer: Peer, kind: Kind, cohort: Cohort) -> float:
    if not kind.searched:
        return 0.0
    return peer.milliseconds(kind.searched, kind.left(cohort), whole=kind.whole)


@contextmanager
def _api(folder: Path) -> Iterator[str]:
    """`pacs-cbir api` over the database in `folder`; gives its URL once the index is loaded."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PACS_CBIR_")}
    environment = kept | {
        "PACS_CBIR_DATA_DIR": str(folder),
        "PACS_CBIR_HTTP_HOST": HOST,
        "PACS_CBIR_HTTP_PORT": str(port),
        # As the peer: one thread a search.
        "OMP_NUM_THREADS": "1",
    }
    url, log = f"http://{HOST}:{port}", folder / "api.log"
    with log.open("wb") as sink:
        api = subprocess.Popen([sys.executable, "-m", "pacs_cbir", "api"], env=environment, stderr=sink)
        try:
            if not becomes_ready(api, url, START_SECONDS, threading.Event()):
                raise BenchFailed(f"the API did not start: {log.read_text()[-1000:]}")
            yield url
        finally:
            # Not asked to end: it would write a snapshot that nobody reads.
            api.kill()
            api.wait()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
