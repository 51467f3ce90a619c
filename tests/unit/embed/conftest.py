"""A checkpoint with random weights: the real network, not trained."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import torch

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.checkpoint import (
    Card,
    Checkpoint,
    Domain,
    Training,
    load_checkpoint,
    save_checkpoint,
)
from pacs_cbir.embed.network import build_network
from pacs_cbir.embed.preprocess import Preprocessing


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and card in a folder; tests copy them before they change them."""
    card = Card(
        name="untrained",
        purpose="tests",
        architecture=Architecture(
            appearance=16,
            lesion_grid=8,
            shape_landmarks=5,
            grey_levels=32,
            weights={"appearance": 1.0, "lesion": 3.0, "shape": 2.0, "grey": 4.0},
        ),
        preprocessing=Preprocessing(size=64),
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
    network(torch.rand(16, 1, 64, 64))  # so that the batch norms have statistics of their own to fuse
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    save_checkpoint(path, card, {name: weight.numpy() for name, weight in network.state_dict().items()})
    return path


@pytest.fixture(scope="session")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    """The same, loaded."""
    return load_checkpoint(checkpoint_path)
