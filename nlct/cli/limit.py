"""The limit of the table, nf_conntrack_max: raised for a while, and put back whatever happens."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Callable, TypeVar

from nlct.cli.output import note
from nlct.cli.signals import unstoppable
from nlct.conntrack import Conntrack

LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
# All network namespaces share the limit and this file, but each has a LIMIT file of its own. A lock
# ends with the process that holds it.
LOCK = "/proc/sys"

Result = TypeVar("Result")


def how_to_raise(flows: int) -> str:
    """Say how to make room for so many flows."""
    return f"sysctl -w net.netfilter.nf_conntrack_max={flows}"


def with_room(ct: Conntrack, flows: int, work: Callable[[int], Result]) -> Result:
    """Make room for so many flows if we may, and do the work with as many as fit.

    A demo that raises the limit waits until no other demo runs. Otherwise it might find, and put
    back, a limit that another has raised, or take the others' room by putting it back.
    """
    lock = os.open(LOCK, os.O_RDONLY)
    try:
        _wait(lock, fcntl.LOCK_SH)
        if not _fits(ct, flows) and os.access(LIMIT, os.W_OK):
            _wait(lock, fcntl.LOCK_EX)
        if _fits(ct, flows):
            return work(flows)
        before = _read_limit()
        # No context manager: a signal may come between its function and our block. And twice: one
        # may come instead of the first call. Only the first signal raises.
        try:
            _raise(ct, before, flows)
            return work(min(flows, ct.limit or flows))
        finally:
            try:
                _put_back(before, flows)
            finally:
                _put_back(before, flows)
    finally:
        os.close(lock)


def _fits(ct: Conntrack, flows: int) -> bool:
    limit = ct.limit
    # 0 is no limit.
    return not limit or limit >= flows


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


def _raise(ct: Conntrack, before: int | None, flows: int) -> None:
    with unstoppable():
        if before is not None and _write_limit(flows):
            note(f"nf_conntrack_max raised from {before} to {flows} for the demo")
        else:
            note(
                f"nf_conntrack_max is {ct.limit}, and only root in the initial namespace may "
                f"raise it ({how_to_raise(flows)}): measuring with as many flows as fit"
            )


def _put_back(before: int | None, flows: int) -> None:
    with unstoppable():
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
