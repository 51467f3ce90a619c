"""Behind a proxy's path: where `X-Forwarded-Prefix` names one, the URLs in answers begin with it."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

HEADER = "X-Forwarded-Prefix"
# RFC 3986 3.3, without what would be escaped.
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Prefix:
    """ASGI middleware. The proxy takes the prefix from the path; here it becomes ASGI's `root_path`.

    Whoever sends the field without a proxy is answered with other URLs, and no one else is, as nothing is cached.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            prefix = Headers(scope=scope).get(HEADER, "").rstrip("/")
            if _PATH.fullmatch(prefix):
                scope = {**scope, "root_path": prefix, "path": prefix + scope["path"]}
        await self._app(scope, receive, send)
