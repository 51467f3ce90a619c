"""Matches → answers, in the DICOM JSON Model with our private block and as plain JSON."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacs_cbir.dicom.private_block import (
    COMPARED_SERIES,
    COVERAGE,
    DAYS,
    EXAMPLE_FILE,
    EXAMPLE_FRAME,
    EXAMPLE_SLICE,
    FRAME,
    LABELS,
    LIKE,
    NOTE,
    PARTS,
    REPORT,
    SEQUENCE,
    SIMILARITY,
    SLICE,
    SLICE_SIMILARITY,
)
from pacs_cbir.search.explanation import Explanation
from pacs_cbir.search.query import SeriesMatch, SliceMatch, StudyMatch
from pacs_cbir.serve.dicom_json import Model, model, plain, private_block
from pacs_cbir.serve.outcome import Outcome
from pacs_cbir.serve.parameters import ReturnKeys
from pacs_cbir.serve.return_keys import SERIES_KEYS, STUDY_KEYS
from pacs_cbir.store.catalogue import Attributes
from pacs_cbir.store.embeddings import Source

OUTCOME_KEYS = ("PatientSex", "PatientAge", "StudyDescription")
UNKNOWN = Outcome()
OUTSIDE_DOMAIN = "outside-encoder-domain"
SLICES_MISSING = "slices-missing"


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
        return None if match.slices is None else self.named(match.slices)

    def named(self, slices: SliceMatch) -> tuple[Source, Source] | None:
        """The pictures of a pair of slices, the example's first."""
        found = [self.sources.get((p.stack_id, p.slice)) for p in (slices.example, slices.found)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])


def study_model(
    match: StudyMatch, study: Attributes, uids: Uids, keys: ReturnKeys, outcome: Outcome = UNKNOWN
) -> Model:
    """A study's return keys and the private block, in the DICOM JSON Model.

    Args:
        study: its attributes.
        uids: of its series, and of their slices; series that are gone are left out.
    """
    compared = [
        model(
            {"SeriesInstanceUID": [uids.series[series.series_id]]}, ["SeriesInstanceUID"], _series_block(series, uids)
        )
        for series in match.series
        if series.series_id in uids.series
    ]
    block = private_block(
        {
            (SIMILARITY, "FD"): match.similarity,
            (COVERAGE, "FD"): match.coverage,
            (NOTE, "LO"): _notes(match, uids) or None,
            (DAYS, "SL"): outcome.days,
            (REPORT, "UR"): outcome.report,
            (LABELS, "LO"): list(outcome.labels) or None,
            (COMPARED_SERIES, "SQ"): compared,
        }
    )
    return model(study, keys.of(study, (*STUDY_KEYS, *OUTCOME_KEYS)), block)


def series_model(match: SeriesMatch, series: Attributes, uids: Uids, keys: ReturnKeys) -> Model:
    """A series' return keys, its study's, and the private block, in the DICOM JSON Model."""
    returned = keys.of(series, (*SERIES_KEYS, *(key for key in STUDY_KEYS if key in series)))
    return model(series, returned, _series_block(match, uids))


def _series_block(match: SeriesMatch, uids: Uids) -> Model:
    values: dict[tuple[int, str], Any] = {
        (SIMILARITY, "FD"): match.similarity,
        (NOTE, "LO"): _notes(match, uids) or None,
        (SEQUENCE, "LO"): match.sequence,
        (LIKE, "UI"): match.like or None,
        (PARTS, "LO"): [f"{part}:{cosine:.3f}" for part, cosine in match.parts.items()],
    }
    pair = uids.pair(match)
    if match.slices is not None and pair is not None:
        example, found = pair
        values |= {
            (SLICE, "UI"): found.sop_instance_uid,
            (FRAME, "UL"): found.frame_number,
            (SLICE_SIMILARITY, "FD"): match.slices.similarity,
        }
        if example.sop_instance_uid:
            values |= {(EXAMPLE_SLICE, "UI"): example.sop_instance_uid, (EXAMPLE_FRAME, "UL"): example.frame_number}
        else:
            values[EXAMPLE_FILE, "UL"] = example.frame_number
    return private_block(values)


def study_plain(
    match: StudyMatch, study: Attributes, uids: Uids, keys: ReturnKeys, outcome: Outcome = UNKNOWN
) -> dict[str, Any]:
    """As `study_model`, as plain JSON (`schemas.SimilarStudy`)."""
    return {
        **plain(study, keys.of(study, ["StudyInstanceUID", "StudyDate", *OUTCOME_KEYS])),
        "similarity": match.similarity,
        "coverage": match.coverage,
        **_plain_notes(match, uids),
        **({} if outcome.days is None else {"days": outcome.days}),
        **({} if outcome.report is None else {"report": outcome.report}),
        "labels": list(outcome.labels),
        "series": [
            {"SeriesInstanceUID": uids.series[series.series_id], **_series_plain(series, uids)}
            for series in match.series
            if series.series_id in uids.series
        ],
    }


def series_plain(match: SeriesMatch, series: Attributes, uids: Uids, keys: ReturnKeys) -> dict[str, Any]:
    """As `series_model`, as plain JSON (`schemas.SimilarSeries`)."""
    return {**plain(series, keys.of(series, ["StudyInstanceUID", "SeriesInstanceUID"])), **_series_plain(match, uids)}


def explained_plain(explained: Explanation, uids: Uids) -> dict[str, Any]:
    """An explanation as plain JSON (`schemas.ExplainedSeries`); slices that are gone since are left out."""
    match = explained.match
    known = {"SeriesInstanceUID": uids.series[match.series_id]} if match.series_id in uids.series else {}
    slices = [_pair_plain(pair, named) for pair in explained.nearest if (named := uids.named(pair)) is not None]
    return {**known, **_series_plain(match, uids), "slices": slices}


def _series_plain(match: SeriesMatch, uids: Uids) -> dict[str, Any]:
    found: dict[str, Any] = {
        "sequence": match.sequence,
        "similarity": match.similarity,
        "parts": dict(match.parts),
        **({"like": match.like} if match.like else {}),
    }
    pair = uids.pair(match)
    if match.slices is not None and pair is not None:
        found["slice"] = _pair_plain(match.slices, pair)
    return found | _plain_notes(match, uids)


def _pair_plain(slices: SliceMatch, named: tuple[Source, Source]) -> dict[str, Any]:
    example, found = (_source_plain(source) for source in named)
    return {**found, "similarity": slices.similarity, "like": example}


def _source_plain(source: Source) -> dict[str, Any]:
    if not source.sop_instance_uid:
        return {"file": source.frame_number}
    return {"SOPInstanceUID": source.sop_instance_uid, "frame": source.frame_number}


def _plain_notes(match: StudyMatch | SeriesMatch, uids: Uids) -> dict[str, Sequence[str]]:
    notes = _notes(match, uids)
    return {"notes": notes} if notes else {}


def _notes(match: StudyMatch | SeriesMatch, uids: Uids) -> list[str]:
    """What a reader must know before trusting a match."""
    pairs = [uids.pair(one) for one in (match.series if isinstance(match, StudyMatch) else (match,))]
    with_gaps = any(pair is not None and pair[1].with_gaps for pair in pairs)
    return [*([] if match.in_domain else [OUTSIDE_DOMAIN]), *([SLICES_MISSING] if with_gaps else [])]
