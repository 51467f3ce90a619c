"""The page's files, and the policy under which browsers run them."""

from __future__ import annotations

import re

import pytest
from served import Api

from pacs_cbir.serve.page import WEB

FILES = sorted(path.name for path in WEB.iterdir())


def test_every_file_is_served_under_the_policy(api: Api) -> None:
    for path in ("/", *(f"/page/{name}" for name in FILES)):
        answer = api.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';"), path
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-cache"
        again = api.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304, path
        assert "content-security-policy" in again.headers


def test_browsers_are_told_what_each_file_is(api: Api) -> None:
    types = {path: api.client.get(path).headers["content-type"] for path in ("/", "/page/main.js", "/page/page.css")}
    assert types["/"].startswith("text/html")
    assert types["/page/main.js"].startswith("text/javascript")
    assert types["/page/page.css"].startswith("text/css")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "..%2f..%2fsettings.py", "%2fetc%2fpasswd", "x"])
def test_other_files_are_not_here(api: Api, name: str) -> None:
    answer = api.client.get(f"/page/{name}")
    assert answer.status_code in {400, 404}
    assert answer.headers["content-type"] == "application/problem+json"


def test_nothing_comes_from_elsewhere_or_stands_inline() -> None:
    for name in FILES:
        text = (WEB / name).read_text()
        foreign = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)) - {"http://www.w3.org"}
        assert foreign == set(), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page)


def test_every_module_is_fetched_at_once() -> None:
    page = (WEB / "index.html").read_text()
    named = set(re.findall(r'"page/([a-z-]+\.js)"', page))
    assert named == {name for name in FILES if name.endswith(".js")}


def test_what_the_page_knows_of_the_installation(api: Api) -> None:
    before = api.client.get("/page-settings").json()
    assert (before["show_identity"], before["parts"]) == (False, {})
    assert "{StudyInstanceUID}" in before["viewer_url"]
    api.activate(unrelated={"T1": 0.8})
    known = api.client.get("/page-settings").json()
    assert (known["parts"], known["unrelated"], known["unrelated_slices"]) == ({"appearance": 1.0}, {"T1": 0.8}, {})
