"""Fixtures: a real Postgres for the whole run, and a fresh database a test, cloned from a migrated template."""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from pacs_cbir.settings import Settings, load_settings
from pacs_cbir.store import embedded, files, schema
from pacs_cbir.store.session import Database

# Small networks gain nothing from threads, and lose much where other work has the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TEMPLATE = "pacs_cbir_template"
_number = itertools.count()


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """A person's own settings are not the tests'."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PACS_CBIR_")}
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded.EmbeddedPostgres]:
    """The run's server. Its folder is short, for the sake of the socket's path."""
    with (
        tempfile.TemporaryDirectory(prefix="cbir-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        embedded.EmbeddedPostgres(Path(folder) / "postgres") as server,
    ):
        schema.prepare_embedded(server)
        _admin(server, f"ALTER DATABASE {embedded.DATABASE} RENAME TO {TEMPLATE}")
        # Making and dropping a database waits for the disk otherwise, and no test of this server pulls its plug.
        _admin(server, "ALTER SYSTEM SET fsync = off")
        _admin(server, "SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def database_url(postgres: embedded.EmbeddedPostgres) -> Iterator[str]:
    """A migrated, empty database, as the services' login."""
    name = f"test_{os.getpid()}_{next(_number)}"
    _admin(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield postgres.url(embedded.SERVICE_LOGIN, name)
    _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def owner_url(database_url: str) -> str:
    """The same database as its owner."""
    return make_url(database_url).set(username=embedded.OWNER).render_as_string(hide_password=False)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The services' connections to `database_url`."""
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings with free ports, a data directory of their own and no waiting."""
    made = load_settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        dicom_port=free_port(),
        http_port=free_port(),
        settle_seconds=0,
        retry_seconds=0,
    )
    files.prepare(made)
    return made


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The same settings for a process: `pacs-cbir` with this environment serves the test's database."""
    assert settings.database_url is not None
    return os.environ | {
        "PACS_CBIR_DATA_DIR": str(settings.data_dir),
        "PACS_CBIR_DATABASE_URL": settings.database_url.get_secret_value(),
        "PACS_CBIR_DICOM_PORT": str(settings.dicom_port),
        "PACS_CBIR_HTTP_PORT": str(settings.http_port),
        "PACS_CBIR_SETTLE_SECONDS": "0",
        "PACS_CBIR_RETRY_SECONDS": "0",
    }


@pytest.fixture(scope="session")
def peer() -> Callable[[str], str]:
    """The path of a peer's program; skips where a person's machine lacks it, and fails in CI."""
    from shutil import which

    def find(program: str) -> str:
        found = which(program)
        if found is None:
            packages = "dcmtk orthanc orthanc-dicomweb chromium nginx npm prometheus systemd buildah debootstrap"
            reason = f"{program} is not installed (Debian: apt install {packages})"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return found

    return find


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _admin(server: embedded.EmbeddedPostgres, statement: str) -> None:
    raw = psycopg2.connect(server.url(embedded.OWNER, "postgres").replace("+psycopg2", ""))
    raw.autocommit = True
    with raw.cursor() as cursor:
        cursor.execute(statement)
    raw.close()
