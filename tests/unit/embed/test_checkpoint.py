"""A checkpoint is what its card says, or it is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from pacs_cbir.embed.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pacs_cbir.embed.preprocess import REVISION
from pacs_cbir.errors import CheckpointError


@pytest.fixture
def copy(checkpoint_path: Path, tmp_path: Path) -> Path:
    """Weights and card that a test may spoil."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(checkpoint_path.with_suffix(suffix), tmp_path)
    return tmp_path / checkpoint_path.name


def test_saved_weights_come_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "again.safetensors", checkpoint.card, checkpoint.weights)
    loaded = load_checkpoint(tmp_path / "again.safetensors")
    assert loaded.card == saved.card
    for name, weight in checkpoint.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], weight)


def test_weights_that_lie_otherwise_in_memory_come_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    weight = np.arange(48, dtype=np.float32).reshape(2, 3, 2, 4)
    channels_last = weight.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    save_checkpoint(tmp_path / "last.safetensors", checkpoint.card, {"conv": channels_last})
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "last.safetensors").weights["conv"], weight)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_card(path: Path, edit: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    card = json.loads(path.with_suffix(".json").read_text())
    edit(card)
    path.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "cannot be read"),
        (lambda path: path.with_suffix(".json").unlink(), r"the card of .* cannot be read: No such file.*\.json"),
        (flip_a_bit, "SHA-256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "SHA-256"),
        (lambda path: path.with_suffix(".json").write_text("{"), "no checkpoint's card"),
        (lambda path: edit_card(path, lambda card: card.pop("domain")), "card: domain: Field required"),
        (lambda path: edit_card(path, lambda card: card.update(weights_sha256="")), "SHA-256"),
        (
            lambda path: edit_card(path, lambda card: card["preprocessing"].update(size=-1)),
            "preprocessing: size is a length above 0",
        ),
        (lambda path: edit_card(path, lambda card: card["preprocessing"].update(revision=REVISION + 1)), "preprocess"),
        (lambda path: edit_card(path, lambda card: card["preprocessing"].update(size=10**5)), "at most 1024 pixels"),
        (lambda path: edit_card(path, lambda card: card.update(figures={"x": np.nan})), r"figures\.x"),
        (lambda path: edit_card(path, lambda card: card.update(unrelated={"T1": np.inf})), r"unrelated\.T1"),
        (lambda path: edit_card(path, lambda card: card.update(unrelated={"T1": 7.0})), r"unrelated\.T1"),
        (lambda path: edit_card(path, lambda card: card.update(purpose="a\0b")), "NUL"),
    ],
    ids=[
        "weights missing",
        "card missing",
        "bit",
        "cut",
        "json",
        "field missing",
        "no sha",
        "size",
        "revision",
        "large size",
        "no number",
        "infinite",
        "no cosine",
        "NUL",
    ],
)
def test_what_is_missing_or_changed_is_refused(copy: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(copy)
    with pytest.raises(CheckpointError, match=reason) as raised:
        load_checkpoint(copy)
    assert "\n" not in str(raised.value)


def test_a_pickle_is_refused(copy: Path) -> None:
    import hashlib
    import pickle

    copy.write_bytes(pickle.dumps({"conv1.weight": 1}))
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    edit_card(copy, lambda card: card.update(weights_sha256=digest))
    with pytest.raises(CheckpointError, match="no weights"):
        load_checkpoint(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(checkpoint: Checkpoint, copy: Path, value: float) -> None:
    import hashlib

    weights = {name: np.array(weight) for name, weight in checkpoint.weights.items()}
    weights["appearance.bias"][0] = value
    copy.write_bytes(save(weights))
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    edit_card(copy, lambda card: card.update(weights_sha256=digest))
    with pytest.raises(CheckpointError, match=r"appearance\.bias"):
        load_checkpoint(copy)


def test_weights_that_are_not_finite_are_not_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    weights = {**checkpoint.weights, "fc.bias": np.full(64, np.nan, dtype=np.float32)}
    with pytest.raises(CheckpointError, match=r"fc\.bias"):
        save_checkpoint(tmp_path / "broken.safetensors", checkpoint.card, weights)


def test_identity_belongs_to_weights_preprocessing_and_precision(checkpoint: Checkpoint) -> None:
    card = checkpoint.card
    other_preprocessing = dataclasses.replace(card.preprocessing, slice_spacing_mm=4.0)
    identities = [
        checkpoint.identity("float32"),
        checkpoint.identity("bfloat16"),
        Checkpoint(card.model_copy(update={"weights_sha256": "0" * 64}), {}).identity("float32"),
        Checkpoint(card.model_copy(update={"preprocessing": other_preprocessing}), {}).identity("float32"),
    ]
    assert len(set(identities)) == len(identities)
    renamed = card.model_copy(update={"name": "other", "purpose": "other", "figures": {"x": 1.0}})
    assert Checkpoint(renamed, {}).identity("float32") == identities[0]


@pytest.mark.parametrize(
    ("sequence", "body_part", "inside"),
    [
        ("T1", "BRAIN", True),
        ("T1CE", " brain ", True),
        ("FLAIR", "BRAIN", False),
        ("T1", "KNEE", False),
        ("T1", "", False),
    ],
)
def test_domain(checkpoint: Checkpoint, sequence: str, body_part: str, inside: bool) -> None:
    assert checkpoint.card.in_domain(sequence, body_part) is inside
