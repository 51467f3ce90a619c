"""HL7 over a real socket: what a message says is done before it is acknowledged, and nothing ends the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from arriving import arrive, table
from dicom_factory import uid
from running import START_SECONDS, command, listens, pacs_cbir, wait_until
from structlog.testing import capture_logs

from pacs_cbir.adt import server
from pacs_cbir.adt.server import run_hl7
from pacs_cbir.errors import SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store.catalogue import header
from pacs_cbir.store.session import Database
from tests.conftest import free_port

PID = "PID|1||{}||Roe^Jane^Q^III^Dr||19610203|F"
DONE = ["AA", "MSG1", "applied"]
NOBODY = ["AA", "MSG1", "nobody here"]
NOWHERE = "postgresql://nobody@/nothing?host=/tmp/no-such-folder"


def message(trigger: str, *segments: str, character_set: str = "", kind: str = "ADT", control: str = "MSG1") -> bytes:
    msh = f"MSH|^~\\&|ADT|HOSP|CBIR|RAD|20260101||{kind}^{trigger}|{control}|P|2.5||||||{character_set}"
    return "\r".join((msh, *segments, "")).encode()


class Engine:
    """An interface engine's connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)

    def send(self, block: bytes) -> list[str]:
        """One message; the fields of the answer's MSA, and of its ERR where there is one."""
        self.socket.sendall(b"\x0b" + block + b"\x1c\r")
        return self.answer()

    def answer(self) -> list[str]:
        received = b""
        while not received.endswith(b"\x1c\r"):
            part = self.socket.recv(4096)
            assert part, f"closed after {received!r}"
            received += part
        assert received.startswith(b"\x0bMSH|")
        segments = received[1:-2].decode().strip("\r").split("\r")
        return [field for segment in segments[1:] for field in segment.split("|") if field not in {"MSA", "ERR"}]

    def is_closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


@contextmanager
def listening(settings: Settings, database: Database, idle_seconds: float = 60) -> Iterator[int]:
    port = free_port()
    stop = threading.Event()
    arguments = (settings.model_copy(update={"hl7_port": port}), database, stop, idle_seconds)
    thread = threading.Thread(target=run_hl7, args=arguments)
    thread.start()
    try:
        wait_until(lambda: listens(port), START_SECONDS)
        yield port
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def send(settings: Settings, database: Database) -> Iterator[Callable[[bytes], list[str]]]:
    with listening(settings, database) as port:
        yield Engine(port).send


def said(database: Database, study: str) -> list[str]:
    keywords = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
    with database.transaction() as connection:
        found = header(connection, uid(study))
    return [found.get(keyword, [""])[0] for keyword in keywords]


@pytest.mark.parametrize("trigger", ["A08", "A31"])
def test_an_update(database: Database, settings: Settings, send: Callable[[bytes], list[str]], trigger: str) -> None:
    arrive(database, settings, patient="42", study="one", IssuerOfPatientID="HOSP")
    arrive(database, settings, patient="42", study="other")
    assert send(message(trigger, "EVN||20260101", PID.format("42^^^HOSP&1.2.3&ISO^MR~77^^^CITY^PI"))) == DONE
    assert said(database, "one") == ["42", "HOSP", "Roe^Jane^Q^Dr^III", "19610203", "F"]
    assert said(database, "other")[2] == "Test^42", "of another issuer"


def test_what_changed_nothing_is_told_apart(
    database: Database, settings: Settings, send: Callable[[bytes], list[str]], environment: dict[str, str]
) -> None:
    arrive(database, settings, patient="42", study="one", IssuerOfPatientID="HOSPITAL")
    with capture_logs() as logs:
        assert send(message("A08", PID.format("42^^^HOSP^MR"))) == NOBODY
        assert send(message("A08", PID.format("42^^^HOSPITAL^MR"))) == DONE
    found = [(entry["outcome"], entry["studies"]) for entry in logs if entry["event"] == "HL7 message taken in"]
    assert found == [("nobody here", 0), ("applied", 1)]
    status = pacs_cbir(environment, "status")
    assert status.returncode == 0, status.stderr
    assert "corrections: 1 by HL7, the last at " in status.stdout


def test_a_merge(database: Database, settings: Settings, send: Callable[[bytes], list[str]]) -> None:
    arrive(database, settings, patient="41", study="one", IssuerOfPatientID="HOSP")
    block = message("A40^ADT_A39", PID.format("9^^^CITY^PI~42^^^HOSP^MR"), "MRG|41^^^HOSP^MR~123^^^SSA^SS")
    assert send(block) == DONE
    assert send(block) == NOBODY, "the prior one has no study any more"
    arrive(database, settings, patient="41", study="two", IssuerOfPatientID="HOSP")
    for study in ("one", "two"):
        assert said(database, study) == ["42", "HOSP", "Roe^Jane^Q^Dr^III", "19610203", "F"]
    assert table(database, "SELECT count(*) FROM patients WHERE patient_id IN ('9', '123')") == [(0,)]


