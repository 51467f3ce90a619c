"""Each bad transfer is refused with its status, leaves nothing, and the next good instance goes through."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from dicom_factory import encoded, mr_instance, uid
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, MRImageStorage
from running import wait_until
from scu import association, store, store_bytes
from stored import files, rows

from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances

SUCCESS = 0x0000
NO_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
INSTANCE = mr_instance().SOPInstanceUID
PATH_UID = "1.2.3/../../../4"

Request = tuple[bytes | None, str, str]
REFUSED: dict[str, tuple[Callable[[], Request], int]] = {
    "cut off in the pixels": (lambda: (encoded(mr_instance())[:-100], MRImageStorage, INSTANCE), CANNOT_UNDERSTAND),
    "cut off in the header": (lambda: (encoded(mr_instance())[:301], MRImageStorage, INSTANCE), CANNOT_UNDERSTAND),
    "0 bytes": (lambda: (b"", MRImageStorage, INSTANCE), CANNOT_UNDERSTAND),
    "no data set": (lambda: (None, MRImageStorage, INSTANCE), CANNOT_UNDERSTAND),
    "no DICOM": (lambda: (b"%PDF-1.4 " * 1000, MRImageStorage, INSTANCE), CANNOT_UNDERSTAND),
    "one element too long": (
        lambda: (b"\x10\x00\x20\x00LO\xff\xff" + encoded(mr_instance()), MRImageStorage, INSTANCE),
        CANNOT_UNDERSTAND,
    ),
    "a path for a UID in the request": (lambda: (encoded(mr_instance()), MRImageStorage, PATH_UID), NO_MATCH),
    "a path for a UID in the data set": (
        lambda: (encoded(mr_instance(SOPInstanceUID=PATH_UID)), MRImageStorage, INSTANCE),
        CANNOT_UNDERSTAND,
    ),
    "a path for a UID in both": (
        lambda: (encoded(mr_instance(SOPInstanceUID=PATH_UID)), MRImageStorage, PATH_UID),
        CANNOT_UNDERSTAND,
    ),
    "another instance than announced": (lambda: (encoded(mr_instance()), MRImageStorage, uid("other")), NO_MATCH),
    "another class than announced": (lambda: (encoded(mr_instance()), CTImageStorage, INSTANCE), NO_MATCH),
} | {
    f"{problem} {keyword}": (
        lambda keyword=keyword, value=value: (encoded(mr_instance(**{keyword: value})), MRImageStorage, INSTANCE),
        CANNOT_UNDERSTAND,
    )
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    for problem, value in (("no", None), ("an empty", ""), ("a path for", PATH_UID))
}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_input_is_refused_with_its_status(scp: Settings, database: Database) -> None:
    with association(scp) as asked:
        for good, (what, (make, status)) in enumerate(REFUSED.items()):
            assert store_bytes(asked, *make()) == status, what
            assert len(files(scp)) == len(rows(database, instances)) == good, what
            assert store(asked, mr_instance(series="good", number=good)) == SUCCESS, what
    assert len(files(scp)) == len(rows(database, instances)) == len(REFUSED)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("sop_class", "sop_instance", "context"),
    [
        pytest.param(MRImageStorage, "", 1, id="no instance"),
        pytest.param("", INSTANCE, 1, id="no class"),
        pytest.param("1.2.3.4", INSTANCE, 1, id="an unknown class"),
        pytest.param("../../etc", INSTANCE, 1, id="a path for a class"),
        pytest.param(MRImageStorage, "1." * 60 + "1", 1, id="a long instance"),
        pytest.param(MRImageStorage, INSTANCE, 7, id="a context that was not accepted"),
    ],
)
def test_a_request_that_is_none_ends_its_association_alone(
    scp: Settings, database: Database, sop_class: str, sop_instance: str, context: int
) -> None:
    with association(scp) as other:
        with association(scp) as asked:
            assert store_bytes(asked, encoded(mr_instance()), sop_class, sop_instance, context=context) is None
        assert store(other, mr_instance()) == SUCCESS

    def only_the_good_one() -> bool:
        gc.collect()
        return len(files(scp)) == 1

    wait_until(only_the_good_one)
    assert len(rows(database, instances)) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_deflated_bomb_is_refused(scp: Settings, database: Database) -> None:
    ds = mr_instance(ImageComments="X", PixelData=None)
    ds.ImageComments = "X" * (200 << 20)
    with association(scp, [(MRImageStorage, DeflatedExplicitVRLittleEndian)]) as asked:
        sent = encoded(ds, DeflatedExplicitVRLittleEndian)
        assert len(sent) < 1 << 20
        assert store_bytes(asked, sent, MRImageStorage, INSTANCE) == CANNOT_UNDERSTAND
    assert files(scp) == []


@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_to_the_bytes_they_are_kept_or_refused(
    scp: Settings, database: Database, data: st.DataObject
) -> None:
    good = encoded(mr_instance())
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 20)))
    sent = good[:start] + data.draw(st.binary(max_size=20)) + good[end:]
    with association(scp) as asked:
        status = store_bytes(asked, sent, MRImageStorage, INSTANCE)
        assert status in {SUCCESS, NO_MATCH, CANNOT_UNDERSTAND}
        assert store(asked, mr_instance(number=2)) == SUCCESS
    assert len(files(scp)) == len(rows(database, instances))
