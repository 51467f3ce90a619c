"""Following an answer from page to page, over HTTP."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from served import Api

from pacs_cbir.serve.asked import MAX_QUERY_BYTES
from pacs_cbir.serve.next_page import AS_OF

PLAIN = {"Accept": "application/json"}


def uids(answer: list[dict[str, str]], route: str) -> list[str]:
    return [match["StudyInstanceUID" if route == "studies" else "SeriesInstanceUID"] for match in answer]


@pytest.mark.parametrize("route", ["studies", "series"])
def test_links_lead_through_the_first_pages_ranking(api: Api, route: str) -> None:
    for number in range(1, 13):
        api.add(f"1.{number}", f"1.{number}.1", 5.0 * number)
    url = f"/similar/{route}?example=1.1&limit=3&PatientID=*&includefield=StudyDate&includefield=PatientSex"
    whole = uids(api.client.get(url.replace("limit=3", "limit=100"), headers=PLAIN).json(), route)
    assert len(whole) == 11
    found: list[str] = []
    states = set()
    for number in range(20, 30):
        response = api.client.get(url, headers=PLAIN)
        found += uids(response.json(), route)
        states.add(response.headers[AS_OF])
        # Nearer to the example than all others.
        api.add(f"1.{number}", f"1.{number}.1", 1.0)
        if "next" not in response.links:
            break
        following = response.links["next"]["url"]
        assert parse_qs(following[1:])["includefield"] == ["StudyDate", "PatientSex"]
        url = str(response.url.join(following))
    assert found == whole
    assert len(states) == 1
    assert number == 23


def test_a_form_pages_by_as_of(api: Api) -> None:
    for number in range(1, 6):
        api.add(f"1.{number}", f"1.{number}.1", 5.0 * number)
    form = {"example": "1.1", "limit": "2"}
    first = api.client.post("/similar/studies", data=form, headers=PLAIN)
    assert "Link" not in first.headers
    api.add("1.9", "1.9.1", 1.0)
    as_of = {"as_of": first.headers[AS_OF]}
    second = api.client.post("/similar/studies", data=form | as_of | {"offset": "2"}, headers=PLAIN)
    assert uids(first.json() + second.json(), "studies") == ["1.2", "1.3", "1.4", "1.5"]
    newest = api.client.post("/similar/studies", data=form, headers=PLAIN)
    assert uids(newest.json(), "studies") == ["1.9", "1.2"]
    beyond = api.client.post("/similar/studies", data=form | as_of | {"offset": "4"}, headers=PLAIN)
    assert (beyond.status_code, beyond.headers[AS_OF]) == (204, first.headers[AS_OF])


def test_the_last_page_and_a_link_that_would_be_too_long_are_not_offered(api: Api) -> None:
    for number in range(1, 4):
        api.add(f"1.{number}", f"1.{number}.1", 5.0 * number)
    assert "Link" not in api.client.get("/similar/studies?example=1.1&limit=2").headers
    link = api.client.get("/similar/studies?example=1.1&limit=1").headers["Link"]
    assert link.startswith("<?example=1.1&limit=1&offset=1&as_of=")
    assert link.endswith('>; rel="next"')
    start = "example=1.1&limit=1&PatientID=" + "*" * 500
    query = start + "&includefield=PatientSex" * ((MAX_QUERY_BYTES - len(start)) // len("&includefield=PatientSex"))
    query = query.replace("***", "***" + "*" * (MAX_QUERY_BYTES - len(query)), 1)
    assert len(query) == MAX_QUERY_BYTES
    response = api.client.get(f"/similar/studies?{query}")
    assert response.status_code == 200
    assert "Link" not in response.headers
    assert AS_OF in response.headers


@pytest.mark.parametrize(
    ("as_of", "says"),
    [("yesterday", "as_of accepts"), ("99.5", "another encoder"), ("{encoder}.99999999", "no state of this database")],
)
def test_a_state_that_cannot_be_answered(api: Api, as_of: str, says: str) -> None:
    api.add("1.1", "1.1.1")
    api.add("1.2", "1.2.1")
    encoder = api.client.get("/similar/studies?example=1.1").headers[AS_OF].partition(".")[0]
    response = api.client.get("/similar/studies", params={"example": "1.1", "as_of": as_of.format(encoder=encoder)})
    assert response.status_code == 400
    assert says in response.json()["detail"]


def test_the_document_tells_of_pages(api: Api) -> None:
    document = api.client.get("/openapi.json").json()
    for path in ("/similar/studies", "/similar/series"):
        operation = document["paths"][path]["get"]
        assert "as_of" in {parameter["name"] for parameter in operation["parameters"]}
        assert {"Link", AS_OF} <= operation["responses"]["200"]["headers"].keys()
