"""An MLLP server (HL7 2.5 appendix C.4; IHE ITI TF-2 C.2.3): one message after the other, each answered."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from hl7.mllp import HL7StreamReader, HL7StreamWriter, InvalidBlockError, start_hl7_server

from pacs_cbir.adt.answer import answer
from pacs_cbir.errors import SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database

MAX_MESSAGE_BYTES = 1 << 20
MAX_CONNECTIONS = 32
# An engine keeps its connection open between messages; one whose network is gone is let go.
IDLE_SECONDS = 600
ANSWER_SECONDS = 60
LOOK_SECONDS = 0.2

log = structlog.get_logger()


def run_hl7(settings: Settings, database: Database, stop: threading.Event, idle_seconds: float = IDLE_SECONDS) -> None:
    """Serve until `stop` is set; a message under way is answered first.

    Raises:
        SettingsError: there is no port, or the address is taken or not ours.
    """
    if settings.hl7_port is None:
        raise SettingsError("PACS_CBIR_HL7_PORT is not set: it says where HL7 messages are listened for")
    asyncio.run(_Server(settings, database, idle_seconds).serve(stop))


class _Server:
    def __init__(self, settings: Settings, database: Database, idle_seconds: float) -> None:
        self._settings, self._database, self._idle_seconds = settings, database, idle_seconds
        # One message at a time: the order in which an engine sends them means something.
        self._worker = ThreadPoolExecutor(1, "hl7")
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, stop: threading.Event) -> None:
        host, port = self._settings.hl7_host, self._settings.hl7_port
        try:
            server = await start_hl7_server(self._connected, host, port, limit=MAX_MESSAGE_BYTES)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port}: {error.strerror}; set PACS_CBIR_HL7_HOST and PACS_CBIR_HL7_PORT"
            ) from error
        log.info("HL7 listens", host=host, port=port)
        while not stop.is_set():
            await asyncio.sleep(LOOK_SECONDS)
        server.close()
        # The answer under way is given; nothing more is read.
        await asyncio.to_thread(self._worker.shutdown)
        await asyncio.sleep(LOOK_SECONDS)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is one's
        self._open.add(task)
        try:
            if len(self._open) > MAX_CONNECTIONS:
                log.warning("HL7 connection refused: too many are open", most=MAX_CONNECTIONS)
            else:
                await self._converse(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        except InvalidBlockError:
            log.warning("HL7 connection closed: what came is no MLLP block")
        except ValueError:
            log.warning("HL7 connection closed: a message is too long", most_bytes=MAX_MESSAGE_BYTES)
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            block = await asyncio.wait_for(reader.readblock(), self._idle_seconds)
            said = await loop.run_in_executor(self._worker, answer, block, self._database, self._settings)
            writer.writeblock(said)
            await asyncio.wait_for(writer.drain(), ANSWER_SECONDS)
