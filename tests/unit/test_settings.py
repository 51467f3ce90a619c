"""Settings: what is accepted, who wins, and that no secret is ever told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pacs_cbir.errors import PeerError, SettingsError
from pacs_cbir.peers import Peer
from pacs_cbir.settings import SETTINGS_FILE_VARIABLE, Settings, load_settings

SECRET = "postgresql://me:hush@db/pacs"


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def test_defaults() -> None:
    settings = load_settings()
    assert (settings.ae_title, settings.dicom_port, settings.http_port) == ("PACS_CBIR", 11112, 8000)
    assert (settings.dicom_host, settings.http_host) == ("127.0.0.1", "127.0.0.1")
    assert settings.settle_seconds == 30
    assert settings.database_url is None
    assert settings.calling_ae_titles == ()
    assert settings.data_dir.is_absolute()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_data_directory_is_never_in_roots_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert load_settings().data_dir == Path("/var/lib/pacs-cbir")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().data_dir == tmp_path / "pacs-cbir"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings().data_dir == tmp_path / ".local/share/pacs-cbir"


def test_environment_before_file_before_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write(
        tmp_path / "settings.toml",
        'ae_title = "FILE"\nhttp_port = 8001\ncalling_ae_titles = ["A", "B"]\n[default_issuers]\nPACS = "HOSPITAL"\n',
    )
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, file)
    monkeypatch.setenv("PACS_CBIR_AE_TITLE", "ENVIRONMENT")
    settings = load_settings(dicom_port=104)
    assert (settings.ae_title, settings.http_port, settings.dicom_port) == ("ENVIRONMENT", 8001, 104)
    assert settings.calling_ae_titles == ("A", "B")
    assert settings.default_issuers == {"PACS": "HOSPITAL"}


def test_lists_and_tables_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_CBIR_CALLING_AE_TITLES", '["PACS", "VIEWER"]')
    monkeypatch.setenv("PACS_CBIR_DEFAULT_ISSUERS", '{"PACS": "HOSPITAL"}')
    settings = load_settings()
    assert settings.calling_ae_titles == ("PACS", "VIEWER")
    assert settings.default_issuers == {"PACS": "HOSPITAL"}


PEERS = """
[peers.archive]
ae_title = "ARCHIVE"
host = "pacs.example"
port = 104

