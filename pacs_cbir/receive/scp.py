"""An SCP of C-ECHO, C-STORE for every storage SOP class and standard transfer syntax, and C-FIND."""

from __future__ import annotations

import threading
import time

import httpx
import pynetdicom.dimse_messages
import structlog
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes its names at run time
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from pacs_cbir.errors import SettingsError, StoreError
from pacs_cbir.pacs.transfer import stream_transfers
from pacs_cbir.receive.commitment import Commitments
from pacs_cbir.receive.find import BoundedBuffer
from pacs_cbir.receive.handlers import handlers
from pacs_cbir.receive.metrics import Metrics
from pacs_cbir.settings import Settings
from pacs_cbir.store import files, retention
from pacs_cbir.store.session import Database

# The largest PDU with which the receiving rate still grew.
MAXIMUM_PDU_BYTES = 131072
# A peer that falls silent inside an association is let go after these.
NETWORK_SECONDS = 60
DIMSE_SECONDS = 60
ACSE_SECONDS = 30
# The API may take this long over a query by example.
API_SECONDS = 60
# Associations that are open at the end may finish for so long; then they are aborted.
FAREWELL_SECONDS = 10

# pydicom's list has retired ones that archives hold, and lacks some that PS3.6 Table A-1 has.
TRANSFER_SYNTAXES = sorted(
    {*AllTransferSyntaxes}
    | {uid for uid in map(UID, UID_dictionary) if uid.type == "Transfer Syntax" and not uid.is_retired}
)

# Not the retired ones: over those pynetdicom's server aborts the association.
STORAGE_CLASSES = [uid for context in AllStoragePresentationContexts if (uid := context.abstract_syntax) is not None]

# Not the deflated one: no identifier needs it, and a small one could be of any length.
QUERY_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]

log = structlog.get_logger()


def application_entity(settings: Settings) -> AE:
    """What is accepted, and within which limits, as the settings say."""
    ae = AE(ae_title=settings.ae_title)
    ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
    ae.maximum_associations = settings.maximum_associations
    ae.network_timeout, ae.dimse_timeout, ae.acse_timeout = NETWORK_SECONDS, DIMSE_SECONDS, ACSE_SECONDS
    ae.require_called_aet = True
    ae.require_calling_aet = list(settings.calling_ae_titles)
    ae.add_supported_context(Verification)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind, QUERY_SYNTAXES)
    if settings.storage_commitment:
        ae.add_supported_context(StorageCommitmentPushModel, QUERY_SYNTAXES)
    for uid in STORAGE_CLASSES:
        ae.add_supported_context(uid, TRANSFER_SYNTAXES)
    return ae


def run_scp(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Serve until `stop` is set; transfers under way are finished first.

    Raises:
        SettingsError: an address is taken or not ours, or the data directory is another database's.
        DiskUnavailable: the data directory cannot be written.
    """
    files.prepare(settings)
    files.claim(settings, database)
    retention.require_allowed(settings, database)
    stream_transfers(settings)
    # Without a limit a peer could fill the memory with one request.
    setattr(pynetdicom.dimse_messages, "BytesIO", BoundedBuffer)  # noqa: B010 - as in transfer.py
    metrics = Metrics()
    # No proxy of the environment stands between the processes of one service.
    with (
        metrics.served(settings),
        httpx.Client(base_url=settings.asked_api, timeout=API_SECONDS, trust_env=False) as api,
    ):
        _serve(settings, database, api, metrics, stop)


def _serve(settings: Settings, database: Database, api: httpx.Client, metrics: Metrics, stop: threading.Event) -> None:
    ae, commitments = application_entity(settings), Commitments(settings, database)
    try:
        server = ae.start_server(
            (settings.dicom_host, settings.dicom_port),
            block=False,
            evt_handlers=handlers(database, settings, api, commitments, metrics),
        )
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.dicom_host}:{settings.dicom_port}: {error.strerror}; "
            "set PACS_CBIR_DICOM_HOST and PACS_CBIR_DICOM_PORT"
        ) from error
    assert server is not None  # noqa: S101 - block=False gives a server
    log.info("SCP listens", ae_title=settings.ae_title, host=settings.dicom_host, port=settings.dicom_port)
    reports = threading.Thread(target=commitments.run, args=(stop,), daemon=True)
    if settings.storage_commitment:
        reports.start()
    threading.Thread(target=_sweep, args=(settings, database), daemon=True).start()
    stop.wait()
    server.shutdown()
    deadline = time.monotonic() + FAREWELL_SECONDS
    while ae.active_associations and time.monotonic() < deadline:
        time.sleep(0.05)
    ae.shutdown()
    if reports.is_alive():
        # One that is under way is taken up again, should it take longer.
        commitments.end()
        reports.join(FAREWELL_SECONDS)


def _sweep(settings: Settings, database: Database) -> None:
    try:
        removed = files.sweep(settings, database)
    except StoreError as error:
        log.warning("left-over files were not swept", error=str(error))
        return
    if removed:
        log.warning("left-over files cleared away", files=removed, whole_ones_are_in=str(settings.orphans_dir))
