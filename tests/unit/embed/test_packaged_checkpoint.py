"""The checkpoint that comes with the package."""

from __future__ import annotations

import numpy as np
import pytest

from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
from pacs_cbir.embed.encoder import Encoder


def test_the_packaged_checkpoint_is_whole_and_honest() -> None:
    packaged = load_checkpoint(default_checkpoint_path())  # checks the SHA-256
    assert packaged.card.name == default_checkpoint_path().stem
    assert set(packaged.card.domain.sequences) == {"T1", "T1CE", "T2", "FLAIR"}
    assert "not for clinical use" in packaged.card.purpose
    assert packaged.card.figures


def test_the_packaged_checkpoint_embeds() -> None:
    encoder = Encoder(load_checkpoint(default_checkpoint_path()), "cpu")
    size = encoder.card.preprocessing.size
    embeddings = encoder.embed(np.random.default_rng(1).random((2, size, size)))
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx([1, 1], abs=1e-5)
