"""The limit of the table, nf_conntrack_max: raised for a while, and put back whatever happens."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nlct.cli.output import note
from nlct.cli.signals import raise_first, stoppable, unstoppable
from nlct.conntrack import Conntrack

LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
# All network namespaces share the limit and this file, but each has a LIMIT file of its own. A lock
# ends with the process that holds it.
LOCK = "/proc/sys"


def how_to_raise(flows: int) -> str:
    """Say how to make room for so many flows."""
    return f"sysctl -w net.netfilter.nf_conntrack_max={flows}"


@contextmanager
def room(ct: Conntrack, flows: int) -> Iterator[int]:
    """Make room for so many flows if we may; yield how many fit.

    A demo that raises the limit waits until no other demo runs. Otherwise it might find, and put
    back, a limit that another has raised, or take the others' room by putting it back.
    """
    with _open_lock() as lock:
        _wait(lock, fcntl.LOCK_SH)
        if not _fits(ct, flows) and os.access(LIMIT, os.W_OK):
            _wait(lock, fcntl.LOCK_EX)
        if _fits(ct, flows):
            yield flows
            return
        with _raised(ct, flows) as fitting:
            yield fitting


def _fits(ct: Conntrack, flows: int) -> bool:
    limit = ct.limit
    # 0 is no limit.
    return not limit or limit >= flows


@contextmanager
def _open_lock() -> Iterator[int]:
    lock = os.open(LOCK, os.O_RDONLY)
    try:
        yield lock
    finally:
        os.close(lock)


def _wait(lock: int, kind: int) -> None:
    waiting = False
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waiting:
                note(
                    "another demo is running, and only one may change nf_conntrack_max: "
                    "waiting for it"
                )
                waiting = True
        # Do not wait in flock(): a signal that comes right before would not wake us.
        time.sleep(0.1)


@contextmanager
def _raised(ct: Conntrack, flows: int) -> Iterator[int]:
    # Hold signals back while the limit is raised and while it is put back, so that none comes in
    # between. The caller's work may be stopped.
    with unstoppable() as came:
        before = _read_limit()
        try:
            if before is not None and _write_limit(flows):
                note(f"nf_conntrack_max raised from {before} to {flows} for the demo")
            else:
                note(
                    f"nf_conntrack_max is {ct.limit}, and only root in the initial namespace may "
                    f"raise it ({how_to_raise(flows)}): measuring with as many flows as fit"
                )
            with stoppable():
                raise_first(came)
                yield min(flows, ct.limit or flows)
        finally:
            # If somebody else has set another value meanwhile, leave it.
            if before is not None and _read_limit() == flows and _write_limit(before):
                note(f"nf_conntrack_max put back to {before}")


def _read_limit() -> int | None:
    try:
        return int(LIMIT.read_text())
    except OSError:
        return None


def _write_limit(value: int) -> bool:
    try:
        LIMIT.write_text(f"{value}\n")
    except OSError:
        return False
    return True
