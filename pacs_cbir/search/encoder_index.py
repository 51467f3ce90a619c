"""One encoder's index, kept equal to the table of its embeddings."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.search.as_of import AsOf
from pacs_cbir.search.query import Unrelated
from pacs_cbir.search.snapshot import read_snapshot, snapshot_path, write_snapshot
from pacs_cbir.search.stack_index import StackIndex
from pacs_cbir.store import embeddings
from pacs_cbir.store.embeddings import Changes, Written
from pacs_cbir.store.encoders import EncoderRow
from pacs_cbir.store.session import Database

# Changes are kept for a day; an index that slept for longer than this compares all ids.
LONGEST_SLEEP_SECONDS = 3600.0
LOAD_BATCH = 500
# A snapshot is written once this many stacks changed, and this share of all, and it is at least so old; and at the end.
SNAPSHOT_CHANGES = 200
SNAPSHOT_SHARE = 0.05
SNAPSHOT_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Current:
    """What is searched: one encoder's index, what its embeddings are made of, and how alike unrelated ones are.

    Attributes:
        encoder: None before the first worker ran.
        loaded: whether the table was read.
    """

    encoder: EncoderRow | None
    architecture: Architecture
    unrelated: Unrelated
    index: StackIndex
    loaded: bool

    @property
    def encoder_id(self) -> int | None:
        """The encoder's row."""
        return None if self.encoder is None else self.encoder.id

    @property
    def as_of(self) -> AsOf | None:
        """The newest state that is wholly in the index; None where there is nothing to be in it."""
        moment = self.index.moment
        return None if self.encoder is None or moment is None else AsOf(self.encoder.id, moment)


class EncoderIndex:
    """One encoder's index; one thread makes the changes, many may read what `current` holds.

    Args:
        encoder: its row.
        folder: where snapshots are.

    Attributes:
        current: for those who search.
        asked_at: when somebody last asked for it, by the monotonic clock.
    """

    def __init__(self, database: Database, folder: Path, encoder: EncoderRow) -> None:
        self._database, self._path = database, snapshot_path(folder, encoder.identity)
        self._encoder = encoder
        architecture = Architecture.model_validate(encoder.card["architecture"])
        unrelated = Unrelated(encoder.card.get("unrelated", {}), encoder.card.get("unrelated_slices", {}))
        self._index = StackIndex(architecture.embedding_dimension)
        self.current = Current(encoder, architecture, unrelated, self._index, loaded=True)
        self._position = 0
        self._seen_at = self._saved_at = self.asked_at = time.monotonic()
        self._unsaved = 0
        self._saver: threading.Thread | None = None
        self._written_from = 0

    @property
    def settled(self) -> int:
        """The number of the first transaction whose deletions may still be in the index, or get into a snapshot."""
        writing = self._saver is not None and self._saver.is_alive()
        return min(self._position, self._written_from) if writing else self._position

    @property
    def name(self) -> str:
        """The encoder's."""
        return self._encoder.name

    def load(self, between: Callable[[], None], *, from_snapshot: bool) -> None:
        """Fill the index; nobody searches it yet.

        Args:
            between: called after each batch, so that other indexes do not grow stale while a large one is loaded.
            from_snapshot: whether the snapshot may be read; else all is read from the table, and the snapshot written.

        Raises:
            DatabaseUnavailable.
        """
        if from_snapshot:
            fitting = [s for s in read_snapshot(self._path) if s.vectors.shape[1] == self._index.dimension]
            self._index.update(fitting, [])
            log.info("index opened", encoder=self._encoder.name, from_snapshot=len(self._index))
        else:
            self._unsaved = 1
        self.compare_all(between)

    def compare_all(self, between: Callable[[], None] = lambda: None) -> None:
        """Compare the index's ids with the table's, and follow from there.

        Raises:
            DatabaseUnavailable: the index stays as it is.
        """
        with self._database.reading() as connection:
            there = embeddings.written(connection, self._encoder.id)
        self._exchange(there, self._index.ids - there.transactions.keys(), between)
        self._position, self._seen_at = there.moment.position, time.monotonic()

    def catch_up(self) -> None:
        """Take over what was committed until now.

        Raises:
            DatabaseUnavailable: the index stays as it is.
        """
        if time.monotonic() - self._seen_at > LONGEST_SLEEP_SECONDS:
            self.compare_all()
            return
        with self._database.transaction() as connection:
            changes = embeddings.changes_since(connection, self._position)
        self._apply(changes)
        self._position, self._seen_at = changes.moment.position, time.monotonic()

    def _apply(self, changes: Changes) -> None:
        if not changes.stack_ids:
            # Without waiting for those who search.
            self._index.moment = changes.moment
            return
        with self._database.reading() as connection:
            found = embeddings.written(connection, self._encoder.id, changes.stack_ids)
        gone = {id_ for id_ in changes.stack_ids if id_ not in found.transactions and id_ in self._index}
        # Read later, and of the changes' moment all the same: what is here of them had been written by then.
        self._exchange(Written(found.transactions, changes.moment), gone)

    def _exchange(self, there: Written, gone: set[uuid.UUID], between: Callable[[], None] = lambda: None) -> None:
        """Load what is missing, and drop what is gone with the last of it: a series embedded anew is never away."""
        ids = [id_ for id_ in there.transactions if id_ not in self._index]
        for start in range(0, max(len(ids), 1), LOAD_BATCH):
            batch = ids[start : start + LOAD_BATCH]
            with self._database.reading() as connection:
                added = list(embeddings.load(connection, self._encoder.id, batch)) if batch else []
            if start + LOAD_BATCH < len(ids):
                self._index.update(added, [], {id_: there.transactions[id_] for id_ in batch})
                between()
            else:
                self._index.update(added, gone, there.transactions, there.moment)
        self._unsaved += len(ids) + len(gone)

    def save_sometimes(self) -> None:
        """Write the snapshot where much has changed since the last."""
        enough = max(SNAPSHOT_CHANGES, SNAPSHOT_SHARE * len(self._index))
        if self._unsaved >= enough and time.monotonic() - self._saved_at > SNAPSHOT_SECONDS:
            # A large index takes seconds to write, and answers must not grow stale meanwhile.
            self._start_saving()

    def save(self) -> None:
        """Write the snapshot, if anything changed since the last."""
        self._start_saving()
        self.end_saving()

    def end_saving(self) -> None:
        """Wait for a snapshot that is being written: of an index that was let go nobody would know of it."""
        if self._saver is not None:
            self._saver.join()

    def _start_saving(self) -> None:
        self.end_saving()
        if self._unsaved:
            self._unsaved, self._saved_at, self._written_from = 0, time.monotonic(), self._position
            self._saver = threading.Thread(target=self._write)
            self._saver.start()

    def _write(self) -> None:
        try:
            write_snapshot(self._path, self._index.stored())
        except OSError as error:
            log.warning("index snapshot cannot be written", error=type(error).__name__)
