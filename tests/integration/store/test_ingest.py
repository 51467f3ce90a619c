"""What an arriving instance leaves in rows, jobs and files."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from sqlalchemy import text
from stack_rows import do_jobs
from stored import let_go

from pacs_cbir.errors import DatabaseUnavailable, DiskUnavailable, InvalidIdentifier, NotDicom, WrongIdentifier
from pacs_cbir.settings import Settings
from pacs_cbir.store import files
from pacs_cbir.store.ingest import Outcome, Source, ingest
from pacs_cbir.store.session import Database

_number = itertools.count()
PEER = Source("PACS")


def mr_image(uid: str = "1.2.1.1", *, study: str = "1.2", series: str = "1.2.1", **attributes: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.PatientID, ds.PatientName, ds.Modality = "42", "Doe^Jane", "MR"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 4, 6, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.arange(24, dtype=np.uint16).tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture
def receive(database: Database, settings: Settings) -> Callable[..., Outcome]:
    """Writes a transfer as the SCP does, and ingests it."""

    def receive_one(ds: Dataset | bytes, source: Source = PEER, **changed: Any) -> Outcome:
        path = settings.incoming_dir / f"{next(_number)}.part"
        if isinstance(ds, bytes):
            path.write_bytes(ds)
        else:
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.save_as(path, enforce_file_format=True)
        try:
            return ingest(path, source, database, settings.model_copy(update=changed))
        finally:
            assert not path.exists()

    return receive_one


def table(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def counts(database: Database) -> tuple[int, ...]:
    names = ("patients", "studies", "series", "instances", "jobs")
    return tuple(table(database, f"SELECT count(*) FROM {name}")[0][0] for name in names)


def stored(settings: Settings) -> set[str]:
    return {str(path.relative_to(settings.instances_dir)) for path in settings.instances_dir.rglob("*.dcm")}


def files_are_the_rows(database: Database, settings: Settings) -> bool:
    return stored(settings) == {row[0] for row in table(database, "SELECT file FROM instances")}


def do_all_jobs(database: Database, settings: Settings) -> None:
    """As a worker does that finds nothing to embed."""
    do_jobs(database, settings, lambda *_: [])


def test_a_first_instance(database: Database, settings: Settings, receive: Callable[..., Outcome]) -> None:
    assert receive(mr_image(SeriesDescription="T1 ax")) is Outcome.STORED
    assert counts(database) == (1, 1, 1, 1, 1)
    (row,) = table(
        database,
        """SELECT patients.patient_id, issuer_of_patient_id, studies.study_instance_uid, series_instance_uid,
                  sop_instance_uid, series.attributes->'SeriesDescription', sop_class_uid, transfer_syntax_uid,
                  calling_ae_title, file_size
           FROM instances JOIN series ON series.id = series_id JOIN studies ON studies.id = study_id
           JOIN study_patients USING (study_id) JOIN patients ON patients.id = study_patients.patient_id""",
    )
    size = next(settings.instances_dir.rglob("*.dcm")).stat().st_size
    syntax = str(ExplicitVRLittleEndian)
    assert row == ("42", "", "1.2", "1.2.1", "1.2.1.1", ["T1 ax"], str(MRImageStorage), syntax, "PACS", size)
    assert table(database, "SELECT status, attempts FROM jobs") == [("waiting", 0)]
    assert files_are_the_rows(database, settings)


def test_the_same_again_changes_nothing(
    database: Database, settings: Settings, receive: Callable[..., Outcome]
) -> None:
    receive(mr_image())
    do_all_jobs(database, settings)
    before = stored(settings), [table(database, f"SELECT * FROM {name}") for name in ("instances", "series", "studies")]
    assert receive(mr_image()) is Outcome.UNCHANGED
    assert before == (
        stored(settings),
        [table(database, f"SELECT * FROM {name}") for name in ("instances", "series", "studies")],
    )
    assert counts(database) == (1, 1, 1, 1, 0)


def test_a_corrected_header_updates_the_rows_and_embeds_nothing(
    database: Database, settings: Settings, receive: Callable[..., Outcome]
) -> None:
    receive(mr_image())
    do_all_jobs(database, settings)
    before = stored(settings)
    assert receive(mr_image(PatientName="Roe^Jane", StudyDescription="head")) is Outcome.HEADER_UPDATED
    assert table(database, "SELECT attributes->'PatientName', attributes->'StudyDescription' FROM studies") == [
        (["Roe^Jane"], ["head"])
    ]
    assert counts(database) == (1, 1, 1, 1, 0)
    assert files_are_the_rows(database, settings)
    assert not stored(settings) & before, "a name is never used twice"


def test_a_study_loses_nothing_to_what_is_empty_or_stray(database: Database, receive: Callable[..., Outcome]) -> None:
    def said() -> dict[str, list[str]]:
        ((attributes,),) = table(database, "SELECT attributes FROM studies")
        assert isinstance(attributes, dict)
        return attributes

    receive(mr_image("1.2.1.1", StudyDescription="MR head", PatientSex="F", PatientName="One", AccessionNumber="7"))
    receive(mr_image("1.2.1.2", StudyDescription="", PatientSex=None, PatientName="", AccessionNumber="8"))
    assert (said()["StudyDescription"], said()["PatientSex"], said()["PatientName"]) == (["MR head"], ["F"], ["One"])
    assert said()["AccessionNumber"] == ["8"]
    receive(mr_image("1.2.1.3", PatientID="other", PatientSex=None, PatientName="Two", StudyDescription="MR foot"))
    assert (said()["StudyDescription"], said()["PatientName"]) == (["MR head"], ["One"])
    for number in (1, 2):
        receive(mr_image(f"1.2.1.{number}", PatientID="other", PatientSex=None, PatientName="Two"))
    assert (said()["StudyDescription"], said()["PatientName"]) == (["MR head"], ["Two"])
    assert "PatientSex" not in said()


@pytest.mark.parametrize(
    "changed",
    [
        {"PixelData": np.arange(1, 25, dtype=np.uint16).tobytes()},
        {"ImagePositionPatient": [0, 0, 7]},
        {"EchoTime": 90},
    ],
    ids=["pixels", "geometry", "acquisition"],
)
def test_other_content_replaces_and_embeds_anew(
    database: Database, settings: Settings, receive: Callable[..., Outcome], changed: dict[str, object]
) -> None:
    receive(mr_image())
    do_all_jobs(database, settings)
    assert receive(mr_image(**changed)) is Outcome.REPLACED
    assert counts(database) == (1, 1, 1, 1, 1)
    assert files_are_the_rows(database, settings)


def test_a_file_that_is_gone_is_replaced(
    database: Database, settings: Settings, receive: Callable[..., Outcome]
) -> None:
    receive(mr_image())
    next(settings.instances_dir.rglob("*.dcm")).unlink()
    assert receive(mr_image()) is Outcome.REPLACED
    assert files_are_the_rows(database, settings)


def test_pixel_data_that_has_left_is_taken_again(
    database: Database, settings: Settings, receive: Callable[..., Outcome]
) -> None:
    receive(mr_image())
    let_go(database, settings)
    assert stored(settings) == set()
    assert receive(mr_image()) is Outcome.RESTORED
    assert files_are_the_rows(database, settings)


@pytest.mark.parametrize(("study", "series"), [("1.2", "1.2.2"), ("1.3", "1.3.1")])
def test_an_instance_that_moves_to_another_series(
    database: Database, settings: Settings, receive: Callable[..., Outcome], study: str, series: str
) -> None:
    receive(mr_image())
    receive(mr_image("1.2.1.2"))
    do_all_jobs(database, settings)
    assert receive(mr_image(study=study, series=series)) is Outcome.REPLACED
    jobs_of = "SELECT series_instance_uid FROM jobs JOIN series ON series.id = series_id ORDER BY 1"
    assert table(database, jobs_of) == [("1.2.1",), (series,)]
    do_all_jobs(database, settings)
    all_series = "SELECT series_instance_uid FROM series ORDER BY 1"
    assert table(database, all_series) == [("1.2.1",), (series,)]
    receive(mr_image("1.2.1.2", study=study, series=series))
    do_all_jobs(database, settings)
    assert table(database, all_series) == [(series,)], "the emptied series is gone"
    assert files_are_the_rows(database, settings)


def test_patients(database: Database, receive: Callable[..., Outcome]) -> None:
    """(issuer, ID), trimmed; the peer's default issuer where there is none; without an ID a study's own."""
    issuers = {"default_issuers": {"PACS": "HOSPITAL"}}
    receive(mr_image("1", study="1.1", PatientID=" 42 "), **issuers)
    receive(mr_image("2", study="1.2", PatientID="42", IssuerOfPatientID="HOSPITAL"), **issuers)
    receive(mr_image("3", study="1.3", PatientID="42", IssuerOfPatientID="CLINIC"), **issuers)
    receive(mr_image("4", study="1.4", PatientID="42"), Source("OTHER"), **issuers)
    receive(mr_image("5", study="1.5", PatientID=""), **issuers)
    receive(mr_image("6", study="1.6", PatientID="  "), **issuers)
    receive(mr_image("7", study="1.6", PatientID=""), **issuers)
    found = table(
        database,
        """SELECT array_agg(studies.study_instance_uid ORDER BY 1), issuer_of_patient_id, patients.patient_id
           FROM patients JOIN study_patients ON patients.id = study_patients.patient_id
           JOIN studies ON studies.id = study_id GROUP BY patients.id ORDER BY 1""",
    )
    assert found == [
        (["1.1", "1.2"], "HOSPITAL", "42"),
        (["1.3"], "CLINIC", "42"),
        (["1.4"], "", "42"),
        (["1.5"], "", ""),
        (["1.6"], "", ""),
    ]


def test_two_patients_under_one_study_are_both_kept(database: Database, receive: Callable[..., Outcome]) -> None:
    receive(mr_image("1", PatientID="A"))
    receive(mr_image("2", PatientID="B"))
    assert table(database, "SELECT count(*) FROM study_patients") == [(2,)]
    assert counts(database) == (2, 1, 1, 2, 1)


def test_eight_associations_bring_one_study(
    database: Database, settings: Settings, receive: Callable[..., Outcome]
) -> None:
    """Each brings every third instance twice over, so that they meet."""
    arriving = [(f"1.2.{series}.{number}", f"1.2.{series}") for series in range(1, 4) for number in range(8)]

    def bring(worker: int) -> list[Outcome]:
        mine = arriving[worker % 3 :: 3]
        return [receive(mr_image(uid, series=series)) for uid, series in mine]

    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(outcome for found in pool.map(bring, range(8)) for outcome in found)
    assert outcomes == {Outcome.STORED: 24, Outcome.UNCHANGED: 40}
    assert counts(database) == (1, 1, 3, 24, 3)
    assert files_are_the_rows(database, settings)


def test_a_resent_instance_does_not_undo_a_later_ones_correction(
    database: Database, receive: Callable[..., Outcome]
) -> None:
    first = mr_image("1.1", PatientName="Before^A")
    receive(first)
    receive(mr_image("1.2", PatientName="After^B"))
    assert receive(first) is Outcome.UNCHANGED
    assert table(database, "SELECT attributes->'PatientName'->>0 FROM studies") == [("After^B",)]


def test_one_instance_under_two_studies_at_once_leaves_a_job_for_both_and_no_empty_study(
    database: Database, settings: Settings, receive: Callable[..., Outcome]
) -> None:
    for attempt in range(10):
        studies = [f"1.{attempt}.{side}" for side in (1, 2)]
        instances = [mr_image(f"9.{attempt}", study=study, series=f"{study}.1") for study in studies]
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(receive, instances)) == [Outcome.REPLACED, Outcome.STORED]
    assert table(database, "SELECT count(*) FROM jobs") == [(20,)]
    do_all_jobs(database, settings)
    assert table(database, "SELECT count(*) FROM series") == [(10,)]
    assert table(database, "SELECT count(*) FROM studies") == [(10,)]


def test_eight_associations_bring_one_patients_studies(database: Database, receive: Callable[..., Outcome]) -> None:
    def bring(worker: int) -> None:
        for number in range(4):
            uid = f"1.{worker}.{number}"
            receive(mr_image(uid, study=f"1.{worker}", series=f"1.{worker}.1", PatientID=str(number % 2)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bring, range(8)))
    assert counts(database) == (2, 8, 8, 32, 8)


@pytest.mark.parametrize(
    ("content", "source", "error"),
    [
        (b"", PEER, NotDicom),
        (b"no DICOM" * 100, PEER, NotDicom),
        (mr_image(series="1.02..3"), PEER, InvalidIdentifier),
        (mr_image(study=""), PEER, InvalidIdentifier),
        (mr_image(), Source("PACS", sop_instance_uid="1.2.1.9"), WrongIdentifier),
        (mr_image(), Source("PACS", sop_class_uid="1.2.840.10008.5.1.4.1.1.2"), WrongIdentifier),
    ],
)
def test_what_is_refused_leaves_nothing(  # noqa: PLR0917 - fixtures and cases
    database: Database,
    settings: Settings,
    receive: Callable[..., Outcome],
    content: Dataset | bytes,
    source: Source,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        receive(content, source)
    assert counts(database) == (0, 0, 0, 0, 0)
    assert stored(settings) == set()


def test_a_disk_that_fails_leaves_no_row(
    database: Database, settings: Settings, receive: Callable[..., Outcome], tmp_path: Path
) -> None:
    settings.instances_dir.rename(tmp_path / "away")
    with pytest.raises(DiskUnavailable):
        receive(mr_image())
    assert counts(database) == (0, 0, 0, 0, 0)
    (tmp_path / "away").rename(settings.instances_dir)
    assert receive(mr_image()) is Outcome.STORED


@pytest.mark.parametrize("when", ["INSERT ON instances", "INSERT ON jobs", "commit"])
def test_a_database_that_fails_leaves_no_file(
    database: Database, settings: Settings, owner_url: str, receive: Callable[..., Outcome], when: str
) -> None:
    """The connection is cut in the middle of the transaction: after the file was kept, and at the commit itself."""
    trigger = (
        "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        if when == "commit"
        else f"CREATE TRIGGER cut AFTER {when} FOR EACH ROW"
    )
    owner = Database(owner_url, role=None, pool_size=1)
    with owner.transaction() as connection:
        connection.execute(
            text("""CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                    'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'""")
        )
        connection.execute(text(f"{trigger} EXECUTE FUNCTION cut()"))
    with pytest.raises(DatabaseUnavailable):
        receive(mr_image())
    assert counts(database) == (0, 0, 0, 0, 0)
    assert stored(settings) == set()
    with owner.transaction() as connection:
        connection.execute(text(f"DROP TRIGGER cut ON {'instances' if 'instances' in when else 'jobs'}"))
    owner.close()
    assert receive(mr_image()) is Outcome.STORED
    assert files_are_the_rows(database, settings)


def test_a_database_that_is_away(settings: Settings) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", pool_size=1)
    received = settings.incoming_dir / "1.part"
    ds = mr_image()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(received, enforce_file_format=True)
    with pytest.raises(DatabaseUnavailable):
        ingest(received, PEER, away, settings)
    assert not received.exists()
    assert stored(settings) == set()


def test_settling(database: Database, receive: Callable[..., Outcome]) -> None:
    """Each instance moves the series' one job on."""
    receive(mr_image("1"), settle_seconds=10)
    receive(mr_image("2"), settle_seconds=60)
    (left,) = table(database, "SELECT extract(epoch FROM not_before - clock_timestamp())::float FROM jobs")
    assert left[0] == pytest.approx(60, abs=5)


