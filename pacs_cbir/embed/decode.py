"""Files → drawn slices, in a child process with limits: a codec that crashes, hangs or eats memory ends there."""

from __future__ import annotations

import multiprocessing
import resource
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pebble

from pacs_cbir.dicom.rules import NO_RULES, SiteRules
from pacs_cbir.dicom.stack import Stack, read_stacks
from pacs_cbir.dicom.volume import build_volume
from pacs_cbir.embed.picture import Picture, Window, render_frame
from pacs_cbir.embed.preprocess import Preprocessing, Slices, draw_slices
from pacs_cbir.embed.thumbnail import Thumbnail, draw_thumbnails
from pacs_cbir.errors import DecodingError, NotAVolume, PacsCbirError, SeriesChanged

_Result = TypeVar("_Result")

SERIES = 100
"""A child's tasks, where each is a series."""
PICTURES = 2000
"""A child's tasks, where each is a frame; it may not be away while someone scrolls."""
_NOT_STARTED = "the decoder process could not be started"


@dataclass(frozen=True)
class DrawnStack:
    """One stack of a series, drawn for the encoder, or the reason why it is not.

    Attributes:
        sequence, evidence: which MR sequence it is, and the header values that say so.
        body_part: canonical, upper case; empty where the header does not tell.
        separated_by: what tells it from the series' other stacks.
        sop_instance_uids: the instances it is made of.
        slices: None where `not_embedded` says why.
        thumbnails: of the frames that the slices were drawn from, where they were asked for.
        missing_slices: how many are missing between others.
    """

    sequence: str
    evidence: dict[str, str]
    body_part: str
    separated_by: dict[str, Any]
    sop_instance_uids: tuple[str, ...]
    slices: Slices | None
    not_embedded: str | None
    thumbnails: tuple[Thumbnail, ...] = ()
    missing_slices: int = 0


def draw_series(
    paths: Sequence[Path], preprocessing: Preprocessing, rules: SiteRules = NO_RULES, *, with_thumbnails: bool = True
) -> list[DrawnStack]:
    """Split a series into stacks and draw the slices of each.

    Args:
        rules: the site's, of which headers are which sequence: what is a localiser is not drawn.

    Raises:
        DecodingError: pixel data cannot be decoded; the series as a whole is not to be trusted.
        NotDicom: a file is not a DICOM data set any more.
    """
    return [_draw(stack, preprocessing, with_thumbnails=with_thumbnails) for stack in read_stacks(paths, rules)]


def draw_each(paths: Sequence[Path], preprocessing: Preprocessing, rules: SiteRules = NO_RULES) -> Iterator[DrawnStack]:
    """`draw_series` without thumbnails, each stack as it is asked for."""
    return (_draw(stack, preprocessing) for stack in read_stacks(paths, rules))


def draw_stack(paths: Sequence[Path], separated_by: Mapping[str, Any], preprocessing: Preprocessing) -> Slices:
    """Draw one stack of a series again.

    Args:
        paths: of the whole series as it was embedded: which stacks it has is seen from all of its instances.
        separated_by: as the stack's `DrawnStack` had it.

    Raises:
        SeriesChanged: it has no such stack any more.
        DecodingError: as `draw_series`.
    """
    for stack in read_stacks(paths):
        if stack.key.as_dict() == separated_by:
            # It was embedded, by whatever rules the site had then.
            return draw_slices(build_volume(replace(stack, reason=None)), preprocessing)
    raise SeriesChanged("the series has changed since it was embedded")


