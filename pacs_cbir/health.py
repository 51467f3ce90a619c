"""What `pacs-cbir health` asks: does a part of this service, on this machine, do what it is there for."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from pacs_cbir.errors import Unhealthy
from pacs_cbir.pacs.echo import echoes
from pacs_cbir.settings import Settings
from pacs_cbir.store import presence
from pacs_cbir.store.session import open_database

ANSWER_SECONDS = 10


def check(role: str, settings: Settings) -> None:
    """Ask one part.

    Args:
        role: a name in `ROLES`.

    Raises:
        Unhealthy: it does not answer as it should; says what it said.
        DatabaseUnavailable: of the worker, which is asked for there.
    """
    ROLES[role](settings)


def _api(settings: Settings) -> None:
    url = settings.own_api
    try:
        # No proxy of the environment stands between the processes of one service.
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False) as client:
            answer = client.get(f"{url}/health/ready")
    except httpx.TransportError as error:
        raise Unhealthy(f"no API answers at {url} ({type(error).__name__})") from error
    if not answer.is_success:
        raise Unhealthy(f"the API answers {answer.status_code} at {url}/health/ready: {answer.text}")


def _scp(settings: Settings) -> None:
    host, port = settings.own_scp
    # As one of those who may associate, where that is restricted.
    calling = settings.calling_ae_titles[0] if settings.calling_ae_titles else settings.ae_title
    if not echoes(host, port, called=settings.ae_title, calling=calling, answer_seconds=ANSWER_SECONDS):
        raise Unhealthy(f"no SCP answers a C-ECHO from {calling} to {settings.ae_title} at {host}:{port}")


def _worker(settings: Settings) -> None:
    with open_database(settings, pool_size=1, check=False, role=None) as database, database.reading() as connection:
        silent = presence.worker_silent_for(connection)
    if silent is None:
        raise Unhealthy("no worker of this machine is connected to the database")
    if silent > settings.lease_seconds:
        raise Unhealthy(f"the worker of this machine has not spoken to the database for {silent:.0f} s")


ROLES: dict[str, Callable[[Settings], None]] = {"scp": _scp, "worker": _worker, "api": _api}
"""Parts that can be asked → how."""
