"""Curated labels, over HTTP: set, answered, matched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from pydicom import Dataset
from served import Api
from sqlalchemy import delete, func, select

from pacs_cbir.dicom.private_block import LABELS, PRIVATE_CREATOR, PRIVATE_GROUP
from pacs_cbir.store.tables import instances, studies, study_labels

PLAIN = {"Accept": "application/json"}


@pytest.fixture
def cohort(api: Api) -> Api:
    for study, degrees in (("1", 0), ("2", 10), ("3", 20), ("4", 30)):
        api.add(study, f"{study}.1", degrees)
    return api


def put(api: Api, study: str, labels: object) -> object:
    answer = api.client.put(f"/studies/{study}/labels", json=labels)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_labels_are_replaced_as_a_whole(cohort: Api) -> None:
    assert cohort.client.get("/studies/2/labels").json() == []
    # The last two are one word, composed and decomposed.
    kept = ["follow-up", "ménière", "腫瘍"]
    assert put(cohort, "2", [" follow-up", "腫瘍", "follow-up\t ", "ménière", "me\u0301nie\u0300re"]) == kept
    assert cohort.client.get("/studies/2/labels").json() == kept
    with cohort.database.transaction() as connection:
        before = dict(connection.execute(select(study_labels.c.label, study_labels.c.set_at)).all())
    assert put(cohort, "2", ["follow-up", "glioma"]) == ["follow-up", "glioma"]
    with cohort.database.transaction() as connection:
        after = dict(connection.execute(select(study_labels.c.label, study_labels.c.set_at)).all())
    assert after["follow-up"] == before["follow-up"] < after["glioma"]
    assert cohort.client.get("/studies/3/labels").json() == []
    assert put(cohort, "2", []) == []
    assert cohort.client.get("/studies/2/labels").json() == []


def test_labels_go_with_their_study(cohort: Api) -> None:
    put(cohort, "2", ["glioma"])
    put(cohort, "3", ["glioma"])
    with cohort.database.transaction() as connection:
        connection.execute(delete(instances))
        connection.execute(delete(studies).where(studies.c.study_instance_uid == "2"))
        assert connection.execute(select(func.count()).select_from(study_labels)).scalar() == 1


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 400, "JSON list of strings"),
        (b"\xff", 400, "JSON list of strings"),
        (b'"glioma"', 400, "JSON list of strings"),
        (b'["glioma", 1]', 400, "JSON list of strings"),
        (b"[" * 60_000, 400, "JSON list of strings"),
        (b'["  "]', 400, "1 to 64 characters"),
        (b'["' + b"x" * 65 + b'"]', 400, "1 to 64 characters"),
        (b'["a\\\\b"]', 400, "backslashes"),
        (b'["a\\u0000b"]', 400, "control characters"),
        (b'["a\\nb"]', 400, "control characters"),
        (b'["\\ud800"]', 400, "control characters"),
        (b'["gli\\u200boma"]', 400, "format characters"),
        (b'["\\u202eamoilg"]', 400, "format characters"),
        (b"[" + b",".join(b'"%d"' % number for number in range(101)) + b"]", 400, "at most 100"),
        (b'["' + b"x" * 70_000 + b'"]', 413, "bytes"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(cohort: Api, content: bytes, status: int, says: str) -> None:
    put(cohort, "2", ["glioma"])
    answer = cohort.client.put("/studies/2/labels", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]
    assert cohort.client.get("/studies/2/labels").json() == ["glioma"]


def test_a_study_that_is_not_here_has_no_labels(cohort: Api) -> None:
    for study, status in (("9", 404), ("x", 400)):
        assert cohort.client.get(f"/studies/{study}/labels").status_code == status
        answer = cohort.client.put(f"/studies/{study}/labels", json=["glioma"])
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_of_two_editors_the_later_one_is_told(cohort: Api) -> None:
    path = "/studies/2/labels"
    first = cohort.client.get(path).headers["ETag"]
    assert first == cohort.client.get("/studies/3/labels").headers["ETag"]
    kept = cohort.client.put(path, json=["glioma"], headers={"If-Match": first})
    assert kept.status_code == 200
    for stale in (first, f"{first}, W/{kept.headers['ETag']}", "glioma"):
        late = cohort.client.put(path, json=["follow-up"], headers={"If-Match": stale})
        assert (late.status_code, late.headers["content-type"]) == (412, "application/problem+json")
        assert "Read them again" in late.json()["detail"]
    now = cohort.client.get(path)
    assert (now.json(), now.headers["ETag"]) == (["glioma"], kept.headers["ETag"])
    for number, current in enumerate((f'"x", {kept.headers["ETag"]}', "*")):
        again = cohort.client.put(path, json=[str(number)], headers={"If-Match": current})
        assert (again.status_code, again.json()) == (200, [str(number)])
    assert cohort.client.put("/studies/9/labels", json=[], headers={"If-Match": "*"}).status_code == 404


def test_of_two_editors_at_once_one_wins(cohort: Api) -> None:
    path = "/studies/2/labels"
    etag = cohort.client.get(path).headers["ETag"]
    together = Barrier(8)

    def replace(number: int) -> int:
        together.wait()
        return cohort.client.put(path, json=[str(number)], headers={"If-Match": etag}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(replace, range(8))) == [200, *[412] * 7]


def test_a_match_carries_its_labels(cohort: Api) -> None:
    put(cohort, "2", ["glioma", "IDH wild type"])
    found = cohort.client.get("/similar/studies?example=1", headers=PLAIN).json()
    assert [study["labels"] for study in found] == [["IDH wild type", "glioma"], [], []]
    first, second, _ = (Dataset.from_json(ds) for ds in cohort.client.get("/similar/studies?example=1").json())
    block = first.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    assert (block[LABELS].VR, list(block[LABELS].value)) == ("LO", ["IDH wild type", "glioma"])
    assert LABELS not in second.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)


def test_labels_are_matched_letter_by_letter(cohort: Api) -> None:
    put(cohort, "1", ["glioma"])
    put(cohort, "2", ["glioma", "follow-up"])
    put(cohort, "3", ["Glioma", "metastasis"])
    for query, studies_found in (
        ("label=glioma", ["1", "2"]),
        ("label=Glioma", ["3"]),
        ("label=gliom*", []),
        ("label=follow-up&label=metastasis", ["2", "3"]),
        ("label=glioma&StudyInstanceUID=2", ["2"]),
        ("label=glioma&label=no such", ["1", "2"]),
        ("label=no such", []),
    ):
        listed = cohort.client.get(f"/dicom-web/studies?{query}")
        uids = [ds["0020000D"]["Value"][0] for ds in listed.json()] if listed.content else []
        assert uids == studies_found, query
        series = cohort.client.get(f"/dicom-web/series?{query}")
        assert len(series.json() if series.content else []) == len(studies_found), query
        for path in ("studies", "series"):
            similar = cohort.client.get(f"/similar/{path}?example=4&{query}", headers=PLAIN)
            uids = [match["StudyInstanceUID"] for match in similar.json()] if similar.content else []
            assert sorted(uids) == studies_found, query
    assert cohort.client.post("/similar/studies", data={"example": "4", "label": ["glioma"]}).status_code == 200
    for path in ("/dicom-web/studies?", "/similar/studies?example=1&"):
        for label in ("", "%5C", "x" * 65):
            assert cohort.client.get(f"{path}label={label}").status_code == 400, (path, label)
        many = "&".join(f"label={number}" for number in range(101))
        assert cohort.client.get(f"{path}{many}").status_code == 400
