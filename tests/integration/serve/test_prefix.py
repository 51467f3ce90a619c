"""Behind a reverse proxy that takes a prefix from the path (X-Forwarded-Prefix)."""

from __future__ import annotations

import pytest
from rows import add_series
from served import Api


@pytest.fixture
def behind(api: Api) -> Api:
    with api.database.transaction() as connection:
        add_series(connection, "1", "1.1", attributes={"Modality": "MR"})
    return api


def retrieve_url(api: Api, prefix: str | None, host: str = "testserver") -> str:
    headers = {"Host": host, "Accept": "application/dicom+json"} | ({"X-Forwarded-Prefix": prefix} if prefix else {})
    (found,) = api.client.get("/dicom-web/studies", headers=headers).json()
    url: str = found["00081190"]["Value"][0]
    return url


def test_urls_in_answers_begin_with_the_prefix(behind: Api) -> None:
    assert retrieve_url(behind, None) == "http://testserver/dicom-web/studies/1"
    for prefix in ("/pacs-cbir", "/pacs-cbir/"):
        url = retrieve_url(behind, prefix, host="pacs.example:8443")
        assert url == "http://pacs.example:8443/pacs-cbir/dicom-web/studies/1"
    assert retrieve_url(behind, "/hospital/pacs-cbir") == "http://testserver/hospital/pacs-cbir/dicom-web/studies/1"


def test_what_is_no_path_is_no_prefix(behind: Api) -> None:
    for prefix in ("pacs-cbir", "//elsewhere.example", "/a b", '/"><script>', "/", "https://elsewhere.example"):
        assert retrieve_url(behind, prefix) == "http://testserver/dicom-web/studies/1", prefix


def test_the_documentation_asks_under_the_prefix(behind: Api) -> None:
    page = behind.client.get("/docs", headers={"X-Forwarded-Prefix": "/pacs-cbir"})
    assert page.status_code == 200
    assert "'/pacs-cbir/openapi.json'" in page.text
    assert 'src="/docs' not in page.text
    assert 'src="/static' not in page.text
    described = behind.client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/pacs-cbir"}).json()
    assert described["servers"] == [{"url": "/pacs-cbir"}]
