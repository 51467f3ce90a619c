"""Around every request: its line in the log, its count and seconds, an answer where something broke, no caching."""

from __future__ import annotations

import re
import time
import traceback

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacs_cbir.serve.metrics import Metrics
from pacs_cbir.serve.problems import internal_error

UNMATCHED = "unmatched"
# RFC 9110 5.5. The server refuses it too, after it took the answer for begun.
_NO_FIELD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Of answers that say nothing else: what is told of patients is left in no cache."""

log = structlog.get_logger()


class Access:
    """ASGI middleware. It names the route's template, never the URL, which carries names and IDs."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            begins = message["type"] == "http.response.start"
            if begins and any(_NO_FIELD_VALUE.search(value) for _, value in message.get("headers", ())):
                raise ValueError("a field of the answer holds control characters")
            if begins:
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)
            if begins:
                status = message["status"]

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            # An exception's text can hold a value of a header, its frames cannot.
            frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            log.error("request broke", kind=type(error).__name__, frames=frames)  # noqa: TRY400 - see above
            if not status:
                await internal_error()(scope, receive, watch)
        seconds = time.perf_counter() - started
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self._metrics.observe(scope["method"], route, status, seconds)
        log.info("request", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 1))