def test_a_merge_that_tells_nothing_else_leaves_one_birth_date(
    database: Database, settings: Settings, send: Callable[[bytes], list[str]]
) -> None:
    for patient, born in (("41", "19610203"), ("42", "19700707")):
        arrive(database, settings, patient=patient, study=patient, PatientBirthDate=born)
    assert send(message("A40^ADT_A39", "PID|1||42", "MRG|41")) == DONE
    assert [said(database, study)[3] for study in ("41", "42")] == ["19700707"] * 2
    assert table(database, "SELECT kind FROM conflicts WHERE resolved_at IS NULL") == [("several birth dates",)]


def test_several_merges_in_one_message_happen_together(
    database: Database, settings: Settings, send: Callable[[bytes], list[str]]
) -> None:
    for patient in ("1", "3"):
        arrive(database, settings, patient=patient, study=patient)
    pairs = [PID.format("2"), "MRG|1", PID.format("4"), "MRG|3"]
    assert send(message("A40", *pairs, PID.format("1"), "MRG|2"))[0] == "AE", "the last one contradicts the first"
    assert [said(database, study)[0] for study in ("1", "3")] == ["1", "3"]
    assert send(message("A40", *pairs))[0] == "AA"
    assert [said(database, study)[0] for study in ("1", "3")] == ["2", "4"]


def test_authorities_have_the_names_that_instances_know(database: Database, settings: Settings) -> None:
    arrive(database, settings, patient="42", study="one")
    with listening(settings.model_copy(update={"hl7_issuers": {"HOSP": ""}}), database) as port:
        assert Engine(port).send(message("A08", PID.format("42^^^HOSP^MR")))[0] == "AA"
    assert said(database, "one")[2] == "Roe^Jane^Q^Dr^III"


@pytest.mark.parametrize(
    ("name", "character_set", "encoding", "wanted"),
    [
        ("Müller^Jörg", "8859/1", "latin-1", "Müller^Jörg"),
        ("Müller^Jörg", "UNICODE UTF-8", "utf-8", "Müller^Jörg"),
        ("Müller^Jörg", "", "utf-8", "Müller^Jörg"),
        ("Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I", "UNICODE UTF-8", "utf-8", "Yamada^Tarou=山田^太郎"),
        ("O\\T\\Brien&van^A=B\\S\\C", "", "utf-8", "O&Brien^A B C"),
        ('""', "", "utf-8", ""),
        ("", "", "utf-8", "Test^42"),
    ],
)
def test_names_in_their_character_sets(
    database: Database,
    settings: Settings,
    send: Callable[[bytes], list[str]],
    *,
    name: str,
    character_set: str,
    encoding: str,
    wanted: str,
) -> None:
    arrive(database, settings, patient="42", study="one")
    block = message("A08", f"PID|||42||{name}", character_set=character_set).decode().encode(encoding)
    assert send(block)[0] == "AA"
    assert said(database, "one")[2] == wanted


def test_of_patients_who_are_not_here_nothing_is_kept(
    database: Database, settings: Settings, send: Callable[[bytes], list[str]]
) -> None:
    assert send(message("A08", PID.format("42"))) == NOBODY
    assert table(database, "SELECT count(*) FROM patients") == [(0,)]


@pytest.mark.parametrize(
    ("block", "code", "condition"),
    [
        (message("A01", PID.format("X-4711")), "AR", "200"),
        (message("O01", PID.format("X-4711"), kind="ORM"), "AR", "200"),
        (message("A08"), "AE", "101"),
        (message("A08", "PID|1||||X-4711"), "AE", "101"),
        (message("A08", "PID|1||42||X-4711||X-4711"), "AE", "101"),
        (message("A08", "PID|1||42||X-4711||99999999"), "AE", "101"),
        (message("A08", "PID|1||42||" + "X-4711" * 100), "AE", "101"),
        (message("A40", PID.format("X-4711")), "AE", "101"),
        (message("A40", PID.format("X-4711"), "MRG|X-4711"), "AE", "101"),
        (message("A40", "MRG|X-4711"), "AE", "101"),
        (message("A08", PID.format("X-4711" * 100)), "AE", "102"),
        (message("A08", PID.format("X-4711"), character_set="KLINGON"), "AE", "102"),
        (message("A08", PID.format("Ü")).decode().encode("latin-1"), "AE", "102"),
    ],
)
def test_what_cannot_be_taken_in_is_said_without_anybodys_identity(
    database: Database,
    settings: Settings,
    send: Callable[[bytes], list[str]],
    *,
    block: bytes,
    code: str,
    condition: str,
) -> None:
    arrive(database, settings, patient="42", study="one")
    with capture_logs() as lines:
        found = send(block)
    assert (found[:2], condition in found) == ([code, "MSG1"], True)
    assert "4711" not in f"{found}{lines}"
    assert said(database, "one")[2] == "Test^42"
    assert send(message("A08", PID.format("42")))[0] == "AA", "and the connection goes on"


