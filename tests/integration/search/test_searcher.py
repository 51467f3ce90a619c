"""Ranking random cohorts, against the definition written out pair by pair."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rows import Added, add_series
from sqlalchemy import text
from stack_rows import DIMENSION, add_encoder, new_stack, not_embedded, random_vectors, save, unit

from pacs_cbir.errors import ExampleNotEmbedded, ExampleNotReady, IndexNotReady, InvalidQuery, UnknownExample
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.query import Answer, Query
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.store import encoders, jobs
from pacs_cbir.store.embeddings import NewStack
from pacs_cbir.store.examples import Example
from pacs_cbir.store.session import Database

TOLERANCE = 1e-5


@dataclass
class TestStack:
    """What the definition needs to know of a stack."""

    __test__ = False

    study: str
    series: str
    patient: str
    sex: str
    series_id: int
    study_id: int
    found: NewStack
    number: str

    @property
    def kind(self) -> tuple[str | None, str, str]:
        return self.found.plane, self.found.sequence, self.found.body_part

    def comparable(self, other: TestStack) -> bool:
        (plane, mine, part), (other_plane, theirs, other_part) = self.kind, other.kind
        return (plane, part) == (other_plane, other_part) and (mine == theirs or "unknown" in (mine, theirs))

    def alike(self, other: TestStack) -> bool:
        return self.kind == other.kind and self.found.sequence != "unknown"


@dataclass
class Cohort:
    """Studies in the database, and what was put there."""

    searcher: Searcher
    follower: Follower
    stacks: list[TestStack] = field(default_factory=list)

    def studies(self, examples: Sequence[Example], **wanted: object) -> Answer:
        return self.searcher.similar_studies(Query(tuple(examples), **({"limit": 1000} | wanted)))  # type: ignore[arg-type]

    def series(self, examples: Sequence[Example], **wanted: object) -> Answer:
        return self.searcher.similar_series(Query(tuple(examples), **({"limit": 1000} | wanted)))  # type: ignore[arg-type]


def random_stack(dice: np.random.Generator, centres: npt.NDArray[np.float32]) -> NewStack:
    """Of few kinds; near one of few centres, so that cosines are near one another and far apart."""
    slices = int(dice.integers(1, 5))
    near = centres[dice.integers(len(centres))]
    vectors = unit(near + dice.random() * random_vectors(dice, slices + 1))
    return new_stack(
        vectors,
        sequence=str(dice.choice(["T1", "T2", "FLAIR", "unknown"], p=[0.35, 0.3, 0.2, 0.15])),
        plane=str(dice.choice(["axial", "sagittal"], p=[0.8, 0.2])),
        body_part=str(dice.choice(["BRAIN", "KNEE"], p=[0.9, 0.1])),
        in_domain=bool(dice.random() < 0.8),
    )


def fill(database: Database, cohort: Cohort, seed: int, studies: int) -> None:
    dice = np.random.default_rng(seed)
    centres = random_vectors(dice, 4)
    with database.transaction() as connection:
        encoder_id = add_encoder(connection)
        for number in range(1, studies + 1):
            patient = str(dice.integers(1, max(2, studies // 2))) if dice.random() < 0.9 else ""
            attributes = {
                "PatientID": patient,
                "PatientSex": "FM"[number % 2],
                "StudyDate": f"2020{1 + number % 12:02}01",
                "StudyDescription": "rare" if number % 50 == 0 else "common",
            }
            for sub in range(1, int(dice.integers(2, 6))):
                uid = f"1.{number}.{sub}"
                added = add_series(connection, f"1.{number}", uid, study=attributes)
                found = [random_stack(dice, centres) for _ in range(dice.choice([0, 1, 1, 1, 2]))]
                found = [renamed(stack, uid, place) for place, stack in enumerate(found)]
                save(connection, added.series_id, encoder_id, *found, not_embedded("a localiser"))
                cohort.stacks += [
                    TestStack(
                        study=f"1.{number}",
                        series=uid,
                        patient=patient or f"of study {number}",
                        sex="FM"[number % 2],
                        series_id=added.series_id,
                        study_id=added.study_id,
                        found=stack,
                        number=f"{uid}.{place}",
                    )
                    for place, stack in enumerate(found)
                ]


def renamed(stack: NewStack, series_uid: str, place: int) -> NewStack:
    """The same with instances of its own."""
    vectors = np.stack([embedding.vector for embedding in stack.embeddings])
    return new_stack(
        vectors,
        sequence=stack.sequence,
        plane=stack.plane or "",
        body_part=stack.body_part,
        in_domain=stack.in_domain,
        instance_uids=[f"{series_uid}.{place}.{number}" for number in range(1, len(vectors))],
    )


@pytest.fixture
def cohort(database: Database, tmp_path: Path) -> Cohort:
    follower = Follower(database, tmp_path)
    return Cohort(Searcher(database, follower), follower)


# The definition, pair by pair.

Vector = tuple[TestStack, npt.NDArray[np.float32], bool]
"""An example's stack, the vector that stands for it, and whether that is the whole stack's."""


def whole_vectors(stacks: Sequence[TestStack]) -> list[Vector]:
    return [(stack, stack.found.embeddings[0].vector, True) for stack in stacks]


def cosine(query: Vector, stack: TestStack) -> float:
    rows = stack.found.embeddings[:1] if query[2] else stack.found.embeddings[1:]
    return max(float(np.dot(query[1].astype(float), row.vector.astype(float))) for row in rows)


@dataclass
class Expected:
    """One expected study."""

    similarity: float
    coverage: float
    in_domain: bool
    series: dict[int, float]


def expected_studies(examples: Sequence[list[Vector]], candidates: Sequence[TestStack]) -> dict[int, Expected]:
    slots = [
        [query for query in queries if query[0].found.sequence == sequence]
        for queries in examples
        for sequence in sorted({query[0].found.sequence for query in queries})
    ]
    found = {}
    for study_id in {stack.study_id for stack in candidates}:
        stacks = [stack for stack in candidates if stack.study_id == study_id]
        best, alike = [], 0
        for slot in slots:
            pairs = [(q, stack) for q in slot for stack in stacks if q[0].comparable(stack)]
            like = [pair for pair in pairs if pair[0][0].alike(pair[1])]
            alike += bool(like)
            if pairs:
                best.append(max(cosine(*pair) for pair in like or pairs))
        series = {
            series_id: similarity
            for series_id in {stack.series_id for stack in stacks}
            if (similarity := series_similarity(slots, [s for s in stacks if s.series_id == series_id])) is not None
        }
        if best:
            compared = [s for s in stacks if any(q[0].comparable(s) for slot in slots for q in slot)]
            chosen = [s for s in compared if s.series_id in series]
            found[study_id] = Expected(
                float(np.mean(best)), alike / len(slots), all(s.found.in_domain for s in chosen), series
            )
    return found


def series_similarity(slots: Sequence[list[Vector]], stacks: Sequence[TestStack]) -> float | None:
    pairs = [(q, s) for slot in slots for q in slot for s in stacks if q[0].comparable(s)]
    like = [pair for pair in pairs if pair[0][0].alike(pair[1])]
    return max((cosine(*pair) for pair in like or pairs), default=None)


def check_studies(answer: Answer, expected: dict[int, Expected], *, offset: int = 0, limit: int = 1000) -> None:
    assert answer.total == len(expected)
    ranked = sorted((study.similarity for study in expected.values()), reverse=True)[offset : offset + limit]
    assert [match.similarity for match in answer.studies] == pytest.approx(ranked, abs=TOLERANCE)
    assert len({match.study_id for match in answer.studies}) == len(answer.studies)
    for match in answer.studies:
        wanted = expected[match.study_id]
        assert match.similarity == pytest.approx(wanted.similarity, abs=TOLERANCE)
        assert match.coverage == pytest.approx(wanted.coverage)
        similarities = {series.series_id: series.similarity for series in match.series}
        assert similarities == pytest.approx(wanted.series, abs=TOLERANCE)
        assert [s.similarity for s in match.series] == sorted(similarities.values(), reverse=True)
        assert match.in_domain == all(series.in_domain for series in match.series)


def candidates(cohort: Cohort, patients: set[str], *, sex: str = "FM") -> list[TestStack]:
    return [stack for stack in cohort.stacks if stack.patient not in patients and stack.sex in sex]


@pytest.mark.parametrize("seed", range(3))
def test_ranking_equals_the_definition(database: Database, cohort: Cohort, seed: int) -> None:
    fill(database, cohort, seed, studies=60)
    cohort.follower.catch_up()
    dice = np.random.default_rng(seed)
    by_study = {
        study: [s for s in cohort.stacks if s.study == study] for study in sorted({s.study for s in cohort.stacks})
    }
    for _ in range(12):
        names = [str(name) for name in dice.choice(list(by_study), int(dice.integers(1, 4)), replace=False)]
        examples = [Example(name) for name in names]
        queries = [whole_vectors(by_study[name]) for name in names]
        patients = {stack.patient for name in names for stack in by_study[name]}
        sex = str(dice.choice(["FM", "F", "M"]))
        keys = {} if sex == "FM" else {"PatientSex": sex}
        expected = expected_studies(queries, candidates(cohort, patients, sex=sex))
        check_studies(cohort.studies(examples, keys=keys), expected)
        offset, limit = int(dice.integers(0, 40)), int(dice.integers(1, 20))
        page = cohort.studies(examples, keys=keys, offset=offset, limit=limit)
        check_studies(page, expected, offset=offset, limit=limit)

        answer = cohort.series(examples, keys=keys)
        wanted = {id_: value for study in expected.values() for id_, value in study.series.items()}
        assert answer.total == len(wanted)
        assert {match.series_id: match.similarity for match in answer.series} == pytest.approx(wanted, abs=TOLERANCE)
        assert list(answer.series) == sorted(answer.series, key=lambda match: (-match.similarity, match.series_id))
        by_uid = {
            query[0].series: [q for of in queries for q in of if q[0].series == query[0].series]
            for of in queries
            for query in of
        }
        for match in answer.series:
            theirs = [stack for stack in cohort.stacks if stack.series_id == match.series_id]
            assert series_similarity([by_uid[match.like]], theirs) == pytest.approx(match.similarity, abs=TOLERANCE)
        page = cohort.series(examples, keys=keys, offset=offset, limit=limit)
        assert page == Answer(answer.total, series=answer.series[offset : offset + limit])


def test_pages_make_up_the_whole(database: Database, cohort: Cohort) -> None:
    """Equal similarities included: half of the studies are copies of the other half."""
    dice = np.random.default_rng(5)
    kinds = ["T1", "T2", "FLAIR"]
    with database.transaction() as connection:
        encoder_id = add_encoder(connection)
        vectors = [[random_vectors(dice, 3) for _ in kinds] for _ in range(10)]
        for number in range(20):
            for kind, of_kind in zip(kinds, vectors[number % 10], strict=True):
                added = add_series(connection, f"1.{number}", f"1.{number}.{kinds.index(kind)}")
                save(connection, added.series_id, encoder_id, new_stack(of_kind, sequence=kind))
    cohort.follower.catch_up()
    example = [Example("1.0")]
    whole = cohort.studies(example).studies
    assert len(whole) == 19
    pages = [cohort.studies(example, limit=3, offset=offset).studies for offset in range(0, 21, 3)]
    assert functools.reduce(lambda left, right: left + right, pages) == whole
    assert list(whole) == sorted(whole, key=lambda match: (-match.similarity, match.study_id))
    assert whole[0].similarity == pytest.approx(1)
    assert whole[0].similarity <= 1


def add(database: Database, study: str, series: str, patient: str, *found: NewStack) -> Added:
    """A series with the instances of its stacks."""
    with database.transaction() as connection:
        encoder = encoders.active(connection)
        uids = sorted({uid for stack in found for uid in stack.sop_instance_uids if uid.startswith(series)})
        added = add_series(connection, study, series, study={"PatientID": patient}, instance_uids=uids)
        save(connection, added.series_id, encoder.id if encoder else add_encoder(connection), *found)
    return added


def axis(number: int, towards: float = 1.0) -> npt.NDArray[np.float32]:
    """Whole stack and one slice: a vector whose cosine with the first axis is `towards` where `number` is not 0."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[0], vector[number] = towards, np.sqrt(1 - towards**2) if number else 1
    return unit([vector, vector])


