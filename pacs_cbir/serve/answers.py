"""Matches → answers, as DICOM data sets with a private block and as plain JSON.

The private block (PS3.5 7.8.1) has group 0075 and private creator PACS_CBIR:

    (0075,xx01)  FD  similarity        cosine, at most 1, higher is closer; of a study the mean over its sequences
    (0075,xx02)  FD  coverage          share of the example's sequences that were compared like with like, 0 to 1
    (0075,xx03)  LO  note              `outside-encoder-domain`: the encoder was not trained for such series
    (0075,xx04)  LO  MR sequence       of a series: T1, T1CE, T2, FLAIR, …, unknown
    (0075,xx05)  UI  like              Series Instance UID of the example's series that it is like
    (0075,xx10)  SQ  compared series   of a study, best first: (0020,000E) and xx01, xx03, xx04, xx05
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom import Dataset

from pacs_cbir.search.query import SeriesMatch, StudyMatch
from pacs_cbir.serve.dicom_json import data_set, plain
from pacs_cbir.serve.parameters import ReturnKeys
from pacs_cbir.serve.return_keys import SERIES_KEYS, STUDY_KEYS
from pacs_cbir.store.catalogue import Attributes

PRIVATE_GROUP = 0x0075
PRIVATE_CREATOR = "PACS_CBIR"
SIMILARITY, COVERAGE, NOTE, SEQUENCE, LIKE, COMPARED_SERIES = 0x01, 0x02, 0x03, 0x04, 0x05, 0x10
OUTSIDE_DOMAIN = "outside-encoder-domain"


def study_data_set(match: StudyMatch, study: Attributes, series_uids: Mapping[int, str], keys: ReturnKeys) -> Dataset:
    """A study's return keys and the private block.

    Args:
        study: its attributes.
        series_uids: row id → Series Instance UID; series that are gone are left out.
    """
    ds = data_set(study, keys.of(study, STUDY_KEYS))
    block = ds.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(SIMILARITY, "FD", match.similarity)
    block.add_new(COVERAGE, "FD", match.coverage)
    if not match.in_domain:
        block.add_new(NOTE, "LO", OUTSIDE_DOMAIN)
    compared = []
    for series in match.series:
        if series.series_id in series_uids:
            item = Dataset()
            item.SeriesInstanceUID = series_uids[series.series_id]
            _add_series_block(item, series)
            compared.append(item)
    block.add_new(COMPARED_SERIES, "SQ", compared)
    return ds


def series_data_set(match: SeriesMatch, series: Attributes, keys: ReturnKeys) -> Dataset:
    """A series' return keys, its study's, and the private block."""
    ds = data_set(series, keys.of(series, (*SERIES_KEYS, *(key for key in STUDY_KEYS if key in series))))
    _add_series_block(ds, match)
    return ds


def _add_series_block(ds: Dataset, match: SeriesMatch) -> None:
    block = ds.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(SIMILARITY, "FD", match.similarity)
    if not match.in_domain:
        block.add_new(NOTE, "LO", OUTSIDE_DOMAIN)
    block.add_new(SEQUENCE, "LO", match.sequence)
    block.add_new(LIKE, "UI", match.like)


def study_plain(
    match: StudyMatch, study: Attributes, series_uids: Mapping[int, str], keys: ReturnKeys
) -> dict[str, Any]:
    """As `study_data_set`, as plain JSON (`schemas.SimilarStudy`)."""
    return {
        **plain(study, keys.of(study, ["StudyInstanceUID"])),
        "similarity": match.similarity,
        "coverage": match.coverage,
        **_notes(match.in_domain),
        "series": [
            {"SeriesInstanceUID": series_uids[series.series_id], **_series_plain(series)}
            for series in match.series
            if series.series_id in series_uids
        ],
    }


def series_plain(match: SeriesMatch, series: Attributes, keys: ReturnKeys) -> dict[str, Any]:
    """As `series_data_set`, as plain JSON (`schemas.SimilarSeries`)."""
    return {**plain(series, keys.of(series, ["StudyInstanceUID", "SeriesInstanceUID"])), **_series_plain(match)}


def _series_plain(match: SeriesMatch) -> dict[str, Any]:
    found = {"sequence": match.sequence, "similarity": match.similarity, "like": match.like}
    return found | _notes(match.in_domain)


def _notes(in_domain: bool) -> dict[str, Sequence[str]]:
    return {} if in_domain else {"notes": [OUTSIDE_DOMAIN]}
