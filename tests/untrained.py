"""Checkpoints with random weights: the real network, not trained, and quick to load; and encoders made of them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import torch

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.checkpoint import Card, Domain, Training, load_checkpoint, save_checkpoint
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.embed.network import build_network
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.kept_encoders import checkpoint_path
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders
from pacs_cbir.store.encoders import NewEncoder
from pacs_cbir.store.session import Database

ALL_PARTS = Architecture(
    appearance=16,
    lesion_grid=8,
    shape_landmarks=5,
    grey_levels=32,
    weights={"appearance": 1.0, "lesion": 3.0, "shape": 2.0, "grey": 4.0},
)
SIZE = 64


TWO_NUMBERS = Architecture(appearance=2, weights={"appearance": 1.0})
"""Whose embeddings a test can turn to angles."""


def save_untrained(path: Path, architecture: Architecture = ALL_PARTS, *, seed: int = 0, size: int = SIZE) -> Path:
    """Write weights and card, named as the file; the same architecture and seed give the same weights."""
    card = Card(
        name=path.stem,
        purpose="tests",
        architecture=architecture,
        preprocessing=Preprocessing(size=size),
        domain=Domain(body_parts=("BRAIN",), sequences=("T1", "T1CE")),
        training=Training(
            method="none",
            data="none",
            licences=(),
            patients=0,
            epochs=0,
            seed=0,
            settings={},
            date=datetime.date(2026, 11, 23),
        ),
        figures={},
    )
    torch.manual_seed(seed)
    network = build_network(card.architecture)
    network.train()
    network(torch.rand(16, 1, size, size))  # so that the batch norms have statistics of their own to fuse
    save_checkpoint(path, card, {name: weight.numpy() for name, weight in network.state_dict().items()})
    return path


@dataclass(frozen=True)
class Untrained:
    """A checkpoint on disk, and the encoder that it is."""

    path: Path
    new: NewEncoder

    @classmethod
    def of(cls, path: Path) -> Untrained:
        """Read a checkpoint."""
        checkpoint = load_checkpoint(path)
        encoder, card = Encoder(checkpoint), checkpoint.card
        described = card.model_dump(mode="json")
        return cls(path, NewEncoder(card.name, encoder.identity, encoder.precision, card.weights_sha256, described))

    def add(self, settings: Settings, database: Database, *, active: bool = False) -> int:
        """Add it as `pacs-cbir encoder add` does, without a copy; returns its row."""
        target = checkpoint_path(settings.encoders_dir, self.new.checkpoint_sha256)
        if not target.exists():
            target.symlink_to(self.path)
        with database.transaction() as connection:
            row = encoders.add(connection, self.new)
            if active:
                encoders.activate(connection, row.name, incomplete=True)
        return row.id
