"""deploy/postgres on a real server: the owner makes the schema, the services use it and cannot change it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from server_postgres import DEPLOY, ServerPostgres, server_postgres
from sqlalchemy import text

from pacs_cbir.settings import SETTINGS_FILE_VARIABLE, Settings, load_settings
from pacs_cbir.store import schema
from pacs_cbir.store.session import open_database, open_owner


@pytest.fixture(scope="module")
def server() -> Iterator[ServerPostgres]:
    with server_postgres() as made:
        yield made


def settings_of(server: ServerPostgres, who: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, str(server.secrets / f"{who}.toml"))
    return load_settings(data_dir=tmp_path)


def test_the_services_use_what_its_owner_made_and_cannot_change_it(
    server: ServerPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_owner(settings_of(server, "owner", monkeypatch, tmp_path)) as owner:
        schema.upgrade(owner)
    with open_database(settings_of(server, "service", monkeypatch, tmp_path)) as service:
        with service.transaction() as connection:
            assert connection.scalar(text("SELECT count(*) FROM studies")) == 0
        for forbidden in ("DROP TABLE studies", "CREATE TABLE mine (id int)", "RESET ROLE; CREATE TABLE mine (id int)"):
            with (
                pytest.raises(sqlalchemy.exc.ProgrammingError, match=r"permission denied|must be owner"),
                service.transaction() as connection,
            ):
                connection.execute(text(forbidden))
        with service.transaction() as connection:
            logged = connection.scalar(text("SHOW log_min_error_statement"))
    assert logged == "panic"


def test_secrets_in_use_are_not_replaced(server: ServerPostgres) -> None:
    before = {path.name: path.read_bytes() for path in server.secrets.iterdir()}
    done = subprocess.run(
        [DEPLOY / "make-secrets.sh", "elsewhere", server.secrets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not replaced" in done.stderr
    assert {path.name: path.read_bytes() for path in server.secrets.iterdir()} == before
    assert server.secrets.stat().st_mode & 0o777 == 0o700