def test_a_match_names_the_two_slices_it_owes_most_to(database: Database, cohort: Cohort) -> None:
    """Without a lesion part every slice counts alike: the pair with the best cosine, pair by pair."""
    fill(database, cohort, 7, studies=20)
    cohort.follower.catch_up()
    with database.transaction() as connection:
        rows = connection.execute(text("SELECT id, series_id, sop_instance_uids FROM stacks WHERE plane IS NOT NULL"))
        stacks = {
            row.id: next(s for s in cohort.stacks if s.series_id == row.series_id and is_of(s, row)) for row in rows
        }
    checked = 0
    for name in ("1.1", "1.2", "1.3"):
        for match in cohort.series([Example(name)]).series:
            assert match.slices is not None
            own, theirs = stacks[match.slices.example.stack_id], stacks[match.slices.found.stack_id]
            assert (own.series, theirs.series_id) == (match.like, match.series_id)
            mine, others = (
                np.stack([e.vector for e in stack.found.embeddings[1:]]).astype(float) for stack in (own, theirs)
            )
            cosines = mine @ others.T
            assert match.slices.similarity == pytest.approx(cosines.max(), abs=TOLERANCE)
            place = match.slices.example.slice - 1, match.slices.found.slice - 1
            assert cosines[place] == pytest.approx(cosines.max(), abs=TOLERANCE)
            checked += 1
    assert checked > 20


