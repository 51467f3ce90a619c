"""Queries over several encoders: each answer is of one, named or active, before, while and after they are switched."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from httpx import Response
from rows import add_series
from running import following, wait_until
from served import Api
from stack_rows import card, make_active, new_encoder, new_stack, save

from pacs_cbir.store import encoders
from pacs_cbir.store.encoders import EncoderRow

PLAIN = {"Accept": "application/json"}
STUDIES = 5


def pointing(degrees: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]
    return np.array([vector, vector], np.float32)


@pytest.fixture
def two(api: Api) -> tuple[EncoderRow, EncoderRow]:
    """Two encoders: for the one each study is 10° from the one before, for the other 20°, the other way."""
    with api.database.transaction() as connection:
        rows = [encoders.add(connection, new_encoder(letter * 64, card(2))) for letter in "bc"]
        make_active(connection, new_encoder("b" * 64, card(2)))
        for number in range(STUDIES):
            series_id = add_series(connection, f"{number + 1}", f"{number + 1}.1").series_id
            for row, degrees in zip(rows, (10 * number, -20 * number), strict=True):
                save(connection, series_id, row.id, new_stack(pointing(degrees)))
    api.follower.catch_up()
    return rows[0], rows[1]


def query(api: Api, **parameters: Any) -> Response:
    given = {"example": "1", "min_similarity": -1, **parameters}
    return api.client.get("/similar/studies", params=given, headers=PLAIN)


def similarities(answer: Response) -> list[float]:
    return [study["similarity"] for study in answer.json()]


def expected(row: EncoderRow) -> list[float]:
    step = 10 if row.identity[0] == "b" else 20
    return [pytest.approx(np.cos(np.radians(step * number)), abs=1e-3) for number in range(1, STUDIES)]


def test_a_query_names_the_encoder_that_answers(api: Api, two: tuple[EncoderRow, EncoderRow]) -> None:
    active, beside = two
    answer = query(api)
    assert answer.headers["Pacs-Cbir-Encoder"] == f"{active.name}; identity={active.identity}"
    assert similarities(answer) == expected(active)
    first = query(api, encoder=beside.name)
    assert (first.status_code, first.headers["Retry-After"]) == (503, "2")
    assert beside.name in first.json()["detail"]
    api.follower.catch_up()
    answer = query(api, encoder=beside.name)
    assert answer.headers["Pacs-Cbir-Encoder"] == f"{beside.name}; identity={beside.identity}"
    assert similarities(answer) == expected(beside)
    assert similarities(query(api)) == expected(active)
    assert query(api, encoder=[active.name, beside.name]).status_code == 400
    unknown = query(api, encoder="none")
    assert unknown.status_code == 400
    assert active.name in unknown.json()["detail"]
    assert beside.name in unknown.json()["detail"]


def test_the_next_page_is_of_the_same_encoder(api: Api, two: tuple[EncoderRow, EncoderRow]) -> None:
    _, beside = two
    query(api, encoder=beside.name)
    api.follower.catch_up()
    answer = query(api, encoder=beside.name, limit=2)
    page = api.client.get(f"/similar/studies{answer.links['next']['url']}", headers=PLAIN)
    assert similarities(answer) + similarities(page) == expected(beside)
    # The state of one encoder is no state of another.
    assert query(api, as_of=answer.headers["Pacs-Cbir-As-Of"]).status_code == 400


@pytest.mark.parametrize("path", ["studies", "series"])
def test_what_an_encoder_has_not_looked_at_is_counted_and_named(
    api: Api, two: tuple[EncoderRow, EncoderRow], path: str
) -> None:
    active, beside = two
    with api.database.transaction() as connection:
        for number in (7, 8):
            series_id = add_series(connection, f"{number}", f"{number}.1").series_id
            save(connection, series_id, active.id, new_stack(pointing(0)))
    query(api, encoder=beside.name)
    api.follower.catch_up()
    command = f"`pacs-cbir reindex --encoder {beside.name}`"

    def warning(**parameters: Any) -> str | None:
        given = {"example": "1", "min_similarity": -1, **parameters}
        return api.client.get(f"/similar/{path}", params=given).headers.get("Warning")

    told = warning(encoder=beside.name)
    assert told is not None
    assert "2 series" in told
    assert command in told
    assert warning() is None
    assert warning(encoder=active.name) is None
    unknown = query(api, example="7", encoder=beside.name)
    assert (unknown.status_code, unknown.json()["type"]) == (422, "urn:pacs-cbir:problem:example-not-reindexed")
    assert command in unknown.json()["detail"]
    assert "another series" not in unknown.json()["detail"]
    assert query(api, example="7").status_code == 200


def test_an_explanation_is_of_the_encoder_that_is_named(api: Api, two: tuple[EncoderRow, EncoderRow]) -> None:
    _, beside = two
    given = {"example": "1", "match": "2", "encoder": beside.name}
    assert api.client.get("/similar/explain", params=given, headers=PLAIN).status_code == 503
    api.follower.catch_up()
    answer = api.client.get("/similar/explain", params=given, headers=PLAIN)
    assert answer.headers["Pacs-Cbir-Encoder"].startswith(beside.name)
    assert [series["similarity"] for series in answer.json()] == expected(beside)[:1]


def test_every_answer_while_encoders_are_switched_is_of_one_of_them(
    api: Api, two: tuple[EncoderRow, EncoderRow]
) -> None:
    stop = threading.Event()
    seen: dict[str | None, set[str]] = defaultdict(set)

    def ask_on(name: str | None) -> None:
        while not stop.is_set():
            answer = query(api) if name is None else query(api, encoder=name)
            if name is not None and answer.status_code == 503:
                continue
            assert answer.status_code == 200, answer.text
            row = next(row for row in two if answer.headers["Pacs-Cbir-Encoder"].endswith(row.identity))
            assert similarities(answer) == expected(row)
            seen[name].add(row.name)

    def answered_by(encoder: str) -> bool:
        return encoder in seen[None] or any(one.done() for one in asking)

    with following(api.follower), ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(ask_on, name) for name in (None, None, None, two[0].name, two[1].name)]
        try:
            for switch in range(12):
                seen.pop(None, None)
                with api.database.transaction() as connection:
                    if switch == 0:
                        encoders.activate(connection, two[1].name)
                    else:
                        encoders.rollback(connection)
                active = two[(switch + 1) % 2].name
                wait_until(partial(answered_by, active))
        finally:
            stop.set()
    for one in asking:
        one.result()
    assert (seen[two[0].name], seen[two[1].name]) == ({two[0].name}, {two[1].name})


def test_a_switch_is_in_the_answers_within_seconds(api: Api, two: tuple[EncoderRow, EncoderRow]) -> None:
    with following(api.follower):
        with api.database.transaction() as connection:
            encoders.activate(connection, two[1].name)
        wait_until(lambda: similarities(query(api)) == expected(two[1]))
