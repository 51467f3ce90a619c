"""Pseudonyms are the same every time under one key, others under another, and valid where DICOM wants them."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from pacs_cbir.store.pseudonyms import LONGEST_SHIFT_DAYS, Pseudonyms

OURS, OTHER = Pseudonyms(b"\1" * 32), Pseudonyms(b"\2" * 32)


@given(st.text(max_size=64))
def test_a_uid_gets_a_valid_uid_that_only_the_key_makes(name: str) -> None:
    made = UID(OURS.uid(name))
    assert made.is_valid
    assert made == Pseudonyms(b"\1" * 32).uid(name) != OTHER.uid(name)
    value = uuid.UUID(int=int(made.removeprefix("2.25.")))
    # Python 3.11 knows no version above 5, but where it is written.
    assert (value.variant, value.hex[12]) == (uuid.RFC_4122, "8")


def test_a_patient_is_named_by_issuer_and_id_and_a_nameless_one_by_the_study() -> None:
    assert OURS.patient("A", "1", "1.2") == OURS.patient("A", "1", "3.4") != OURS.patient("B", "1", "1.2")
    assert OURS.patient("", "", "1.2") == OURS.patient("", "", "1.2") != OURS.patient("", "", "3.4")
    # A patient whose ID happens to be a UID is not the nameless patient of that study.
    assert OURS.patient("", "1.2", "3.4") != OURS.patient("", "", "1.2")
    assert OURS.patient("A", "1", "1.2") != OTHER.patient("A", "1", "1.2")


def test_all_dates_of_a_patient_move_alike_and_into_the_past() -> None:
    days = [OURS.days_back("A", str(number), "1.2") for number in range(1000)]
    assert all(1 <= shift <= LONGEST_SHIFT_DAYS for shift in days)
    assert len(set(days)) > 800
    assert days == [OURS.days_back("A", str(number), "9.9") for number in range(1000)]
