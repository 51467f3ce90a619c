"""`pacs-cbir serve`: all doors as child processes, started again when they die, ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import structlog

from pacs_cbir.errors import SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store import retention
from pacs_cbir.store.files import prepare
from pacs_cbir.store.session import open_database

# A child that died is started again after this; doubled each time it dies young, up to the longest.
RESTART_SECONDS = 0.5
LONGEST_RESTART_SECONDS = 30.0
YOUNG_SECONDS = 30.0
# Children may finish what they do; then they are killed. Longer than an SCP waits for its open associations.
FAREWELL_SECONDS = 20.0
LOOK_SECONDS = 0.1
# As the command line gives it.
EXIT_SETTINGS = 2

log = structlog.get_logger()


@dataclass
class _Child:
    command: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = RESTART_SECONDS
    restart_at: float = field(default=0.0)

    def start(self) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pacs_cbir", self.command],
            # Ctrl-C reaches the supervisor alone, which then ends its children in order.
            start_new_session=True,
            env=os.environ | {"PACS_CBIR_SUPERVISOR": str(os.getpid())},
        )

    def look(self) -> None:
        """Start it when it is due, notice when it died.

        Raises:
            SettingsError: it refused the settings when it was started first.
        """
        now = time.monotonic()
        if self.process is None:
            if now >= self.restart_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        self.delay = (
            min(self.delay * 2, LONGEST_RESTART_SECONDS) if now - self.started < YOUNG_SECONDS else RESTART_SECONDS
        )
        if code == EXIT_SETTINGS and self.restart_at == 0.0:
            raise SettingsError(f"`pacs-cbir {self.command}` cannot run with these settings; see its message")
        log.warning("process died and is started again", command=self.command, exit_code=code, seconds=self.delay)
        self.process, self.restart_at = None, now + self.delay


def supervise(settings: Settings, stop: threading.Event) -> None:
    """Run SCP, workers, API and, where it has a port, HL7 until `stop` is set.

    Raises:
        SchemaOutdated, DatabaseUnavailable, DiskUnavailable: before any child is started.
        SettingsError: a child cannot run with these settings, and all others were ended; or the retention is narrower
            than what was committed.
    """
    prepare(settings)
    # Held open: the embedded Postgres stays up while children come and go.
    with open_database(settings, pool_size=1) as database:
        retention.require_allowed(settings, database)
        children = [_Child("scp"), _Child("api"), *(_Child("worker") for _ in range(settings.worker_processes))]
        if settings.hl7_port is not None:
            children.append(_Child("hl7"))
        try:
            while not stop.is_set():
                for child in children:
                    child.look()
                stop.wait(LOOK_SECONDS)
        finally:
            _end(children)


def _end(children: list[_Child]) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + FAREWELL_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_supervisor(stop: threading.Event) -> None:
    """In a child: set `stop` when the supervisor is gone, however it went, so that no port stays taken."""
    supervisor = os.environ.get("PACS_CBIR_SUPERVISOR")
    if supervisor is None:
        return

    def watch() -> None:
        while not stop.wait(1.0):
            if os.getppid() != int(supervisor):
                stop.set()

    threading.Thread(target=watch, daemon=True).start()
