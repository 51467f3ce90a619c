"""The index under random changes, against a list and numpy."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from stack_rows import random_vectors

from pacs_cbir.search.snapshot import read_snapshot, snapshot_path, write_snapshot
from pacs_cbir.search.stack_index import Kind, StackIndex
from pacs_cbir.store.embeddings import StoredStack

DIMENSION = 8


def stored_stack(dice: np.random.Generator) -> StoredStack:
    """One of few studies, series and kinds, so that they share them."""
    count = int(dice.integers(2, 9))
    series_id = int(dice.integers(1, 12))
    return StoredStack(
        id=uuid.UUID(bytes=dice.bytes(16)),
        series_id=series_id,
        study_id=1 + series_id // 3,
        sequence=str(dice.choice(["T1", "T2", "unknown"])),
        plane=str(dice.choice(["axial", "sagittal"])),
        body_part=str(dice.choice(["BRAIN", "KNEE"])),
        in_domain=bool(dice.integers(2)),
        vectors=random_vectors(dice, count),
        slices=np.arange(count, dtype=np.int16),
    )


def kind_of(stack: StoredStack) -> Kind:
    return Kind(stack.plane, stack.sequence, stack.body_part)


def same(left: StoredStack, right: StoredStack) -> bool:
    plain = ("id", "series_id", "study_id", "sequence", "plane", "body_part", "in_domain")
    return (
        all(getattr(left, name) == getattr(right, name) for name in plain)
        and np.array_equal(left.vectors, right.vectors)
        and np.array_equal(left.slices, right.slices)
    )


def holds(index: StackIndex, expected: Iterable[StoredStack]) -> bool:
    by_id = {stack.id: stack for stack in index.stored()}
    wanted = {stack.id: stack for stack in expected}
    return by_id.keys() == wanted.keys() and all(same(by_id[id_], stack) for id_, stack in wanted.items())


def brute_force(stack: StoredStack, vector: npt.NDArray[np.float32], *, whole: bool) -> float:
    rows = stack.vectors[:1] if whole else stack.vectors[1:]
    return float(max(np.dot(row.astype(np.float64), vector.astype(np.float64)) for row in rows))


def check(index: StackIndex, model: dict[uuid.UUID, StoredStack], dice: np.random.Generator) -> None:
    assert index.ids == model.keys()
    assert len(index) == len(model)
    assert index.slices == sum(len(stack.vectors) - 1 for stack in model.values())
    for study_id in range(1, 6):
        wanted = {stack.id for stack in model.values() if stack.study_id == study_id}
        assert {stack.id for stack in index.stacks_of(study_id)} == wanted
    series = {int(number) for number in dice.permutation(12)[: dice.integers(0, 12)]}
    without = {int(number) for number in dice.permutation(12)[: dice.integers(0, 6)]}
    only = None if dice.integers(2) else series
    vector = random_vectors(dice, 1)[0]
    with index.reading():
        allowed = index.mask(None if only is None else np.array(sorted(only), np.int64), without)
        for kind in {kind_of(stack) for stack in model.values()}:
            for whole in (True, False):
                cosines = index.similarities(kind, vector, allowed, whole=whole)
                found = {index[int(n)].id: cosines[n] for n in np.flatnonzero(cosines > -np.inf)}
                expected = {
                    stack.id: brute_force(stack, vector, whole=whole)
                    for stack in model.values()
                    if kind_of(stack) == kind
                    and (only is None or stack.series_id in only)
                    and stack.series_id not in without
                }
                assert found == pytest.approx(expected, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 6))
def test_any_changes_equal_brute_force(seed: int, steps: int) -> None:
    dice = np.random.default_rng(seed)
    index, model = StackIndex(DIMENSION), dict[uuid.UUID, StoredStack]()
    for _ in range(steps):
        added = [stored_stack(dice) for _ in range(dice.integers(0, 12))]
        again = [stack for stack in model.values() if dice.random() < 0.2]
        gone = [id_ for id_ in model if dice.random() < 0.3]
        index.update([*added, *again], [*gone, uuid.uuid4()])
        model |= {stack.id: stack for stack in added}
        for id_ in gone:
            del model[id_]
        check(index, model, dice)
    assert holds(index, model.values())


def test_what_compares() -> None:
    dice = np.random.default_rng(0)
    index = StackIndex(DIMENSION)
    index.update([stored_stack(dice) for _ in range(200)], [])
    known, unknown = Kind("axial", "T1", "BRAIN"), Kind("axial", "unknown", "BRAIN")
    assert set(index.kinds_like(known)) == {known, unknown}
    assert set(index.kinds_like(unknown)) == {known, unknown, Kind("axial", "T2", "BRAIN")}
    assert index.kinds_like(Kind("axial", "T1", "HEART")) == []
    index.update([], [stack.id for stack in index.stored() if stack.sequence == "unknown"])
    assert index.kinds_like(known) == [known]


def test_another_dimension_changes_nothing() -> None:
    dice = np.random.default_rng(0)
    index = StackIndex(DIMENSION + 1)
    with pytest.raises(ValueError, match="dimension"):
        index.update([stored_stack(dice)], [])
    assert len(index) == 0


def test_readers_never_see_half_of_a_change() -> None:
    """A study's stacks are exchanged for others of the same number while threads read."""
    dice = np.random.default_rng(0)
    index, stop = StackIndex(DIMENSION), threading.Event()

    def generation() -> list[StoredStack]:
        return [stored_stack(dice) for _ in range(5)]

    def read() -> int:
        looks = 0
        while not stop.is_set():
            with index.reading():
                allowed = index.mask(None, ())
                assert allowed.sum() == 5
                vector = random_vectors(np.random.default_rng(looks), 1)[0]
                kinds = {index[int(number)].kind for number in np.flatnonzero(allowed)}
                found = [index.similarities(kind, vector, allowed, whole=True) > -np.inf for kind in kinds]
                assert np.sum(found) == 5
            assert len(list(index.stored())) <= 10
            looks += 1
        return looks

    current = generation()
    index.update(current, [])
    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read) for _ in range(3)]
        for _ in range(150):
            following = generation()
            index.update(following, [stack.id for stack in current])
            current = following
        stop.set()
        assert all(future.result() > 0 for future in reading)
    assert holds(index, current)


