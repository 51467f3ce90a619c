"""Folds by patient that anyone can make again from the names alone."""

from __future__ import annotations

import hashlib

from pacs_cbir.learn.manifest import Manifest


def split_by_patient(manifest: Manifest, folds: int) -> Manifest:
    """Put patients, in the order of their names' SHA-1, into splits "0", "1", ... in turn.

    The order is that of the hash, not of the name: names often say the site or the date.
    """
    owners = sorted({row.owner for row in manifest.rows}, key=_sha1)
    split = {owner: str(number % folds) for number, owner in enumerate(owners)}
    return Manifest(tuple(row.model_copy(update={"split": split[row.owner]}) for row in manifest.rows))


def _sha1(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
