"""What has identifiers is stored, whatever its pixels are; the worker says what became of it, and goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dicom_factory import encoded, mr_instance
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless
from scu import association, store
from stored import data_set, rows

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, jobs, series, stacks
from pacs_cbir.worker import Worker

SLICES = 6


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(60, 4096) as made:
        yield made


def broken_stream(number: int) -> Dataset:
    ds = mr_instance(number=number)
    ds.file_meta.TransferSyntaxUID = JPEGLSLossless
    ds.PixelData = encapsulate([b"\xff\xd8\xff" + bytes(range(256)) * 8])
    ds["PixelData"].is_undefined_length = True
    return ds


# What is wrong → an instance of the bad series, and what the reason for it says.
BAD = {
    "no pixel data": (lambda number: mr_instance(number=number, PixelData=None), "pixel"),
    "wrong bits": (lambda number: mr_instance(number=number, BitsStored=24, HighBit=23), "bits"),
    "fewer pixels than rows": (lambda number: mr_instance(number=number, Rows=4000), "pixel"),
    "a broken stream": (broken_stream, "decod"),
    "no geometry": (lambda number: mr_instance(number=number, ImagePositionPatient=None), "position"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_pixels_are_stored_and_given_up_with_a_reason(
    scp: Settings, database: Database, decoder: Decoder, what: str
) -> None:
    make, reason = BAD[what]
    bad = [make(number) for number in range(SLICES)]
    good = [mr_instance(series="good", number=number, size=32) for number in range(SLICES)]
    contexts = sorted({(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in bad + good})
    with association(scp, contexts) as asked:
        assert [store(asked, ds) for ds in bad + good] == [0x0000] * len(bad + good)
    kept = {row.sop_instance_uid: data_set(scp.instances_dir / row.file) for row in rows(database, instances)}
    assert kept == {ds.SOPInstanceUID: encoded(ds, ds.file_meta.TransferSyntaxUID) for ds in bad + good}

    worker = Worker(scp, database, decoder)
    while worker.work_once():
        pass
    ids = {row.series_instance_uid: row.id for row in rows(database, series)}
    bad_id, good_id = (ids[some[0].SeriesInstanceUID] for some in (bad, good))
    assert [row.not_embedded for row in rows(database, stacks) if row.series_id == good_id] == [None]
    reasons = [row.not_embedded for row in rows(database, stacks) if row.series_id == bad_id]
    reasons += [job.error for job in rows(database, jobs) if job.series_id == bad_id]
    assert {job.status for job in rows(database, jobs)} <= {"parked"}
    assert reasons
    assert all(reasons)
    assert reason.lower() in " ".join(reasons).lower()
    assert not any(str(ds.PatientName) in text or ds.PatientID in text for ds in bad for text in reasons)


def test_slices_of_different_sizes_are_no_one_stack(scp: Settings, database: Database, decoder: Decoder) -> None:
    sent = [mr_instance(number=number, size=32 + 2 * (number % 2)) for number in range(2 * SLICES)]
    with association(scp) as asked:
        assert [store(asked, ds) for ds in sent] == [0x0000] * len(sent)
    worker = Worker(scp, database, decoder)
    while worker.work_once():
        pass
    assert rows(database, jobs) == []
    by_size = {frozenset(ds.SOPInstanceUID for ds in sent if ds.Rows == size) for size in (32, 34)}
    assert {frozenset(row.sop_instance_uids) for row in rows(database, stacks)} == by_size
