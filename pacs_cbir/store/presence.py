"""Which workers there are: each tells its name to Postgres, which knows when it was last heard of."""

from __future__ import annotations

import os
import socket

from sqlalchemy import Connection, text

WORKER = "pacs-cbir worker"
# Postgres cuts names at 63 bytes; of a pod its end tells it from the others.
LONGEST_HOST = 36

COUNT_WORKERS = text("""
    SELECT count(DISTINCT application_name) FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(application_name, :worker)
""")

# A worker asks for jobs, or prolongs the one that it has.
SILENT_FOR = text("""
    SELECT extract(epoch FROM clock_timestamp() - max(state_change)) FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(application_name, :worker)
""")


def this_worker() -> str:
    """The name of the connections of the worker that this process is."""
    return f"{_here()}{os.getpid()}"


def count_workers(connection: Connection) -> int:
    """How many worker processes are connected."""
    return int(connection.execute(COUNT_WORKERS, {"worker": f"{WORKER} "}).scalar_one())


def worker_silent_for(connection: Connection) -> float | None:
    """Seconds since a worker of this machine was last heard of; None where none is connected.

    Args:
        connection: as the services' login itself, without the role that services take on: Postgres hides it else.
    """
    silent = connection.execute(SILENT_FOR, {"worker": _here()}).scalar_one()
    return None if silent is None else float(silent)


def _here() -> str:
    return f"{WORKER} {socket.gethostname()[-LONGEST_HOST:]}:"