def is_of(stack: TestStack, row: Any) -> bool:
    return (stack.series_id, list(stack.found.sop_instance_uids)) == (row.series_id, row.sop_instance_uids)


def test_an_example_that_is_a_slice_is_the_slice_that_is_looked_at(database: Database, cohort: Cohort) -> None:
    dice = np.random.default_rng(3)
    vectors = random_vectors(dice, 4)
    add(database, "1.1", "1.1.1", "P", new_stack(vectors, instance_uids=["1.1.1.1", "1.1.1.2", "1.1.1.3"]))
    other = unit([vectors[0], dice.standard_normal(DIMENSION), vectors[2] + 0.1 * random_vectors(dice, 1)[0]])
    add(database, "1.2", "1.2.1", "Q", new_stack(other, instance_uids=["1.2.1.1", "1.2.1.2"]))
    cohort.follower.catch_up()
    (match,) = cohort.series([Example("1.1", "1.1.1", "1.1.1.2")]).series
    assert match.slices is not None
    assert (match.slices.example.slice, match.slices.found.slice) == (2, 2)
    assert match.slices.similarity == pytest.approx(match.similarity, abs=TOLERANCE)


def test_an_example_the_index_has_not_yet_is_answered_without_slices(database: Database, cohort: Cohort) -> None:
    add(database, "1.2", "1.2.1", "Q", new_stack(axis(0)))
    cohort.follower.catch_up()
    add(database, "1.1", "1.1.1", "P", new_stack(axis(0)))
    (match,) = cohort.series([Example("1.1")]).series
    assert match.slices is None


