"""How many requests with a body may be under way at once: what trickles in holds a file and a place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from threading import Semaphore

from starlette.exceptions import HTTPException

RETRY_SECONDS = 5


class Places:
    """So many requests of one kind.

    Args:
        most: how many.
        name: of the kind, in the plural.
    """

    def __init__(self, most: int, name: str) -> None:
        self._free = Semaphore(most)
        self._detail = f"{most} {name} are under way. Ask again after the seconds in Retry-After."

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A place, until the block ends.

        Raises:
            HTTPException: 503, all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, self._detail, {"Retry-After": str(RETRY_SECONDS)})
        try:
            yield
        finally:
            self._free.release()
