"""The worker: claim → decode → embed → save → finish."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog

from pacs_cbir import series_plan
from pacs_cbir.dicom.rules import read_rules
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import (
    CheckpointError,
    DatabaseUnavailable,
    EncoderMismatch,
    JobLost,
    PacsCbirError,
    PeerAway,
    PeerError,
    PixelDataGone,
    StoreError,
    VolumeError,
)
from pacs_cbir.kept_encoders import KeptEncoders, activate_first
from pacs_cbir.pacs.retrieve import peer_with_series, retrieve_series
from pacs_cbir.series_plan import SeriesPlan
from pacs_cbir.settings import Settings
from pacs_cbir.store import claims, embeddings, encoders, jobs, retention
from pacs_cbir.store.encoders import EncoderRow
from pacs_cbir.store.session import Database

# How long an idle worker waits before it looks for a job again.
IDLE_SECONDS = 0.5
AWAY_SECONDS = 2.0
# Followers that slept for longer than this compare all stacks instead.
KEEP_CHANGES_SECONDS = 86400.0
HOUSEKEEPING_JOBS = 1000
RETENTION_SECONDS = 10.0
# What is kept is summed at each look: the more it is, the longer the pause, as a share of the time that one takes.
RETENTION_SHARE = 20
LONGEST_RETENTION_SECONDS = 60.0
# A PACS that is away is asked again after this.
PEER_AWAY_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True)
class _Begun:
    """A claimed job, whose lease is prolonged until it is closed, and what is to be done, once that is known."""

    job: claims.Job
    lease: ExitStack
    plan: Future[SeriesPlan]


class Worker:
    """One worker process: encoders, a decoder child, and the jobs it claims.

    It follows the encoders' rows: what is added while it runs embeds with the next job.

    Raises:
        CheckpointError: the packaged checkpoint, which the first worker of all brings, cannot be read.
        SettingsError: the site's rules of sequences cannot be read.
    """

    def __init__(self, settings: Settings, database: Database, decoder: Decoder) -> None:
        self._settings, self._database, self._decoder = settings, database, decoder
        self._rules = read_rules(settings.sequence_rules)
        self._encoders = KeptEncoders(settings.encoders_dir)
        self._told: set[int] = set()
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._planner = ThreadPoolExecutor(1, "planner")
        activate_first(settings, database)
        log.info("worker is ready")

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; what was begun is finished first.

        While a series is embedded, the decoder draws the next one.
        """
        done, ahead = 0, None
        while ahead is not None or not stop.is_set():
            try:
                begun, ahead = ahead or self._begin(), None
                if begun is None:
                    stop.wait(IDLE_SECONDS)
                    continue
                ahead = None if stop.is_set() else self._begin_ahead()
                self._complete(begun)
                done += 1
                if done % HOUSEKEEPING_JOBS == 1:
                    with self._database.transaction() as connection:
                        embeddings.forget_changes(connection, KEEP_CHANGES_SECONDS)
            except DatabaseUnavailable as error:
                log.warning("waiting for the database", error=str(error))
                stop.wait(AWAY_SECONDS)

    def work_once(self) -> bool:
        """Do one job that is due; returns whether there was one.

        Raises:
            DatabaseUnavailable: the job, if any was claimed, is claimed again once its lease ran out.
        """
        begun = self._begin()
        if begun is None:
            return False
        self._complete(begun)
        return True

    def _begin_ahead(self) -> _Begun | None:
        try:
            return self._begin()
        except DatabaseUnavailable:
            # What was begun before is completed all the same, or says so itself.
            return None

    def _begin(self) -> _Begun | None:
        """Claim a job and start drawing its series; None where nothing is due."""
        with self._database.transaction() as connection:
            rows = encoders.kept(connection)
            job = claims.claim(connection, self._name, self._settings, self._able(rows))
        self._encoders.keep_only(rows)
        if job is None:
            return None
        lease = ExitStack()
        lease.enter_context(self._lease(job))
        # In another thread: a PACS may take its time, while the series before is embedded.
        return _Begun(job, lease, self._planner.submit(self._plan, job, rows))

    def _complete(self, begun: _Begun) -> None:
        """Embed what was drawn, and save it.

        Raises:
            DatabaseUnavailable: the job is claimed again once its lease ran out.
        """
        with begun.lease:
            try:
                self._save(begun.job, begun.plan.result())
            except JobLost:
                log.warning("job was given to another worker", job=begun.job.id)
            except DatabaseUnavailable:
                # No fault of the series.
                raise
            except Exception as error:
                self._give_back(begun.job, error)

    def _able(self, rows: list[EncoderRow]) -> list[EncoderRow]:
        """The encoders that this process has the device for; says once which it has not."""
        able = [row for row in rows if self._encoders.can_load(row)]
        for row in rows:
            if row not in able and row.id not in self._told:
                self._told.add(row.id)
                log.warning(
                    "an encoder waits for workers that have what it needs; this one has not",
                    encoder=row.name,
                    precision=row.precision,
                )
        return able

    def _plan(self, job: claims.Job, rows: list[EncoderRow]) -> SeriesPlan:
        """Load what embeds the series, fetch it where it has left, and start drawing it.

        Raises:
            CheckpointError, EncoderMismatch: of the one encoder that the job names.
            PixelDataGone: the series is not here as a whole, and is not to be fetched.
            PeerError, SettingsError, StoreError: it cannot be fetched.
        """
        loaded, elsewhere = self._with_encoders(job, rows)
        files = self._files(job, rows)
        with self._database.transaction() as connection:
            # Thumbnails are of the frames that slices were drawn from: another encoder's job has made the same.
            again = job.encoder_id is not None and embeddings.drawn_alike(connection, job.series_id, job.encoder_id)
        return series_plan.start(
            files, loaded, elsewhere, self._decoder, self._settings, rules=self._rules, with_thumbnails=not again
        )

    def _files(self, job: claims.Job, rows: list[EncoderRow]) -> dict[str, tuple[str, str]]:
        """The series' files, fetched where they have left: for `reindex --from pacs`, and for what arrives late."""
        try:
            with self._database.transaction() as connection:
                return embeddings.series_files(connection, job.series_id)
        except PixelDataGone as error:
            row = next((row for row in rows if row.id == job.encoder_id), None)
            if row is None and not self._settings.peers:
                raise
            if row is not None and not row.from_pacs:
                advice = f"; `pacs-cbir reindex --encoder {row.name} --from pacs` fetches it"
                raise PixelDataGone(error.sent_by, advice) from None
        with self._database.transaction() as connection:
            study, series = embeddings.series_names(connection, job.series_id)
        peer = peer_with_series(study, series, self._settings, self._database)
        count = retrieve_series(peer, study, series, self._settings, self._database)
        log.info("pixel data was fetched again", series=job.series_id, peer=peer.ae_title, instances=count)
        with self._database.transaction() as connection:
            return embeddings.series_files(connection, job.series_id)

    def _with_encoders(self, job: claims.Job, rows: list[EncoderRow]) -> tuple[dict[int, Encoder], frozenset[int]]:
        """The one encoder that the job names, or all that are kept up, and the rows of those that cannot be had here.

        Raises:
            CheckpointError, EncoderMismatch: of the one encoder.
        """
        loaded: dict[int, Encoder] = {}
        elsewhere = set()
        for row in rows:
            if job.encoder_id not in {None, row.id}:
                continue
            try:
                loaded[row.id] = self._encoders.encoder(row)
            except (CheckpointError, EncoderMismatch):
                # What arrives is not kept from the other encoders by it; its own job is parked with the error.
                if job.encoder_id is not None:
                    raise
                elsewhere.add(row.id)
        return loaded, frozenset(elsewhere)

    def _save(self, job: claims.Job, plan: SeriesPlan) -> None:
        found = plan.embed()
        with self._database.transaction() as connection:
            if not any(found.values()):
                embeddings.hold_to_drop(connection, job.series_id)
            claims.finish(connection, job, found)
            embeddings.save(connection, job.series_id, found)
            jobs.enqueue_with(connection, job.series_id, encoders.hold(connection, list(plan.elsewhere)))
            if not any(found.values()):
                embeddings.drop_empty(connection, job.series_id)
        stacks = [stack for of_encoder in found.values() for stack in of_encoder]
        log.info(
            "series done",
            series=job.series_id,
            encoders=len(found),
            stacks=len(stacks),
            slices=sum(max(0, len(stack.embeddings) - 1) for stack in stacks),
            not_embedded=sorted({stack.not_embedded for stack in stacks if stack.not_embedded}),
        )

    def _give_back(self, job: claims.Job, error: Exception) -> None:
        # A series that cannot be read will not be read better later, but a decoder can die of its neighbours' memory.
        text = f"{type(error).__name__}: {error}" if isinstance(error, PacsCbirError) else type(error).__name__
        with self._database.transaction() as connection:
            try:
                if isinstance(error, PeerAway):
                    # However long it is away, that is no fault of the series.
                    claims.postpone(connection, job, text, PEER_AWAY_SECONDS)
                    parked = False
                else:
                    parked = claims.fail(connection, job, text, self._settings)
            except JobLost:
                return
        expected = isinstance(error, VolumeError | PeerError | PixelDataGone)
        log.warning("job failed", job=job.id, parked=parked, error=text, exc_info=None if expected else error)

    @contextmanager
    def _lease(self, job: claims.Job) -> Iterator[None]:
        """Prolong the job's lease for as long as the block runs."""
        done = threading.Event()

        def prolong() -> None:
            while not done.wait(self._settings.lease_seconds / 3):
                try:
                    with self._database.transaction() as connection:
                        claims.extend(connection, job, self._settings.lease_seconds)
                except (DatabaseUnavailable, JobLost) as error:
                    # The fence in `finish` decides; a lease that was not prolonged only risks double work.
                    log.warning("lease not prolonged", job=job.id, error=str(error))

        thread = threading.Thread(target=prolong, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _keep_retention(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Let pixel data leave as it comes to be due, whatever the worker does meanwhile."""
    pause = RETENTION_SECONDS
    while not stop.wait(pause):
        begun = time.monotonic()
        try:
            if removed := retention.let_go(settings, database):
                log.info("pixel data has left", files=removed, retention=settings.retention)
        except StoreError as error:
            log.warning("pixel data could not leave", error=str(error))
        except Exception:
            # The thread must not die: the disk would fill up in silence.
            log.exception("pixel data could not leave")
        took = time.monotonic() - begun
        pause = max(RETENTION_SECONDS, min(RETENTION_SHARE * took, LONGEST_RETENTION_SECONDS))


def run_worker(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Serve as one worker until `stop` is set."""
    retention.require_allowed(settings, database)
    if settings.retention != "all":
        threading.Thread(target=_keep_retention, args=(settings, database, stop), daemon=True).start()
    with Decoder(settings.decode_seconds, settings.decode_megabytes) as decoder:
        Worker(settings, database, decoder).run(stop)
