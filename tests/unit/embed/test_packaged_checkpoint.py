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


def test_the_packaged_card_tells_whom_it_was_trained_on() -> None:
    """By the names that the commands in results/README.md list them under; a simulated one goes by two."""
    training = load_checkpoint(default_checkpoint_path()).card.training
    heads = {f"SIM-head-11_{n:05d}" for n in range(1, 161)} | {f"simulated 11-{n}" for n in range(1, 161)}
    brains = {f"SIM-brain-12_{n:05d}" for n in range(1, 81)} | {f"simulated 12-{n}" for n in range(1, 81)}
    seen = heads | brains | {"figshare-0", "BraTS-SSA-00002"}  # of folds 1 to 3, and of the best crops
    unseen = {"figshare-103", "SIM-head-11_00161", "simulated 3-1", "TCGA_CS_4941_19960909", "BraTS2021_00006"}
    assert training.trained_on(seen | unseen) == seen
    assert training.patient_digests is not None
    assert sum(map(len, training.patient_digests.values())) == training.patients + len(heads | brains) // 2
