"""One table, errors → HTTP: complete, and silent about what is inside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pacs_cbir import errors
from pacs_cbir.errors import PacsCbirError
from pacs_cbir.serve import problems
from pacs_cbir.serve.problems import MEDIA_TYPE, PROBLEMS, problem_of

# Raised while a process starts, while an instance is received or sent, in a worker, and by commands.
NOT_OVER_HTTP = (
    errors.SettingsError,
    errors.InstanceError,
    errors.PeerError,
    errors.JobLost,
    errors.DeletionPending,
    errors.MessageError,
    errors.BackfillRuns,
    errors.BenchFailed,
    errors.DemoFailed,
    errors.EncoderRefused,
    errors.InvalidCommitment,
    errors.ManifestError,
    errors.NotMeasurable,
    errors.RecipeError,
    errors.Unhealthy,
    errors.WrongLevel,
)


def leaves(kind: type[PacsCbirError]) -> Iterator[type[PacsCbirError]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for each in below:
        yield from leaves(each)


def make(kind: type[PacsCbirError]) -> PacsCbirError:
    if kind is errors.ExampleNotReady:
        return errors.ExampleNotReady("it happened", 0.2)
    return kind("it happened")


ALL = sorted(leaves(PacsCbirError), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_in_the_table_or_cannot_come_here(kind: type[PacsCbirError]) -> None:
    assert (problem_of(make(kind)) is None) == issubclass(kind, NOT_OVER_HTTP)


def client_that_meets(error: Exception) -> TestClient:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    def fail() -> None:
        raise error

    return TestClient(app)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.InvalidQuery, 400),
        (errors.UnknownExample, 404),
        (errors.ExampleNotReady, 409),
        (errors.ExampleNotEmbedded, 422),
        (errors.ExampleNotReindexed, 422),
        (errors.DecodingError, 422),
        (errors.DatabaseUnavailable, 503),
        (errors.DiskUnavailable, 503),
        (errors.DiskFull, 507),
        (errors.SchemaOutdated, 503),
        (errors.EncoderMismatch, 503),
        (errors.EncoderBusy, 503),
        (errors.UnreadableUpload, 422),
        (errors.CheckpointError, 503),
    ],
)
def test_an_error_is_a_problem_that_says_what_to_do(kind: type[PacsCbirError], status: int) -> None:
    answer = client_that_meets(make(kind)).get("/")
    body = answer.json()
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.status_code == body["status"] == status
    assert body["type"].startswith("urn:pacs-cbir:problem:")
    problem = problem_of(make(kind))
    assert problem is not None
    assert body["title"] == problem.title
    assert body["detail"] == f"it happened. {problem.advice}"


@pytest.mark.parametrize(("seconds", "field"), [(0.0, "1"), (0.2, "1"), (29.01, "30")])
def test_retry_after_is_whole_seconds(seconds: float, field: str) -> None:
    answer = client_that_meets(errors.ExampleNotReady("not yet", seconds)).get("/")
    assert answer.headers["retry-after"] == field


def test_an_absent_database_says_when_to_come_back() -> None:
    answer = client_that_meets(errors.DatabaseUnavailable("away")).get("/")
    assert int(answer.headers["retry-after"]) >= 1


def test_types_tell_the_problems_apart() -> None:
    types = {client_that_meets(make(kind)).get("/").json()["type"] for kind in PROBLEMS}
    assert len(types) == len(PROBLEMS)
