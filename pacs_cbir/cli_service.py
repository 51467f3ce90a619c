"""What the commands that run for long begin with."""

from __future__ import annotations

import signal
import threading

from pacs_cbir import logs
from pacs_cbir.settings import Settings, load_settings


def service() -> tuple[Settings, threading.Event]:
    """Settings, logs, and an event that SIGTERM and Ctrl-C set."""
    from pacs_cbir.supervisor import end_with_supervisor

    settings = load_settings()
    logs.configure()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end_with_supervisor(stop)
    return settings, stop