def test_what_is_no_more_alike_than_unrelated_patients_is_left_out(database: Database, cohort: Cohort) -> None:
    with database.transaction() as connection:
        add_encoder(connection, unrelated={"T1": 0.8, "FLAIR": 0.4})
    for study, t1, flair, other in (("1.1", 1.0, 1.0, 1.0), ("1.2", 0.7, 0.6, 0.65), ("1.3", 0.7, 0.45, 0.55)):
        add(database, study, f"{study}.1", study, new_stack(axis(1, t1)))
        add(database, study, f"{study}.2", study, new_stack(axis(1, flair), sequence="FLAIR"))
        add(database, study, f"{study}.3", study, new_stack(axis(1, other), sequence="T2"))
    cohort.follower.catch_up()
    example = [Example("1.1")]

    def found(**wanted: object) -> tuple[list[float], int]:
        answer = cohort.studies(example, **wanted)
        return [round(match.similarity, 4) for match in answer.studies], count(answer)

    # The floor of all three is the mean of 0.8, 0.4 and, for T2, of these two: 0.6.
    assert found() == ([0.65], 1)
    assert found(only=frozenset({"T1"})) == ([], 2)
    assert found(only=frozenset({"FLAIR"})) == ([0.6, 0.45], 0)
    assert found(only=frozenset({"T2"})) == ([0.65], 1)
    assert found(sequence_weights={"T1": 3.0}) == ([], 2)
    assert found(least=-1.0) == ([0.65, 0.5667], 0)
    assert found(least=0.66) == ([], 2)
    assert len(found(parts={"appearance": 1.0})[0]) == 2
    assert len(found(like=(Example("1.2"),))[0]) == 2
    series = cohort.series(example)
    assert [round(match.similarity, 4) for match in series.series] == [0.65, 0.6, 0.45]
    assert (series.total, count(series)) == (3, 3)
    assert told(cohort.studies(example)) == (1, 0.5667, 0.6, True)
    assert told(cohort.studies(example, only=frozenset({"T1"}))) == (2, 0.7, 0.8, True)
    assert told(cohort.studies(example, least=0.66)) == (2, 0.65, 0.66, False)
    assert told(series) == (3, 0.7, 0.8, True)


