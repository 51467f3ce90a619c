"""A checkpoint with random weights: the real network, not trained, and quick to load."""

from __future__ import annotations

import datetime
from pathlib import Path

import torch

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.checkpoint import Card, Domain, Training, save_checkpoint
from pacs_cbir.embed.network import build_network
from pacs_cbir.embed.preprocess import Preprocessing

ALL_PARTS = Architecture(
    appearance=16,
    lesion_grid=8,
    shape_landmarks=5,
    grey_levels=32,
    weights={"appearance": 1.0, "lesion": 3.0, "shape": 2.0, "grey": 4.0},
)
SIZE = 64


def save_untrained(path: Path, architecture: Architecture = ALL_PARTS) -> Path:
    """Write weights and card; the same architecture gives the same weights."""
    card = Card(
        name="untrained",
        purpose="tests",
        architecture=architecture,
        preprocessing=Preprocessing(size=SIZE),
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
    torch.manual_seed(0)
    network = build_network(card.architecture)
    network.train()
    network(torch.rand(16, 1, SIZE, SIZE))  # so that the batch norms have statistics of their own to fuse
    save_checkpoint(path, card, {name: weight.numpy() for name, weight in network.state_dict().items()})
    return path
