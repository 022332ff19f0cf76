"""The signals that end a program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a signal that ends the program unwind it first; ignore those that follow."""

    def stop(number: int, _frame: FrameType | None) -> None:
        # Not SIG_IGN: Python would complain about one that has already come.
        for each in heard:
            signal.signal(each, lambda *_: None)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    heard = _heard()
    before = {each: signal.signal(each, stop) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def unstoppable(*, at_most_once: bool = False) -> Iterator[list[int]]:
    """Hold back these signals; yield the list of those that come, and raise the first afterwards.

    They are not blocked: another thread would take them, and their handler would still run here.
    ``at_most_once``: hold only one back; what follows does what it did before.
    """
    came: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if at_most_once:
            put_back()

    def put_back() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.getsignal(each) for each in _heard()}
    try:
        for each in before:
            signal.signal(each, hold)
        yield came
    finally:
        put_back()
        if came:
            signal.raise_signal(came[0])


def _heard() -> list[signal.Signals]:
    """Find the signals whose handlers we may replace. Only the main thread may do so."""
    if threading.current_thread() is not threading.main_thread():
        return []
    # nohup and background jobs ignore some: leave these. A handler that was installed from C, which
    # is None here, could not be put back.
    return [each for each in STOP if signal.getsignal(each) not in (signal.SIG_IGN, None)]