@pytest.mark.parametrize("count", [1, 3, 1201])
def test_a_snapshot_gives_back_every_stack(tmp_path: Path, count: int) -> None:
    dice = np.random.default_rng(count)
    index = StackIndex(DIMENSION)
    index.update([stored_stack(dice) for _ in range(count)], [])
    path = snapshot_path(tmp_path, "e" * 64)
    write_snapshot(path, index.stored())
    again = StackIndex(DIMENSION)
    again.update(read_snapshot(path), [])
    assert len(again) == count
    assert holds(again, index.stored())
    assert list(tmp_path.iterdir()) == [path]


def test_a_snapshot_of_nothing_is_no_file(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, "e" * 64)
    write_snapshot(path, [stored_stack(np.random.default_rng(0))])
    write_snapshot(path, [])
    assert not path.exists()
    assert read_snapshot(path) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_snapshot_is_ignored(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut off anywhere, or a byte of it changed: no stack, rather than a wrong one."""
    path = snapshot_path(tmp_path_factory.mktemp("index"), "e" * 64)
    dice = np.random.default_rng(3)
    written = [stored_stack(dice) for _ in range(3)]
    write_snapshot(path, written)
    content = bytearray(path.read_bytes())
    # Half of the damage is in the header.
    at = data.draw(st.integers(0, len(content) - 1) | st.integers(8, 8 + int.from_bytes(content[:8], "little") - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    # The header ends in blanks that say nothing.
    found = read_snapshot(path)
    assert found == [] or all(same(*pair) for pair in zip(found, written, strict=True))


def test_a_type_of_the_same_size_is_damage(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, "e" * 64)
    write_snapshot(path, [stored_stack(np.random.default_rng(0))])
    content = path.read_bytes()
    assert content.count(b'"F32"') == 1
    path.write_bytes(content.replace(b'"F32"', b'"I32"'))
    assert read_snapshot(path) == []


def test_a_snapshot_of_another_format_is_ignored(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, "e" * 64)
    write_snapshot(path, [stored_stack(np.random.default_rng(0))])
    save_file(load_file(path), path, metadata={"format": "another"})
    assert read_snapshot(path) == []


def test_a_disk_that_takes_nothing_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_snapshot(tmp_path / "missing" / "x.safetensors", [stored_stack(np.random.default_rng(0))])
