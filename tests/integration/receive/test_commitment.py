"""Storage commitment: asked by a real peer, reported on its association or on another one, and never broken."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from arriving import Receive
from dicom_factory import mr_instance, uid
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from rich.console import Console
from running import command, listens, scp_thread, wait_until
from scu import store
from sqlalchemy import text, update
from stored import let_go, rows

from pacs_cbir.errors import InvalidCommitment
from pacs_cbir.peers import Peer
from pacs_cbir.receive import commitment
from pacs_cbir.settings import Settings
from pacs_cbir.status import print_status
from pacs_cbir.store import commitments
from pacs_cbir.store.commitments import Reference
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import commitments as requests
from pacs_cbir.store.tables import instances
from tests.conftest import free_port

SUCCESS = 0x0000
PEER = "PEER"
TRANSACTION = uid("transaction")


class Sender:
    """The peer: it stores, asks for commitment, and notes what it is told, over whichever association.

    Attributes:
        told: event type and information of each report.
        status: with which it answers reports.
    """

    def __init__(self) -> None:
        self.told: list[tuple[int, Dataset]] = []
        self.over: list[str] = []
        self.status = SUCCESS
        self.port = free_port()

    def hear(self, event: evt.Event) -> tuple[int, None]:
        if self.status == SUCCESS:
            self.told.append((event.event_type, event.event_information))
            self.over.append("own" if event.assoc.is_requestor else "another")
        return self.status, None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Reports may come over associations of the service's own."""
        ae = AE(ae_title=PEER)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.hear)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()

    @contextmanager
    def association(self, settings: Settings) -> Iterator[Association]:
        ae = AE(ae_title=PEER)
        asked = ae.associate(
            settings.dicom_host,
            settings.dicom_port,
            contexts=[build_context(StorageCommitmentPushModel), build_context(MRImageStorage, ExplicitVRLittleEndian)],
            ae_title=settings.ae_title,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.hear)],
        )
        assert asked.is_established
        try:
            yield asked
        finally:
            if asked.is_established:
                asked.release()

    def outcome(self) -> tuple[set[str], dict[str, int]]:
        """Of the last report: what is committed, and what is not, with the failure reason."""
        kind, event = self.told[-1]
        assert event.TransactionUID == TRANSACTION
        committed = {item.ReferencedSOPInstanceUID for item in event.get("ReferencedSOPSequence", [])}
        refused = {item.ReferencedSOPInstanceUID: item.FailureReason for item in event.get("FailedSOPSequence", [])}
        assert kind == (2 if refused else 1)
        return committed, refused


def action(*named: tuple[str, str], transaction: str = TRANSACTION) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction
    ds.ReferencedSOPSequence = []
    for sop_class, sop_instance in named:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        ds.ReferencedSOPSequence.append(item)
    return ds


