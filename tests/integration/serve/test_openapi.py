"""What the OpenAPI document says is what the service does, for whatever schemathesis thinks of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import Api

EXAMPLES = 40
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
HERE = {
    "StudyInstanceUID": "1.1",
    "example": ["1.1"],
    "study": "1.1",
    "study_uid": "1.1",
    "series": "1.1.1",
    "instance": "1.1.1.1",
    "frame": 1,
    "number": 1,
}
"""What is thought up names nothing that is here: every case is tried again with these."""


@schemathesis.serializer("application/dicom")
def _as_it_is(_: object, value: Any) -> dict[str, bytes]:
    return {"data": getattr(value, "data", None) or str(value).encode()}


@pytest.fixture
def filled(api: Api) -> Api:
    api.add("1.1", "1.1.1", 0)
    api.add("1.2", "1.2.1", 60)
    api.add("1.3", "1.3.1", 90)
    return api


@pytest.mark.slow
def test_every_operation_answers_as_documented(filled: Api) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", filled.client.app)
    schema.config.generation.update(modes=list(GenerationMode))
    operations = [found.ok() for found in schema.get_all_operations()]
    answered = {(operation.method.upper(), operation.path): _statuses(operation) for operation in operations}
    assert {200, 400} <= answered["GET", "/similar/studies"].keys()
    assert {200, 400} <= answered["POST", "/similar/studies"].keys()
    assert {200, 204, 400} <= answered["GET", "/dicom-web/studies"].keys()
    assert {400, 409} <= answered["POST", "/dicom-web/studies/{study}"].keys()
    assert {200, 404} <= answered["GET", "/studies/{study_uid}/labels"].keys()
    assert {200, 400} <= answered["PUT", "/studies/{study_uid}/labels"].keys()
    assert {200, 404} <= answered["POST", "/corrections/study"].keys()
    assert 404 in answered["POST", "/corrections/patient-update"]
    assert 200 in answered["POST", "/corrections/patient-merge"]
    assert {200, 404} <= answered["POST", "/corrections/patient-deletion"].keys()
    assert 404 in answered["GET", "/corrections/patient-deletions/{number}"]
    assert 200 in answered["GET", "/health/ready"]


def _statuses(operation: Any) -> Counter[int]:
    """How often each status came."""
    seen: Counter[int] = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=operation.as_strategy())
    def run(case: Case) -> None:
        seen[case.call_and_validate(checks=CHECKS).status_code] += 1
        # What is deleted is not what the others are asked of.
        named = HERE | ({"StudyInstanceUID": "1.3"} if "deletion" in operation.path else {})
        for given_parameters in (case.query, case.path_parameters, case.body):
            if isinstance(given_parameters, dict):
                given_parameters.update({name: here for name, here in named.items() if name in given_parameters})
        seen[case.call_and_validate(checks=CHECKS).status_code] += 1

    run()
    return seen
