"""The site's own studies become a manifest that names nobody and can be trained on."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from arriving import Receive
from running import pacs_cbir
from sqlalchemy import text
from stack_rows import new_encoder, new_stack, random_vectors, save
from stored import let_go

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.errors import DiskUnavailable, ManifestError
from pacs_cbir.learn.datasets.database import database_rows
from pacs_cbir.learn.manifest_file import read_manifest
from pacs_cbir.learn.stacks import load_stacks
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders, labels
from pacs_cbir.store.pseudonyms import KEY_FILE
from pacs_cbir.store.session import Database
from pacs_cbir.worker import Worker
from tests.dicom_factory import mr_instance


def slices(receive: Receive, patient: str, study: str, series: str = "t2", **attributes: object) -> None:
    for number in (1, 2, 3):
        position = ["-120", "-120", str(6 * number)]
        receive(mr_instance(patient, study, series, number, size=32, ImagePositionPatient=position, **attributes))


def embed_all(settings: Settings, database: Database) -> None:
    with Decoder(60, 4096) as decoder:
        worker = Worker(settings, database, decoder)
        while worker.work_once():
            pass


def test_nothing_embedded_says_what_to_run(settings: Settings, database: Database, receive: Receive) -> None:
    slices(receive, "MEIER-1", "a")
    with pytest.raises(ManifestError, match="run pacs-cbir worker first"):
        database_rows(settings, database)


def test_what_an_encoder_beside_the_active_one_made_of_a_series_is_not_listed(
    settings: Settings, database: Database, receive: Receive
) -> None:
    slices(receive, "MEIER-1", "a")
    embed_all(settings, database)
    before, _ = database_rows(settings, database)
    assert len(before) == 3
    named = [str(mr_instance("", "a", "t2", number).SOPInstanceUID) for number in (1, 2, 3)]
    vectors = random_vectors(np.random.default_rng(0), 4)
    with database.transaction() as connection:
        beside = encoders.add(connection, new_encoder())
        series_id = connection.scalar(text("SELECT id FROM series"))
        save(connection, series_id, beside.id, new_stack(vectors, sequence="FLAIR", instance_uids=named))
    assert database_rows(settings, database)[0] == before


def test_a_manifest_of_the_database_names_nobody_and_loads(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path, environment: dict[str, str]
) -> None:
    slices(receive, "MEIER-1", "a")
    slices(receive, "MEIER-1", "b")
    slices(receive, "HUBER-2", "c")
    slices(receive, "", "d")
    slices(receive, "", "e")
    slices(receive, "HUBER-2", "c", "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    slices(receive, "HUBER-2", "moved")
    slices(receive, "HUBER-2", "mixed")
    receive(mr_instance("MEIER-1", "mixed", "other", 1, size=32))
    embed_all(settings, database)
    with database.transaction() as connection:
        for study, given in (
            ("a", ["glioma"]),
            ("c", ["follow-up", "glioma"]),
            ("mixed", ["x", "y"]),
            ("moved", ["Excluded: motion", "glioma"]),
        ):
            assert labels.replace(connection, mr_instance("", study).StudyInstanceUID, given)
    # A slice whose header was corrected since, and a study that waits for a worker.
    receive(mr_instance("MEIER-1", "a", "t2", 1, size=32, ImagePositionPatient=["-120", "-120", "6"], StudyID="2"))
    slices(receive, "HUBER-2", "waiting")

    out = tmp_path / "studies.csv"
    done = pacs_cbir(environment, "dataset", "database", str(out))
    assert done.returncode == 0, done.stderr
    assert "localiser" in done.stdout
    assert "1 series wait for a worker" in done.stdout
    assert "1 studies that hold several patients" in done.stdout
    assert "without label: 1 studies that have several" in done.stdout
    assert "left out: 1 studies labelled 'Excluded: motion'" in done.stdout

    manifest = read_manifest(out)
    written = out.read_text()
    for identity in ("MEIER", "HUBER", "Test^", "19600101", "20240102", str(mr_instance("", "a").StudyInstanceUID)):
        assert identity not in written
    owners = {row.study: row.owner for row in manifest.rows}
    assert len(owners) == 5
    assert len(set(owners.values())) == 4
    assert all(row.patient for row in manifest.rows)
    assert [row.label for row in manifest.rows].count("glioma") == 3
    assert {row.label for row in manifest.rows} == {"glioma", None}
    stacks = load_stacks(manifest, Preprocessing(size=32))
    assert [(stack.sequence, len(stack.pixels)) for stack in stacks] == [("T2", 3)] * 5

    # The same patient keeps one pseudonym, and no one else can make it.
    key = settings.data_dir / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    rows, _ = database_rows(settings, database)
    assert {row.study: row.owner for row in rows} == owners
    key.unlink()
    others, _ = database_rows(settings, database)
    assert not {row.patient for row in others} & {row.patient for row in rows}
    key.write_bytes(b"short")
    with pytest.raises(DiskUnavailable, match="damaged"):
        database_rows(settings, database)


def test_rows_say_what_the_headers_say_of_the_body(settings: Settings, database: Database, receive: Receive) -> None:
    slices(receive, "MEIER-1", "a", BodyPartExamined="HEAD")
    slices(receive, "HUBER-2", "b", BodyPartExamined="KNEE")
    for number in range(1, 7):
        position = ["-120", "-120", str(6 * (number % 3))]
        part = "HEAD" if number < 4 else "KNEE"
        receive(mr_instance("HUBER-2", "c", "t2", number, size=32, ImagePositionPatient=position,
                            EchoNumbers=number // 4, BodyPartExamined=part))  # fmt: skip
    embed_all(settings, database)
    rows, _ = database_rows(settings, database)
    assert [row.body_part for row in rows] == ["BRAIN"] * 3 + ["KNEE"] * 3 + [None] * 6


def test_a_series_of_which_pixel_data_has_left_is_no_part_of_a_manifest(
    settings: Settings, database: Database, receive: Receive
) -> None:
    slices(receive, "MEIER-1", "a")
    slices(receive, "MEIER-1", "b")
    embed_all(settings, database)
    let_go(database, settings, mr_instance("", "a", "t2", 2).SOPInstanceUID)
    rows, notes = database_rows(settings, database)
    assert len(rows) == 3
    assert any("1 series whose pixel data is no longer here" in note for note in notes)
    let_go(database, settings)
    with pytest.raises(ManifestError, match=r"(?s)nothing of what is embedded can be listed.*2 series.*RETENTION"):
        database_rows(settings, database)
