"""The API with everything behind it real: database, index, decoder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from served import Api
from untrained import TWO_NUMBERS, Untrained, save_untrained

from pacs_cbir.embed.decode import Decoder
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
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    """An encoder of two numbers, which tests turn to angles."""
    return Untrained.of(save_untrained(tmp_path_factory.mktemp("checkpoint") / "two.safetensors", TWO_NUMBERS))


@pytest.fixture
def api(settings: Settings, database: Database, decoder: Decoder, untrained: Untrained) -> Iterator[Api]:
    follower = Follower(database, settings.index_dir)
    follower.catch_up()
    untrained.add(settings, database)
    with TestClient(create_app(settings, database, Searcher(database, follower), decoder)) as client:
        yield Api(client, database, settings, follower, untrained.new)
