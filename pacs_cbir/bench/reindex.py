"""`pacs-cbir bench reindex`: a worker that embeds what is stored, beside its encoder alone on the same slices."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pacs_cbir.embed.checkpoint import Checkpoint, default_checkpoint_path, load_checkpoint, save_checkpoint
from pacs_cbir.embed.decode import draw_series
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.errors import BenchFailed
from pacs_cbir.kept_encoders import add_encoder
from pacs_cbir.learn.report import commit_of_program, device_in_words
from pacs_cbir.learn.simulate import simulate_cohort
from pacs_cbir.reindex import start_reindex
from pacs_cbir.settings import Settings, load_settings
from pacs_cbir.store import files
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.session import Database, open_database
from pacs_cbir.store.status import count_jobs

NAME = "bench-reindex"
LOOK_SECONDS = 0.02
LONGEST_SECONDS = 3600.0
SEED = 31


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Round(_Frozen):
    """One encoder that was reindexed with, and measured bare right before and after.

    Attributes:
        reindexed: series a second, from `pacs-cbir reindex` to the last job's end: files, decoding, embedding, rows.
        bare: series a second of the encoder alone on the same slices, drawn before and in memory.
    """

    reindexed: float
    bare: float


class Report(_Frozen):
    """A run, and how it came about.

    Attributes:
        drawn: series a second that one decoder process draws, and nothing else.
        ratio: the rounds' median of reindexed / bare.
        commit: of the program that ran; with "+" where files differed from it.
    """

    series: int
    slices: int
    drawn: float
    rounds: tuple[Round, ...]
    ratio: float
    device: str
    threads: str
    commit: str


def bench_reindex(patients: int, rounds: int, console: Console) -> Report:
    """Store a simulated cohort, and reindex it with one encoder after another.

    Raises:
        BenchFailed: the worker ended, or did not come to an end.
    """
    packaged = load_checkpoint(default_checkpoint_path())
    with _progress(console) as progress, tempfile.TemporaryDirectory(prefix="cbir-", dir="/tmp") as name:
        folder = Path(name)
        settings = load_settings(data_dir=folder / "data", database_url=None, settle_seconds=0.0)
        files.prepare(settings)
        with open_database(settings) as database:
            of_series = _store(folder / "cohort", patients, settings, database, progress)
            with _worker(settings, folder / "worker.log") as worker:
                _wait(database, worker, progress.add_task("Embedding what arrived", total=len(of_series)), progress)
                slices, drawn = _drawn(of_series, packaged, progress)
                measured = []
                for number in range(1, rounds + 1):
                    other = _another(packaged, folder / f"round-{number}.safetensors", number)
                    before = _bare(other, slices)
                    row = add_encoder(settings, database, other)
                    task = progress.add_task(f"Reindexing, round {number}", total=len(of_series))
                    started = time.perf_counter()
                    start_reindex(database, row.name, hours=None, workers=None, from_pacs=False)
                    _wait(database, worker, task, progress)
                    seconds = time.perf_counter() - started
                    # Before and after: a machine's speed changes while it is measured.
                    bare = len(slices) / ((before + _bare(other, slices)) / 2)
                    measured.append(Round(reindexed=len(of_series) / seconds, bare=bare))
    return Report(
        series=len(of_series),
        slices=sum(map(len, slices)),
        drawn=drawn,
        rounds=tuple(measured),
        ratio=float(np.median([one.reindexed / one.bare for one in measured])),
        device=device_in_words(),
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
        commit=commit_of_program(),
    )


def table(report: Report) -> str:
    """A row for each round, and the median."""
    lines = ["| round | reindexed, series/s | bare encoder, series/s | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {number} | {one.reindexed:.2f} | {one.bare:.2f} | {one.reindexed / one.bare:.2f} |"
        for number, one in enumerate(report.rounds, start=1)
    ]
    return "\n".join([*lines, f"| median | | | {report.ratio:.2f} |"])


def write_report(report: Report, folder: Path) -> None:
    """Write bench-reindex.json and .md."""
    with whole_file(folder / f"{NAME}.json") as file:
        file.write((report.model_dump_json(indent=1) + "\n").encode())
    head = (
        f"{report.series} stored series of simulated patients, {report.slices} slices, one worker; Postgres, worker "
        f"and measurement on one machine; {report.device}; threads of the encoder: {report.threads}; commit "
        f"{report.commit}. One decoder process draws {report.drawn:.2f} series/s."
    )
    with whole_file(folder / f"{NAME}.md") as file:
        file.write(f"{head}\n\n{table(report)}\n".encode())


def _store(cohort: Path, patients: int, settings: Settings, database: Database, progress: Progress) -> list[list[Path]]:
    """Simulate patients and ingest them as the SCP does; the files of each series, by their simulated paths."""
    task = progress.add_task("Simulating and storing", total=patients)
    of_series: list[list[Path]] = []
    for study in simulate_cohort(cohort, patients=patients, seed=SEED):
        for folder in sorted(path for path in study.folder.iterdir() if path.is_dir()):
            of_series.append(sorted(folder.glob("*.dcm")))
            for path in of_series[-1]:
                received = settings.incoming_dir / "bench.part"
                received.write_bytes(path.read_bytes())
                ingest(received, Source("BENCH"), database, settings)
        progress.advance(task)
    return of_series


def _drawn(
    of_series: Sequence[Sequence[Path]], checkpoint: Checkpoint, progress: Progress
) -> tuple[list[npt.NDArray[np.float32]], float]:
    """The slices of each series, and how many series a second were drawn."""
    preprocessing = checkpoint.card.preprocessing
    slices, seconds = [], 0.0
    for paths in progress.track(of_series, description="Drawing in memory"):
        started = time.perf_counter()
        stacks = draw_series(paths, preprocessing, with_thumbnails=False)
        seconds += time.perf_counter() - started
        slices.append(np.concatenate([stack.slices.pixels for stack in stacks if stack.slices is not None]))
    return slices, len(of_series) / seconds


def _another(checkpoint: Checkpoint, path: Path, number: int) -> Path:
    """An encoder of the same cost and another identity."""
    name, first = next((name, weight) for name, weight in checkpoint.weights.items() if weight.dtype.kind == "f")
    changed = first * np.asarray(1 + number / 64, first.dtype)
    card = checkpoint.card.model_copy(update={"name": path.stem})
    save_checkpoint(path, card, {**checkpoint.weights, name: changed})
    return path


def _bare(checkpoint: Path, slices: Sequence[npt.NDArray[np.float32]]) -> float:
    """Seconds for the embedding of all series, one after another as the worker has them."""
    encoder = Encoder(load_checkpoint(checkpoint))
    encoder.embed(slices[0])
    started = time.perf_counter()
    for pixels in slices:
        encoder.pool(encoder.embed(pixels))
    return time.perf_counter() - started


@contextmanager
def _worker(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`pacs-cbir worker` on the same database and data directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PACS_CBIR_")}
    environment = kept | {"PACS_CBIR_DATA_DIR": str(settings.data_dir)}
    with log.open("wb") as sink:
        worker = subprocess.Popen(
            [sys.executable, "-m", "pacs_cbir", "worker"], env=environment, stdout=sink, stderr=sink
        )
        try:
            yield worker
        finally:
            worker.terminate()
            worker.wait()


def _wait(database: Database, worker: subprocess.Popen[bytes], task: int, progress: Progress) -> None:
    """Until no job is left."""
    total, pause, end = progress.tasks[task].total or 0, threading.Event(), time.monotonic() + LONGEST_SECONDS
    while True:
        with database.reading() as connection:
            counted = count_jobs(connection)
        left = counted["waiting"] + counted["running"]
        progress.update(progress.tasks[task].id, completed=total - left)
        if counted["parked"] or worker.poll() is not None or time.monotonic() > end:
            raise BenchFailed(f"the worker did not embed every series; {counted['parked']} were parked")
        if left == 0:
            return
        pause.wait(LOOK_SECONDS)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
