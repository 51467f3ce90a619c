"""Sequences as a site reads them: its rules at ingest and for what is here, whatever runs beside."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from arriving import arrive, table
from dicom_factory import composite
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage
from rich.console import Console
from running import command, following, wait_for_blocked, wait_until
from sqlalchemy import Connection, select, text
from stack_rows import save
from stored import let_go
from untrained import TWO_NUMBERS, Untrained, save_untrained

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.errors import SettingsError
from pacs_cbir.search.follow import Follower
from pacs_cbir.sequences import print_changes, print_sequences, re_sort_all
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders
from pacs_cbir.store import sequences as sequence_rows
from pacs_cbir.store.embeddings import NewStack
from pacs_cbir.store.jobs import enqueue
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import stacks
from pacs_cbir.worker import Worker

PROMISED_SECONDS = 5.0
FLAIR_RULE = """
[[rule]]
sequence = "FLAIR"
when.SeriesDescription = "t2_*"
when.EchoTime = { max = 110 }
"""
LOCALISER_RULE = """
[[rule]]
sequence = "localiser"
when.SeriesDescription = "t2_*"
"""
NAMES = (
    "SELECT sequence, evidence ->> 'rule', not_embedded, in_domain FROM stacks ORDER BY sop_instance_uids, encoder_id"
)
VECTORS = """
    SELECT encoder_id, embeddings.sop_instance_uid, frame_number, slice, position_mm, vector
    FROM embeddings JOIN stacks ON stacks.id = stack_id ORDER BY sop_instance_uids, encoder_id, slice
