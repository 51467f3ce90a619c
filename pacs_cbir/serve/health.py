"""For those who run the service: is it up, is it ready, what is in it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from pacs_cbir.errors import DatabaseUnavailable, SchemaOutdated
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.metrics import Metrics
from pacs_cbir.serve.problems import DATABASE_RETRY_SECONDS, respond
from pacs_cbir.serve.schemas import problems
from pacs_cbir.store import schema
from pacs_cbir.store.session import Database
from pacs_cbir.store.status import Status, service_status


def health_router(database: Database, searcher: Searcher, metrics: Metrics) -> APIRouter:
    """Routes for operators and their tools."""
    router = APIRouter(tags=["operation"])

    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live")
    async def live() -> dict[str, str]:
        """The process is up and answers; requests that wait for the database or a decoder are not in its way."""
        return {"status": "live"}

    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/ready", response_class=JSONResponse, responses=problems(503))
    def ready() -> Any:
        """The database answers, its schema is this version's, and the index is loaded; else 503 with the reasons."""
        reasons = []
        try:
            schema.check(database)
        except (DatabaseUnavailable, SchemaOutdated) as error:
            reasons.append(str(error))
        if not searcher.ready:
            reasons.append("the index is not loaded yet")
        if not reasons:
            return {"status": "ready"}
        return respond(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"Not ready: {'; '.join(reasons)}.",
            headers={"Retry-After": str(DATABASE_RETRY_SECONDS)},
            reasons=reasons,
        )

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def prometheus() -> Response:
        """Prometheus' exposition format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/status", responses=problems(503))
    def status() -> Status:
        """Counts, the encoder, jobs, what was parked and why, and studies that need a person's look."""
        with database.transaction() as connection:
            return service_status(connection)

    return router