def _draw(stack: Stack, preprocessing: Preprocessing, *, with_thumbnails: bool = False) -> DrawnStack:
    slices, reason, missing = None, stack.reason, 0
    thumbnails: tuple[Thumbnail, ...] = ()
    if reason is None:
        try:
            volume = build_volume(stack)
            missing = volume.missing_slices
            slices = draw_slices(volume, preprocessing)
            thumbnails = draw_thumbnails(stack, volume, slices) if with_thumbnails else ()
        except NotAVolume as error:
            reason = f"not a volume: {error}"
    return DrawnStack(
        sequence=stack.sequence.sequence.value,
        evidence=dict(stack.sequence.evidence),
        body_part=stack.body_part,
        separated_by=stack.key.as_dict(),
        sop_instance_uids=tuple(dict.fromkeys(frame.sop_instance_uid for frame in stack.frames)),
        slices=slices,
        not_embedded=reason,
        thumbnails=thumbnails,
        missing_slices=missing,
    )


def _nothing() -> None:
    pass


def _begin(mebibytes: int) -> None:
    # They quote the values of headers.
    warnings.filterwarnings("ignore", module="pydicom")
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Decoder:
    """The child process; use as a context manager.

    Args:
        seconds: how long one series may take.
        mebibytes: the child's address space.
        tasks: after how many the child is replaced, so that what a codec leaks does not add up to the limit.
    """

    def __init__(self, seconds: float, mebibytes: int, tasks: int = SERIES) -> None:
        self._seconds, self._mebibytes, self._tasks = seconds, mebibytes, tasks
        self._pool = self._new_pool()
        self._closed = False
        self._lock = threading.Lock()

    def _new_pool(self) -> pebble.ProcessPool:
        # Not forked: a fork of a process with torch's threads may hang.
        return pebble.ProcessPool(
            max_workers=1,
            max_tasks=self._tasks,
            context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._mebibytes,),
        )

    def __enter__(self) -> Self:
        # The child takes seconds to start, which the first who wants a picture should not wait for.
        self._pool.schedule(_nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if it was ever started."""
        with self._lock:
            self._closed = True
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble has no annotations here
        self._pool.join()

    def draw(
        self, paths: Sequence[Path], preprocessing: Preprocessing, rules: SiteRules, *, with_thumbnails: bool = True
    ) -> Callable[[], list[DrawnStack]]:
        """Start `draw_series` in the child.

        Returns:
            what waits for it. It raises DecodingError also where the child crashed, ran out of memory, or took too
            long; VolumeError and InstanceError as `draw_series`.
        """
        return self._start(partial(draw_series, with_thumbnails=with_thumbnails), list(paths), preprocessing, rules)

    def render(self, path: Path, frame_number: int, window: Window | None = None) -> Picture:
        """`render_frame` in the child; errors as `run`."""
        return self.run(render_frame, path, frame_number, window)

    def run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """A function of a module in the child.

        Raises:
            DecodingError: also where the child crashed, ran out of memory, or took too long.
            PacsCbirError: what the function raises itself.
        """
        return self._start(function, *arguments)()

    def _start(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        with self._lock:
            try:
                future: Future[_Result] = self._pool.schedule(function, args=arguments, timeout=self._seconds)
            except RuntimeError:
                if self._closed:
                    raise
                # A child that could not be started, for want of memory, leaves a pool that starts none any more.
                self._pool = self._new_pool()
                future = self._in_new_pool(function, *arguments)
        return partial(self._result, future)

    def _in_new_pool(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        try:
            return self._pool.schedule(function, args=arguments, timeout=self._seconds)
        except BrokenProcessPool:
            raise DecodingError(_NOT_STARTED) from None

    def _result(self, future: Future[_Result]) -> _Result:
        try:
            result = future.result()
        except FutureTimeout:
            raise DecodingError(f"decoding took longer than {self._seconds:g} s") from None
        except pebble.ProcessExpired as error:
            raise DecodingError(f"the decoder process died (exit code {error.exitcode})") from None
        except BrokenProcessPool:
            raise DecodingError(_NOT_STARTED) from None
        except MemoryError:
            raise DecodingError("decoding needed more memory than PACS_CBIR_DECODE_MEGABYTES allows") from None
        except PacsCbirError:
            raise
        except Exception as error:
            # What a header may make a library raise has no end; its text may quote the header, its name does not.
            raise DecodingError(f"a header holds what cannot be understood ({type(error).__name__})") from error
        return result
