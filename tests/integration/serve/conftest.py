"""The API with everything behind it real: database, index, decoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from served import Api
from untrained import save_untrained

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.checkpoint import load_checkpoint
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    with Decoder(seconds=60, mebibytes=8192) as opened:
        yield opened


@pytest.fixture(scope="session")
def encoder_identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkpoint as `served.CARD` describes it, and whose its embeddings are."""
    path = tmp_path_factory.mktemp("checkpoint") / "two.safetensors"
    save_untrained(path, Architecture(appearance=2, weights={"appearance": 1.0}))
    return path, Encoder(load_checkpoint(path)).identity


@pytest.fixture
def settings(settings: Settings, encoder_identity: tuple[Path, str]) -> Settings:
    """With that checkpoint."""
    return settings.model_copy(update={"checkpoint": encoder_identity[0]})


@pytest.fixture
def api(settings: Settings, database: Database, decoder: Decoder, encoder_identity: tuple[Path, str]) -> Iterator[Api]:
    follower = Follower(database, settings.index_dir)
    follower.catch_up()
    with TestClient(create_app(settings, database, Searcher(database, follower), decoder)) as client:
        yield Api(client, database, settings, follower, encoder_identity[1])
