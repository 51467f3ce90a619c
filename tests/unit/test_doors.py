"""What both doors of storing say of one error is one code."""

from __future__ import annotations

from pacs_cbir.errors import InstanceError
from pacs_cbir.receive.status import PROCESSING_FAILURE, STORE_STATUSES, status_of
from pacs_cbir.serve import stored_parts


def test_a_failure_reason_is_the_status_of_a_c_store() -> None:
    kinds = InstanceError.__subclasses__()
    assert {kind: stored_parts.FAILURE_REASONS.get(kind) for kind in kinds} == {
        kind: status_of(kind()) for kind in kinds
    }
    assert stored_parts.PROCESSING_FAILURE == PROCESSING_FAILURE


def test_both_doors_count_by_the_same_statuses() -> None:
    assert stored_parts.STATUSES == STORE_STATUSES
