"""The index follows the table: what is committed is in the answers, what is deleted is not, whoever did it when."""

from __future__ import annotations

import select
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import structlog

from pacs_cbir.errors import DatabaseUnavailable
from pacs_cbir.search.snapshot import read_snapshot, snapshot_path, write_snapshot
from pacs_cbir.search.stack_index import StackIndex
from pacs_cbir.store import embeddings, encoders
from pacs_cbir.store.embeddings import StoredStack
from pacs_cbir.store.session import Database

# A notification wakes the follower at once; without one it looks this often.
POLL_SECONDS = 1.0
AWAY_SECONDS = 2.0
# Changes are kept for a day; a follower that slept for longer than this compares all ids.
LONGEST_SLEEP_SECONDS = 3600.0
LOAD_BATCH = 500
# `pacs-cbir reindex` asks every API process to build its index anew from the rows.
CHANNEL_REBUILD = "pacs_cbir_rebuild"
# A snapshot is written once this many stacks changed and it is at least so old, and at the end.
SNAPSHOT_CHANGES = 200
SNAPSHOT_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Current:
    """What is searched: one encoder's index."""

    encoder_id: int | None = None
    identity: str = ""
    index: StackIndex = field(default_factory=lambda: StackIndex(1))


class Follower:
    """Keeps the index of the active encoder equal to the table.

    Args:
        folder: where snapshots are.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder
        self._current = Current()
        self._position: int | None = None
        self._seen_at = self._saved_at = time.monotonic()
        self._unsaved = 0

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
                listener = self._database.listen(embeddings.CHANNEL, CHANNEL_REBUILD)
                try:
                    self._position = None if self._position is None else self._compare_all(self._current)
                    while not stop.is_set():
                        self.catch_up()
                        self._save_sometimes()
                        if CHANNEL_REBUILD in _notified(listener):
                            self.rebuild()
                finally:
                    listener.close()
            except (DatabaseUnavailable, psycopg2.Error) as error:
                log.warning("the index waits for the database", error=type(error).__name__)
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
            self._apply(changes.stack_ids)
            self._position = changes.position
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
        fresh = Current(encoder.id, encoder.identity, StackIndex(_dimension(encoder)))
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
        dimension = _dimension(encoder)
        index = StackIndex(dimension)
        snapshot = read_snapshot(snapshot_path(self._folder, encoder.identity))
        index.update([stack for stack in snapshot if stack.vectors.shape[1] == dimension], [])
        self._position = None
        self._current = Current(encoder.id, encoder.identity, index)
        log.info("index opened", from_snapshot=len(index))
        return True

    def _compare_all(self, current: Current) -> int:
        """Compare an index's ids with the table's; returns the position from which to follow."""
        with self._database.transaction() as connection:
            # The position comes first: what commits between the two statements is seen twice, not never.
            position = embeddings.position(connection)
            if current.encoder_id is None:
                return position
            there = embeddings.stack_ids(connection, current.encoder_id)
        here = current.index.ids
        current.index.update([], here - there)
        missing = list(there - here)
        for start in range(0, len(missing), LOAD_BATCH):
            with self._database.transaction() as connection:
                batch = missing[start : start + LOAD_BATCH]
                current.index.update(list(embeddings.load(connection, current.encoder_id, batch)), [])
        self._unsaved += len(missing) + len(here - there)
        return position

    def _apply(self, changed: Collection[uuid.UUID]) -> None:
        if not changed or self._current.encoder_id is None:
            return
        index = self._current.index
        with self._database.transaction() as connection:
            there = embeddings.stack_ids(connection, self._current.encoder_id, changed)
            added = list(embeddings.load(connection, self._current.encoder_id, [i for i in there if i not in index]))
        removed = [id_ for id_ in changed if id_ not in there and id_ in index]
        if added or removed:
            index.update(added, removed)
            self._unsaved += len(added) + len(removed)

    def _save_sometimes(self) -> None:
        if self._unsaved >= SNAPSHOT_CHANGES and time.monotonic() - self._saved_at > SNAPSHOT_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the snapshot, if anything changed since the last."""
        if not self._unsaved or self._current.encoder_id is None:
            return
        try:
            write_snapshot(snapshot_path(self._folder, self._current.identity), self._stored())
        except OSError as error:
            log.warning("index snapshot cannot be written", error=type(error).__name__)
        else:
            self._unsaved, self._saved_at = 0, time.monotonic()

    def _stored(self) -> Iterator[StoredStack]:
        with self._current.index.reading():
            yield from self._current.index.stored()


def _dimension(encoder: encoders.EncoderRow) -> int:
    return int(encoder.card["architecture"]["embedding_dimension"])


def _notified(listener: psycopg2.extensions.connection) -> set[str]:
    """The channels that notified; waits for the first, at most POLL_SECONDS."""
    if select.select([listener], [], [], POLL_SECONDS)[0]:
        listener.poll()
    channels = {notification.channel for notification in listener.notifies}
    listener.notifies.clear()
    return channels
