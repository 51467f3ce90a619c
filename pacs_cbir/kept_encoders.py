"""The encoders of this installation, ready to embed: their checkpoints lie below the shared data directory."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pacs_cbir.embed.checkpoint import card_of, default_checkpoint_path, load_checkpoint, with_weights
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.errors import DiskUnavailable, EncoderMismatch, EncoderRefused
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders, jobs
from pacs_cbir.store.encoders import EncoderRow, NewEncoder
from pacs_cbir.store.session import Database

if TYPE_CHECKING:
    from pacs_cbir.embed.encoder import Encoder

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


class KeptEncoders:
    """Encoders as a process needs them: loaded when they are first asked for, by identity.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, Encoder] = {}
        self._lock = threading.Lock()

    def can_load(self, row: EncoderRow) -> bool:
        """Whether this process has what the encoder's precision needs."""
        # torch takes seconds to import, and an API that is never asked for this does without it.
        from pacs_cbir.embed.encoder import has_device  # noqa: PLC0415

        return has_device(row.precision)

    def encoder(self, row: EncoderRow) -> Encoder:
        """The encoder, loaded.

        Raises:
            EncoderMismatch: this process cannot compute what that encoder's embeddings are.
            CheckpointError: its checkpoint is missing or damaged, or of another version.
        """
        with self._lock:
            if row.identity not in self._loaded:
                self._loaded[row.identity] = self._load(row)
            return self._loaded[row.identity]

    def keep_only(self, rows: Collection[EncoderRow]) -> None:
        """Let go of what was retired."""
        kept = {row.identity for row in rows}
        with self._lock:
            self._loaded = {identity: one for identity, one in self._loaded.items() if identity in kept}

    def _load(self, row: EncoderRow) -> Encoder:
        from pacs_cbir.embed.encoder import DEVICES, Encoder  # noqa: PLC0415 - see `can_load`

        if not self.can_load(row):
            raise EncoderMismatch(f"embeddings of {row.name} are of precision {row.precision}: that needs a GPU")
        checkpoint = with_weights(card_of(row.card), checkpoint_path(self._folder, row.checkpoint_sha256))
        loaded = Encoder(checkpoint, DEVICES[row.precision])
        if loaded.identity != row.identity:
            raise EncoderMismatch(
                f"embeddings of {row.name} were made by another version of pacs-cbir: `pacs-cbir encoder add` adds the "
                "packaged encoder, and `pacs-cbir reindex` embeds with it"
            )
        return loaded


def checkpoint_path(folder: Path, checkpoint_sha256: str) -> Path:
    """Where a weights' file is."""
    return folder / f"{checkpoint_sha256}.safetensors"


def add_encoder(
    settings: Settings, database: Database, checkpoint: Path | None = None, name: str | None = None
) -> EncoderRow:
    """Check a checkpoint, copy it into the data directory, and give it a row.

    Args:
        checkpoint: a .safetensors file with its card beside it; None: the packaged one.
        name: under which it is known here; None: as its card says.

    Raises:
        CheckpointError: it cannot be read or is damaged.
        EncoderRefused: it is here already, or the name is another's, or no name.
        DiskUnavailable, DatabaseUnavailable.
    """
    new, path = _checked(checkpoint or default_checkpoint_path(), name)
    target = checkpoint_path(settings.encoders_dir, new.checkpoint_sha256)
    # Until the transaction ends, nobody else writes this file, or looks whether it may be removed.
    with database.transaction() as connection:
        encoders.lock(connection)
        try:
            row = encoders.add(connection, new)
        except EncoderRefused:
            if encoders.checkpoint_is_used(connection, new.checkpoint_sha256):
                _copy(path, target)  # which mends a file that is damaged
            raise
        _copy(path, target)
    return row


def activate_first(settings: Settings, database: Database) -> None:
    """Add the packaged encoder, and let it answer, where none is active yet.

    Raises:
        DiskUnavailable, DatabaseUnavailable.
    """
    with database.transaction() as connection:
        if encoders.active(connection) is not None:
            return
    new, path = _checked(default_checkpoint_path(), None)
    with database.transaction() as connection:
        encoders.lock(connection)
        if encoders.active(connection) is None:
            there = next((row for row in encoders.kept(connection) if row.identity == new.identity), None)
            encoders.activate(connection, (there or encoders.add(connection, new)).name)
            _copy(path, checkpoint_path(settings.encoders_dir, new.checkpoint_sha256))


def retire_encoder(settings: Settings, database: Database, name: str) -> int:
    """Give an encoder up: its jobs, its embeddings, and its checkpoint. Interrupted, the next call goes on.

    Returns:
        how many stacks were deleted.

    Raises:
        EncoderRefused: there is none of that name, or it is the active one.
        DiskUnavailable, DatabaseUnavailable.
    """
    with database.transaction() as connection:
        row = encoders.retire(connection, name)
    # Transactions of their own: a worker that saves holds its job, and then looks at the encoder.
    with database.transaction() as connection:
        jobs.forget(connection, row.id)
    deleted = 0
    while True:
        with database.transaction() as connection:
            some = encoders.delete_some(connection, row.id)
        if not some:
            break
        deleted += some
    with database.transaction() as connection:
        encoders.lock(connection)
        if not encoders.checkpoint_is_used(connection, row.checkpoint_sha256):
            _remove(checkpoint_path(settings.encoders_dir, row.checkpoint_sha256))
    return deleted


def _checked(path: Path, name: str | None) -> tuple[NewEncoder, Path]:
    from pacs_cbir.embed.encoder import Encoder  # noqa: PLC0415 - see `can_load`

    checkpoint = load_checkpoint(path)
    name = name or checkpoint.card.name
    if not NAME.fullmatch(name):
        raise EncoderRefused("an encoder's name has at most 64 small letters, digits, points and hyphens")
    # Whether the weights fit the architecture, and embed, is seen here, and not first by a worker.
    encoder = Encoder(checkpoint)
    encoder.try_out()
    # Nothing here asks whom it was trained on, and every look at the row would carry thousands of digests.
    card = checkpoint.card.model_dump(mode="json", exclude={"training": {"patient_digests"}})
    return NewEncoder(name, encoder.identity, encoder.precision, checkpoint.card.weights_sha256, card), path


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise DiskUnavailable(f"{source} cannot be read: {error.strerror}") from error
    with whole_file(target) as file:
        file.write(content)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DiskUnavailable(f"{path} cannot be removed: {error.strerror}") from error