[peers.cloud]
ae_title = "CLOUD"
retrieve = "dicomweb"
dicomweb_url = "https://cloud.example/dicom-web/"
dicomweb_user = "cbir"
dicomweb_password = "hush"
"""


def test_peers_from_tables_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, write(tmp_path / "settings.toml", PEERS))
    settings = load_settings()
    archive, cloud = settings.peers["archive"], settings.peers["cloud"]
    assert (archive.host, archive.port, archive.retrieve) == ("pacs.example", 104, "c-move")
    assert cloud.dicomweb_url == "https://cloud.example/dicom-web"
    assert cloud.dicomweb_password is not None
    assert cloud.dicomweb_password.get_secret_value() == "hush"
    assert "hush" not in repr(settings) + str(settings) + str(cloud) + settings.model_dump_json()
    assert settings.peer_by_ae_title("CLOUD") == cloud
    assert settings.peer_by_ae_title("cloud") is None
    assert archive.address == ("pacs.example", 104)
    with pytest.raises(PeerError, match="CLOUD has no host and port in PACS_CBIR_PEERS"):
        _ = cloud.address


def test_peers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_CBIR_PEERS", '{"a": {"ae_title": "A", "host": "a", "port": 1, "retrieve": "c-get"}}')
    assert load_settings().peers == {"a": Peer(ae_title="A", host="a", port=1, retrieve="c-get")}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ('{"a": {"host": "a", "port": 1}}', "PEERS.A.AE_TITLE: Field required"),
        ('{"a": {"ae_title": "A", "host": "a", "port": 0}}', "PEERS.A.PORT"),
        ('{"a": {"ae_title": "A", "host": "a"}}', "PEERS.A: .*host and port"),
        ('{"a": {"ae_title": "A"}}', 'PEERS.A: .*"c-move" needs host and port'),
        ('{"a": {"ae_title": "A", "retrieve": "dicomweb"}}', "PEERS.A: .*needs dicomweb_url"),
        ('{"a": {"ae_title": "A", "retrieve": "ftp"}}', "PEERS.A.RETRIEVE: .*'c-move', 'c-get' or 'dicomweb'"),
        ('{"a": {"ae_title": "A", "host": "a", "port": 1, "dicomweb_password": "hush"}}', "dicomweb_user and"),
        ('{"a": {"ae_title": "A", "retrieve": "dicomweb", "dicomweb_url": "https://me:hush@a"}}', "DICOMWEB_URL"),
        ('{"a": {"ae_title": "A", "host": "a", "port": 1, "aet": "X"}}', "PEERS.A.AET: Extra"),
        (
            '{"a": {"ae_title": "A", "host": "a", "port": 1}, "b": {"ae_title": "A", "host": "b", "port": 1}}',
            "^PACS_CBIR_PEERS: two peers have one AE title, A: keep one entry for each PACS, and change its `retrieve`",
        ),
        ("hush", 'field "peers".*in the environment, lists and tables are JSON'),
    ],
)
def test_a_peer_that_cannot_be_called_is_named(monkeypatch: pytest.MonkeyPatch, given: str, complaint: str) -> None:
    monkeypatch.setenv("PACS_CBIR_PEERS", given)
    with pytest.raises(SettingsError, match=complaint) as raised:
        load_settings()
    assert "hush" not in str(raised.value)


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_CBIR_AE_TITLE", "")
    monkeypatch.setenv("PACS_CBIR_DATABASE_URL", "")
    settings = load_settings()
    assert (settings.ae_title, settings.database_url) == ("PACS_CBIR", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AE_TITLE", "seventeen letters"),
        ("AE_TITLE", "back\\slash"),
        ("AE_TITLE", "   "),
        ("AE_TITLE", "Ärzte"),
        ("DICOM_PORT", "0"),
        ("DICOM_PORT", "65536"),
        ("HTTP_PORT", "http"),
        ("SETTLE_SECONDS", "-1"),
        ("LEASE_SECONDS", "0.5"),
        ("JOB_ATTEMPTS", "0"),
        ("DECODE_SECONDS", "0"),
        ("DECODE_MEGABYTES", "100"),
        ("WORKER_PROCESSES", "0"),
        ("MAXIMUM_ASSOCIATIONS", "0"),
        ("REPORT_URL", "https://ris.example/reports"),
        ("REPORT_URL", "https://ris.example/{PatientID}"),
        ("REPORT_URL", "https://ris.example/{StudyInstanceUID"),
        ("REPORT_URL", "https://ris.example/{{StudyInstanceUID}}"),
        ("REPORT_URL", "javascript:alert('{StudyInstanceUID}')"),
        ("VIEWER_URL", "http://viewer.example/{AccessionNumber}"),
        ("VIEWER_URL", "javascript:alert('{SOPInstanceUID}')"),
        ("SHOW_IDENTITY", "perhaps"),
    ],
)
def test_a_value_that_cannot_work_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PACS_CBIR_{name}", value)
    with pytest.raises(SettingsError, match=f"PACS_CBIR_{name}: .*pacs-cbir settings"):
        load_settings()


def test_a_list_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_CBIR_CALLING_AE_TITLES", "PACS,VIEWER")
    with pytest.raises(SettingsError, match="calling_ae_titles"):
        load_settings()


def test_a_file_that_cannot_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, str(tmp_path / "missing.toml"))
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        load_settings()
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, str(tmp_path))
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings()
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, write(tmp_path / "broken.toml", "ae_title = "))
    with pytest.raises(SettingsError, match=SETTINGS_FILE_VARIABLE):
        load_settings()
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, write(tmp_path / "typo.toml", 'ae_titel = "X"'))
    with pytest.raises(SettingsError, match="AE_TITEL"):
        load_settings()


def test_secrets_are_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_CBIR_DATABASE_URL", SECRET)
    monkeypatch.setenv("PACS_CBIR_DATABASE_OWNER_URL", SECRET)
    settings = load_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == SECRET
    assert "hush" not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("PACS_CBIR_HTTP_PORT", "hush")
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert "hush" not in str(raised.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().http_port = 1  # type: ignore[misc]


def test_folders_are_below_the_data_directory(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    folders = {settings.instances_dir, settings.incoming_dir, settings.index_dir, settings.postgres_dir}
    assert len(folders) == 4
    assert all(folder.parent == tmp_path for folder in folders)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), min_size=1, max_size=16))
def test_any_ae_title_of_the_standard(title: str) -> None:
    """PS3.5 6.2: AE is 16 bytes of the default repertoire without backslash and control characters, not only blanks."""
    if title.strip():
        assert load_settings(ae_title=title).ae_title == title.strip()
    else:
        with pytest.raises(SettingsError, match="AE_TITLE"):
            load_settings(ae_title=title)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"http_host": "0.0.0.0", "http_port": 81}, "http://127.0.0.1:81"),
        ({"http_host": "::"}, "http://[::1]:8000"),
        ({"http_host": "cbir.example"}, "http://cbir.example:8000"),
        ({"http_host": "10.0.0.1", "api_url": "https://cbir.example/api/"}, "https://cbir.example/api"),
    ],
)
def test_where_the_scp_asks_the_api(given: dict[str, object], asked: str) -> None:
    assert load_settings(**given).asked_api == asked


@pytest.mark.parametrize("url", ["cbir.example:8000", "ftp://cbir.example", "http://", "http://a/?x=1", "http://a b"])
def test_an_api_url_that_cannot_be_asked_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="PACS_CBIR_API_URL"):
        load_settings(api_url=url)