def count(answer: Answer) -> int:
    return 0 if answer.left_out is None else answer.left_out.count


def told(answer: Answer) -> tuple[object, ...] | None:
    left = answer.left_out
    return left and (left.count, round(left.similarity, 4), round(left.least, 4), left.unrelated)


def test_slices_have_a_floor_of_their_own(database: Database, cohort: Cohort) -> None:
    known = {"unrelated": {"T1": 0.8}, "unrelated_slices": {"T1": 0.5}}
    with database.transaction() as connection:
        add_encoder(connection, **known)
    for study, cosine in (("1.1", 1.0), ("1.2", 0.7), ("1.3", 0.4)):
        uids = [f"{study}.1.1"]
        add(database, study, f"{study}.1", study, new_stack(axis(1, cosine), instance_uids=uids))
    cohort.follower.catch_up()
    whole = cohort.studies([Example("1.1")])
    assert (whole.total, count(whole)) == (0, 2)
    of_slice = cohort.studies([Example("1.1", "1.1.1", "1.1.1.1")])
    assert (of_slice.total, count(of_slice)) == (1, 1)


def test_own_patient_is_left_out_unless_asked_for(database: Database, cohort: Cohort) -> None:
    stack = new_stack(axis(0))
    example = add(database, "1.1", "1.1.1", "P", stack)
    second_series = add(database, "1.1", "1.1.2", "P", stack)
    same_patient = add(database, "1.2", "1.2.1", "P", stack)
    other = add(database, "1.3", "1.3.1", "Q", stack)
    nameless = add(database, "1.4", "1.4.1", "", stack)
    also_nameless = add(database, "1.5", "1.5.1", "", stack)
    cohort.follower.catch_up()

    def studies(uid: str, *, own_patient: bool) -> set[int]:
        return {match.study_id for match in cohort.studies([Example(uid)], own_patient=own_patient).studies}

    assert studies("1.1", own_patient=False) == {other.study_id, nameless.study_id, also_nameless.study_id}
    assert studies("1.1", own_patient=True) == {
        same_patient.study_id,
        other.study_id,
        nameless.study_id,
        also_nameless.study_id,
    }
    # Without a PatientID each study is a patient of its own.
    assert also_nameless.study_id in studies("1.4", own_patient=False)
    found = cohort.series([Example("1.1", "1.1.1")], own_patient=True).series
    assert example.series_id not in {match.series_id for match in found}
    assert second_series.series_id in {match.series_id for match in found}