def ask(asked: Association, ds: Dataset, action_type: int = 1) -> int:
    status, _ = asked.send_n_action(ds, action_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    return int(status.Status)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def settings(settings: Settings, sender: Sender) -> Settings:
    """With commitment, and the sender among the peers."""
    peers = {"pacs": Peer(ae_title=PEER, host="127.0.0.1", port=sender.port)}
    return settings.model_copy(update={"storage_commitment": True, "peers": peers})


def sent(asked: Association, count: int = 2) -> list[tuple[str, str]]:
    found = [mr_instance(number=number) for number in range(1, count + 1)]
    assert [store(asked, ds) for ds in found] == [SUCCESS] * count
    return [(ds.SOPClassUID, ds.SOPInstanceUID) for ds in found]


def committed(database: Database) -> set[str]:
    return {row.sop_instance_uid for row in rows(database, instances) if row.committed_at is not None}


def test_what_is_stored_is_committed_and_reported_over_the_senders_association(
    settings: Settings, database: Database, sender: Sender
) -> None:
    nowhere = settings.model_copy(update={"peers": {}})
    with scp_thread(nowhere, database), sender.association(settings) as asked:
        named = sent(asked)
        assert ask(asked, action(*named)) == SUCCESS
        wait_until(lambda: len(sender.told) == 1, 20)
        wait_until(lambda: rows(database, requests) == [])
        # The association goes on.
        assert store(asked, mr_instance(number=3)) == SUCCESS
    assert sender.outcome() == ({uid for _, uid in named}, {})
    assert sender.over == ["own"]
    assert committed(database) == {uid for _, uid in named}


def test_a_sender_that_has_left_is_told_over_another_association(
    settings: Settings, database: Database, sender: Sender
) -> None:
    with scp_thread(settings, database), sender.listening():
        with sender.association(settings) as asked:
            named = sent(asked)
            assert ask(asked, action(*named)) == SUCCESS
        wait_until(lambda: len(sender.told) == 1, 20)
        wait_until(lambda: rows(database, requests) == [])
    assert sender.outcome() == ({uid for _, uid in named}, {})
    assert sender.over == ["another"]


def test_what_is_not_here_another_class_or_damaged_is_refused_with_the_reason(
    settings: Settings, database: Database, sender: Sender
) -> None:
    with scp_thread(settings, database), sender.association(settings) as asked:
        (good, damaged, gone, lost, other) = sent(asked, 5)
        files = {row.sop_instance_uid: settings.instances_dir / row.file for row in rows(database, instances)}
        content = bytearray(files[damaged[1]].read_bytes())
        content[-1] ^= 1
        files[damaged[1]].write_bytes(content)
        files[lost[1]].unlink()
        with database.transaction() as connection:
            connection.execute(update(instances).where(instances.c.sop_instance_uid == gone[1]).values(file=None))
        stranger = uid("stranger")
        named = [good, damaged, gone, lost, (CTImageStorage, other[1]), (MRImageStorage, stranger)]
        assert ask(asked, action(*named)) == SUCCESS
        wait_until(lambda: len(sender.told) == 1, 20)
    assert sender.outcome() == (
        {good[1]},
        {damaged[1]: 0x0110, gone[1]: 0x0112, lost[1]: 0x0110, other[1]: 0x0119, stranger: 0x0112},
    )
    assert committed(database) == {good[1]}


@pytest.mark.parametrize("narrow", ["cache", "none"])
def test_where_instances_may_leave_each_is_refused(
    settings: Settings, database: Database, sender: Sender, narrow: str
) -> None:
    narrower = settings.model_copy(update={"retention": narrow})
    with scp_thread(narrower, database), sender.association(settings) as asked:
        named = sent(asked)
        assert ask(asked, action(*named)) == SUCCESS
        wait_until(lambda: len(sender.told) == 1, 20)
    assert sender.outcome() == (set(), {uid: 0x0110 for _, uid in named})
    assert committed(database) == set()


def test_commitment_is_off_by_default(settings: Settings, database: Database, sender: Sender) -> None:
    assert Settings.model_fields["storage_commitment"].default is False
    off = settings.model_copy(update={"storage_commitment": False})
    with scp_thread(off, database), sender.association(settings) as asked:
        assert [context.abstract_syntax for context in asked.rejected_contexts] == [StorageCommitmentPushModel]


@pytest.mark.parametrize(
    ("ds", "action_type", "status"),
    [
        (action((MRImageStorage, uid(1))), 2, 0x0123),
        (action(), 1, 0x0115),
        (action((MRImageStorage, uid(1)), transaction=""), 1, 0x0115),
        (action((MRImageStorage, "")), 1, 0x0115),
        (action((MRImageStorage, uid(1)), (CTImageStorage, uid(1))), 1, 0x0115),
    ],
    ids=["another action", "no instances", "no transaction", "no UID", "one twice"],
)
def test_what_cannot_be_understood_is_refused(
    *, settings: Settings, database: Database, sender: Sender, ds: Dataset, action_type: int, status: int
) -> None:
    with scp_thread(settings, database), sender.association(settings) as asked:
        assert ask(asked, ds, action_type) == status
        assert ask(asked, action((MRImageStorage, uid(1)))) == SUCCESS
    assert len(rows(database, requests)) <= 1


@pytest.mark.parametrize("encoded", [b"", b"\x08", b"\xff" * 64, b"DICM" * 9])
def test_bytes_that_are_no_request_are_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidCommitment):
        commitment.read_request(encoded, ImplicitVRLittleEndian)


def test_a_request_that_is_too_long_says_so(settings: Settings, database: Database, sender: Sender) -> None:
    long = action(*((MRImageStorage, uid(number)) for number in range(10_000)))
    with scp_thread(settings, database), sender.association(settings) as asked:
        assert ask(asked, long) == 0x0115
    assert rows(database, requests) == []


