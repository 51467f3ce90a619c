"""What arrives is kept bit by bit, once, and under the right patient."""

from __future__ import annotations

import hashlib

import pytest
from dicom_factory import composite, encoded, mr_instance, uid
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    RLELossless,
)
from pydicom.uid import (
    EnhancedSRStorage as ReportStorage,
)
from running import scp_thread
from scu import association, store, store_bytes
from sqlalchemy import delete
from stored import data_set, everything, files, rows

from pacs_cbir.settings import Settings
from pacs_cbir.store import files as store_files
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, jobs, patients, series, studies, study_patients


def send(settings: Settings, *sent: object, calling: str = "PEER") -> list[int | None]:
    """The statuses that answer these instances, over one association."""
    contexts = sorted({(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in sent})
    with association(settings, contexts, calling=calling) as asked:
        return [store(asked, ds) for ds in sent]


def no_jobs(database: Database) -> None:
    """As if a worker had been there."""
    with database.transaction() as connection:
        connection.execute(delete(jobs))


@pytest.mark.parametrize(
    "transfer_syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: UID(uid).name,
)
def test_a_data_set_is_kept_bit_by_bit(scp: Settings, database: Database, transfer_syntax: str) -> None:
    ds = mr_instance(size=300)
    sent = encoded(ds, transfer_syntax)
    with association(scp, [(MRImageStorage, transfer_syntax)]) as asked:
        assert store_bytes(asked, sent, MRImageStorage, ds.SOPInstanceUID) == 0x0000
    (row,) = rows(database, instances)
    kept = scp.instances_dir / row.file
    assert files(scp) == [kept]
    assert data_set(kept) == sent
    assert row.transfer_syntax_uid == transfer_syntax
    assert row.sop_instance_uid == ds.SOPInstanceUID
    assert (row.file_size, row.file_sha256) == (kept.stat().st_size, hashlib.sha256(kept.read_bytes()).digest())
    assert len(rows(database, jobs)) == 1


@pytest.mark.parametrize(
    "transfer_syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: UID(uid).name
)
def test_compressed_frames_are_kept_bit_by_bit(scp: Settings, database: Database, transfer_syntax: str) -> None:
    # Nobody decodes them on the way.
    ds = mr_instance(PixelData=encapsulate([b"\xff\xd8 no picture at all \xff\xd9" * 1000]))
    ds["PixelData"].is_undefined_length = True
    sent = encoded(ds, transfer_syntax)
    with association(scp, [(MRImageStorage, transfer_syntax)]) as asked:
        assert store_bytes(asked, sent, MRImageStorage, ds.SOPInstanceUID) == 0x0000
    (row,) = rows(database, instances)
    assert data_set(scp.instances_dir / row.file) == sent
    assert row.transfer_syntax_uid == transfer_syntax


def test_the_same_instance_again_changes_nothing(scp: Settings, database: Database) -> None:
    ds = mr_instance()
    assert send(scp, ds) == [0x0000]
    no_jobs(database)
    before = everything(database, scp)
    assert send(scp, ds, ds) == [0x0000, 0x0000]
    assert send(scp, ds, calling="OTHER") == [0x0000]
    assert everything(database, scp) == before


def test_a_corrected_patient_updates_rows_and_file_without_a_job(scp: Settings, database: Database) -> None:
    assert send(scp, mr_instance("WRONG", PatientName="Wrong^Name")) == [0x0000]
    no_jobs(database)
    (before,) = files(scp)
    corrected = mr_instance("RIGHT", PatientName="Right^Name", AccessionNumber="A1")
    assert send(scp, corrected) == [0x0000]
    (study,) = rows(database, studies)
    assert study.attributes["PatientName"] == ["Right^Name"]
    assert study.attributes["PatientID"] == ["RIGHT"]
    assert study.attributes["AccessionNumber"] == ["A1"]
    (row,) = rows(database, instances)
    assert files(scp) == [scp.instances_dir / row.file]
    assert files(scp) != [before]
    assert data_set(scp.instances_dir / row.file) == encoded(corrected)
    assert rows(database, jobs) == []


@pytest.mark.parametrize(
    "change",
    [
        {"PixelData": b"\x05\x00" * 256},
        {"ImagePositionPatient": ["-120", "-120", "99"]},
        {"EchoTime": "12"},
        {"RescaleSlope": "2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_pixels_geometry_or_acquisition_replace_and_embed_anew(
    scp: Settings, database: Database, change: dict[str, object]
) -> None:
    assert send(scp, mr_instance(), mr_instance(number=2)) == [0x0000, 0x0000]
    no_jobs(database)
    other = mr_instance(**change)
    assert send(scp, other) == [0x0000]
    kept = {row.sop_instance_uid: scp.instances_dir / row.file for row in rows(database, instances)}
    assert data_set(kept[other.SOPInstanceUID]) == encoded(other)
    assert sorted(files(scp)) == sorted(kept.values())
    (job,) = rows(database, jobs)
    assert [job.series_id] == [row.id for row in rows(database, series)]


def test_an_instance_that_moves_to_another_series_leaves_both_to_be_embedded(scp: Settings, database: Database) -> None:
    assert send(scp, mr_instance(), mr_instance(number=2)) == [0x0000, 0x0000]
    no_jobs(database)
    assert send(scp, mr_instance(SeriesInstanceUID=uid("another"))) == [0x0000]
    assert len(rows(database, instances)) == len(files(scp)) == 2
    assert {job.series_id for job in rows(database, jobs)} == {row.id for row in rows(database, series)}
    assert len(rows(database, series)) == 2


def test_a_file_that_was_lost_comes_back_with_its_instance(scp: Settings, database: Database) -> None:
    ds = mr_instance()
    assert send(scp, ds) == [0x0000]
    files(scp)[0].unlink()
    assert send(scp, ds) == [0x0000]
    (row,) = rows(database, instances)
    assert data_set(scp.instances_dir / row.file) == encoded(ds)


def test_a_stored_file_that_became_unreadable_is_replaced(scp: Settings, database: Database) -> None:
    assert send(scp, mr_instance()) == [0x0000]
    files(scp)[0].write_bytes(b"the disk forgot what was here")
    later = mr_instance(PatientName="Test^Later")
    assert send(scp, later) == [0x0000]
    assert [data_set(path) for path in files(scp)] == [encoded(later)]


def test_what_is_no_mr_image_is_stored_too(scp: Settings, database: Database) -> None:
    others = [
        composite(ReportStorage, "SR", CompletionFlag="COMPLETE", ValueType="CONTAINER"),
        composite(KeyObjectSelectionDocumentStorage, "KO"),
        composite(EncapsulatedPDFStorage, "DOC", EncapsulatedDocument=b"%PDF-1.4 nothing", DocumentTitle="Letter"),
        mr_instance(series="ct", SOPClassUID=CTImageStorage, Modality="CT", SOPInstanceUID=uid("ct")),
    ]
    assert send(scp, *others) == [0x0000] * 4
    kept = {row.sop_instance_uid: row for row in rows(database, instances)}
    for ds in others:
        row = kept[ds.SOPInstanceUID]
        assert row.sop_class_uid == ds.SOPClassUID
        assert data_set(scp.instances_dir / row.file) == encoded(ds)
    assert len(rows(database, studies)) == 1


def test_the_default_issuer_is_the_sending_peers(settings: Settings, database: Database) -> None:
    issuers = settings.model_copy(update={"default_issuers": {"PACS_N": "NORTH", "PACS_S": "SOUTH"}})
    with scp_thread(issuers, database):
        assert send(issuers, mr_instance("7", study="n"), calling="PACS_N") == [0x0000]
        assert send(issuers, mr_instance(" 7 ", study="n2"), calling="PACS_N") == [0x0000]
        assert send(issuers, mr_instance("7", study="s"), calling="PACS_S") == [0x0000]
        assert send(issuers, mr_instance("7", study="e"), calling="ELSE") == [0x0000]
        assert send(issuers, mr_instance("7", study="o", IssuerOfPatientID="OWN "), calling="PACS_S") == [0x0000]
    found = [(row.issuer_of_patient_id, row.patient_id) for row in rows(database, patients)]
    assert found == [("NORTH", "7"), ("SOUTH", "7"), ("", "7"), ("OWN", "7")]


@pytest.mark.parametrize("empty", ["", "   ", None])
def test_a_study_without_patient_id_is_a_patient_of_its_own(
    scp: Settings, database: Database, empty: str | None
) -> None:
    sent = [mr_instance(study=study, number=number, PatientID=empty) for study in ("a", "b") for number in (1, 2)]
    assert send(scp, *sent) == [0x0000] * 4
    assert [(row.patient_id, row.study_instance_uid) for row in rows(database, patients)] == [
        ("", uid("a")),
        ("", uid("b")),
    ]
    assert len(rows(database, study_patients)) == 2


def test_two_patients_under_one_study_are_both_kept(scp: Settings, database: Database) -> None:
    assert send(scp, mr_instance("P1", number=1), mr_instance("P2", number=2)) == [0x0000, 0x0000]
    assert len(rows(database, studies)) == 1
    assert len(rows(database, instances)) == 2
    assert [row.patient_id for row in rows(database, patients)] == ["P1", "P2"]
    assert len(rows(database, study_patients)) == 2


# Specific Character Set, PatientName, and the bytes that are its value.
NAMES = [
    ("ISO_IR 100", "Müller^Jörg", "Müller^Jörg".encode("latin-1")),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东", "Wang^XiaoDong=王^小东".encode()),
    ("GB18030", "Wang^XiaoDong=王^小东", "Wang^XiaoDong=王^小东".encode("gb18030")),
    ("ISO_IR 144", "Люкceмбypг", "Люкceмбypг".encode("iso8859-5")),
    (
        # PS3.5 H.3.1, example 1.
        "\\ISO 2022 IR 87",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    (
        # PS3.5 I.2.
        "\\ISO 2022 IR 149",
        "Hong^Gildong=洪^吉洞=홍^길동",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
]


def test_names_are_decoded_by_their_character_set(scp: Settings, database: Database) -> None:
    ds = mr_instance()
    with association(scp) as asked:
        for character_set, name, written in NAMES:
            placeholder = "X" * (len(written) + len(written) % 2)
            sent = encoded(mr_instance(SpecificCharacterSet=character_set.split("\\"), PatientName=placeholder))
            assert sent.count(placeholder.encode()) == 1
            sent = sent.replace(placeholder.encode(), written.ljust(len(placeholder)))
            assert store_bytes(asked, sent, MRImageStorage, ds.SOPInstanceUID) == 0x0000
            (study,) = rows(database, studies)
            assert study.attributes["PatientName"] == [name]
            assert [data_set(path) for path in files(scp)] == [sent]


def test_the_sweep_removes_what_nothing_refers_to_and_nothing_else(scp: Settings, database: Database) -> None:
    import os
    import time

    assert send(scp, mr_instance(), mr_instance(number=2)) == [0x0000, 0x0000]
    kept = files(scp)
    old, young = [], []
    for group, name in ((old, "old"), (young, "young")):
        for folder in (scp.incoming_dir, scp.instances_dir / "a7"):
            path = folder / f"{name}.dcm"
            path.write_bytes(b"left over")
            group.append(path)
    long_ago = time.time() - 2 * store_files.ORPHAN_SECONDS
    for path in old + kept:
        os.utime(path, (long_ago, long_ago))
    assert store_files.sweep(scp, database) == 2
    assert sorted(files(scp)) == sorted(kept + young)