def test_like_with_like_before_a_better_cosine(database: Database, cohort: Cohort) -> None:
    """An unknown sequence that is nearer does not stand for the FLAIR that is there; coverage tells where it must."""
    add(database, "1.1", "1.1.1", "P", new_stack(axis(0), sequence="FLAIR"))
    both = add(database, "1.2", "1.2.1", "Q", new_stack(axis(1, 0.5), sequence="FLAIR"), new_stack(axis(2, 0.9)))
    add(database, "1.2", "1.2.2", "Q", new_stack(axis(1, 0.99), sequence="unknown"))
    only_unknown = add(database, "1.3", "1.3.1", "R", new_stack(axis(1, 0.7), sequence="unknown"))
    add(database, "1.4", "1.4.1", "S", new_stack(axis(0), sequence="T1"))
    add(database, "1.5", "1.5.1", "T", new_stack(axis(0), sequence="FLAIR", plane="sagittal"))
    add(database, "1.6", "1.6.1", "U", new_stack(axis(0), sequence="FLAIR", body_part="KNEE"))
    cohort.follower.catch_up()
    answer = cohort.studies([Example("1.1")])
    found = [(match.study_id, round(match.similarity, 5), match.coverage) for match in answer.studies]
    assert found == [(only_unknown.study_id, 0.7, 0.0), (both.study_id, 0.5, 1.0)]
    assert [series.like for series in answer.studies[1].series] == ["1.1.1", "1.1.1"]
    assert [(series.sequence, round(series.similarity, 5)) for series in answer.studies[1].series] == [
        ("unknown", 0.99),
        ("FLAIR", 0.5),
    ]


def test_a_study_that_lacks_sequences_is_compared_by_the_others(database: Database, cohort: Cohort) -> None:
    add(database, "1.1", "1.1.1", "P", *(new_stack(axis(0), sequence=s) for s in ("T1", "T2", "FLAIR", "T1CE")))
    lacking = add(database, "1.2", "1.2.1", "Q", new_stack(axis(1, 0.6), sequence="T2"))
    cohort.follower.catch_up()
    (match,) = cohort.studies([Example("1.1")]).studies
    assert (match.study_id, match.coverage) == (lacking.study_id, 0.25)
    assert match.similarity == pytest.approx(0.6)


def test_out_of_domain_is_marked(database: Database, cohort: Cohort) -> None:
    add(database, "1.1", "1.1.1", "P", new_stack(axis(0)))
    add(database, "1.2", "1.2.1", "Q", new_stack(axis(0), in_domain=False))
    add(database, "1.3", "1.3.1", "R", new_stack(axis(1, 0.5)))
    cohort.follower.catch_up()
    matches = cohort.studies([Example("1.1")]).studies
    assert [match.in_domain for match in matches] == [False, True]
    assert [match.series[0].in_domain for match in matches] == [False, True]


def test_several_examples_rank_what_they_have_in_common(database: Database, cohort: Cohort) -> None:
    add(database, "1.1", "1.1.1", "P", new_stack(axis(1, 0.0)))
    add(database, "1.2", "1.2.1", "Q", new_stack(axis(2, 0.0)))
    between = add(database, "1.3", "1.3.1", "R", new_stack(unit([[0, 1, 1, *[0] * (DIMENSION - 3)]] * 2)))
    near_one = add(database, "1.4", "1.4.1", "S", new_stack(axis(1, 0.0)))
    cohort.follower.catch_up()
    matches = cohort.studies([Example("1.1"), Example("1.2")]).studies
    assert [match.study_id for match in matches] == [between.study_id, near_one.study_id]
    assert [match.similarity for match in matches] == pytest.approx([np.sqrt(0.5), 0.5])


