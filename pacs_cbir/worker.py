"""Door 2: claim → decode → embed → save → finish."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import structlog
from pydicom.uid import UID

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES
from pacs_cbir.embed.decode import Decoder, DrawnStack
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import (
    CheckpointError,
    DatabaseUnavailable,
    EncoderMismatch,
    JobLost,
    PacsCbirError,
    StoreError,
    VolumeError,
)
from pacs_cbir.kept_encoders import KeptEncoders, activate_first
from pacs_cbir.settings import Settings
from pacs_cbir.store import embeddings, encoders, jobs, retention
from pacs_cbir.store.embeddings import NewStack, SliceEmbedding
from pacs_cbir.store.encoders import EncoderRow
from pacs_cbir.store.session import Database

# How long an idle worker waits before it looks for a job again.
IDLE_SECONDS = 0.5
AWAY_SECONDS = 2.0
# Followers that slept for longer than this compare all stacks instead.
KEEP_CHANGES_SECONDS = 86400.0
HOUSEKEEPING_JOBS = 1000
RETENTION_SECONDS = 10.0

log = structlog.get_logger()


@dataclass(frozen=True)
class _Work:
    """A claimed job.

    Attributes:
        encoders: that embed the series here, by their rows' ids.
        elsewhere: rows of those that are to embed it too, and cannot here.
    """

    job: jobs.Job
    encoders: Mapping[int, Encoder]
    elsewhere: frozenset[int]


class Worker:
    """One worker process: encoders, a decoder child, and the jobs it claims.

    It follows the encoders' rows: what is added while it runs embeds with the next job.

    Raises:
        CheckpointError: the packaged checkpoint, which the first worker of all brings, cannot be read.
    """

    def __init__(self, settings: Settings, database: Database, decoder: Decoder) -> None:
        self._settings, self._database, self._decoder = settings, database, decoder
        self._encoders = KeptEncoders(settings.encoders_dir)
        self._told: set[int] = set()
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        activate_first(settings, database)
        log.info("worker is ready")

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the job under way is finished first."""
        done = 0
        while not stop.is_set():
            try:
                if self.work_once():
                    done += 1
                else:
                    stop.wait(IDLE_SECONDS)
                if done % HOUSEKEEPING_JOBS == 0:
                    with self._database.transaction() as connection:
                        embeddings.forget_changes(connection, KEEP_CHANGES_SECONDS)
                    done += 1
            except DatabaseUnavailable as error:
                log.warning("waiting for the database", error=str(error))
                stop.wait(AWAY_SECONDS)

    def work_once(self) -> bool:
        """Do one job that is due; returns whether there was one.

        Raises:
            DatabaseUnavailable: the job, if any was claimed, is claimed again once its lease ran out.
        """
        with self._database.transaction() as connection:
            rows = encoders.kept(connection)
            job = jobs.claim(connection, self._name, self._settings, self._able(rows))
        self._encoders.keep_only(rows)
        if job is None:
            return False
        try:
            with self._lease(job):
                work = self._with_encoders(job, rows)
                self._save(work, self._embed(work))
        except JobLost:
            log.warning("job was given to another worker", job=job.id)
        except DatabaseUnavailable:
            # No fault of the series: its lease runs out, and the job is claimed again.
            raise
        except Exception as error:
            self._give_back(job, error)
        return True

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

    def _with_encoders(self, job: jobs.Job, rows: list[EncoderRow]) -> _Work:
        """Load what embeds the series: the one encoder that the job names, or all that are kept up.

        Raises:
            CheckpointError, EncoderMismatch: of the one encoder.
        """
        found: dict[int, Encoder] = {}
        elsewhere = set()
        for row in rows:
            if job.encoder_id not in {None, row.id}:
                continue
            try:
                found[row.id] = self._encoders.encoder(row)
            except (CheckpointError, EncoderMismatch):
                # What arrives is not kept from the other encoders by it; its own job is parked with the error.
                if job.encoder_id is not None:
                    raise
                elsewhere.add(row.id)
        return _Work(job, found, frozenset(elsewhere))

    def _embed(self, work: _Work) -> dict[int, list[NewStack]]:
        """What each encoder finds in the series; it is drawn once for encoders of one preprocessing."""
        with self._database.transaction() as connection:
            files = embeddings.series_files(connection, work.job.series_id)
        images = {uid: file for uid, (sop_class, file) in files.items() if sop_class in MR_IMAGE_SOP_CLASSES}
        others = {uid: sop_class for uid, (sop_class, _) in files.items() if sop_class not in MR_IMAGE_SOP_CLASSES}
        no_images = [_not_an_image(sop_class, others) for sop_class in sorted(set(others.values()))]
        found = {encoder_id: list(no_images) for encoder_id in work.encoders}
        paths = embeddings.instance_paths(self._settings.instances_dir, images.values())
        for preprocessing in {one.card.preprocessing for one in work.encoders.values()} if images else ():
            drawn = self._decoder.draw(paths, preprocessing)
            for encoder_id, encoder in work.encoders.items():
                if encoder.card.preprocessing == preprocessing:
                    found[encoder_id] += [_embed_stack(stack, encoder) for stack in drawn]
        return found

    def _save(self, work: _Work, found: Mapping[int, list[NewStack]]) -> None:
        series_id = work.job.series_id
        with self._database.transaction() as connection:
            jobs.finish(connection, work.job, found)
            embeddings.save(connection, series_id, found)
            jobs.enqueue_with(connection, series_id, work.elsewhere)
            if not any(found.values()):
                embeddings.drop_empty(connection, series_id)
        stacks = [stack for of_encoder in found.values() for stack in of_encoder]
        log.info(
            "series done",
            series=series_id,
            encoders=len(found),
            stacks=len(stacks),
            slices=sum(max(0, len(stack.embeddings) - 1) for stack in stacks),
            not_embedded=sorted({stack.not_embedded for stack in stacks if stack.not_embedded}),
        )

    def _give_back(self, job: jobs.Job, error: Exception) -> None:
        # A series that cannot be read will not be read better later, but a decoder can die of its neighbours' memory.
        text = f"{type(error).__name__}: {error}" if isinstance(error, PacsCbirError) else type(error).__name__
        with self._database.transaction() as connection:
            try:
                parked = jobs.fail(connection, job, text, self._settings)
            except JobLost:
                return
        expected = isinstance(error, VolumeError)
        log.warning("job failed", job=job.id, parked=parked, error=text, exc_info=None if expected else error)

    @contextmanager
    def _lease(self, job: jobs.Job) -> Iterator[None]:
        """Prolong the job's lease for as long as the block runs."""
        done = threading.Event()

        def prolong() -> None:
            while not done.wait(self._settings.lease_seconds / 3):
                try:
                    with self._database.transaction() as connection:
                        jobs.extend(connection, job, self._settings.lease_seconds)
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


