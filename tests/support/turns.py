"""Turns: who changes what all namespaces share runs while no other test does, on this machine.

All tests share one hash table and its limit, and pytest-xdist runs several at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Two folders that every user and namespace may open, for their locks alone; nlct locks neither. Who
# waits for the room keeps the door, so that nobody who comes later goes in before.
_DOOR, _ROOM = (os.open(path, os.O_RDONLY) for path in ("/proc/fs", "/proc/driver"))


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Wait until nobody else is at work, or nobody who must be alone."""
    fcntl.flock(_DOOR, fcntl.LOCK_EX)
    try:
        fcntl.flock(_ROOM, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    finally:
        fcntl.flock(_DOOR, fcntl.LOCK_UN)
    try:
        yield
    finally:
        fcntl.flock(_ROOM, fcntl.LOCK_UN)
