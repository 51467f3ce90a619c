"""A million slices: whatever a filter leaves, the best ten are those of a comparison with every row that is left."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from stack_rows import add_encoder, random_vectors, unit

from pacs_cbir.search.follow import Follower
from pacs_cbir.search.query import Query
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.search.snapshot import snapshot_path, write_snapshot
from pacs_cbir.store import bulk
from pacs_cbir.store.embeddings import StoredStack
from pacs_cbir.store.examples import Example
from pacs_cbir.store.session import Database

STUDIES, SERIES, SLICES, DIMENSION = 10_000, 4, 25, 16
DAYS = 1000
IDENTITY = "a" * 64
TOP = 10
EXAMPLE = 1234
"""Row of the series that is the example."""


@dataclass(frozen=True)
class Million:
    """What is in the index: series `n` has row id n + 1 and is of study n // SERIES; slices in the second axis."""

    searcher: Searcher
    whole: npt.NDArray[np.float32]
    slices: npt.NDArray[np.float32]


def uid_of(series: int) -> tuple[str, str]:
    study = series // SERIES
    return f"1.{study + 1}", f"1.{study + 1}.{series % SERIES + 1}"


def date_of(study: int) -> str:
    return f"{date(2020, 1, 1) + timedelta(days=study % DAYS):%Y%m%d}"


@pytest.fixture
def million(database: Database, tmp_path: Path) -> Million:
    """Every series is one stack. Vectors come from a snapshot, as after a restart, the example's from rows."""
    dice = np.random.default_rng(0)
    centres = random_vectors(dice, 50, DIMENSION)[dice.integers(50, size=STUDIES * SERIES)]
    slices = unit(centres[:, None] + 0.1 * dice.standard_normal((len(centres), SLICES, DIMENSION), np.float32))
    whole = unit(slices.mean(axis=1))
    ids = [uuid.UUID(int=number + 1) for number in range(len(centres))]
    with database.transaction() as connection:
        encoder_id = add_encoder(connection, IDENTITY, DIMENSION)
        studies = range(STUDIES)
        patients = [{"id": s + 1, "issuer_of_patient_id": "", "patient_id": str(s + 1)} for s in studies]
        bulk.copy_rows(connection, "patients", patients)
        rows = [
            {"id": s + 1, "study_instance_uid": f"1.{s + 1}", "attributes": {"StudyDate": [date_of(s)]}}
            for s in studies
        ]
        bulk.copy_rows(connection, "studies", rows)
        bulk.copy_rows(connection, "study_patients", ({"study_id": s + 1, "patient_id": s + 1} for s in studies))
        bulk.copy_rows(connection, "series", (_series_row(number) for number in range(len(ids))))
        bulk.copy_rows(
            connection, "stacks", (_stack_row(number, ids[number], encoder_id) for number in range(len(ids)))
        )
        bulk.copy_rows(connection, "instances", _instance_rows())
        vectors = [whole[EXAMPLE], *slices[EXAMPLE]]
        bulk.copy_rows(connection, "embeddings", (_embedding_row(ids[EXAMPLE], n, v) for n, v in enumerate(vectors)))

    def stored() -> Iterator[StoredStack]:
        numbers = np.arange(SLICES + 1, dtype=np.int16)
        for number, id_ in enumerate(ids):
            stack = np.concatenate([whole[number][None], slices[number]])
            yield StoredStack(id_, number + 1, number // SERIES + 1, "T1", "AXIAL", "BRAIN", True, stack, numbers)

    write_snapshot(snapshot_path(tmp_path, IDENTITY), stored())
    follower = Follower(database, tmp_path)
    follower.catch_up()
    searcher = Searcher(database, follower)
    assert searcher.size == 1_000_000
    return Million(searcher, whole, slices)


def _series_row(number: int) -> dict[str, object]:
    return {
        "id": number + 1,
        "study_id": number // SERIES + 1,
        "series_instance_uid": uid_of(number)[1],
        "attributes": {},
    }


def _stack_row(number: int, id_: uuid.UUID, encoder_id: int) -> dict[str, object]:
    return {
        "id": id_,
        "series_id": number + 1,
        "encoder_id": encoder_id,
        "sequence": "T1",
        "plane": "AXIAL",
        "body_part": "BRAIN",
        "in_domain": True,
        "separated_by": {},
        "evidence": {},
        "sop_instance_uids": [_instance_uid(n) for n in range(1, SLICES + 1)] if number == EXAMPLE else [],
    }


def _instance_uid(slice_: int) -> str:
    return f"{uid_of(EXAMPLE)[1]}.{slice_}"


def _instance_rows() -> Iterator[dict[str, object]]:
    for number in range(1, SLICES + 1):
        yield {
            "id": number,
            "series_id": EXAMPLE + 1,
            "patient_id": EXAMPLE // SERIES + 1,
            "sop_instance_uid": _instance_uid(number),
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "attributes": {},
            "file": f"{number}.dcm",
            "file_size": 0,
            "file_sha256": b"",
            "pixel_sha256": b"",
            "calling_ae_title": "TEST",
        }


def _embedding_row(stack_id: uuid.UUID, number: int, vector: npt.NDArray[np.float32]) -> dict[str, object]:
    return {
        "stack_id": stack_id,
        "slice": number,
        "sop_instance_uid": _instance_uid(number) if number else "",
        "frame_number": min(number, 1),
        "position_mm": float(number),
        "vector": vector.tobytes(),
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_best_ten_are_those_of_every_row_that_a_filter_leaves(million: Million) -> None:
    study_uid, series_uid = uid_of(EXAMPLE)
    of_slice = Example(study_uid, series_uid, _instance_uid(7))
    cosines = {
        Example(study_uid, series_uid): million.whole.astype(np.float64) @ million.whole[EXAMPLE],
        of_slice: (million.slices @ million.slices[EXAMPLE, 6]).max(axis=1),
    }
    study_of = np.arange(STUDIES * SERIES) // SERIES
    day_of = study_of % DAYS
    # The example's patient is no answer.
    others = study_of != EXAMPLE // SERIES
    for dates, left in (
        ("", others),
        ("20200101-20991231", others),
        (f"{date_of(300)}-{date_of(399)}", others & (day_of >= 300) & (day_of < 400)),
        (date_of(500), others & (day_of == 500)),
        ("19990101", np.zeros_like(others)),
    ):
        for example, similarities in cosines.items():
            wanted = np.flatnonzero(left)[np.argsort(-similarities[left], kind="stable")][:TOP]
            answer = million.searcher.similar_series(
                Query((example,), keys={"StudyDate": dates}, least=-1.0, limit=TOP)
            )
            assert answer.total == left.sum()
            assert [match.series_id - 1 for match in answer.series] == wanted.tolist()
            found = [match.similarity for match in answer.series]
            assert found == pytest.approx(similarities[wanted].tolist(), abs=1e-6)
