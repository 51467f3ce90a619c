"""HTTP clients that ask one question after the other, in a process of their own."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from pacs_cbir.errors import BenchFailed

ANSWERED = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
TIMEOUT_SECONDS = 120.0
WARM_UP = 3
"""Requests of each client that are not counted."""


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Attributes:
        milliseconds: of each request.
        seconds: from the first request to the last answer.
    """

    milliseconds: tuple[float, ...]
    seconds: float


@contextmanager
def client_process() -> Iterator[Executor]:
    """The process; submit `ask` to it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield process


def ask(url: str, paths: Sequence[str], accept: str, clients: int, seconds: float) -> Load:
    """Ask for some seconds, and each client once at least.

    Args:
        paths: of the questions, which the clients share out among them, again and again.

    Raises:
        BenchFailed: an answer was an error.
    """
    together = threading.Barrier(clients)

    def one(number: int) -> tuple[list[float], float, float]:
        taken: list[float] = []
        with httpx.Client(base_url=url, headers={"Accept": accept}, timeout=TIMEOUT_SECONDS) as client:
            place = number
            for _ in range(WARM_UP):
                place += clients
                _get(client, paths[place % len(paths)])
            together.wait()
            first = time.perf_counter()
            while not taken or time.perf_counter() - first < seconds:
                place += clients
                begun = time.perf_counter()
                _get(client, paths[place % len(paths)])
                taken.append((time.perf_counter() - begun) * 1000)
        return taken, first, time.perf_counter()

    with ThreadPoolExecutor(clients) as pool:
        each = list(pool.map(one, range(clients)))
    elapsed = max(end for _, _, end in each) - min(first for _, first, _ in each)
    return Load(tuple(ms for taken, _, _ in each for ms in taken), elapsed)


def _get(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    if response.status_code not in ANSWERED:
        raise BenchFailed(f"the API answered {response.status_code}: {response.text[:300]}")
