"""STOW-RS: instances are stored, the way that C-STORE stores them (PS3.18 10.5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydicom import Dataset
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pacs_cbir.dicom.instance import Identity
from pacs_cbir.errors import InvalidQuery, StoreError
from pacs_cbir.serve.accept import DICOM_JSON, JSON, negotiate
from pacs_cbir.serve.metrics import Metrics
from pacs_cbir.serve.multipart import DICOM, RELATED, media_type, read_multipart
from pacs_cbir.serve.places import Places
from pacs_cbir.serve.schemas import problems
from pacs_cbir.serve.stored_parts import MAX_INSTANCES, OUT_OF_RESOURCES, STOW_RS, Stored, StoredParts
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database
from pacs_cbir.store.value_tests import is_uid

MAX_STORES = 8
"""Under way at once; each may hold one of the process' connections to the database."""
SILENT_SECONDS = 60.0
"""A sender that says nothing for longer is let go; one that goes on may take as long as a study does."""


def stow_router(settings: Settings, database: Database, metrics: Metrics) -> APIRouter:
    """Routes of STOW-RS."""
    router = APIRouter(prefix="/dicom-web", tags=["STOW-RS"])
    places = Places(MAX_STORES, "requests that store instances")

    async def store(request: Request, study: str | None) -> Response:
        _check(request, settings, study)
        accepted = negotiate(request.headers.get("accept"), (DICOM_JSON, JSON))
        parts = StoredParts(database, settings, study)
        async with places.one():
            try:
                await _receive(request, parts)
            except StoreError:
                metrics.stored(OUT_OF_RESOURCES)
                raise
            finally:
                await run_in_threadpool(parts.close)
                for status in parts.became.statuses:
                    metrics.stored(status)
        if not len(parts.became):
            raise HTTPException(HTTPStatus.BAD_REQUEST, "The body brings no instance.")
        content = await run_in_threadpool(_answer, parts.became, str(request.base_url))
        return Response(content, _status(parts.became), media_type=accepted)

    options: dict[str, Any] = {"response_class": Response, "responses": _RESPONSES, "openapi_extra": _BODY}

    @router.post("/studies", **options)
    async def store_instances(request: Request) -> Response:
        """Store instances of any studies. Each is durable as soon as it is whole; what is here already stays as it is.

        A request that breaks off, or is answered with 503 or 507, may have stored some: send all of it again.
        """
        return await store(request, None)

    @router.post("/studies/{study}", **options)
    async def store_instances_of_study(request: Request, study: str) -> Response:
        """Store instances of one study; those of another one are refused."""
        return await store(request, study)

    return router


def _check(request: Request, settings: Settings, study: str | None) -> None:
    if settings.calling_ae_titles and STOW_RS not in settings.calling_ae_titles:
        raise HTTPException(
            HTTPStatus.FORBIDDEN, f"PACS_CBIR_CALLING_AE_TITLES lists who may send; {STOW_RS} is not on it."
        )
    if study is not None and not is_uid(study):
        raise InvalidQuery("the study in the path is no UID")
    kind, _ = media_type(request)
    if kind not in {RELATED, DICOM} or request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f'Send {RELATED}; type="{DICOM}", or one {DICOM}.')


async def _receive(request: Request, parts: StoredParts) -> None:
    body = _as_it_comes(request)
    kind, _ = media_type(request)
    if kind == RELATED:
        await read_multipart(request, body, parts)
        return
    begun = False
    async for chunk in body:
        if chunk and not begun:
            await run_in_threadpool(parts.begin, {})
            begun = True
        await run_in_threadpool(parts.write, memoryview(chunk))
    if begun:
        await run_in_threadpool(parts.end)


async def _as_it_comes(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT, f"Nothing came for {SILENT_SECONDS:g} s. Send all of it again."
            ) from error
        except ClientDisconnect as error:
            # Nobody is there to read it; the log has a line all the same.
            raise HTTPException(HTTPStatus.BAD_REQUEST, "The body was cut off.") from error
        if chunk:
            yield chunk


def _status(became: Stored) -> int:
    """PS3.18 Table 10.5.3-1."""
    if not became.stored:
        return HTTPStatus.CONFLICT.value
    return (HTTPStatus.OK if len(became.stored) == len(became) else HTTPStatus.ACCEPTED).value


def _answer(became: Stored, base_url: str) -> str:
    """The Store Instances Response Module (PS3.18 Table I.1-1)."""
    ds = Dataset()
    studies = {identity.study_instance_uid for identity in became.stored}
    ds.RetrieveURL = f"{base_url}dicom-web/studies/{studies.pop()}" if len(studies) == 1 else None
    if became.failed:
        ds.FailedSOPSequence = [_failed(identity, reason) for identity, reason in became.failed]
    if became.stored:
        ds.ReferencedSOPSequence = [_stored(identity, base_url) for identity in became.stored]
    if became.unreadable:
        ds.OtherFailuresSequence = [_reason(reason) for reason in became.unreadable]
    return ds.to_json()


def _stored(identity: Identity, base_url: str) -> Dataset:
    item = _reference(identity)
    item.RetrieveURL = (
        f"{base_url}dicom-web/studies/{identity.study_instance_uid}/series/{identity.series_instance_uid}"
        f"/instances/{identity.sop_instance_uid}"
    )
    return item


def _failed(identity: Identity, reason: int) -> Dataset:
    item = _reference(identity)
    item.FailureReason = reason
    return item


def _reference(identity: Identity) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = identity.sop_class_uid, identity.sop_instance_uid
    return item


def _reason(reason: int) -> Dataset:
    item = Dataset()
    item.FailureReason = reason
    return item


_INSTANCES = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f'Instances as DICOM files, at most {MAX_INSTANCES}: {RELATED} has the type "{DICOM}" '
        "(PS3.18 8.6.1.2); one alone may be the body itself.",
        "content": {RELATED: _INSTANCES, DICOM: _INSTANCES},
    }
}
_MODULE = {DICOM_JSON: {"schema": {"type": "object"}}, JSON: {"schema": {"type": "object"}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    **problems(400, 403, 406, 408, 413, 415, 503, 507),
    200: {"description": "All are stored: the Store Instances Response Module (PS3.18 I).", "content": _MODULE},
    202: {"description": "Some are stored; Failed SOP Sequence has those that are not.", "content": _MODULE},
    409: {"description": "None is stored; Failed SOP Sequence says why.", "content": _MODULE},
}
