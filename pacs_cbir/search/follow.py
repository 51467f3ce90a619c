"""The index follows the table: what is committed is in the answers, what is deleted is not, whoever did it when."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.errors import DatabaseUnavailable
from pacs_cbir.search.as_of import AsOf
from pacs_cbir.search.query import Unrelated
from pacs_cbir.search.snapshot import read_snapshot, snapshot_path, write_snapshot
from pacs_cbir.search.stack_index import StackIndex
from pacs_cbir.store import embeddings, encoders
from pacs_cbir.store.embeddings import Changes, Written
from pacs_cbir.store.moment import now
from pacs_cbir.store.session import Database

# A notification wakes the follower at once; without one it looks this often.
POLL_SECONDS = 1.0
AWAY_SECONDS = 0.5
# Changes are kept for a day; a follower that slept for longer than this compares all ids.
LONGEST_SLEEP_SECONDS = 3600.0
LOAD_BATCH = 500
# `pacs-cbir reindex` asks every API process to build its index anew from the rows.
CHANNEL_REBUILD = "pacs_cbir_rebuild"
# A snapshot is written once this many stacks changed, and this share of all, and it is at least so old; and at the end.
SNAPSHOT_CHANGES = 200
SNAPSHOT_SHARE = 0.05
SNAPSHOT_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Current:
    """What is searched: one encoder's index, what its embeddings are made of, and how alike unrelated ones are."""

    encoder_id: int | None
    identity: str
    architecture: Architecture
    unrelated: Unrelated
    index: StackIndex

    @property
    def as_of(self) -> AsOf | None:
        """The newest state that is wholly in the index; None where there is nothing to be in it."""
        moment = self.index.moment
        return None if self.encoder_id is None or moment is None else AsOf(self.encoder_id, moment)


def _opened(encoder: encoders.EncoderRow) -> Current:
    """An encoder's index, with nothing in it."""
    architecture = Architecture.model_validate(encoder.card["architecture"])
    index = StackIndex(architecture.embedding_dimension)
    unrelated = Unrelated(encoder.card.get("unrelated", {}), encoder.card.get("unrelated_slices", {}))
    return Current(encoder.id, encoder.identity, architecture, unrelated, index)


_NONE = Architecture(appearance=2, weights={"appearance": 1.0})
"""Of no encoder, before the first worker ran."""


