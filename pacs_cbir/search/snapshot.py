"""The index on disk, as vectors, so that a restart reads one file and compares ids. A cache of Postgres."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pacs_cbir.store.embeddings import StoredStack

FORMAT = "1"
BATCH = 500
# A process that was killed leaves a part of a snapshot; none takes so long to write.
ABANDONED_SECONDS = 3600.0

log = structlog.get_logger()


def snapshot_path(folder: Path, identity: str) -> Path:
    """Where an encoder's snapshot is."""
    return folder / f"{identity}.safetensors"


def write_snapshot(path: Path, stacks: Iterable[StoredStack]) -> None:
    """Write all stacks of an encoder, atomically.

    Raises:
        OSError: the disk is full or gone.
    """
    _remove_abandoned(path.parent)
    described: list[list[Any]] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    rest = iter(stacks)
    # In batches, since one array of all would need the memory twice.
    while batch := list(islice(rest, BATCH)):
        arrays[f"vectors.{len(described)}"] = np.concatenate([stack.vectors for stack in batch])
        arrays[f"slices.{len(described)}"] = np.concatenate([stack.slices for stack in batch])
        described += [
            [s.id.hex, s.series_id, s.study_id, s.sequence, s.plane, s.body_part, s.in_domain, len(s.slices)]
            for s in batch
        ]
    if not described:
        path.unlink(missing_ok=True)
        return
    arrays["stacks"] = np.frombuffer(json.dumps(described).encode(), np.uint8)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        save_file(arrays, temporary, metadata={"format": FORMAT, "sha256": _digest(arrays)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_snapshot(path: Path) -> list[StoredStack]:
    """The stacks of a snapshot; none where there is no file, or one that is damaged or of another format."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                return []
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        return []
    except (SafetensorError, OSError) as error:
        log.warning("index snapshot cannot be read; the index is built from the database", error=type(error).__name__)
        return []
    if _digest(arrays) != metadata.get("sha256"):
        log.warning("index snapshot is damaged; the index is built from the database")
        return []
    described = json.loads(arrays["stacks"].tobytes())
    found: list[StoredStack] = []
    for start in range(0, len(described), BATCH):
        batch = described[start : start + BATCH]
        ends = np.cumsum([row[-1] for row in batch])[:-1]
        parts = np.split(arrays[f"vectors.{start}"], ends), np.split(arrays[f"slices.{start}"], ends)
        found += [
            StoredStack(uuid.UUID(hex=id_), series_id, study_id, sequence, plane, body_part, in_domain, vectors, slices)
            for (id_, series_id, study_id, sequence, plane, body_part, in_domain, _), vectors, slices in zip(
                batch, *parts, strict=True
            )
        ]
    return found


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _remove_abandoned(folder: Path) -> None:
    before = time.time() - ABANDONED_SECONDS
    for path in folder.glob("*.part"):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
