"""A checkpoint with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from untrained import save_untrained

from pacs_cbir.embed.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and card in a folder; tests copy them before they change them."""
    return save_untrained(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors")


@pytest.fixture(scope="session")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    """The same, loaded."""
    return load_checkpoint(checkpoint_path)
