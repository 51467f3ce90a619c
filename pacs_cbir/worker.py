"""Door 2: claim → decode → embed → save → finish."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import structlog
from pydicom.uid import UID

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES
from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
from pacs_cbir.embed.decode import Decoder, DrawnStack
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.errors import DatabaseUnavailable, EncoderMismatch, JobLost, PacsCbirError, StoreError, VolumeError
from pacs_cbir.settings import Settings
from pacs_cbir.store import embeddings, encoders, jobs, retention
from pacs_cbir.store.embeddings import NewStack, SliceEmbedding
from pacs_cbir.store.session import Database

# How long an idle worker waits before it looks for a job again.
IDLE_SECONDS = 0.5
AWAY_SECONDS = 2.0
# Followers that slept for longer than this compare all stacks instead.
KEEP_CHANGES_SECONDS = 86400.0
HOUSEKEEPING_JOBS = 1000
RETENTION_SECONDS = 10.0

log = structlog.get_logger()


class Worker:
    """One worker process: an encoder, a decoder child, and the jobs it claims.

    Attributes:
        encoder_id: the row of its encoder.

    Args:
        re_embed: make this worker's encoder the active one, whichever was.

    Raises:
        EncoderMismatch: the embeddings here are another encoder's.
        CheckpointError: the checkpoint cannot be read.
    """

    def __init__(self, settings: Settings, database: Database, decoder: Decoder, *, re_embed: bool = False) -> None:
        self._settings, self._database, self._decoder = settings, database, decoder
        self._encoder = Encoder(load_checkpoint(settings.checkpoint or default_checkpoint_path()))
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        enter = encoders.activate if re_embed else encoders.register
        with database.transaction() as connection:
            self.encoder_id = enter(connection, self._encoder.identity, self._encoder.card.model_dump(mode="json"))
        log.info("worker is ready", encoder=self._encoder.card.name, precision=self._encoder.precision)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the job under way is finished first.

        Raises:
            EncoderMismatch: another encoder became the active one.
        """
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
            EncoderMismatch: another encoder became the active one; this worker has no more to do.
        """
        with self._database.transaction() as connection:
            encoders.hold_active(connection, self.encoder_id)
            job = jobs.claim(connection, self._name, self._settings)
        if job is None:
            return False
        try:
            with self._lease(job):
                found = self._embed(job)
                self._save(job, found)
        except JobLost:
            log.warning("job was given to another worker", job=job.id)
        except (DatabaseUnavailable, EncoderMismatch):
            # No fault of the series: its lease runs out, and the job is claimed again.
            raise
        except Exception as error:
            self._give_back(job, error)
        return True

    def _embed(self, job: jobs.Job) -> list[NewStack]:
        with self._database.transaction() as connection:
            files = embeddings.series_files(connection, job.series_id)
        images = {uid: file for uid, (sop_class, file) in files.items() if sop_class in MR_IMAGE_SOP_CLASSES}
        others = {uid: sop_class for uid, (sop_class, _) in files.items() if sop_class not in MR_IMAGE_SOP_CLASSES}
        found = [_not_an_image(sop_class, others) for sop_class in sorted(set(others.values()))]
        if images:
            paths = embeddings.instance_paths(self._settings.instances_dir, images.values())
            drawn = self._decoder.draw(paths, self._encoder.card.preprocessing)
            found += [self._embed_stack(stack) for stack in drawn]
        return found

    def _embed_stack(self, stack: DrawnStack) -> NewStack:
        vectors: tuple[SliceEmbedding, ...] = ()
        if stack.slices is not None:
            slices = self._encoder.embed(stack.slices.pixels)
            whole = SliceEmbedding(
                embeddings.WHOLE_STACK, "", 0, float(np.mean(stack.slices.positions_mm)), self._encoder.pool(slices)
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
            in_domain=self._encoder.card.in_domain(stack.sequence, stack.body_part),
            not_embedded=stack.not_embedded,
            separated_by=stack.separated_by,
            evidence=stack.evidence,
            sop_instance_uids=stack.sop_instance_uids,
            embeddings=vectors,
        )

    def _save(self, job: jobs.Job, found: list[NewStack]) -> None:
        with self._database.transaction() as connection:
            jobs.finish(connection, job)
            embeddings.save(connection, job.series_id, self.encoder_id, found)
        reasons = sorted({stack.not_embedded for stack in found if stack.not_embedded})
        log.info(
            "series done",
            series=job.series_id,
            stacks=len(found),
            slices=sum(max(0, len(stack.embeddings) - 1) for stack in found),
            not_embedded=reasons,
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
