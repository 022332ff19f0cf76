"""The signals that end a program."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals that end a program unwind it first, and only the first of them."""

    def stop(number: int, _frame: FrameType | None) -> None:
        # Not SIG_IGN: Python would complain about one that has already come.
        for each in heard:
            signal.signal(each, lambda *_: None)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    # nohup and background jobs ignore some; so be it.
    heard = [each for each in STOP if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def unstoppable() -> Iterator[None]:
    """Hold back these signals until a short work is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