class Follower:
    """Keeps the index of the active encoder equal to the table.

    Args:
        folder: where snapshots are.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder
        self._current = Current(None, "", _NONE, Unrelated(), StackIndex(_NONE.embedding_dimension))
        self._position: int | None = None
        self._seen_at = self._saved_at = time.monotonic()
        self._unsaved = 0
        self._saver: threading.Thread | None = None

    @property
    def current(self) -> Current:
        """The index to search now; a reader keeps the one that it took."""
        return self._current

    @property
    def ready(self) -> bool:
        """Whether the index is loaded."""
        return self._position is not None

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop` is set; outlives the database."""
        while not stop.is_set():
            try:
                with self._database.listen(embeddings.CHANNEL, CHANNEL_REBUILD) as listener:
                    self._position = None if self._position is None else self._compare_all(self._current)
                    while not stop.is_set():
                        self.catch_up()
                        self._save_sometimes()
                        if CHANNEL_REBUILD in listener.wait(POLL_SECONDS):
                            self.rebuild()
            except DatabaseUnavailable as error:
                log.warning("the index waits for the database", error=str(error))
                stop.wait(AWAY_SECONDS)
            except Exception:
                # The thread must not die: answers would grow stale in silence.
                log.exception("the index could not follow")
                stop.wait(AWAY_SECONDS)
        self.save()

    def catch_up(self) -> None:
        """Take over what was committed until now.

        Raises:
            DatabaseUnavailable: the index stays as it is.
        """
        if self._switch_encoder() or self._position is None or self._slept_too_long():
            self._position = self._compare_all(self._current)
        else:
            with self._database.transaction() as connection:
                changes = embeddings.changes_since(connection, self._position)
            self._apply(changes)
            self._position = changes.moment.position
        self._seen_at = time.monotonic()

    def rebuild(self) -> None:
        """Build the index from the table alone, and write its snapshot; the old one answers until it is done.

        Raises:
            DatabaseUnavailable: the index stays as it is.
        """
        with self._database.transaction() as connection:
            encoder = encoders.active(connection)
        if encoder is None:
            return
        fresh = _opened(encoder)
        position = self._compare_all(fresh)
        self._current, self._position, self._unsaved = fresh, position, self._unsaved + 1
        self.save()

    def _slept_too_long(self) -> bool:
        return time.monotonic() - self._seen_at > LONGEST_SLEEP_SECONDS

    def _switch_encoder(self) -> bool:
        with self._database.transaction() as connection:
            encoder = encoders.active(connection)
        if encoder is None or encoder.id == self._current.encoder_id:
            return False
        opened = _opened(encoder)
        snapshot = read_snapshot(snapshot_path(self._folder, encoder.identity))
        opened.index.update([s for s in snapshot if s.vectors.shape[1] == opened.index.dimension], [])
        self._position = None
        self._current = opened
        log.info("index opened", from_snapshot=len(opened.index))
        return True

    def _compare_all(self, current: Current) -> int:
        """Compare an index's ids with the table's; returns the position from which to follow."""
        if current.encoder_id is None:
            with self._database.reading() as connection:
                return now(connection).position
        with self._database.reading() as connection:
            there = embeddings.written(connection, current.encoder_id)
        here = current.index.ids
        self._exchange(current, current.encoder_id, there, here - there.transactions.keys())
        return there.moment.position

    def _apply(self, changes: Changes) -> None:
        encoder_id, index = self._current.encoder_id, self._current.index
        if encoder_id is None:
            return
        if not changes.stack_ids:
            # Without waiting for those who search.
            index.moment = changes.moment
            return
        with self._database.reading() as connection:
            found = embeddings.written(connection, encoder_id, changes.stack_ids)
        gone = {id_ for id_ in changes.stack_ids if id_ not in found.transactions and id_ in index}
        # Read later, and of the changes' moment all the same: what is here of them had been written by then.
        self._exchange(self._current, encoder_id, Written(found.transactions, changes.moment), gone)

    def _exchange(self, current: Current, encoder_id: int, there: Written, gone: Collection[uuid.UUID]) -> None:
        """Load what is missing, and drop what is gone with the last of it: a series embedded anew is never away."""
        ids = [id_ for id_ in there.transactions if id_ not in current.index]
        for start in range(0, max(len(ids), 1), LOAD_BATCH):
            batch = ids[start : start + LOAD_BATCH]
            with self._database.reading() as connection:
                added = list(embeddings.load(connection, encoder_id, batch)) if batch else []
            if start + LOAD_BATCH < len(ids):
                current.index.update(added, [], {id_: there.transactions[id_] for id_ in batch})
            else:
                current.index.update(added, gone, there.transactions, there.moment)
        self._unsaved += len(ids) + len(gone)

    def _save_sometimes(self) -> None:
        enough = max(SNAPSHOT_CHANGES, SNAPSHOT_SHARE * len(self._current.index))
        if self._unsaved >= enough and time.monotonic() - self._saved_at > SNAPSHOT_SECONDS:
            # A large index takes seconds to write, and answers must not grow stale meanwhile.
            self._start_saving()

    def save(self) -> None:
        """Write the snapshot, if anything changed since the last."""
        self._start_saving()
        if self._saver is not None:
            self._saver.join()

    def _start_saving(self) -> None:
        if self._saver is not None:
            self._saver.join()
        if not self._unsaved or self._current.encoder_id is None:
            return
        self._unsaved, self._saved_at = 0, time.monotonic()
        self._saver = threading.Thread(target=self._write, args=(self._current,))
        self._saver.start()

    def _write(self, current: Current) -> None:
        try:
            write_snapshot(snapshot_path(self._folder, current.identity), current.index.stored())
        except OSError as error:
            log.warning("index snapshot cannot be written", error=type(error).__name__)
