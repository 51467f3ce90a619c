"""Names for patients, studies and UIDs that leave the site: the same every time, and made by nobody without the key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import uuid
from pathlib import Path

from pacs_cbir.errors import DiskUnavailable
from pacs_cbir.settings import Settings

KEY_FILE = "pseudonym.key"
"""In the data directory: the site's key, so that one patient keeps one pseudonym over the years."""
KEY_BYTES = 32
PATIENT_CHARACTERS = 24
"""Of the HMAC in hexadecimal: 96 bits, so that no two of a billion patients meet."""
LONGEST_SHIFT_DAYS = 3653
"""Ten years: nobody can tell from a shifted date in which year a patient was examined."""


class Pseudonyms:
    """HMAC-SHA256 (RFC 2104) of identifiers under one key.

    Args:
        key: whoever has it can tell whether a name or date is a known patient's.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def patient(self, issuer_of_patient_id: str, patient_id: str, study_instance_uid: str) -> str:
        """A patient's name, hexadecimal; without a PatientID the study is a patient of its own."""
        return self._of_patient("patient", issuer_of_patient_id, patient_id, study_instance_uid).hex()[
            :PATIENT_CHARACTERS
        ]

    def days_back(self, issuer_of_patient_id: str, patient_id: str, study_instance_uid: str) -> int:
        """By how many days all of a patient's dates are moved into the past, 1 to `LONGEST_SHIFT_DAYS`."""
        digest = self._of_patient("days", issuer_of_patient_id, patient_id, study_instance_uid)
        return 1 + int.from_bytes(digest) % LONGEST_SHIFT_DAYS

    def uid(self, uid: str) -> str:
        """A UID that stands for this one wherever it is named: a UUID of version 8 (PS3.5 B.2, RFC 9562 5.8)."""
        value = int.from_bytes(self._digest("uid", uid)[:16])
        value = value & ~(0xF << 76) & ~(0x3 << 62) | 8 << 76 | 2 << 62
        return f"2.25.{uuid.UUID(int=value).int}"

    def token(self, *texts: str) -> str:
        """What tells whether texts are the same as another time, and nothing else of them; hexadecimal."""
        return self._digest("token", *texts).hex()

    def _of_patient(self, purpose: str, issuer_of_patient_id: str, patient_id: str, study_instance_uid: str) -> bytes:
        if patient_id:
            return self._digest(purpose, issuer_of_patient_id, patient_id)
        return self._digest(f"{purpose} of study", study_instance_uid)

    def _digest(self, *identifiers: str) -> bytes:
        return hmac.new(self._key, json.dumps(identifiers).encode(), hashlib.sha256).digest()


def site_pseudonyms(settings: Settings) -> Pseudonyms:
    """The site's own, whose key is made the first time, for this user alone.

    Raises:
        DiskUnavailable: the key can be neither read nor made, or is damaged.
    """
    path = settings.data_dir / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise DiskUnavailable(f"{path} cannot be used: {os.strerror(error.errno or 0)}") from error
    if len(key) != KEY_BYTES:
        raise DiskUnavailable(f"{path} is damaged: restore it, or remove it and accept other pseudonyms")
    return Pseudonyms(key)


def _make_key(path: Path) -> None:
    # Linked and not renamed: of two processes that make one at once the first has made it for both.
    made = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(made, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink()