def _embed_stack(stack: DrawnStack, encoder: Encoder) -> NewStack:
    vectors: tuple[SliceEmbedding, ...] = ()
    if stack.slices is not None:
        slices = encoder.embed(stack.slices.pixels)
        whole = SliceEmbedding(
            embeddings.WHOLE_STACK, "", 0, float(np.mean(stack.slices.positions_mm)), encoder.pool(slices)
        )
        vectors = (
            whole,
            *(
                SliceEmbedding(number, frame.sop_instance_uid, frame.frame_number, float(position), vector)
                for number, (frame, position, vector) in enumerate(
                    zip(stack.slices.frames, stack.slices.positions_mm, slices, strict=True), start=1
                )
            ),
        )
    return NewStack(
        sequence=stack.sequence,
        plane=None if stack.slices is None else stack.slices.plane.value,
        body_part=stack.body_part,
        in_domain=encoder.card.in_domain(stack.sequence, stack.body_part),
        not_embedded=stack.not_embedded,
        separated_by=stack.separated_by,
        evidence=stack.evidence,
        sop_instance_uids=stack.sop_instance_uids,
        embeddings=vectors,
        thumbnails=stack.thumbnails,
    )


def _not_an_image(sop_class_uid: str, others: dict[str, str]) -> NewStack:
    return NewStack(
        sequence="unknown",
        plane=None,
        body_part="",
        in_domain=False,
        not_embedded=f"not embedded: {UID(sop_class_uid).name}",
        separated_by={},
        evidence={},
        sop_instance_uids=tuple(uid for uid, kind in others.items() if kind == sop_class_uid),
        embeddings=(),
    )


def _keep_retention(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Let pixel data leave as it comes to be due, whatever the worker does meanwhile."""
    while not stop.wait(RETENTION_SECONDS):
        try:
            if removed := retention.let_go(settings, database):
                log.info("pixel data has left", files=removed, retention=settings.retention)
        except StoreError as error:
            log.warning("pixel data could not leave", error=str(error))


def run_worker(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Serve as one worker until `stop` is set."""
    retention.require_allowed(settings, database)
    if settings.retention != "all":
        threading.Thread(target=_keep_retention, args=(settings, database, stop), daemon=True).start()
    with Decoder(settings.decode_seconds, settings.decode_megabytes) as decoder:
        Worker(settings, database, decoder).run(stop)
