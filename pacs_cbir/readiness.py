"""Waiting for a service that was started as a child process to answer."""

from __future__ import annotations

import subprocess
import threading
import time

import httpx

POLL_SECONDS = 0.2


def becomes_ready(process: subprocess.Popen[bytes], url: str, seconds: float, stop: threading.Event) -> bool:
    """Wait until the API below `url` says that it is ready.

    Returns:
        false where the process ended, `stop` was set, or so many seconds went by.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not stop.is_set() and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").is_success:
                return True
        except httpx.TransportError:
            pass
        stop.wait(POLL_SECONDS)
    return False
