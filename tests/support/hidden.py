"""Flows that the kernel does not announce, and waiting for a mirror to learn of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

import pytest

import nlct
from nlct._handle import EVENTS
from nlct.mirror import Mirror

# Longer than anything takes that is waited for.
LONG = 60.0


def until(condition: Callable[[], object], patience: float = LONG, *, pause: float = 0.002) -> None:
    """Wait until it is so; ``pause``: seconds between two looks, more for those that cost more."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(pause)


def set_mode(netns: nlct.Netns, mode: int) -> None:
    """Say which flows have events: 0 none, 1 all, 2 those that somebody may listen to."""
    fd = netns.open_file(EVENTS, os.O_WRONLY)
    try:
        os.write(fd, str(mode).encode())
    except OSError:
        pytest.skip(f"MISSING: nf_conntrack_events={mode}")
    finally:
        os.close(fd)


@contextmanager
def unannounced(netns: nlct.Netns, *mirrors: Mirror) -> Iterator[None]:
    """What is created in the block is never announced, and the mirrors do not notice why.

    So it is with a flow for whose event state there was no memory.
    """
    locks = [mirror._keeper.lock.real for mirror in mirrors]
    with open(netns.open_file(EVENTS)) as file:
        before = int(file.read())
    for lock in locks:
        lock.acquire()
    try:
        set_mode(netns, 0)
        yield
    finally:
        set_mode(netns, before)
        for lock in locks:
            lock.release()


def next_audit(mirror: Mirror) -> None:
    """Wait until an audit has ended that began after this call."""
    audits = mirror.state.audits
    until(lambda: mirror.state.audits >= audits + 2)
