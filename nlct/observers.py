"""Who is told of each flush of this process."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Callable, NamedTuple

from nlct import _log
from nlct._closing import Closing
from nlct.result import FlushResult


class Flushed(NamedTuple):
    """A flush or delete of this process that has ended.

    ``operation``: "flush" of zones or of everything, "delete" by a filter, "delete_flows".
    ``zones``: the zones that it was restricted to, None if it was not.
    ``seconds``: how long the caller waited.
    ``result``: what it did. None if it raised an error; ``errno`` is then that of the error,
    otherwise None.
    """

    operation: str
    zones: frozenset[int] | None
    seconds: float
    result: FlushResult | None
    errno: int | None = None

    @property
    def strategy(self) -> str | None:
        """How it was done, see FlushResult; None if it raised an error."""
        return None if self.result is None else self.result.strategy


Callback = Callable[[Flushed], object]


class Observation(Closing):
    """Tells a callback of each flush until it is closed; see observe(). A context manager."""

    def __init__(self, callback: Callback) -> None:
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {callback!r}")
        _observers[self] = callback

    def close(self) -> None:
        """Tell it no more. May be called again."""
        _observers.pop(self, None)


_observers: dict[Observation, Callback] = {}


def observe(callback: Callback) -> Observation:
    """Call ``callback`` with a Flushed after each flush or delete of this process.

    That is every flush_zone, flush_zones, flush_all, delete and delete_flows of Conntrack, Flusher
    and Mirror, also the asynchronous ones; no dry run, no delete_flow(), and no call that raised
    anything but an OSError, as for a bad argument. close() of what this returns ends it.

    The callback runs in the thread of the caller of the flush, who waits for it. If it raises an
    exception, nlct logs that as a warning, and the flush is what it was. It is told of flushes of
    its own, too. While there are no observers a flush does no work for them.

    Raises TypeError for what cannot be called.
    """
    return Observation(callback)


def watched(
    operation: str, zones: frozenset[int] | None, work: Callable[[], FlushResult]
) -> FlushResult:
    """Do the work, and tell the observers what came of it."""
    if not _observers:
        return work()
    began = time.monotonic()
    try:
        result = work()
    except OSError as exc:
        _tell(Flushed(operation, zones, time.monotonic() - began, None, exc.errno))
        raise
    _tell(Flushed(operation, zones, time.monotonic() - began, result))
    return result


async def watched_async(
    operation: str, zones: frozenset[int] | None, work: Callable[[], Awaitable[FlushResult]]
) -> FlushResult:
    """Like watched(), for asyncio."""
    if not _observers:
        return await work()
    began = time.monotonic()
    try:
        result = await work()
    except OSError as exc:
        _tell(Flushed(operation, zones, time.monotonic() - began, None, exc.errno))
        raise
    _tell(Flushed(operation, zones, time.monotonic() - began, result))
    return result


def _tell(flushed: Flushed) -> None:
    for callback in list(_observers.values()):
        try:
            callback(flushed)
        except Exception as exc:
            _log.say(_log.WARNING, "an observer of flushes failed: %r", exc)
