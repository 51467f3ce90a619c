"""An instance that arrives, as the SCP hands it to ingest."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from dicom_factory import mr_instance
from pydicom.dataset import Dataset
from sqlalchemy import text

from pacs_cbir.settings import Settings
from pacs_cbir.store.ingest import Outcome, Source, ingest
from pacs_cbir.store.session import Database

PEER = "PEER"
Receive = Callable[[Dataset], Outcome]


def arrive(
    database: Database, settings: Settings, ds: Dataset | None = None, *, sender: str = PEER, **attributes: object
) -> Outcome:
    """Write a transfer as the SCP does, and ingest it.

    Args:
        ds: None: the instance that `mr_instance` makes of `attributes`.
        sender: its AE title.
    """
    path: Path = settings.incoming_dir / f"{uuid.uuid4().hex}.part"
    (mr_instance(**attributes) if ds is None else ds).save_as(path, enforce_file_format=True)  # type: ignore[arg-type]
    return ingest(path, Source(sender), database, settings)


def table(database: Database, query: str, **values: object) -> list[tuple[object, ...]]:
    """A query's rows."""
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]
