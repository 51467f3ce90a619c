"""A PACS as this service uses it: asked what it has, and asked to hand it over, by whichever protocol it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pydicom.dataset import Dataset

from pacs_cbir.errors import PeerError
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store.value_tests import is_uid

Level = Literal["STUDY", "SERIES", "IMAGE"]
# Of an Integer String (PS3.5 Table 6.2-1).
LARGEST_COUNT = 2**31 - 1
# Fewer answers than this are never in doubt: nobody sets a lower limit.
LOWEST_LIMIT = 20
# More are not read: a query that has more is asked in parts.
MOST_ANSWERS = 10_000


@dataclass(frozen=True)
class Found:
    """What a query was answered with.

    Attributes:
        answers: one data set a match.
        truncated: whether some were left out; None where the peer does not say.
        missing: what it could not be asked for, in words.
    """

    answers: tuple[Dataset, ...]
    truncated: bool | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """What a peer handed over, by its own account and by ours.

    Attributes:
        completed: instances that were handed over, those with warnings among them.
        warned: those of which the receiver changed something.
        failures: one entry for each way to fail, with the SOP Instance UIDs where they are known.
        failed: instances that were not handed over.
    """

    completed: int
    warned: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()


class Archive(Protocol):
    """One PACS and one protocol to find and fetch by."""

    @property
    def peer(self) -> Peer:
        """Its entry in the settings."""

    @property
    def settings(self) -> Settings:
        """Ours."""

    def find(self, level: Level, keys: Mapping[str, str]) -> Found:
        """Ask which studies, series or instances there are, by C-FIND (PS3.4 C.4.1) or QIDO-RS.

        Args:
            keys: keyword → what it must match; empty where the value is only to be returned. The UIDs of the levels
                above are among them.

        Raises:
            PeerAway: there is no association.
            PeerSilent: it ended, or the peer fell silent.
            PeerRefuses: it does not let this service ask.
            PeerError: it answered with an error.
        """

    def fetch(self, study_instance_uid: str, series_instance_uid: str | None = None) -> Fetched:
        """Have a study, or one of its series, brought into the store; returns once the peer says that it is done.

        Raises:
            PeerAway: there is no association.
            PeerSilent: the peer fell silent.
            PeerRefuses: it does not let this service fetch, or does not know where to send; says what to set.
            PeerError: it answered with an error, or broke off; what came until then is in the store.
            StoreError: what came could not be kept.
        """


@dataclass
class AnswerLimit:
    """How many answers a peer gives to one query of a kind.

    What it says, and what the settings say of it, is taken. Otherwise: a peer that gave so many answers once has no
    lower limit, so that fewer than the most seen so far are all. Only as many or more are in doubt.
    """

    peer: Peer
    _most: int = LOWEST_LIMIT

    def leaves_out(self, found: Found) -> bool:
        """Whether there may be more answers than these."""
        short, in_doubt = is_short(found, self.peer), len(found.answers) >= self._most
        self._most = max(self._most, len(found.answers))
        return in_doubt if short is None else short


def is_short(found: Found, peer: Peer) -> bool | None:
    """Whether answers were left out, as the peer says, or the settings of it; None where neither tells."""
    if found.truncated is not None or peer.find_limit is None:
        return found.truncated
    return len(found.answers) >= peer.find_limit


def identifier_of(answer: Dataset, keyword: str) -> str:
    """A UID of an answer.

    Raises:
        PeerError: the answer has none.
    """
    value = str(answer.get(keyword) or "").strip(" \0")
    if not is_uid(value):
        raise PeerError(f"the PACS answered a query without a valid {keyword}")
    return value


def number_of(answer: Dataset, keyword: str) -> int | None:
    """A count of an answer; None where it has none, or none that is a number of an IS."""
    try:
        count = int(str(answer.get(keyword) or "").strip() or -1)
    except ValueError:
        return None
    return count if 0 <= count <= LARGEST_COUNT else None


def texts_of(answer: Dataset, keyword: str) -> tuple[str, ...]:
    """An attribute's values, trimmed; none where it is absent or empty."""
    value = answer.get(keyword)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return tuple(text for text in (str(one).strip() for one in values) if text)
