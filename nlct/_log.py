"""What nlct says to `logging`, as the logger "nlct", in threads of its callers.

Handlers have locks, and do what they like. So nothing is said in a thread of our own, for which its
callers wait, nor while a lock is held: where greenlets take turns in a thread, that may never end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from typing import Any

from nlct._threads import get_ident

DEBUG, INFO, WARNING = 10, 20, 30

# What is to be said: level, text, and the values in it.
Said = tuple[int, str, tuple[Any, ...]]

# Where threads put what they say, by thread.
_kept: dict[int, MutableSequence[Said]] = {}


def _after_fork() -> None:
    """Forget the parent's other threads: a new one may get the number of one of them."""
    own = get_ident()
    for thread in [each for each in _kept if each != own]:
        del _kept[thread]


os.register_at_fork(after_in_child=_after_fork)


def say(level: int, text: str, *values: object) -> None:
    """Log it, or keep it for later."""
    # Do not import logging just to emit a debug line.
    if level < WARNING and "logging" not in sys.modules:
        return
    kept = _kept.get(get_ident())
    if kept is not None:
        kept.append((level, text, values))
        return
    # Imported when it is needed, to keep `import nlct` quick.
    try:
        import logging  # noqa: PLC0415
    except (ImportError, OSError):
        # The process has changed its root since, or has no descriptor left.
        return

    logging.getLogger("nlct").log(level, text, *values)


@contextmanager
def keep(said: MutableSequence[Said]) -> Iterator[None]:
    """Put there what this thread says in the block."""
    thread = get_ident()
    before = _kept.get(thread)
    _kept[thread] = said
    try:
        yield
    finally:
        if before is None:
            _kept.pop(thread, None)
        else:
            _kept[thread] = before


def say_all(said: MutableSequence[Said]) -> None:
    """Say what was kept, once, whoever else does so at the same time."""
    while said:
        try:
            level, text, values = said.pop(0)
        except IndexError:
            return
        say(level, text, *values)
