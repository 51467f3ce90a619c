"""Matches → answers, as DICOM data sets with a private block and as plain JSON.

The private block (PS3.5 7.8.1) has group 0075 and private creator PACS_CBIR:

    (0075,xx01)  FD  similarity        cosine, at most 1, higher is closer; of a study the mean over its sequences
    (0075,xx02)  FD  coverage          share of the example's sequences that were compared like with like, 0 to 1
    (0075,xx03)  LO  note              `outside-encoder-domain`: the encoder was not trained for such series
    (0075,xx04)  LO  MR sequence       of a series: T1, T1CE, T2, FLAIR, …, unknown
    (0075,xx05)  UI  like              Series Instance UID of the example's series that it is like
    (0075,xx06)  UI  slice             of a series: SOP Instance UID of the picture to look at
    (0075,xx07)  UL  frame             its frame, counted from 1
    (0075,xx08)  UI  example's slice   SOP Instance UID of the example's picture that it is like
    (0075,xx09)  UL  example's frame   its frame, counted from 1
    (0075,xx0A)  FD  slice similarity  cosine of the two slices
    (0075,xx0B)  SL  days              of a study: from the first example's to this one, negative where it is older
    (0075,xx0C)  UR  report            of a study: the site's link to its report
    (0075,xx0D)  LO  parts             of a series: `lesion:0.812`, …: cosine of each part of the embeddings
    (0075,xx11)  UL  example file      the example's number in an upload, of a PNG or JPEG instead of xx08, xx09
    (0075,xx10)  SQ  compared series   of a study, best first: (0020,000E), xx01, xx03 to xx0A, xx0D
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from pacs_cbir.search.query import SeriesMatch, StudyMatch
from pacs_cbir.serve.dicom_json import data_set, plain
from pacs_cbir.serve.outcome import Outcome
from pacs_cbir.serve.parameters import ReturnKeys
from pacs_cbir.serve.return_keys import SERIES_KEYS, STUDY_KEYS
from pacs_cbir.store.catalogue import Attributes
from pacs_cbir.store.embeddings import Source

PRIVATE_GROUP = 0x0075
PRIVATE_CREATOR = "PACS_CBIR"
SIMILARITY, COVERAGE, NOTE, SEQUENCE, LIKE, COMPARED_SERIES = 0x01, 0x02, 0x03, 0x04, 0x05, 0x10
SLICE, FRAME, EXAMPLE_SLICE, EXAMPLE_FRAME, SLICE_SIMILARITY = 0x06, 0x07, 0x08, 0x09, 0x0A
DAYS, REPORT, PARTS, EXAMPLE_FILE = 0x0B, 0x0C, 0x0D, 0x11
OUTCOME_KEYS = ("PatientSex", "PatientAge", "StudyDescription")
UNKNOWN = Outcome()
OUTSIDE_DOMAIN = "outside-encoder-domain"


@dataclass(frozen=True)
class Uids:
    """What rows are called outside; what is gone since the search has no name.

    Attributes:
        series: row id → Series Instance UID.
        sources: (stack, slice) → the picture that it was drawn from.
    """

    series: Mapping[int, str]
    sources: Mapping[tuple[uuid.UUID, int], Source]

    def pair(self, match: SeriesMatch) -> tuple[Source, Source] | None:
        """The example's picture and the match's that the match owes most to."""
        if match.slices is None:
            return None
        found = [self.sources.get((p.stack_id, p.slice)) for p in (match.slices.example, match.slices.found)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])


def study_data_set(
    match: StudyMatch, study: Attributes, uids: Uids, keys: ReturnKeys, outcome: Outcome = UNKNOWN
) -> Dataset:
    """A study's return keys and the private block.

    Args:
        study: its attributes.
        uids: of its series, and of their slices; series that are gone are left out.
    """
    ds = data_set(study, keys.of(study, (*STUDY_KEYS, *OUTCOME_KEYS)))
    block = ds.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(SIMILARITY, "FD", match.similarity)
    block.add_new(COVERAGE, "FD", match.coverage)
    if not match.in_domain:
        block.add_new(NOTE, "LO", OUTSIDE_DOMAIN)
    if outcome.days is not None:
        block.add_new(DAYS, "SL", outcome.days)
    if outcome.report is not None:
        block.add_new(REPORT, "UR", outcome.report)
    compared = []
    for series in match.series:
        if series.series_id in uids.series:
            item = Dataset()
            item.SeriesInstanceUID = uids.series[series.series_id]
            _add_series_block(item, series, uids)
            compared.append(item)
    block.add_new(COMPARED_SERIES, "SQ", compared)
    return ds


def series_data_set(match: SeriesMatch, series: Attributes, uids: Uids, keys: ReturnKeys) -> Dataset:
    """A series' return keys, its study's, and the private block."""
    ds = data_set(series, keys.of(series, (*SERIES_KEYS, *(key for key in STUDY_KEYS if key in series))))
    _add_series_block(ds, match, uids)
    return ds


def _add_series_block(ds: Dataset, match: SeriesMatch, uids: Uids) -> None:
    block = ds.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(SIMILARITY, "FD", match.similarity)
    if not match.in_domain:
        block.add_new(NOTE, "LO", OUTSIDE_DOMAIN)
    block.add_new(SEQUENCE, "LO", match.sequence)
    if match.like:
        block.add_new(LIKE, "UI", match.like)
    block.add_new(PARTS, "LO", [f"{part}:{cosine:.3f}" for part, cosine in match.parts.items()])
    pair = uids.pair(match)
    if match.slices is not None and pair is not None:
        example, found = pair
        block.add_new(SLICE, "UI", found.sop_instance_uid)
        block.add_new(FRAME, "UL", found.frame_number)
        if example.sop_instance_uid:
            block.add_new(EXAMPLE_SLICE, "UI", example.sop_instance_uid)
            block.add_new(EXAMPLE_FRAME, "UL", example.frame_number)
        else:
            block.add_new(EXAMPLE_FILE, "UL", example.frame_number)
        block.add_new(SLICE_SIMILARITY, "FD", match.slices.similarity)


def study_plain(
    match: StudyMatch, study: Attributes, uids: Uids, keys: ReturnKeys, outcome: Outcome = UNKNOWN
) -> dict[str, Any]:
    """As `study_data_set`, as plain JSON (`schemas.SimilarStudy`)."""
    return {
        **plain(study, keys.of(study, ["StudyInstanceUID", "StudyDate", *OUTCOME_KEYS])),
        "similarity": match.similarity,
        "coverage": match.coverage,
        **_notes(match.in_domain),
        **({} if outcome.days is None else {"days": outcome.days}),
        **({} if outcome.report is None else {"report": outcome.report}),
        "series": [
            {"SeriesInstanceUID": uids.series[series.series_id], **_series_plain(series, uids)}
            for series in match.series
            if series.series_id in uids.series
        ],
    }


def series_plain(match: SeriesMatch, series: Attributes, uids: Uids, keys: ReturnKeys) -> dict[str, Any]:
    """As `series_data_set`, as plain JSON (`schemas.SimilarSeries`)."""
    return {**plain(series, keys.of(series, ["StudyInstanceUID", "SeriesInstanceUID"])), **_series_plain(match, uids)}


def _series_plain(match: SeriesMatch, uids: Uids) -> dict[str, Any]:
    found: dict[str, Any] = {
        "sequence": match.sequence,
        "similarity": match.similarity,
        "parts": dict(match.parts),
        **({"like": match.like} if match.like else {}),
    }
    pair = uids.pair(match)
    if match.slices is not None and pair is not None:
        example, slice_ = (_source_plain(source) for source in pair)
        found["slice"] = {**slice_, "similarity": match.slices.similarity, "like": example}
    return found | _notes(match.in_domain)


def _source_plain(source: Source) -> dict[str, Any]:
    if not source.sop_instance_uid:
        return {"file": source.frame_number}
    return {"SOPInstanceUID": source.sop_instance_uid, "frame": source.frame_number}


def _notes(in_domain: bool) -> dict[str, Sequence[str]]:
    return {} if in_domain else {"notes": [OUTSIDE_DOMAIN]}