def test_files_of_the_rows_are_bit_exact(
    database: Database, settings: Settings, receive: Callable[..., Outcome]
) -> None:
    ds = mr_image()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    original = settings.data_dir / "original"
    ds.save_as(original, enforce_file_format=True)
    receive(original.read_bytes())
    (name,) = stored(settings)
    assert (settings.instances_dir / name).read_bytes() == original.read_bytes()
    assert files.sweep(settings, database) == 0


def test_a_corrected_patient_id_takes_the_study_to_its_patient(
    database: Database, receive: Callable[..., Outcome]
) -> None:
    for uid in ("1.1", "1.2"):
        receive(mr_image(uid, PatientID="WRONG"))
    receive(mr_image("1.1", PatientID="RIGHT"))
    linked = "SELECT patient_id FROM patients WHERE id IN (SELECT patient_id FROM study_patients) ORDER BY 1"
    assert table(database, linked) == [("RIGHT",), ("WRONG",)]
    receive(mr_image("1.2", PatientID="RIGHT"))
    assert table(database, linked) == [("RIGHT",)]


def test_an_identifier_that_no_index_can_hold_is_refused_for_good(
    database: Database, receive: Callable[..., Outcome]
) -> None:
    with pytest.raises(InvalidIdentifier, match="longer than 256"):
        receive(mr_image(PatientID="x" * 300))
    assert counts(database) == (0, 0, 0, 0, 0)
