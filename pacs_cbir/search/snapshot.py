"""The index on disk, as vectors, so that a restart reads one file and compares ids. A cache of Postgres."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import structlog
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pacs_cbir.store.embeddings import StoredStack

FORMAT = "1"

log = structlog.get_logger()


def snapshot_path(folder: Path, identity: str) -> Path:
    """Where an encoder's snapshot is."""
    return folder / f"{identity}.safetensors"


def write_snapshot(path: Path, stacks: Iterable[StoredStack]) -> None:
    """Write all stacks of an encoder, atomically.

    Raises:
        OSError: the disk is full or gone.
    """
    held = list(stacks)
    if not held:
        path.unlink(missing_ok=True)
        return
    described = [
        [s.id.hex, s.series_id, s.study_id, s.sequence, s.plane, s.body_part, s.in_domain, len(s.slices)] for s in held
    ]
    arrays = {
        "vectors": np.concatenate([stack.vectors for stack in held]),
        "slices": np.concatenate([stack.slices for stack in held]),
        "stacks": np.frombuffer(json.dumps(described).encode(), np.uint8),
    }
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        save_file(arrays, temporary, metadata={"format": FORMAT})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_snapshot(path: Path) -> list[StoredStack]:
    """The stacks of a snapshot; none where there is no file, or none that can be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                return []
            vectors, slices = file.get_tensor("vectors"), file.get_tensor("slices")
            described = json.loads(file.get_tensor("stacks").tobytes())
    except FileNotFoundError:
        return []
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("index snapshot cannot be read; the index is built from the database", error=type(error).__name__)
        return []
    ends = np.cumsum([row[-1] for row in described])
    return [
        StoredStack(uuid.UUID(hex=id_), series_id, study_id, sequence, plane, body_part, in_domain, part, numbers)
        for (id_, series_id, study_id, sequence, plane, body_part, in_domain, _), part, numbers in zip(
            described, np.split(vectors, ends[:-1]), np.split(slices, ends[:-1]), strict=True
        )
    ]
