"""The encoder in the API: what is no stored embedding is drawn in a child process and embedded here, one at a time."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from pacs_cbir.dicom.rules import read_rules
from pacs_cbir.embed.decode import Decoder, draw_stack
from pacs_cbir.embed.preprocess import Preprocessing, Slices
from pacs_cbir.embed.region import Box, DrawnRegion, draw_region
from pacs_cbir.errors import EncoderBusy, EncoderMismatch, SeriesChanged, UnknownExample
from pacs_cbir.kept_encoders import KeptEncoders
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders, retention
from pacs_cbir.store.embeddings import instance_paths
from pacs_cbir.store.encoders import EncoderRow
from pacs_cbir.store.session import Database
from pacs_cbir.store.stack_files import StackOrigin, stack_origin

if TYPE_CHECKING:
    from pacs_cbir.embed.encoder import Encoder

# One request is served at a time and so many more may wait, each a thread of the server's: the others go on.
WAITING = 16
WAIT_SECONDS = 30.0
# A worker may take longer and more for a series; nobody waits for it.
DRAW_SECONDS = 30.0
DRAW_MEGABYTES = 4096
SAME_PLACE_MM = 0.001
"""Positions of one slice differ by less: they are stored as they were computed."""


class Embedder:
    """The encoders that answer, and a decoder child of its own: thumbnails never wait for what is drawn here.

    Use as a context manager. An encoder is loaded when it is first asked for, the child started with its first work.

    Attributes:
        rules: the site's, of which headers are which sequence.

    Raises:
        SettingsError: these cannot be read.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self.rules = read_rules(settings.sequence_rules)
        self.decoder = Decoder(
            min(settings.decode_seconds, DRAW_SECONDS), min(settings.decode_megabytes, DRAW_MEGABYTES)
        )
        self._encoders = KeptEncoders(settings.encoders_dir)
        self._places, self._turn = threading.BoundedSemaphore(1 + WAITING), threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.decoder.close()

    @contextmanager
    def turn(self, row: EncoderRow | None) -> Iterator[Encoder]:
        """Wait for one's turn to draw and embed, and hold it.

        Args:
            row: of the encoder whose embeddings are searched; None where there is none yet.

        Yields:
            that encoder.

        Raises:
            EncoderBusy: too many wait already, or the wait was too long.
            EncoderMismatch: there is none, or this process cannot embed with it.
            CheckpointError: it cannot be loaded.
            DatabaseUnavailable.
        """
        if not self._places.acquire(blocking=False):
            raise EncoderBusy(f"{1 + WAITING} requests that need the encoder are under way")
        try:
            if not self._turn.acquire(timeout=WAIT_SECONDS):
                raise EncoderBusy(f"the encoder was not free for {WAIT_SECONDS:g} s")
            try:
                yield self._encoder(row)
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def slice_pixels(self, stack_id: uuid.UUID, number: int, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
        """Draw a slice of a stored stack again, as it was embedded; to be called in one's turn.

        Args:
            number: of the slice in its stack, counted from 1.
            preprocessing: of the encoder that embedded it.

        Returns:
            float32, shape (size, size), in [0, 1].

        Raises:
            UnknownExample: there is no such slice any more.
            SeriesChanged: what it was drawn from is not there any more as it was.
            PixelDataGone: its pixel data is no longer here.
            VolumeError: its series cannot be drawn any more.
        """
        origin, paths = self._origin(stack_id)
        if not 1 <= number <= len(origin.slices):
            raise UnknownExample("the slice is not here any more")
        slices = self.decoder.run(draw_stack, paths, dict(origin.separated_by), preprocessing)
        _check_same(origin, slices)
        drawn: npt.NDArray[np.float32] = slices.pixels[number - 1]
        return drawn

    def region(
        self, stack_id: uuid.UUID, picture: tuple[str, int | None], box: Box, preprocessing: Preprocessing
    ) -> DrawnRegion | None:
        """Draw the slice of a stored stack that shows a box, as `draw_region`; to be called in one's turn.

        Raises:
            UnknownExample: there is no such stack any more.
            SeriesChanged, PixelDataGone, InvalidQuery, VolumeError: as `slice_pixels` and `draw_region`.
        """
        origin, paths = self._origin(stack_id)
        return self.decoder.run(draw_region, paths, dict(origin.separated_by), picture, box, preprocessing)

    def _origin(self, stack_id: uuid.UUID) -> tuple[StackOrigin, list[Path]]:
        with self._database.transaction() as connection:
            origin = stack_origin(connection, stack_id)
            if origin is not None:
                retention.record_use(connection, origin.series_id)
        if origin is None:
            raise UnknownExample("the slice is not here any more")
        return origin, instance_paths(self._settings.instances_dir, origin.files)

    def _encoder(self, row: EncoderRow | None) -> Encoder:
        if row is None:
            raise EncoderMismatch("nothing is embedded here yet: start a worker (`pacs-cbir worker`)")
        with self._database.reading() as connection:
            self._encoders.keep_only([row, *encoders.kept(connection)])
        return self._encoders.encoder(row)


def _check_same(origin: StackOrigin, slices: Slices) -> None:
    """Make sure that slices drawn again are those that were embedded, each of its picture and at its place."""
    pictures = [(one.sop_instance_uid, one.frame_number) for one in origin.slices]
    positions = [one.position_mm for one in origin.slices]
    if pictures != [(frame.sop_instance_uid, frame.frame_number) for frame in slices.frames] or not np.allclose(
        positions, slices.positions_mm, rtol=0, atol=SAME_PLACE_MM
    ):
        raise SeriesChanged("the series has changed since it was embedded")
