"""An instance that arrives, as the SCP hands it to ingest."""

from __future__ import annotations

import uuid
from pathlib import Path

from dicom_factory import mr_instance
from pydicom.dataset import FileDataset
from sqlalchemy import text

from pacs_cbir.settings import Settings
from pacs_cbir.store.ingest import Outcome, Source, ingest
from pacs_cbir.store.session import Database

PEER = "PEER"


def arrive(database: Database, settings: Settings, ds: FileDataset | None = None, **attributes: object) -> Outcome:
    """Write a transfer as the SCP does, and ingest it.

    Args:
        ds: None: the instance that `mr_instance` makes of `attributes`.
    """
    path: Path = settings.incoming_dir / f"{uuid.uuid4().hex}.part"
    (mr_instance(**attributes) if ds is None else ds).save_as(path, enforce_file_format=True)  # type: ignore[arg-type]
    return ingest(path, Source(PEER), database, settings)


def table(database: Database, query: str, **values: object) -> list[tuple[object, ...]]:
    """A query's rows."""
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]