def test_a_slice_finds_its_like_among_slices(database: Database, cohort: Cohort) -> None:
    """The whole stacks of both others are alike; one of them holds the wanted slice."""
    eye = unit(np.eye(DIMENSION))
    whole = unit([[1] * DIMENSION])
    uids = ["1.1.1.1", "1.1.1.2", "1.1.1.3"]
    add(database, "1.1", "1.1.1", "P", new_stack(np.concatenate([whole, eye[:3]]), instance_uids=uids))
    has_it = add(database, "1.2", "1.2.1", "Q", new_stack(np.concatenate([whole, eye[[5, 1, 6]]])))
    lacks_it = add(database, "1.3", "1.3.1", "R", new_stack(np.concatenate([whole, eye[[3, 4]]])))
    cohort.follower.catch_up()
    example = [Example("1.1", "1.1.1", uids[1])]
    found = [(match.series_id, match.similarity) for match in cohort.series(example).series]
    assert found == [(has_it.series_id, pytest.approx(1)), (lacks_it.series_id, pytest.approx(0))]
    whole_series = cohort.series([Example("1.1", "1.1.1")]).series
    assert [match.similarity for match in whole_series] == pytest.approx([1, 1])


@pytest.mark.parametrize("share", [0.001, 0.02, 1.0])
def test_whatever_the_filter_leaves(database: Database, cohort: Cohort, share: float) -> None:
    fill(database, cohort, 11, studies=100)
    cohort.follower.catch_up()
    uid = cohort.stacks[0].study
    keys = {0.001: {"StudyInstanceUID": "1.77"}, 0.02: {"StudyDescription": "rare"}, 1.0: {"StudyDate": "2020*"}}
    left = {0.001: {"1.77"}, 0.02: {"1.50", "1.100"}, 1.0: {stack.study for stack in cohort.stacks}}[share]
    own = [stack for stack in cohort.stacks if stack.study == uid]
    among = [stack for stack in candidates(cohort, {own[0].patient}) if stack.study in left]
    matching = {"StudyDate": "20200101-20201231"} if share == 1.0 else keys[share]
    check_studies(
        cohort.studies([Example(uid)], keys=matching, limit=5),
        expected_studies([whole_vectors(own)], among),
        limit=5,
    )


def test_nothing_that_compares(database: Database, cohort: Cohort) -> None:
    add(database, "1.1", "1.1.1", "P", new_stack(axis(0)))
    cohort.follower.catch_up()
    assert cohort.studies([Example("1.1")]) == Answer(total=0)
    assert cohort.series([Example("1.1")]) == Answer(total=0)
    add(database, "1.2", "1.2.1", "Q", new_stack(axis(0)))
    cohort.follower.catch_up()
    assert cohort.studies([Example("1.1")], keys={"PatientSex": "O"}) == Answer(total=0)
    assert cohort.studies([Example("1.1")], offset=5) == Answer(total=1)


def test_a_key_that_cannot_be_understood(database: Database, cohort: Cohort) -> None:
    cohort.follower.catch_up()
    with pytest.raises(InvalidQuery, match="Colour"):
        cohort.studies([Example("1.1")], keys={"Colour": "red"})


def test_errors_say_what_is_the_matter(database: Database, cohort: Cohort) -> None:
    waiting = add(database, "1.1", "1.1.1", "P")
    add(database, "1.2", "1.2.1", "Q", not_embedded("a localiser"))
    cohort.follower.catch_up()
    with database.transaction() as connection:
        jobs.enqueue(connection, waiting.series_id, 30)
    with pytest.raises(ExampleNotReady) as not_ready:
        cohort.studies([Example("1.1")])
    assert 25 < not_ready.value.retry_after < 40
    with pytest.raises(ExampleNotEmbedded, match="a localiser"):
        cohort.studies([Example("1.2")])
    with pytest.raises(UnknownExample):
        cohort.studies([Example("1.3")])
    with pytest.raises(UnknownExample):
        cohort.studies([Example("1.3"), Example("1.1")])


def test_an_index_that_is_not_loaded_yet(database: Database, cohort: Cohort) -> None:
    """It is embedded, so the answer is to ask again, and not that it has no embeddings."""
    add(database, "1.1", "1.1.1", "P", new_stack(axis(0)))
    assert not cohort.searcher.ready
    assert cohort.searcher.size == 0
    with pytest.raises(IndexNotReady):
        cohort.studies([Example("1.1")])
    cohort.follower.catch_up()
    assert cohort.searcher.ready
    assert cohort.searcher.size == 1
    assert cohort.studies([Example("1.1")]).total == 0