def test_a_sender_that_is_away_is_told_when_it_is_back(
    settings: Settings, database: Database, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "FIRST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(commitment, "IDLE_SECONDS", 0.05)
    with scp_thread(settings, database):
        with sender.association(settings) as asked:
            named = sent(asked)
            assert ask(asked, action(*named)) == SUCCESS
        wait_until(lambda: [row.attempts >= 2 for row in rows(database, requests)] == [True], 20)
        assert committed(database) == {uid for _, uid in named}
        printed = io.StringIO()
        print_status(settings, database, Console(file=printed, width=250))
        for shown in (PEER, TRANSACTION, "gave no association", "tried again", "2 committed"):
            assert shown in printed.getvalue()
        sender.status = 0x0110
        with sender.listening():
            wait_until(lambda: "answered the report with 0110H" in rows(database, requests)[0].error, 20)
            sender.status = SUCCESS
            wait_until(lambda: len(sender.told) == 1, 20)
    assert sender.outcome() == ({uid for _, uid in named}, {})
    wait_until(lambda: rows(database, requests) == [])


def pauses(database: Database, attempts: int) -> float:
    """Seconds until a request is tried again after so many attempts."""
    with database.transaction() as connection:
        connection.execute(update(requests).values(attempts=attempts - 1, not_before=text("clock_timestamp()")))
        asked = commitments.claim(connection)
        assert asked is not None
        assert not commitments.failed(connection, asked, "away")
        left = "SELECT extract(epoch FROM not_before - clock_timestamp()) FROM commitments"
        return round(float(connection.execute(text(left)).scalar_one()))


def test_pauses_grow_and_end(database: Database) -> None:
    with database.transaction() as connection:
        commitments.request(connection, PEER, TRANSACTION, [Reference(MRImageStorage, uid(1))])
    assert [pauses(database, attempts) for attempts in (1, 2, 3, 10, 100)] == [10, 20, 40, 3600, 3600]
    with database.transaction() as connection:
        old = text("clock_timestamp() - interval '3 days'")
        connection.execute(update(requests).values(requested_at=old, not_before=old))
        asked = commitments.claim(connection)
        assert asked is not None
        assert commitments.failed(connection, asked, "away")
        assert commitments.claim(connection) is None
        (shown,) = commitments.open_requests(connection)
        assert (shown.given_up, shown.error, shown.instances) == (True, "away", 1)
        # Who asks again is told again; what nobody asks for again is forgotten in the end.
        commitments.request(connection, PEER, TRANSACTION, [Reference(MRImageStorage, uid(1))])
        assert commitments.claim(connection) is not None
        connection.execute(update(requests).values(requested_at=text("now() - interval '31 days'"), given_up=True))
        assert commitments.claim(connection) is None
        assert commitments.open_requests(connection) == []


def test_a_process_that_lost_its_lease_changes_nothing(settings: Settings, database: Database) -> None:
    with database.transaction() as connection:
        commitments.request(connection, PEER, TRANSACTION, [Reference(MRImageStorage, uid(1))])
        first = commitments.claim(connection)
        assert first is not None
        assert commitments.claim(connection) is None, "it is leased"
        connection.execute(update(requests).values(not_before=text("clock_timestamp()")))
        second = commitments.claim(connection)
        assert second is not None
    assert commitments.check(first, settings, database) is None
    with database.transaction() as connection:
        commitments.delivered(connection, first)
    assert commitments.check(second, settings, database) == (commitments.Refusal.NO_SUCH_INSTANCE,)
    with database.transaction() as connection:
        commitments.delivered(connection, second)
    assert rows(database, requests) == []


KILLED_BEFORE = {
    "the check": "commitments.check = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
    "the report": "commitment.Commitments._report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
    "the row goes": "commitments.delivered = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.slow
@pytest.mark.parametrize("step", KILLED_BEFORE)
def test_a_kill_between_the_steps_loses_no_request(
    *, settings: Settings, database: Database, sender: Sender, environment: dict[str, str], tmp_path: Path, step: str
) -> None:
    environment = environment | {
        "PACS_CBIR_STORAGE_COMMITMENT": "true",
        "PACS_CBIR_PEERS": f'{{"pacs": {{"ae_title": "{PEER}", "host": "127.0.0.1", "port": {sender.port}}}}}',
    }
    program = (
        "import os, signal, sys\n"
        "from pacs_cbir.receive import commitment\n"
        "from pacs_cbir.store import commitments\n"
        f"{KILLED_BEFORE[step]}\n"
        "sys.argv = ['pacs-cbir', 'scp']\n"
        "from pacs_cbir.cli import main\n"
        "main()\n"
    )
    with sender.listening():
        first = subprocess.Popen([sys.executable, "-c", program], env=environment)
        wait_until(lambda: listens(settings.dicom_port), 60)
        with sender.association(settings) as asked:
            named = sent(asked)
            assert ask(asked, action(*named)) == SUCCESS
        assert first.wait(60) == -9
        assert len(rows(database, requests)) == 1
        before = committed(database)
        assert before == (set() if step == "the check" else {uid for _, uid in named})
        with database.transaction() as connection:
            connection.execute(update(requests).values(not_before=text("clock_timestamp()")))
        with command("scp", environment, tmp_path / "log"):
            wait_until(lambda: len(sender.told) > (step == "the row goes"), 60)
            wait_until(lambda: rows(database, requests) == [])
    assert sender.outcome() == ({uid for _, uid in named}, {})
    assert committed(database) == {uid for _, uid in named}


def test_what_leaves_after_it_was_read_is_not_committed(
    settings: Settings, database: Database, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process still lets go, by settings that were changed meanwhile."""
    read = commitments._refusal

    def read_and_let_go(reference: Reference, *here: Any) -> commitments.Refusal | None:
        found = read(reference, *here)
        if reference.sop_instance_uid == named[0][1]:
            let_go(database, settings, reference.sop_instance_uid)
        return found

    monkeypatch.setattr(commitments, "_refusal", read_and_let_go)
    with scp_thread(settings, database), sender.association(settings) as asked:
        named = sent(asked)
        assert ask(asked, action(*named)) == SUCCESS
        wait_until(lambda: len(sender.told) == 1, 20)
    assert sender.outcome() == ({named[1][1]}, {named[0][1]: 0x0110})
    assert committed(database) == {named[1][1]}


def test_committed_bytes_stay_when_others_come_in_their_place(
    settings: Settings, database: Database, sender: Sender
) -> None:
    with scp_thread(settings, database), sender.association(settings) as asked:
        named = sent(asked, 1)
        assert ask(asked, action(*named)) == SUCCESS
        wait_until(lambda: len(sender.told) == 1, 20)
        [before] = rows(database, instances)
        kept = (settings.instances_dir / before.file).read_bytes()
        other = mr_instance(number=1)
        other.PixelData = bytes(len(other.PixelData))
        assert store(asked, other) == SUCCESS
    assert committed(database) == set()
    [orphan] = settings.orphans_dir.iterdir()
    assert orphan.read_bytes() == kept


def test_a_role_of_its_own_is_proposed(settings: Settings, database: Database, sender: Sender) -> None:
    """A sender that insists on roles (PS3.7 D.3.3.4) is told over an association in which we are the SCP."""
    proposed: list[Sequence[object]] = []
    ae = AE(ae_title=PEER)
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    handlers = [
        (evt.EVT_N_EVENT_REPORT, sender.hear),
        (evt.EVT_ACCEPTED, lambda event: proposed.append(list(event.assoc.requestor.role_selection.values()))),
    ]
    server = ae.start_server(("127.0.0.1", sender.port), block=False, evt_handlers=handlers)
    with scp_thread(settings, database):
        with sender.association(settings) as asked:
            assert ask(asked, action(*sent(asked))) == SUCCESS
        wait_until(lambda: len(sender.told) == 1, 20)
    server.shutdown()
    assert proposed == [[build_role(StorageCommitmentPushModel, scp_role=True)]]


def test_a_request_whose_files_take_long_to_read_is_nobody_elses_meanwhile(
    settings: Settings, database: Database, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [mr_instance(number=number) for number in range(1, 6)]
    for ds in found:
        receive(ds)
    named = [Reference(ds.SOPClassUID, ds.SOPInstanceUID) for ds in found]
    with database.transaction() as connection:
        commitments.request(connection, PEER, TRANSACTION, named)
    read, others = commitments._refusal, []

    def slowly(reference: Reference, *here: Any) -> commitments.Refusal | None:
        time.sleep(0.4)
        with database.transaction() as connection:
            others.append(commitments.claim(connection))
        return read(reference, *here)

    monkeypatch.setattr(commitments, "_refusal", slowly)
    monkeypatch.setattr(commitments, "LEASE_SECONDS", 1.0)
    with database.transaction() as connection:
        asked = commitments.claim(connection)
    assert asked is not None
    assert commitments.check(asked, settings, database) == (None,) * len(found)
    assert others == [None] * len(found)


def test_whoever_lost_a_request_reads_no_further(
    settings: Settings, database: Database, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [mr_instance(number=number) for number in (1, 2)]
    for ds in found:
        receive(ds)
    named = [Reference(ds.SOPClassUID, ds.SOPInstanceUID) for ds in found]
    with database.transaction() as connection:
        commitments.request(connection, PEER, TRANSACTION, named)
        asked = commitments.claim(connection)
        connection.execute(update(requests).values(not_before=text("clock_timestamp()")))
    assert asked is not None
    with database.transaction() as connection:
        assert commitments.claim(connection) is not None, "another process has it"
    monkeypatch.setattr(commitments, "LEASE_SECONDS", 0.0)
    assert commitments.check(asked, settings, database) is None
    assert committed(database) == set()
