"""A running API as a test sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import uvicorn
from fastapi.testclient import TestClient
from rows import Given, add_series
from running import wait_until
from stack_rows import card, make_active, new_encoder, new_stack, save

from pacs_cbir.search.follow import Follower
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders
from pacs_cbir.store.encoders import NewEncoder
from pacs_cbir.store.session import Database
from tests.conftest import free_port

TWO_NUMBERS = new_encoder(described=card(2))


@contextmanager
def listening(api: Api) -> Iterator[str]:
    """The API on a real socket; yields its URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(api.client.app, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, 30)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Api:
    """A client, and what a test puts behind it."""

    client: TestClient
    database: Database
    settings: Settings
    follower: Follower
    encoder: NewEncoder

    def activate(self, **described: Any) -> None:
        """Let its encoder answer before anything is embedded, with a card that says something else."""
        with self.database.transaction() as connection:
            make_active(connection, replace(self.encoder, card=self.encoder.card | described))

    def add(
        self,
        study_uid: str,
        series_uid: str,
        degrees: float | None = 0.0,
        *,
        sequence: str = "T1",
        in_domain: bool = True,
        missing_slices: int = 0,
        study: Given | None = None,
        attributes: Given | None = None,
    ) -> int:
        """A received series, whose embedding points at an angle, so that similarity is a cosine; None: not embedded.

        Returns:
            its row's id.
        """
        with self.database.transaction() as connection:
            added = add_series(
                connection,
                study_uid,
                series_uid,
                study={"PatientID": f"P{study_uid}"} if study is None else study,
                attributes={"Modality": "MR"} if attributes is None else attributes,
            )
            if degrees is None:
                return added.series_id
            vector = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)
            stack = new_stack(
                np.stack([vector, vector]),
                sequence=sequence,
                in_domain=in_domain,
                instance_uids=[f"{series_uid}.1"],
            )
            stack = replace(stack, missing_slices=missing_slices)
            encoder = encoders.active(connection)
            encoder_id = encoder.id if encoder else make_active(connection, self.encoder).id
            save(connection, added.series_id, encoder_id, stack)
        self.follower.catch_up()
        return added.series_id
