"""C-FIND with our private key: the query by example, put to a running API for those who speak DICOM alone."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
import uvicorn
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRoot
from running import listens, scp_thread, wait_until
from scu import answers, association, identifier
from served import TWO_NUMBERS, Api

from pacs_cbir.dicom import private_block as ours
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.settings import Settings
from pacs_cbir.store import jobs, labels
from pacs_cbir.store.session import Database

FIND = [(StudyRoot, ExplicitVRLittleEndian)]
EXAMPLE = {ours.EXAMPLES: ("UC", "1")}


@pytest.fixture
def api(settings: Settings, database: Database) -> Iterator[Api]:
    """The API on its port, the SCP that asks it on its own, and what a test puts behind both."""
    follower = Follower(database, settings.index_dir)
    follower.catch_up()
    app = create_app(settings, database, Searcher(database, follower), None)  # type: ignore[arg-type]  # no pixels
    server = uvicorn.Server(uvicorn.Config(app, port=settings.http_port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: listens(settings.http_port))
        with scp_thread(settings, database):
            yield Api(None, database, settings, follower, TWO_NUMBERS)  # type: ignore[arg-type]  # asked over the network
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def cohort(api: Api) -> Api:
    api.add("1", "1.1", 0, study={"PatientID": "P1", "StudyDate": "20200101"})
    api.add("1", "1.2", 0, sequence="FLAIR")
    named = {
        "PatientID": "P2",
        "PatientName": "Müller^Jörg",
        "PatientSex": "F",
        "StudyDate": "20200111",
        "PatientWeight": "70",
    }
    api.add("2", "2.1", 60, study=named)
    api.add("2", "2.2", 60, sequence="FLAIR", attributes={"Modality": "MR", "SeriesDescription": "ax FLAIR"})
    api.add("3", "3.1", 0, study={"PatientID": "P3", "PatientSex": "M"}, in_domain=False)
    api.add("4", "4.1", 0, study={"PatientID": "P1"})
    with api.database.transaction() as connection:
        labels.replace(connection, "2", ["glioma", "follow-up"])
    return api


def uids(found: list[tuple[int, Dataset]]) -> list[str]:
    return [ds.StudyInstanceUID for _, ds in found]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_similar_studies_best_first(cohort: Api, syntax: str) -> None:
    with association(cohort.settings, [(StudyRoot, syntax)]) as asked:
        status, found = answers(
            asked, identifier("STUDY", private=EXAMPLE, PatientName="", PatientWeight="", RequestingService="")
        )
    assert status == 0x0000
    assert uids(found) == ["3", "2"]
    pending, study = found[1]
    assert (pending, study.QueryRetrieveLevel, study.SpecificCharacterSet) == (0xFF00, "STUDY", "ISO_IR 192")
    assert study.PatientName == "Müller^Jörg"
    assert study.PatientWeight == 70
    assert study["RequestingService"].is_empty
    assert "PatientSex" not in study
    block = study.private_block(ours.PRIVATE_GROUP, ours.PRIVATE_CREATOR)
    if syntax == ImplicitVRLittleEndian:  # who does not know the block reads bytes
        assert block[ours.LABELS].value.strip() == b"follow-up\\glioma"
        return
    assert block[ours.SIMILARITY].value == pytest.approx(0.5, abs=1e-6)
    assert block[ours.COVERAGE].value == 1.0
    assert (block[ours.DAYS].value, list(block[ours.LABELS].value)) == (10, ["follow-up", "glioma"])
    first, _ = block[ours.COMPARED_SERIES].value
    of_series = first.private_block(ours.PRIVATE_GROUP, ours.PRIVATE_CREATOR)
    assert first.SeriesInstanceUID in {"2.1", "2.2"}
    assert of_series[ours.SLICE].value == f"{first.SeriesInstanceUID}.1"
    assert of_series[ours.EXAMPLE_SLICE].value == f"{of_series[ours.LIKE].value}.1"


def test_anothers_private_block_is_no_example(cohort: Api) -> None:
    ds = identifier("STUDY")
    ds.private_block(ours.PRIVATE_GROUP, "SOMEONE", create=True).add_new(ours.EXAMPLES, "UC", "1")
    with association(cohort.settings, FIND) as asked:
        status, found = answers(asked, ds)
    assert (status, uids(found)) == (0x0000, ["1", "2", "3", "4"])
    assert {pending for pending, _ in found} == {0xFF01}


def test_similar_series(cohort: Api) -> None:
    with association(cohort.settings, FIND) as asked:
        frame = {ours.EXAMPLES: ("UC", "1/1.2/1.2.1/1")}
        status, found = answers(asked, identifier("SERIES", private=frame, SeriesDescription=""))
    assert status == 0x0000
    [(_, series)] = found
    assert (series.StudyInstanceUID, series.SeriesInstanceUID) == ("2", "2.2")
    assert (series.SeriesDescription, series.QueryRetrieveLevel) == ("ax FLAIR", "SERIES")
    block = series.private_block(ours.PRIVATE_GROUP, ours.PRIVATE_CREATOR)
    assert (block[ours.SLICE].value, block[ours.EXAMPLE_SLICE].value) == ("2.2.1", "1.2.1")


@pytest.mark.parametrize(
    ("private", "keys", "expected"),
    [
        ({}, {"PatientSex": "F"}, ["2"]),
        ({}, {"PatientName": "müller*"}, ["2"]),
        ({}, {"StudyInstanceUID": "3\\2"}, ["3", "2"]),
        ({ours.KEY_OWN_PATIENT: ("CS", "YES")}, {}, ["3", "4", "2"]),
        ({ours.KEY_LEAST: ("DS", "0.75")}, {}, ["3"]),
        ({ours.KEY_LIMIT: ("IS", "1")}, {}, ["3"]),
        ({ours.KEY_SEQUENCES: ("LO", ["T2"])}, {}, None),
        ({ours.KEY_SEQUENCES: ("LO", ["FLAIR", "T1"])}, {}, ["3", "2"]),
        ({ours.KEY_WEIGHTS: ("LO", ["FLAIR:1", "T1:0"])}, {}, ["2"]),
        ({ours.KEY_PARTS: ("LO", "appearance:2")}, {}, ["3", "2"]),
        ({ours.KEY_UNLIKE: ("UC", "3")}, {}, ["2"]),
        ({ours.KEY_LIKE: ("UC", ["2", "3/3.1"])}, {}, ["3", "2"]),
        ({ours.LABELS: ("LO", "glioma")}, {}, ["2"]),
    ],
)
def test_private_and_matching_keys(
    cohort: Api, private: dict[int, tuple[str, object]], keys: dict[str, object], expected: list[str] | None
) -> None:
    with association(cohort.settings, FIND) as asked:
        status, found = answers(asked, identifier("STUDY", private=EXAMPLE | private, **keys))
    if expected is None:
        assert (status.code, "the example has FLAIR, T1" in status.comment) == (0xC000, True)
    else:
        assert (status, uids(found)) == (0x0000, expected)


@pytest.mark.parametrize(
    ("level", "private", "status", "says"),
    [
        ("STUDY", {ours.EXAMPLES: ("UC", "9.9")}, 0xC000, "not here"),
        ("STUDY", {ours.EXAMPLES: ("UC", "5")}, 0xA700, "not embedded yet"),
        ("STUDY", {ours.EXAMPLES: ("UC", "6")}, 0xC000, "no embeddings"),
        ("STUDY", {ours.EXAMPLES: ("UC", "x")}, 0xC000, "example accepts"),
        ("STUDY", {ours.EXAMPLES: ("UC", [f"1.{number}" for number in range(10_000)])}, 0xC000, "more than 1000"),
        ("STUDY", {ours.EXAMPLES: ("UC", [f"1.{number}" for number in range(60_000)])}, 0xC000, "bytes"),
        ("STUDY", {ours.EXAMPLES: ("FD", [1.0, 2.0])}, 0xC000, "example accepts"),
        ("STUDY", EXAMPLE | {ours.KEY_LIMIT: ("IS", "1001")}, 0xC000, "limit"),
        ("STUDY", EXAMPLE | {ours.KEY_LIMIT: ("IS", ["5", "6"])}, 0xC000, "limit accepts one value"),
        ("STUDY", EXAMPLE | {ours.KEY_LEAST: ("DS", ["0.5", "0.6"])}, 0xC000, "min_similarity accepts one value"),
        ("STUDY", EXAMPLE | {ours.KEY_LEAST: ("DS", "2")}, 0xC000, "min_similarity"),
        ("STUDY", EXAMPLE | {ours.KEY_OWN_PATIENT: ("CS", "MAYBE")}, 0xC000, "YES and NO"),
        ("STUDY", {ours.KEY_LIMIT: ("IS", "3")}, 0xC000, "without an example"),
        ("IMAGE", EXAMPLE, 0xA900, "STUDY and SERIES"),
    ],
)
def test_what_is_refused(
    cohort: Api, level: str, private: dict[int, tuple[str, object]], status: int, says: str
) -> None:
    waiting = cohort.add("5", "5.1", None)
    cohort.add("6", "6.1", None)
    with cohort.database.transaction() as connection:
        jobs.enqueue(connection, waiting, 30)
    with association(cohort.settings, FIND) as asked:
        final, found = answers(asked, identifier(level, private=private))
        assert (final.code, found) == (status, [])
        assert says in final.comment
        assert answers(asked, identifier("STUDY", private=EXAMPLE))[0] == 0x0000


def test_without_the_api_what_is_stored_is_still_found(settings: Settings, database: Database) -> None:
    with scp_thread(settings, database), association(settings, FIND) as asked:
        final, _ = answers(asked, identifier("STUDY", private=EXAMPLE))
        assert (final.code, final.comment[:19]) == (0xA700, "the API does not an")
        assert answers(asked, identifier("STUDY"))[0] == 0x0000


def test_what_is_no_api_is_named(api: Api, database: Database) -> None:
    elsewhere = api.settings.model_copy(
        update={
            "api_url": f"http://127.0.0.1:{api.settings.http_port}/nowhere",
            "dicom_port": api.settings.dicom_port + 1,
        }
    )
    with scp_thread(elsewhere, database), association(elsewhere, FIND) as asked:
        final, _ = answers(asked, identifier("STUDY", private=EXAMPLE))
        assert (final.code, "PACS_CBIR_API_URL" in final.comment) == (0xA700, True)


@pytest.mark.peer
def test_findscu_asks_for_similar_studies(cohort: Api, peer: Callable[[str], str], tmp_path: Path) -> None:
    """As the README says it."""
    (tmp_path / "similar.dump").write_text(
        "(0008,0005) CS [ISO_IR 192]\n(0008,0052) CS [STUDY]\n(0010,0010) PN []\n(0020,000d) UI []\n"
        "(0075,0010) LO [PACS_CBIR]\n(0075,1020) UC [1/1.1]\n(0075,1027) IS [5]\n"
    )
    dcmtk(peer("dump2dcm"), "+te", tmp_path / "similar.dump", tmp_path / "similar.dcm")
    scp = cohort.settings
    called = ["-S", "-aec", scp.ae_title, scp.dicom_host, scp.dicom_port, "-X", "-od", tmp_path]
    dcmtk(peer("findscu"), *called, tmp_path / "similar.dcm")
    found = [pydicom.dcmread(path) for path in sorted(tmp_path.glob("rsp*.dcm"))]
    assert [ds.StudyInstanceUID for ds in found] == ["3", "2"]
    assert found[1].PatientName == "Müller^Jörg"
    block = found[1].private_block(ours.PRIVATE_GROUP, ours.PRIVATE_CREATOR)
    assert block[ours.SIMILARITY].value == pytest.approx(0.5, abs=1e-6)


@pytest.mark.peer
def test_findscu_lists_what_is_stored(cohort: Api, peer: Callable[[str], str], tmp_path: Path) -> None:
    scp = cohort.settings
    for level, keys, uids_found in (
        ("STUDY", ["PatientSex=F"], ["2"]),
        ("STUDY", ["StudyDate=20200101-20200111"], ["1", "2"]),
        ("SERIES", ["StudyInstanceUID=2", "SeriesDescription=*FLAIR"], ["2"]),
    ):
        out = tmp_path / keys[-1]
        out.mkdir()
        asked = [part for key in (f"QueryRetrieveLevel={level}", *keys) for part in ("-k", key)]
        dcmtk(peer("findscu"), "-S", "-aec", scp.ae_title, scp.dicom_host, scp.dicom_port, *asked, "-X", "-od", out)
        found = [pydicom.dcmread(path) for path in sorted(out.glob("rsp*.dcm"))]
        assert [ds.StudyInstanceUID for ds in found] == uids_found, keys


def dcmtk(*command: object) -> None:
    """One of dcmtk's programs, which must end well."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | {"TCP_NODELAY": "1"},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
