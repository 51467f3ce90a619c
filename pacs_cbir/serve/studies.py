"""The list of studies that the page shows, in its order, without the patients' identities unless the site says so."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from pacs_cbir.errors import InvalidQuery
from pacs_cbir.serve.dicom_json import plain
from pacs_cbir.serve.outcome import report_url, with_age
from pacs_cbir.serve.parameters import FUZZY, LABEL, check_once
from pacs_cbir.serve.schemas import NOTHING_FOUND, ListedStudy, problems
from pacs_cbir.settings import Settings
from pacs_cbir.store import catalogue, conflicts, encoders, labels, listing
from pacs_cbir.store.catalogue import Attributes
from pacs_cbir.store.listing import ListedSeries
from pacs_cbir.store.matching import Level, matching_keys
from pacs_cbir.store.order import Order
from pacs_cbir.store.session import Database

MAX_STUDIES = 100
SEVERAL = frozenset({"label"})
RESERVED = SEVERAL | {"limit", "order", "after", "fuzzymatching"}
STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyDescription",
    "ModalitiesInStudy",
    "PatientSex",
    "PatientAge",
    "NumberOfStudyRelatedInstances",
)
IDENTITY_KEYS = ("PatientName", "PatientID", "AccessionNumber")
ANONYMOUS = frozenset({"PatientSex", "PatientAge", "PatientSize", "PatientWeight", "PatientBodyMassIndex"})
"""Of the patient's attributes those that may be searched where identities are not shown."""
IDENTIFIERS = frozenset(
    {
        "AccessionNumber",
        "StudyID",
        "AdmissionID",
        "ServiceEpisodeID",
        "ClinicalTrialSubjectID",
        "ClinicalTrialSubjectReadingID",
        "RequestedProcedureID",
        "ScheduledProcedureStepID",
        "PerformedProcedureStepID",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
    }
)
"""Attributes that lead to the patient though they are not in the patient's group."""
PATIENT_GROUP = 0x0010
_ORDER = (
    "What comes first; with `-` large values do, the newest studies or those received last. "
    "Studies without the value come last."
)
_AFTER = (
    "Study Instance UID of the last study of the page before: studies that arrive meanwhile move none between pages."
)
SERIES_KEYS = ("SeriesNumber", "Modality", "SeriesDescription", "BodyPartExamined")


def studies_router(settings: Settings, database: Database) -> APIRouter:
    """The route of the list."""
    router = APIRouter(tags=["page"])

    @router.get("/studies", response_class=JSONResponse, responses=_RESPONSES)
    def list_studies(
        *,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_STUDIES, description="How many.")] = 25,
        order: Annotated[Order, Query(description=_ORDER)] = Order.NEWEST,
        after: Annotated[str | None, Query(description=_AFTER, max_length=64)] = None,
        fuzzymatching: Annotated[bool, Query(description=FUZZY)] = False,
        label: Annotated[tuple[str, ...], Query(max_length=labels.MAX_LABELS, description=LABEL)] = (),
    ) -> Response:
        """Studies that meet all matching keys, and how far their embedding is.

        Every other parameter is a DICOM keyword (or ggggeeee) and a matching key as in QIDO-RS. Names, IDs and
        accession numbers are answered and searched only where `PACS_CBIR_SHOW_IDENTITY` is on. Where nothing matches,
        the answer is 204. QIDO-RS, which has no order, is at `/dicom-web/studies`.
        """
        items = request.query_params.multi_items()
        check_once(items, RESERVED - SEVERAL)
        keys = matching_keys(items, RESERVED)
        if not settings.show_identity:
            _refuse_identity(keys)
        any_of = labels.checked(label)
        with database.transaction() as connection:
            found = catalogue.find(
                connection,
                Level.STUDY,
                keys,
                limit=limit,
                offset=0,
                fuzzy=fuzzymatching,
                labels=any_of,
                order=order,
                after=after,
            )
            encoder = encoders.active(connection)
            by_uid = {_uid(study): study for study in found}
            series = listing.series_of(connection, by_uid, None if encoder is None else encoder.id)
            received = listing.received(connection, by_uid)
            told = conflicts.of_studies(connection, list(by_uid))
        if not found:
            return Response(status_code=HTTPStatus.NO_CONTENT.value)
        return JSONResponse(
            [_study(settings, study, series[uid], received[uid], told.get(uid)) for uid, study in by_uid.items()]
        )

    return router


def _refuse_identity(keys: Iterable[str]) -> None:
    for keyword in keys:
        tag = Tag(keyword)
        named = keyword in IDENTIFIERS or dictionary_VR(tag) == "PN"
        if named or (tag.group == PATIENT_GROUP and keyword not in ANONYMOUS):
            raise InvalidQuery(f"{keyword} says who somebody is, and PACS_CBIR_SHOW_IDENTITY is off")


def _uid(study: Attributes) -> str:
    return study["StudyInstanceUID"][0]


def _study(
    settings: Settings, study: Attributes, series: list[ListedSeries], received: datetime, told: list[str] | None
) -> dict[str, Any]:
    report = report_url(settings.report_url, study)
    return {
        **plain(with_age(study), (*STUDY_KEYS, *(IDENTITY_KEYS if settings.show_identity else ()))),
        **({} if report is None else {"report": report}),
        **({} if told is None else {"conflicts": told}),
        "received": received.astimezone(UTC).isoformat(timespec="seconds"),
        "series": [_series(one) for one in series],
    }


def _series(series: ListedSeries) -> dict[str, Any]:
    said = {"sequence": series.sequence, "in_domain": series.in_domain, "reason": series.reason}
    return {
        "SeriesInstanceUID": series.series_instance_uid,
        **plain(series.attributes, SERIES_KEYS),
        "instances": series.instances,
        "state": series.state.value,
        **{name: value for name, value in said.items() if value is not None},
        "picture": series.picture,
    }


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": list[ListedStudy], "description": "A list."},
    204: NOTHING_FOUND,
    **problems(400, 503),
}
