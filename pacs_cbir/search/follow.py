"""The indexes follow the table: what is committed is in the answers, what is deleted is not, whoever did it when.

The active encoder's index is always there; another's is loaded when a query names it, and let go once nobody does. A
switch to another encoder takes place when its index is loaded: until then the former answers, and goes on following.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.errors import DatabaseUnavailable, IndexNotReady, InvalidQuery
from pacs_cbir.search.encoder_index import Current, EncoderIndex
from pacs_cbir.search.query import Unrelated
from pacs_cbir.search.stack_index import StackIndex
from pacs_cbir.store import embeddings, encoders
from pacs_cbir.store.encoders import EncoderRow
from pacs_cbir.store.session import Database

# A notification wakes the follower at once; without one it looks this often.
POLL_SECONDS = 1.0
AWAY_SECONDS = 0.5
# An index that is not the active encoder's is let go once nobody has asked for it for so long.
IDLE_SECONDS = 600.0
# `pacs-cbir reindex` asks every API process to build its index anew from the rows.
CHANNEL_REBUILD = "pacs_cbir_rebuild"
# By this and a number whoever may write snapshots tells what is not in his indexes any more, see `forget`.
INDEX_NAME = "pacs-cbir index"

log = structlog.get_logger()

_NONE = Architecture(appearance=2, weights={"appearance": 1.0})
"""Of no encoder, before the first worker ran."""


class Follower:
    """Keeps the indexes of the active encoder, and of those that queries name, equal to the table.

    Args:
        folder: where snapshots are.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder
        # Replaced as a whole, since requests read it while this thread changes it. By encoder's row.
        self._open: Mapping[int, EncoderIndex] = {}
        self._wanted: frozenset[int] = frozenset()
        self._wanting = threading.Lock()
        self._caught_up_at = time.monotonic()
        empty = StackIndex(_NONE.embedding_dimension)
        self._current = Current(None, _NONE, Unrelated(), empty, loaded=False)

    @property
    def current(self) -> Current:
        """The active encoder's index; a reader keeps the one that it took."""
        return self._current

    @property
    def ready(self) -> bool:
        """Whether it is loaded; it is, too, where there is nothing to load yet."""
        return self._current.loaded

    @property
    def behind_seconds(self) -> float:
        """Seconds since all that was committed by then was in the indexes."""
        return time.monotonic() - self._caught_up_at

    def named(self, name: str) -> Current:
        """The index of an encoder by its name, which is loaded once it is asked for.

        Raises:
            InvalidQuery: there is no such encoder; says which there are.
            IndexNotReady: it is being loaded.
            DatabaseUnavailable.
        """
        found = next((one for one in self._open.values() if one.name == name), None)
        if found is not None:
            found.asked_at = time.monotonic()
            return found.current
        with self._database.reading() as connection:
            kept = encoders.kept(connection)
        row = next((row for row in kept if row.name == name), None)
        if row is None:
            raise InvalidQuery(
                f"encoder accepts {', '.join(row.name for row in kept) or 'none yet'}; see `pacs-cbir encoder list`"
            )
        with self._wanting:
            self._wanted |= {row.id}
        raise IndexNotReady(f"the index of the encoder {name} is being loaded")

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop` is set; outlives the database."""
        while not stop.is_set():
            try:
                with self._database.listen(embeddings.CHANNEL, CHANNEL_REBUILD) as listener:
                    listener.tell(INDEX_NAME)
                    for index in self._open.values():
                        index.compare_all()
                    while not stop.is_set():
                        self.catch_up()
                        for index in self._open.values():
                            index.save_sometimes()
                        listener.tell(f"{INDEX_NAME} {self._settled}")
                        if CHANNEL_REBUILD in listener.wait(POLL_SECONDS):
                            self.rebuild()
                    # While the others still see that this process is there: what was deleted meanwhile is written too.
                    self.save()
            except DatabaseUnavailable as error:
                log.warning("the index waits for the database", error=str(error))
                stop.wait(AWAY_SECONDS)
            except Exception:
                # The thread must not die: answers would grow stale in silence.
                log.exception("the index could not follow")
                stop.wait(AWAY_SECONDS)

    @property
    def _settled(self) -> int:
        """What was deleted by earlier transactions is in no index here, and gets into no snapshot from here."""
        return min((index.settled for index in self._open.values()), default=sys.maxsize)

    def catch_up(self) -> None:
        """Take over what was committed until now: a switch of the encoder, embeddings, and what queries wait for.

        Raises:
            DatabaseUnavailable: the indexes stay as they are.
        """
        begun = time.monotonic()
        with self._database.reading() as connection:
            rows = {row.id: row for row in encoders.kept(connection)}
        self._let_go(rows)
        self._catch_up_open()
        active = next((row for row in rows.values() if row.state is encoders.State.ACTIVE), None)
        if active is None:
            self._current = dataclasses.replace(self._current, loaded=True)
        elif active.id != self._current.encoder_id:
            self._current = self._opened(active).current
        with self._wanting:
            wanted, self._wanted = self._wanted, frozenset()
        for id_ in wanted & rows.keys():
            self._opened(rows[id_])
        self._caught_up_at = begun

    def rebuild(self) -> None:
        """Build the indexes from the table alone, and write their snapshots; the old ones answer until it is done.

        Raises:
            DatabaseUnavailable: the indexes stay as they are.
        """
        with self._database.reading() as connection:
            active = encoders.active(connection)
        if active is None:
            return
        rows = [one.current.encoder for one in self._open.values()]
        for row in {row.id: row for row in (*rows, active) if row is not None}.values():
            fresh = EncoderIndex(self._database, self._folder, row)
            fresh.load(self._catch_up_open, from_snapshot=False)
            if row.id in self._open:
                self._open[row.id].end_saving()
            self._open = {**self._open, row.id: fresh}
            if row.id == active.id:
                self._current = fresh.current
            fresh.save()

    def save(self) -> None:
        """Write the snapshots, if anything changed since the last."""
        for index in self._open.values():
            index.save()

    def _opened(self, row: EncoderRow) -> EncoderIndex:
        index = self._open.get(row.id)
        if index is None:
            index = EncoderIndex(self._database, self._folder, row)
            index.load(self._catch_up_open, from_snapshot=True)
            self._open = {**self._open, row.id: index}
        index.asked_at = time.monotonic()
        return index

    def _catch_up_open(self) -> None:
        for index in self._open.values():
            index.catch_up()

    def _let_go(self, kept: Mapping[int, EncoderRow]) -> None:
        """Let go of indexes that were retired, or that nobody asks for."""
        before = time.monotonic() - IDLE_SECONDS
        for id_, index in self._open.items():
            idle = id_ != self._current.encoder_id and index.asked_at < before
            if idle:
                index.save()
            if idle or (id_ not in kept and id_ != self._current.encoder_id):
                index.end_saving()
                self._open = {other: one for other, one in self._open.items() if other != id_}
