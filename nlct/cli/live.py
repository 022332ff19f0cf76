"""What `nlct top` shows, counted in a thread of its own: neither keys nor a slow terminal wait."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from nlct.cli.signals import STOP
from nlct.conntrack import Conntrack
from nlct.filter import Filter
from nlct.live import BYTES, LiveCounts, Sample

# Dumps take at most this part of the time. Where events tell all between them, they need not come
# more often than so many seconds.
SHARE = 10
CORRECT = 10.0
# Events wait so long for others: each wake-up costs.
GATHER = 0.05
_OF_MAIN = (*STOP, signal.SIGTSTP, signal.SIGCONT)
# How often the first dump says how far it is.
TELL = 0.2


class Shown(NamedTuple):
    """One sample, and what belongs to it.

    ``first``: no time has gone by yet, so that there are no rates. ``entries``, ``limit``: of the
    whole table; a limit of 0 is none. ``unaccounted``: why flows have no bytes, "" if they have.
    """

    counts: LiveCounts
    sample: Sample
    first: bool
    entries: int
    limit: int
    unaccounted: str


class _OutdatedError(Exception):
    """A dump is not wanted any more."""


class Live:
    """Counts in a thread.

    ``by``: the fields to count by; may be set at any time, as ``interval`` may, in seconds.
    ``listen``: use events where that can be.
    """

    def __init__(
        self, ct: Conntrack, wanted: Filter, by: tuple[str, ...], interval: float, listen: bool
    ) -> None:
        self._ct, self._wanted, self._listen = ct, wanted, listen
        self._by, self._interval = by, interval
        self.scanned = 0
        self._shown: Shown | None = None
        self._error: BaseException | None = None
        self._stopping = False
        # One end is read by whoever shows, the other by the thread.
        self._told, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="nlct top", daemon=True)
        # The main thread takes the signals. If another did, a call of that one, which the terminal
        # refuses in the background, would begin again and stop us before the signal has its say.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_MAIN)
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something new to take()."""
        return self._told

    def ask(self, by: tuple[str, ...], interval: float) -> None:
        """Count by these fields from now on, and so often."""
        if (by, interval) != (self._by, self._interval):
            if by != self._by:
                # What is shown stays: the thread may never see fields that are soon taken back.
                self.scanned = 0
            self._by, self._interval = by, interval
            _poke(self._wake)

    def take(self) -> Shown | None:
        """Return the latest sample; None before the first. Raises what the thread has raised."""
        _drain(self._told)
        if self._error is not None:
            raise self._error
        shown = self._shown
        return shown if shown and shown.counts.fields == self._by else None

    def close(self) -> None:
        """Stop; may be called again."""
        if not self._stopping:
            self._stopping = True
            _poke(self._wake)
            self._thread.join()
            for fd in (self._told, self._tell, self._woken, self._wake):
                os.close(fd)

    # In the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        counts: LiveCounts | None = None
        try:
            while not self._stopping:
                by = self._by
                # The new one listens before the old one ends: no flow begins unheard.
                before, unaccounted = counts, self._unaccounted()
                counts = LiveCounts(
                    self._ct,
                    *by,
                    filter=self._wanted,
                    traffic=not unaccounted,
                    listen=self._listen,
                )
                if before is not None:
                    before.close()
                with suppress(_OutdatedError):
                    self._count(counts, unaccounted)
        except BaseException as exc:
            self._error = exc
            _poke(self._tell)
        finally:
            if counts is not None:
                counts.close()

    def _unaccounted(self) -> str:
        return next(iter(self._ct.missing(BYTES).values()), "")

    def _count(self, counts: LiveCounts, unaccounted: str) -> None:
        """Count until something else is wanted."""
        first, due, told = True, 0.0, 0.0

        def check(scanned: int) -> None:
            nonlocal told
            if self._stopping or self._by != counts.fields:
                raise _OutdatedError
            self.scanned = scanned
            if first and time.monotonic() - told > TELL:
                told = time.monotonic()
                _poke(self._tell)

        while True:
            began = time.monotonic()
            if began >= due:
                counts.dump(check)
                ended = time.monotonic()
                often = counts.told and bool(unaccounted)
                due = ended + max(
                    CORRECT if often else 0, (SHARE - 1) * (ended - began), self._interval / 2
                )
            stats = self._ct.stats()
            self._shown = Shown(
                counts, counts.sample(), first, stats.entries, stats.limit, unaccounted
            )
            _poke(self._tell)
            first = False
            self._wait(counts, began)

    def _wait(self, counts: LiveCounts, began: float) -> None:
        """Read events until the interval is over."""
        gathering = 0.0
        while True:
            if self._stopping or self._by != counts.fields:
                raise _OutdatedError
            now = time.monotonic()
            left = began + self._interval - now
            if left <= 0:
                return
            waiting: list[int | LiveCounts] = [self._woken]
            if gathering > now:
                left = min(left, gathering - now)
            elif counts.listening:
                waiting.append(counts)
            ready, _, _ = select.select(waiting, (), (), left)
            if self._woken in ready:
                _drain(self._woken)
            if counts in ready or gathering:
                counts.read()
                gathering = time.monotonic() + GATHER if counts in ready else 0.0


def _poke(fd: int) -> None:
    # A full pipe wakes its reader as well.
    with suppress(BlockingIOError):
        os.write(fd, b"\0")


def _drain(fd: int) -> None:
    with suppress(BlockingIOError):
        os.read(fd, 65536)
