"""Fixtures of tests that have instances arrive."""

from __future__ import annotations

from functools import partial

import pytest
from arriving import Receive, arrive

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database


@pytest.fixture
def receive(settings: Settings, database: Database) -> Receive:
    """Has an instance arrive."""
    return partial(arrive, database, settings)
