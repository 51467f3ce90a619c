"""A research set leaves the site: of nobody, the same every time, gone on with, and trained from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from arriving import Receive
from disks import small_disk
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, UltrasoundImageStorage
from rich.console import Console
from rows import add_series
from running import pacs_cbir
from sqlalchemy import update
from stored import let_go

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.errors import DiskUnavailable, InvalidQuery, SettingsError
from pacs_cbir.export import run as run_module
from pacs_cbir.export.query import read_order
from pacs_cbir.export.run import export
from pacs_cbir.learn.manifest_file import read_manifest
from pacs_cbir.learn.stacks import load_stacks
from pacs_cbir.settings import Settings
from pacs_cbir.store import labels
from pacs_cbir.store.exportable import series_to_export
from pacs_cbir.store.pseudonyms import site_pseudonyms
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances as instances_table
from pacs_cbir.worker import Worker
from tests.dicom_factory import composite, mr_instance, uid

PLAIN = read_order("Modality=MR", retain_longitudinal=False, clean_pixel=False)


def slices(
    receive: Receive, patient: str, study: str, series: str = "t2", *, spacing: int = 6, size: int = 32, **more: object
) -> None:
    for number in (1, 2, 3):
        position = ["-120", "-120", str(spacing * number)]
        receive(mr_instance(patient, study, series, number, size=size, ImagePositionPatient=position, **more))


def embed_all(settings: Settings, database: Database) -> None:
    with Decoder(60, 4096) as decoder:
        worker = Worker(settings, database, decoder)
        while worker.work_once():
            pass


def label(database: Database, study: str, *given: str) -> None:
    with database.transaction() as connection:
        assert labels.replace(connection, uid(study), given)


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def instances(out: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(out.rglob("*.dcm"))]


def report(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "report.json").read_text())
    return found


def reasons(out: Path) -> dict[str, str]:
    return {one["series"]: one["reason"] for one in report(out)["not_exported"]}  # type: ignore[attr-defined]


def test_a_set_by_the_command_names_nobody_and_can_be_trained_from(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path, environment: dict[str, str]
) -> None:
    receive(composite(SecondaryCaptureImageStorage, "OT", PatientID="MEIER-1", StudyInstanceUID=uid("a")))
    slices(receive, "MEIER-1", "a")
    slices(receive, "MEIER-1", "b", StudyDate="20240301")
    slices(receive, "HUBER-2", "c", AccessionNumber="ACC-4711")
    slices(receive, "HUBER-2", "c", "thin", spacing=1)
    slices(receive, "HUBER-2", "moved")
    embed_all(settings, database)
    label(database, "a", "glioma")
    label(database, "moved", "excluded: consent withdrawn")

    out = tmp_path / "research"
    order = ("--query", "StudyDate=20240101-", "--profile", "basic", "--retain-longitudinal")
    done = pacs_cbir(environment, "export", *order, str(out))
    assert done.returncode == 3, done.stderr
    assert "9 instances of 3 series exported, 3 series not" in done.stdout
    assert "a face could be told" in done.stdout
    assert "Secondary Capture" in done.stdout
    assert "a label keeps its study out" in done.stdout
    assert b"consent withdrawn" not in b"".join(content(out).values())
    assert uid("c", "thin") in done.stdout

    written = b"".join(content(out).values()) + " ".join(content(out)).encode()
    secrets = ["MEIER", "HUBER", "Test^", "19600101", "20240102", "20240301", "ACC-4711", "Test"]
    secrets += [uid(study) for study in ("a", "b", "c", "moved")] + [uid("a", "t2"), uid("a", "t2", 1)]
    assert [secret for secret in secrets if secret.encode() in written] == []
    pseudonyms = site_pseudonyms(settings)
    assert set(reasons(out)) == {
        pseudonyms.uid(series) for series in (uid("c", "thin"), uid("moved", "t2"), uid("study", "OT"))
    }

    made = instances(out)
    dates = {ds.StudyInstanceUID: ds.StudyDate for ds in made}
    first, second = (datetime.strptime(dates[pseudonyms.uid(uid(study))], "%Y%m%d") for study in ("a", "b"))
    assert first < datetime(2024, 1, 2)
    assert second - first == datetime(2024, 3, 1) - datetime(2024, 1, 2)
    manifest = read_manifest(out / "manifest.csv")
    assert {row.patient for row in manifest.rows} == {ds.PatientID for ds in made}
    assert {row.study for row in manifest.rows} == set(dates)
    assert {row.label for row in manifest.rows} == {"glioma", None}
    stacks = load_stacks(manifest, Preprocessing(size=32))
    assert [(stack.sequence, len(stack.pixels)) for stack in stacks] == [("T2", 3)] * 3

    # What left can come back: the service takes it in, embeds it, and knows it for another patient's.
    for ds in made:
        receive(ds)
    embed_all(settings, database)
    with database.transaction() as connection:
        assert labels.of_study(connection, pseudonyms.uid(uid("a"))) == ()


def test_two_exports_agree_and_one_that_was_cut_off_goes_on(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patient, study in (("P1", "a"), ("P1", "b"), ("P2", "c")):
        slices(receive, patient, study)
    embed_all(settings, database)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert export(PLAIN, whole, settings, database, Console(quiet=True))

    class Killed(BaseException):
        pass

    original, calls = Decoder.run, [0]

    def dying(self: Decoder, *arguments: object) -> object:
        calls[0] += 1
        if calls[0] == 7:
            raise Killed
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "run", dying)
    with pytest.raises(Killed):
        export(PLAIN, cut, settings, database, Console(quiet=True))
    # One series is there as a whole, one in a folder that does not count yet.
    assert len(list(cut.glob("*/*/*.partial"))) == 1
    assert len(list(cut.glob("*/*/*/.export"))) == 1
    monkeypatch.setattr(Decoder, "run", original)
    assert export(PLAIN, cut, settings, database, Console(quiet=True))
    assert content(cut) == content(whole)
    # What is there already is not made again.
    before = {path: path.stat().st_mtime_ns for path in cut.rglob("*.dcm")}
    assert export(PLAIN, cut, settings, database, Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in cut.rglob("*.dcm")} == before


def test_called_again_it_follows_what_changed(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    for study in ("a", "b", "c", "d"):
        slices(receive, "P1", study)
    assert export(PLAIN, out, settings, database, Console(quiet=True))
    assert len(instances(out)) == 12
    (out / "notes.txt").write_text("the researcher's own")
    label(database, "a", "excluded")
    receive(mr_instance("P1", "b", "t2", 4, size=32, ImagePositionPatient=["-120", "-120", "24"]))
    let_go(database, settings, mr_instance("", "c", "t2", 2).SOPInstanceUID)
    receive(mr_instance("P1", "d", "t2", 1, size=32, ImagePositionPatient=["-120", "-120", "6"], EchoTime="99"))
    assert not export(PLAIN, out, settings, database, Console(quiet=True))
    pseudonyms = site_pseudonyms(settings)
    left = {
        study: [ds for ds in instances(out) if ds.StudyInstanceUID == pseudonyms.uid(uid(study))] for study in "abcd"
    }
    assert {study: len(found) for study, found in left.items()} == {"a": 0, "b": 4, "c": 0, "d": 3}
    assert {float(ds.EchoTime) for ds in left["d"]} == {99.0, 100.0}
    assert reasons(out) == {
        pseudonyms.uid(uid("a", "t2")): "a label keeps its study out: pacs-cbir label show",
        pseudonyms.uid(uid("c", "t2")): "its pixel data is no longer here: let the archive send it again",
    }
    assert (out / "notes.txt").exists()
    assert not any("no longer" in str(path) for path in out.rglob("*"))


def test_what_was_rejected_does_not_leave(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path
) -> None:
    slices(receive, "P1", "a")
    slices(receive, "P1", "b")
    rejected = {uid("a", "t2", number) for number in (1, 2, 3)} | {uid("b", "t2", 2)}
    with database.transaction() as connection:
        connection.execute(
            update(instances_table).where(instances_table.c.sop_instance_uid.in_(rejected)).values(rejected="113001")
        )
    assert not export(PLAIN, tmp_path / "set", settings, database, Console(quiet=True))
    pseudonyms = site_pseudonyms(settings)
    kept = {pseudonyms.uid(uid("b", "t2", number)) for number in (1, 3)}
    assert {ds.SOPInstanceUID for ds in instances(tmp_path / "set")} == kept
    assert reasons(tmp_path / "set") == {pseudonyms.uid(uid("a", "t2")): "all of it was rejected"}
    assert "left out: 4 instances that rejection notes took out of use" in report(tmp_path / "set")["notes"]


def test_a_series_that_changes_meanwhile_is_left_for_the_next_run(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices(receive, "P1", "a")
    slices(receive, "P2", "b")
    original = Decoder.run

    def changing(self: Decoder, function: Callable[..., object], *arguments: object) -> object:
        found = original(self, function, *arguments)
        if function is run_module.why_not:
            monkeypatch.setattr(Decoder, "run", original)
            receive(mr_instance("P1", "a", "t2", 1, size=32, ImagePositionPatient=["-120", "-120", "6"], EchoTime="9"))
        return found

    monkeypatch.setattr(Decoder, "run", changing)
    out = tmp_path / "set"
    assert not export(PLAIN, out, settings, database, Console(quiet=True))
    assert set(reasons(out).values()) == {"it changed while it was exported: run the command again"}
    assert len(instances(out)) == 3
    assert export(PLAIN, out, settings, database, Console(quiet=True))
    assert len(instances(out)) == 6


def test_two_patients_in_one_study_and_unreadable_pixels_stay(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path
) -> None:
    slices(receive, "P1", "mixed")
    slices(receive, "P2", "mixed", "other")
    slices(receive, "P1", "short", PixelData=b"\0\0")
    out = tmp_path / "set"
    assert not export(PLAIN, out, settings, database, Console(quiet=True))
    pseudonyms = site_pseudonyms(settings)
    found = reasons(out)
    assert "several patients" in found[pseudonyms.uid(uid("mixed", "t2"))]
    assert "several patients" in found[pseudonyms.uid(uid("mixed", "other"))]
    assert "cannot be decoded" in found[pseudonyms.uid(uid("short", "t2"))]
    assert instances(out) == []
    assert not (out / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "abc"),
        ("PatientSex=F", "ac"),
        ("00100040=M", "b"),
        ("label=O-RADS+4", "a"),
        ("SeriesDescription=t2+tse&fuzzymatching=true", "c"),
        ("SeriesDescription=t2+tse&fuzzymatching=false", ""),
        ("PatientSex=F&label=other&label=O-RADS 4", "a"),
        ("Modality=CT", ""),
    ],
)
def test_filters_are_those_of_the_listing(database: Database, query: str, expected: str) -> None:
    with database.transaction() as connection:
        for study, sex, description in (("a", "F", "t1"), ("b", "M", "t1"), ("c", "F", "T2 TSE")):
            attributes = {"Modality": "MR", "SeriesDescription": description}
            add_series(connection, uid(study), uid(study, "1"), study={"PatientSex": sex}, attributes=attributes)
        labels.replace(connection, uid("a"), ["O-RADS 4"])
        order = read_order(query, retain_longitudinal=False, clean_pixel=False)
        found = series_to_export(connection, order.keys, fuzzy=order.fuzzy, any_of=order.labels)
    assert [series.study_instance_uid for series in found] == [uid(study) for study in expected]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("Modality", "names and values"),
        ("Modalty=MR", "no parameter here and no DICOM attribute"),
        ("StudyDate=spring", "StudyDate accepts"),
        ("Modality=MR&Modality=CT", "given twice"),
        ("fuzzymatching=maybe", "true and false"),
        ("label=", "1 to 64 characters"),
    ],
)
def test_a_query_that_cannot_be_understood_says_so(query: str, says: str) -> None:
    with pytest.raises(InvalidQuery, match=says):
        read_order(query, retain_longitudinal=False, clean_pixel=False)


def test_a_query_that_nothing_matches_says_so(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path
) -> None:
    slices(receive, "MEIER-1", "a")
    order = read_order("StudyDate=19990101", retain_longitudinal=False, clean_pixel=False)
    with pytest.raises(InvalidQuery, match="--query: nothing that is here matches it"):
        export(order, tmp_path / "out", settings, database, Console(quiet=True))
    assert report(tmp_path / "out")["instances"] == 0


def test_other_folders_are_left_alone(settings: Settings, database: Database, receive: Receive, tmp_path: Path) -> None:
    slices(receive, "P1", "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="no empty folder"):
        export(PLAIN, tmp_path / "full", settings, database, Console(quiet=True))
    out = tmp_path / "set"
    assert export(PLAIN, out, settings, database, Console(quiet=True))
    before = content(out)
    other = read_order("Modality=MR", retain_longitudinal=True, clean_pixel=False)
    with pytest.raises(SettingsError, match="no empty folder"):
        export(other, out, settings, database, Console(quiet=True))
    lock = f"fasteners.InterProcessLock({str(out / run_module.MARK)!r})"
    hold = f"import fasteners; lock = {lock}; lock.acquire(); print(); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other_process:
        assert other_process.stdout is not None
        other_process.stdout.readline()
        with pytest.raises(SettingsError, match="another export writes"):
            export(PLAIN, out, settings, database, Console(quiet=True))
        other_process.communicate(b"\n")
    with pytest.raises(DiskUnavailable, match=r"thesis\.txt cannot be written"):
        export(PLAIN, tmp_path / "full" / "thesis.txt", settings, database, Console(quiet=True))
    assert content(out) == before


def test_a_full_disk_says_so_and_what_is_there_is_whole(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path
) -> None:
    slices(receive, "P1", "a")
    slices(receive, "P1", "b", size=128)
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(DiskUnavailable, match="No space left"):
            export(PLAIN, disk / "set", settings, database, Console(quiet=True))
        assert len({ds.StudyInstanceUID for ds in instances(disk) if ds.pixel_array.shape == (32, 32)}) == 1
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert export(PLAIN, disk / "set", settings, database, Console(quiet=True))
        assert len(instances(disk)) == 6


def test_ultrasound_leaves_with_nothing_but_its_regions(
    settings: Settings, database: Database, receive: Receive, tmp_path: Path
) -> None:
    ds = mr_instance("P1", "us", Modality="US", SOPClassUID=UltrasoundImageStorage, size=16)
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 4, 6
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 11, 13
    ds.SequenceOfUltrasoundRegions = [region]
    receive(ds)
    order = read_order("Modality=US", retain_longitudinal=False, clean_pixel=False)
    assert not export(order, tmp_path / "not", settings, database, Console(quiet=True))
    assert instances(tmp_path / "not") == []
    assert "use --clean-pixel" in next(iter(reasons(tmp_path / "not").values()))
    order = read_order("Modality=US", retain_longitudinal=False, clean_pixel=True)
    assert export(order, tmp_path / "set", settings, database, Console(quiet=True))
    (made,) = instances(tmp_path / "set")
    after = made.pixel_array
    assert (after[6:14, 4:12] == ds.pixel_array[6:14, 4:12]).all()
    assert (after > 0).sum() <= 64
    assert made.BurnedInAnnotation == "NO"
