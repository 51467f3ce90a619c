"""Who may associate, and what may be sent."""

from __future__ import annotations

import re
import socket
import time
from itertools import product
from statistics import median

import pytest
from dicom_factory import composite, mr_instance
from pydicom.uid import UID, ExplicitVRLittleEndian, UID_dictionary
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification
from running import listens, scp_thread, wait_until
from scu import association, store
from stored import rows

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances
from tests.conformance import STATEMENT

STORAGE = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
# PS3.6 Table A-1, without what is retired; and big endian, which archives hold.
TRANSFER = [
    uid
    for uid in UID_dictionary
    if UID(uid).type == "Transfer Syntax" and (not UID(uid).is_retired or UID(uid).name == "Explicit VR Big Endian")
]
CONTEXTS_IN_ONE = 128


def test_echo(scp: Settings) -> None:
    with association(scp, [(Verification, ExplicitVRLittleEndian)]) as asked:
        assert asked.send_c_echo().Status == 0x0000


def test_another_called_ae_title_is_rejected(scp: Settings) -> None:
    with association(scp, called="SOMEONE") as asked:
        assert asked.is_rejected
    with association(scp, called=scp.ae_title) as asked:
        assert asked.is_established


def test_only_listed_calling_ae_titles_may_associate(settings: Settings, database: Database) -> None:
    listed = settings.model_copy(update={"calling_ae_titles": ("PACS1", "PACS2")})
    with scp_thread(listed, database):
        for calling, accepted in (("PACS1", True), ("PACS2", True), ("PACS3", False), ("PACS", False)):
            with association(listed, calling=calling) as asked:
                assert (asked.is_established, asked.is_rejected) == (accepted, not accepted), calling


def test_an_association_too_many_is_rejected(settings: Settings, database: Database) -> None:
    two = settings.model_copy(update={"maximum_associations": 2})
    with scp_thread(two, database), association(two) as first, association(two) as second:
        assert first.is_established
        assert second.is_established
        with association(two) as third:
            assert third.is_rejected


@pytest.mark.slow
def test_every_storage_class_is_accepted_in_every_transfer_syntax(scp: Settings) -> None:
    pairs = list(product(STORAGE, TRANSFER))
    assert len(pairs) > 6000
    accepted: set[tuple[str, str]] = set()
    for start in range(0, len(pairs), CONTEXTS_IN_ONE):
        with association(scp, pairs[start : start + CONTEXTS_IN_ONE]) as asked:
            accepted |= {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in asked.accepted_contexts}
    assert set(pairs) - accepted == set()


def test_an_instance_of_every_storage_class_is_stored(scp: Settings, database: Database) -> None:
    for start in range(0, len(STORAGE), CONTEXTS_IN_ONE):
        some = STORAGE[start : start + CONTEXTS_IN_ONE]
        with association(scp, [(sop_class, ExplicitVRLittleEndian) for sop_class in some]) as asked:
            for sop_class in some:
                assert store(asked, composite(sop_class, "OT")) == 0x0000, UID(sop_class).name
    assert sorted(row.sop_class_uid for row in rows(database, instances)) == sorted(STORAGE)


def test_an_unknown_transfer_syntax_is_not_accepted_and_the_others_are(scp: Settings) -> None:
    good = mr_instance()
    contexts = [(good.SOPClassUID, "1.2.3.4.5"), (good.SOPClassUID, ExplicitVRLittleEndian)]
    with association(scp, contexts) as asked:
        assert [c.transfer_syntax[0] for c in asked.accepted_contexts] == [ExplicitVRLittleEndian]
        assert store(asked, good) == 0x0000


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.2.2.2", "1.2.3"])
def test_what_is_no_storage_class_is_not_accepted(scp: Settings, sop_class: str) -> None:
    with association(scp, [(sop_class, ExplicitVRLittleEndian)]) as asked:
        assert not asked.accepted_contexts


def test_connections_that_ask_for_nothing_hold_no_association(settings: Settings, database: Database) -> None:
    two = settings.model_copy(update={"maximum_associations": 2})
    with scp_thread(two, database):
        for _ in range(5):
            assert listens(two.dicom_port)
        wait_until(lambda: _accepted(two), seconds=5)


def _accepted(settings: Settings) -> bool:
    with association(settings) as asked:
        return bool(asked.is_established)


def test_a_peer_with_nagles_algorithm_does_not_wait_for_acknowledgements(scp: Settings) -> None:
    with association(scp) as waiting, association(scp) as sending_at_once:
        sending_at_once.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(40):
            for asked in (waiting, sending_at_once):
                start = time.perf_counter()
                assert store(asked, mr_instance(number=number)) == 0x0000
                seconds[asked is waiting].append(time.perf_counter() - start)
    # A connection's first segments are acknowledged at once by themselves, later ones after 40 ms.
    assert median(seconds[True]) < median(seconds[False]) + 0.03


def test_what_the_conformance_statement_names_is_accepted_and_nothing_else(
    settings: Settings, database: Database
) -> None:
    committing = settings.model_copy(update={"storage_commitment": True})
    stated = {uid for name in ("accepted services", "storage") for uid in stated_uids(name)}
    asked_for = sorted(stated | {uid for uid in UID_dictionary if UID(uid).type == "SOP Class"})
    accepted: set[str] = set()
    with scp_thread(committing, database):
        for start in range(0, len(asked_for), CONTEXTS_IN_ONE):
            contexts = [(uid, ExplicitVRLittleEndian) for uid in asked_for[start : start + CONTEXTS_IN_ONE]]
            with association(committing, contexts) as asked:
                accepted |= {str(context.abstract_syntax) for context in asked.accepted_contexts}
    assert len(stated) > 100
    assert stated <= accepted
    # Releases of pynetdicom that are newer than the statement know more.
    assert accepted - stated <= set(STORAGE)


def stated_uids(name: str) -> list[str]:
    """The UIDs in a table of the conformance statement."""
    table = STATEMENT.read_text().partition(f"<!-- {name} -->")[2].partition("<!--")[0]
    return re.findall(r"\| `([0-9.]+)` \|", table)
