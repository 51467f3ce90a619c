"""Bring a study or a series from the PACS into the store, and see that it is there."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import structlog

from pacs_cbir.errors import PeerError, SettingsError
from pacs_cbir.pacs.archive import Archive, Fetched
from pacs_cbir.pacs.dicomweb import WebArchive
from pacs_cbir.pacs.get import GetArchive
from pacs_cbir.pacs.move import MoveArchive
from pacs_cbir.pacs.query import Patients
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store import files, holdings
from pacs_cbir.store.session import Database

# By C-MOVE instances come over other associations, and some PACSs say that they are done before the last one is.
ARRIVAL_SECONDS = 10.0
LOOK_SECONDS = 0.2

log = structlog.get_logger()


@dataclass(frozen=True)
class Retrieved:
    """What a retrieval came to.

    Attributes:
        here: instances of the study or series whose pixel data is here now.
        fetched: the peer's account.
    """

    here: int
    fetched: Fetched


def open_archive(peer: Peer, settings: Settings, database: Database) -> Archive:
    """The peer by the protocol that its entry in the settings names.

    Raises:
        SettingsError: the data directory is another database's.
        DiskUnavailable: it cannot be written.
    """
    if peer.retrieve == "c-move":
        return MoveArchive(peer, settings, Patients(database))
    # These write into the data directory themselves.
    files.prepare(settings)
    files.claim(settings, database)
    if peer.retrieve == "c-get":
        return GetArchive(peer, settings, database, Patients(database))
    return WebArchive(peer, settings, database)


def peer_with_series(study_instance_uid: str, series_instance_uid: str, settings: Settings, database: Database) -> Peer:
    """The PACS to ask for a series that was here: the peer that sent it, else the only one that there is.

    A series that a modality or a router sent is asked for at the only PACS of the settings; among several nothing
    tells which one has it.

    Raises:
        SettingsError: no peer's AE title is the sender's, and there is not just one peer.
    """
    with database.reading() as connection:
        titles = holdings.senders(connection, study_instance_uid, series_instance_uid)
    for title in titles:
        if peer := settings.peer_by_ae_title(title):
            return peer
    if len(settings.peers) == 1:
        return next(iter(settings.peers.values()))
    sent_by = ", ".join(titles) or "nobody"
    raise SettingsError(
        f"series {series_instance_uid} was sent by {sent_by}, and PACS_CBIR_PEERS names no such AE title: add the PACS "
        "that has it under this AE title, or keep a single peer"
    )


def retrieve_series(
    peer: Peer, study_instance_uid: str, series_instance_uid: str, settings: Settings, database: Database
) -> int:
    """Bring one series (back) from a PACS; returns once its instances are in the store.

    With C-MOVE our own SCP must be running, in whichever process.

    Returns:
        how many instances of the series have their pixel data here, at least 1.

    Raises:
        PeerAway: the PACS does not answer.
        PeerRefuses: it does not let this service fetch; says what to set.
        PeerError: instances failed, or none came; names them and says what to do.
        StoreError: what came could not be kept.
        SettingsError: the data directory is another database's.
    """
    archive = open_archive(peer, settings, database)
    retrieved = retrieve(archive, database, study_instance_uid, series_instance_uid)
    with database.reading() as connection:
        known = holdings.count_known(connection, study_instance_uid, series_instance_uid)
    fetched = retrieved.fetched
    if fetched.failed or (fetched.failures and retrieved.here < known):
        raise PeerError("; ".join(fetched.failures))
    if retrieved.here == 0:
        raise PeerError(f"{peer.ae_title} sent nothing of series {series_instance_uid}: does it still have it?")
    return retrieved.here


def retrieve(
    archive: Archive, database: Database, study_instance_uid: str, series_instance_uid: str | None = None
) -> Retrieved:
    """Fetch a study or one series, and wait until what was handed over is in the store.

    Where the PACS says that it sent more than has come, that is one of the failures, and what it may be due to.

    Raises:
        PeerError, PeerAway, PeerRefuses, StoreError: as `Archive.fetch`.
    """
    with database.reading() as connection:
        started = holdings.now(connection)
    fetched = archive.fetch(study_instance_uid, series_instance_uid)
    if fetched.warned:
        peer = archive.peer.ae_title
        log.warning("instances came with warnings", peer=peer, study=study_instance_uid, instances=fetched.warned)
    here, deadline = -1, time.monotonic() + ARRIVAL_SECONDS
    while True:
        before = here
        with database.reading() as connection:
            here = holdings.count_here(connection, study_instance_uid, series_instance_uid, started)
        if here >= fetched.completed:
            return Retrieved(here, fetched)
        if here > before:
            deadline = time.monotonic() + ARRIVAL_SECONDS
        elif time.monotonic() > deadline:
            return Retrieved(here, replace(fetched, failures=(*fetched.failures, _elsewhere(archive, fetched, here))))
        time.sleep(LOOK_SECONDS)


def _elsewhere(archive: Archive, fetched: Fetched, here: int) -> str:
    said = f"{archive.peer.ae_title} says that it sent {fetched.completed} instances, and {here} are here"
    if here or archive.peer.retrieve != "c-move":
        return f"{said}: it sent some twice, or of another study"
    ours = archive.settings
    return (
        f"{said}: it must know AE title {ours.ae_title} at this machine's address and port {ours.dicom_port}, where "
        "this service's SCP listens"
    )