"""


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(60, 4096) as made:
        yield made


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    return Untrained.of(save_untrained(tmp_path_factory.mktemp("checkpoint") / "two.safetensors", TWO_NUMBERS))


@pytest.fixture
def settings(settings: Settings, database: Database, untrained: Untrained) -> Settings:
    """With a file of rules, which has none at first."""
    untrained.add(settings, database, active=True)
    path = settings.data_dir.parent / "rules.toml"
    path.touch()
    return settings.model_copy(update={"sequence_rules": path})


def rule(settings: Settings, content: str) -> None:
    assert settings.sequence_rules is not None
    settings.sequence_rules.write_text(content)


def receive(settings: Settings, database: Database, *series: str, **attributes: Any) -> None:
    for name in series:
        for number in (1, 2, 3):
            position = ["-120", "-120", str(6 * number)]
            arrive(database, settings, series=name, number=number, size=32, ImagePositionPatient=position, **attributes)


def work(settings: Settings, database: Database, decoder: Decoder) -> int:
    worker, done = Worker(settings, database, decoder), 0
    while worker.work_once():
        done += 1
    return done


def re_sort(settings: Settings, database: Database) -> str:
    said = io.StringIO()
    re_sort_all(settings, database, Console(file=said, width=200))
    return said.getvalue()


def answered(follower: Follower) -> list[str]:
    return sorted(stack.sequence for stack in follower.current.index.stored())


def test_a_worker_reads_what_comes_by_the_sites_rules(settings: Settings, database: Database, decoder: Decoder) -> None:
    rule(settings, FLAIR_RULE + LOCALISER_RULE)
    receive(settings, database, "a")
    receive(settings, database, "b", EchoTime="120")
    receive(settings, database, "c", SeriesDescription="tra", ProtocolName="")
    assert work(settings, database, decoder) == 3
    assert sorted(table(database, NAMES), key=str) == [
        ("FLAIR", "site rule 1", None, False),
        ("T2", "spin echo with long TR and TE", None, False),
        ("localiser", "site rule 2", "not embedded: localiser", False),
    ]
    rule(settings, "[[rule]]")
    with pytest.raises(SettingsError, match="rule 1 sequence: Field required"):
        Worker(settings, database, decoder)


def test_rules_can_be_tried_without_changing_anything(settings: Settings, database: Database, decoder: Decoder) -> None:
    receive(settings, database, "a")
    receive(settings, database, "b", EchoTime="120")
    assert work(settings, database, decoder) == 2
    before = table(database, "SELECT * FROM stacks ORDER BY id")
    for content, told in ((FLAIR_RULE, ["T2", "FLAIR", "1", "site rule 1", "t2_tse_tra"]), ("", None)):
        rule(settings, content)
        said = io.StringIO()
        print_changes(settings, database, Console(file=said, width=80))
        lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.getvalue().splitlines()]
        assert (told in lines) if told else "nothing would be read otherwise" in said.getvalue()
    assert table(database, "SELECT * FROM stacks ORDER BY id") == before


def test_rules_hold_for_what_is_here_within_seconds_and_without_embedding_it(
    settings: Settings, database: Database, decoder: Decoder, tmp_path: Path
) -> None:
    Untrained.of(save_untrained(tmp_path / "beside.safetensors", TWO_NUMBERS, seed=1)).add(settings, database)
    receive(settings, database, "a")
    receive(settings, database, "b", EchoTime="120")
    receive(settings, database, "c", PixelSpacing=None)
    assert work(settings, database, decoder) == 3
    vectors, pictures = table(database, VECTORS), table(database, "SELECT * FROM thumbnails ORDER BY 1, 2")
    with database.transaction() as connection:
        connection.execute(text("UPDATE stacks SET missing_slices = 2"))
    created = table(database, "SELECT created_at, missing_slices FROM stacks ORDER BY 1")
    assert len(vectors) == 2 * 2 * 4
    assert len(pictures) == 2 * 3
    with following(Follower(database, settings.index_dir)) as follower:
        wait_until(lambda: answered(follower) == ["T2", "T2"], PROMISED_SECONDS)
        rule(settings, FLAIR_RULE.replace("FLAIR", "T1"))
        let_go(database, settings)
        assert "4 stacks are read otherwise" in re_sort(settings, database)
        wait_until(lambda: answered(follower) == ["T1", "T2"], PROMISED_SECONDS)
        assert "0 stacks are read otherwise" in re_sort(settings, database)
        rule(settings, "")
        assert "4 stacks are read otherwise" in re_sort(settings, database)
        wait_until(lambda: answered(follower) == ["T2", "T2"], PROMISED_SECONDS)
    assert table(database, VECTORS) == vectors
    assert table(database, "SELECT * FROM thumbnails ORDER BY 1, 2") == pictures
    assert table(database, "SELECT created_at, missing_slices FROM stacks ORDER BY 1") == created
    assert table(database, "SELECT id FROM jobs") == []


def test_the_domain_follows_the_name_and_other_reasons_stay(
    settings: Settings, database: Database, decoder: Decoder
) -> None:
    receive(settings, database, "a")
    receive(settings, database, "b", PixelSpacing=None)
    assert work(settings, database, decoder) == 2
    reasons = {row[2] for row in table(database, NAMES)}
    assert any(str(reason).startswith("not a volume") for reason in reasons)
    rule(settings, FLAIR_RULE.replace("FLAIR", "T1"))
    re_sort(settings, database)
    after = table(database, NAMES)
    assert {(row[0], row[1], row[3]) for row in after} == {("T1", "site rule 1", True)}
    assert {row[2] for row in after} == reasons


def test_a_localiser_leaves_the_answers_at_once_and_comes_back_by_a_worker(
    settings: Settings, database: Database, decoder: Decoder
) -> None:
    receive(settings, database, "a")
    assert work(settings, database, decoder) == 1
    vectors = table(database, VECTORS)
    rule(settings, LOCALISER_RULE)
    assert "1 stacks" in re_sort(settings, database)
    assert table(database, NAMES) == [("localiser", "site rule 1", "not embedded: localiser", False)]
    assert table(database, VECTORS) == []
    assert table(database, "SELECT plane FROM stacks") == [(None,)]
    rule(settings, "")
    said = re_sort(settings, database)
    assert "1 series were left out until now" in said
    assert "pixel data" not in said
    assert table(database, "SELECT status FROM jobs") == [("waiting",)]
    assert work(settings, database, decoder) == 1
    assert table(database, NAMES) == [("T2", "spin echo with long TR and TE", None, False)]
    assert table(database, VECTORS) == vectors


def test_pixel_data_that_has_left_is_said_and_what_comes_again_is_embedded(
    settings: Settings, database: Database, decoder: Decoder
) -> None:
    rule(settings, LOCALISER_RULE)
    receive(settings, database, "a")
    assert work(settings, database, decoder) == 1
    let_go(database, settings)
    rule(settings, "")
    assert "1 of them have lost their pixel data" in re_sort(settings, database)
    work(settings, database, decoder)
    assert table(database, "SELECT status FROM jobs") == [("parked",)]
    receive(settings, database, "a")
    assert work(settings, database, decoder) == 1
    assert table(database, NAMES) == [("T2", "spin echo with long TR and TE", None, False)]


def test_interrupted_it_goes_on(
    settings: Settings, database: Database, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(settings, database, "a", "b", "c")
    assert work(settings, database, decoder) == 3
    vectors = table(database, VECTORS)
    rule(settings, FLAIR_RULE)
    rename, calls = sequence_rows.rename, []

    def die_at_the_second(*arguments: Any) -> None:
        rename(*arguments)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sequence_rows, "rename", die_at_the_second)
        patch.setattr(sequence_rows, "BATCH", 2)
        with pytest.raises(KeyboardInterrupt):
            re_sort(settings, database)
    assert sorted(row[0] for row in table(database, NAMES)) == ["FLAIR", "T2", "T2"]  # type: ignore[type-var]
    assert "2 stacks" in re_sort(settings, database)
    assert [row[0] for row in table(database, NAMES)] == ["FLAIR"] * 3
    assert table(database, VECTORS) == vectors


def test_a_worker_that_saves_meanwhile_leaves_no_second_stack(
    settings: Settings, database: Database, decoder: Decoder
) -> None:
    receive(settings, database, "a")
    assert work(settings, database, decoder) == 1
    rule(settings, FLAIR_RULE)
    with database.transaction() as connection:
        (row,) = connection.execute(select(stacks)).all()
    evidence = {"SeriesDescription": "t2_x", "EchoTime": "99", "rule": "site rule 1"}
    fresh = NewStack("FLAIR", None, "BRAIN", False, "not a volume: test", row.separated_by, evidence, (), ())
    with ThreadPoolExecutor() as pool:
        with database.transaction() as connection:
            save(connection, row.series_id, row.encoder_id, fresh)
            re_sorted = pool.submit(re_sort, settings, database)
            wait_for_blocked(database)
        assert "0 stacks" in re_sorted.result(20)
        assert [(row[0], row[2]) for row in table(database, NAMES)] == [("FLAIR", "not a volume: test")]


def test_a_worker_that_saves_afterwards_replaces_what_was_renamed(
    settings: Settings, database: Database, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(settings, database, "a")
    assert work(settings, database, decoder) == 1
    with database.transaction() as connection:
        enqueue(connection, connection.execute(select(stacks.c.series_id)).scalar_one(), 0)
    rename, saving = sequence_rows.rename, []

    def rename_while_a_worker_saves(*arguments: Any) -> None:
        saving.append(pool.submit(work, settings, database, decoder))
        wait_for_blocked(database)
        rename(*arguments)

    rule(settings, FLAIR_RULE)
    monkeypatch.setattr(sequence_rows, "rename", rename_while_a_worker_saves)
    with ThreadPoolExecutor() as pool:
        assert "1 stacks" in re_sort(settings, database)
        assert saving[0].result(30) == 1
    assert [row[0] for row in table(database, NAMES)] == ["FLAIR"]


def test_a_series_that_is_locked_is_waited_for_and_one_that_goes_is_left(
    settings: Settings, database: Database, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(settings, database, "a", "b")
    assert work(settings, database, decoder) == 2
    rule(settings, FLAIR_RULE)
    first, second = (row[0] for row in table(database, "SELECT id FROM series ORDER BY id"))
    hold_series, turned_away = sequence_rows.hold_series, threading.Event()

    def hold_and_tell(connection: Connection, series_id: int) -> bool:
        held = hold_series(connection, series_id)
        if not held:
            turned_away.set()
        return held

    monkeypatch.setattr(sequence_rows, "hold_series", hold_and_tell)
    with ThreadPoolExecutor() as pool:
        with database.transaction() as connection:
            connection.execute(text("SELECT FROM series WHERE id = :id FOR UPDATE"), {"id": first})
            connection.execute(text("DELETE FROM series WHERE id = :id"), {"id": second})
            re_sorted = pool.submit(re_sort, settings, database)
            assert turned_away.wait(20)
            # Meanwhile a worker that this one waits for could save.
            encoders.hold(connection, [row.id for row in encoders.kept(connection)])
            assert not re_sorted.done()
        assert "1 stacks" in re_sorted.result(20)
    assert [row[0] for row in table(database, NAMES)] == ["FLAIR"]


def test_what_was_read_as_what(settings: Settings, database: Database, decoder: Decoder) -> None:
    receive(settings, database, "a")
    receive(settings, database, "b", EchoTime="98.5")
    receive(settings, database, "c", EchoTime="102")
    receive(settings, database, "d", SeriesDescription="[bold]t1", ProtocolName="x" * 64)
    receive(settings, database, "e", SeriesDescription="localizer")
    arrive(database, settings, composite(GrayscaleSoftcopyPresentationStateStorage, "PR"))
    work(settings, database, decoder)
    with database.transaction() as connection:
        found = sequence_rows.read_as(connection)
    assert [(one.sequence, one.stacks, one.series) for one in found] == [
        ("T2", 3, 3), ("localiser", 1, 1), ("unknown", 1, 1)
    ]  # fmt: skip
    shown = io.StringIO()
    print_sequences(database, Console(file=shown, width=100))
    said = shown.getvalue()
    assert said.index("unknown") < said.index("T2 ") < said.index("localiser")
    assert "SeriesDescription: [bold]t1" in said
    assert "EchoTime: 98.5 to 102" in said
    assert "RepetitionTime: 4000" in said
    assert said.count("x") >= 64
    assert "conflict: T2 by spin echo" in " ".join(said.split())
    assert "P1" not in said


@pytest.mark.slow
def test_the_command_and_a_service_that_refuses_the_rules(
    settings: Settings, database: Database, decoder: Decoder, environment: dict[str, str], tmp_path: Path
) -> None:
    receive(settings, database, "a")
    assert work(settings, database, decoder) == 1
    rule(settings, FLAIR_RULE)
    ruled = environment | {"PACS_CBIR_SEQUENCE_RULES": str(settings.sequence_rules)}
    log = tmp_path / "log"
    with command("sequences", ruled, log) as process:
        assert process.wait(60) == 0
    assert "t2_tse_tra" in log.read_text()
    rule(settings, "[[rule]]")
    with command("worker", ruled, log) as process:
        assert process.wait(60) == 2
    assert "rules.toml: rule 1 sequence: Field required" in " ".join(log.read_text().split())