def test_a_merge_that_contradicts_an_earlier_one(database: Database, send: Callable[[bytes], list[str]]) -> None:
    assert send(message("A40", PID.format("2"), "MRG|1"))[0] == "AA"
    code, _, text, *_ = send(message("A40", PID.format("1"), "MRG|2"))
    assert (code, text) == ("AE", "the surviving patient is the prior one, or was merged into them before")


def test_while_the_database_is_away_the_engine_is_to_try_again(settings: Settings) -> None:
    away = Database(NOWHERE)
    with listening(settings, away) as port:
        engine = Engine(port)
        assert engine.send(message("A08", PID.format("42")))[:2] == ["AR", "MSG1"]
        assert engine.send(message("A08", PID.format("42")))[:2] == ["AR", "MSG1"]
    away.close()


def test_a_block_that_is_no_message_is_refused(send: Callable[[bytes], list[str]]) -> None:
    odd_headers = (
        b"MSH|^~\\&|A\rX||||||ADT^A08|1|P|2.5",
        b"MSH|^~\\&|A||||||A|T^A08|1|P|2.5",
        b"MSH\0^~\\&|A|||\rPID|1",
    )
    for block in (b"", b"hello", b"MSH", b"MSH|", b"PID|1", b"BHS|^~\\&|", b"\xff" * 100, *odd_headers):
        with capture_logs() as lines:
            code = send(block)[0]
        assert code in {"AR", "AE"}
        assert [entry["answer"] for entry in lines] == [code]
    assert send(message("A08", PID.format("42")))[0] == "AA"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n\x1c\r",
        b"\x0b" + b"x" * (3 * server.MAX_MESSAGE_BYTES),
        b"\x0b" + b"x" * (server.MAX_MESSAGE_BYTES + 10) + b"\x1c\r",
    ],
    ids=["another protocol", "endless", "too long"],
)
def test_garbage_closes_its_connection_alone(settings: Settings, database: Database, garbage: bytes) -> None:
    with listening(settings, database) as port:
        other, engine = Engine(port), Engine(port)
        with suppress(ConnectionError):
            engine.socket.sendall(garbage)
        assert engine.is_closed()
        assert other.send(message("A08", PID.format("42")))[0] == "AA"


def test_a_connection_that_falls_silent_is_closed(settings: Settings, database: Database) -> None:
    with listening(settings, database, idle_seconds=0.3) as port:
        engine = Engine(port)
        engine.socket.sendall(b"\x0bMSH|^~")
        assert engine.is_closed()


def test_too_many_connections(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    with listening(settings, database) as port:
        one, _ = _served(port), _served(port)
        assert Engine(port).is_closed()
        one.socket.close()
        _served(port)


def _served(port: int) -> Engine:
    """A connection that is served, once there is room for it: one that was closed counts until the server sees that."""
    found: list[Engine] = []

    def tried() -> bool:
        engine = Engine(port)
        with suppress(AssertionError, ConnectionError):
            if engine.send(message("A08", PID.format("42")))[0] == "AA":
                found.append(engine)
                return True
        engine.socket.close()
        return False

    wait_until(tried)
    return found[0]


def test_a_port_that_is_taken_or_missing_says_so(settings: Settings, database: Database) -> None:
    with pytest.raises(SettingsError, match="HL7_PORT is not set"):
        run_hl7(settings, database, threading.Event())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = settings.model_copy(update={"hl7_port": taken.getsockname()[1]})
        with pytest.raises(SettingsError, match="PACS_CBIR_HL7_PORT"):
            run_hl7(busy, database, threading.Event())


def test_the_process_that_serve_runs(environment: dict[str, str], database: Database, tmp_path: Path) -> None:
    port = free_port()
    with command("hl7", environment | {"PACS_CBIR_HL7_PORT": str(port)}, tmp_path / "hl7.log") as process:
        wait_until(lambda: listens(port), START_SECONDS)
        assert Engine(port).send(message("A40", PID.format("X-4711"), "MRG|1"))[0] == "AA"
    assert process.returncode == 0
    assert table(database, "SELECT count(*) FROM patients") == [(2,)]
    assert "4711" not in (tmp_path / "hl7.log").read_text()
