"""Which errors a fault may lead to, and which faults may be without any, with reasons."""

from __future__ import annotations

import errno
from typing import NamedTuple

from tests.faults.injector import Fault


class Tolerated(NamedTuple):
    """A fault after which a call may succeed, and why."""

    calls: tuple[str, ...]
    kinds: tuple[str, ...]
    reason: str


ANY = ("*",)
TOLERATED = (
    Tolerated(("setsockopt",), ANY, "sizes and extended acks are wishes: the room is measured"),
    Tolerated(
        ("sendto", "recvmsg", "recvmmsg", "poll", "waitpid", "open", "openat", "pread", "read"),
        ("EINTR",),
        "tried again",
    ),
    Tolerated(("waitpid",), ("ECHILD",), "the child has said what came of it"),
    Tolerated(("getrandom",), ANY, "the kernel gave random bytes at the start as well"),
    Tolerated(("recvmsg", "recvmmsg"), ("EAGAIN",), "nothing is queued yet: it is waited for"),
    Tolerated(("recvmmsg",), ("ENOBUFS",), "an overrun"),
    Tolerated(("close",), ANY, "the descriptor is closed even so"),
    Tolerated(("open", "openat"), ("ENOENT",), "nf_conntrack_buckets need not exist"),
    Tolerated(("unshare",), ("EPERM",), "a user namespace is tried"),
    Tolerated(("fstat",), ANY, "what cannot be told to be ours is neither used nor closed"),
    Tolerated(("sched_getaffinity", "pthread_create"), ANY, "nothing is received ahead"),
    Tolerated(("syscall",), ANY, "without membarrier(2) it waits for a while"),
    Tolerated(("mmap", "madvise"), ANY, "nothing is received ahead"),
    Tolerated(("pthread_cond_wait", "pthread_cond_timedwait"), ANY, "it looks again"),
    Tolerated(("realloc",), ("ENOMEM",), "what is taken is as good with room to spare"),
    Tolerated(("ioctl", "socket"), ANY, "which namespace it is can be told by other means"),
)

# The errno that a fault may become on its way.
BECOMES: dict[tuple[str, str], tuple[int, ...]] = {
    ("recvmsg", "TRUNCATE"): (errno.EMSGSIZE,),
    ("recvmmsg", "TRUNCATE"): (errno.EMSGSIZE,),
    # Of a batch without an answer nobody can say more; of a request, that it did not come.
    ("recvmsg", "EAGAIN"): (errno.ENOBUFS, errno.ETIMEDOUT),
    # Without the sysctl there are no events.
    ("open", "ENOENT"): (errno.EOPNOTSUPP,),
    # A descriptor that cannot be told to be ours is taken for somebody else's.
    ("fstat", "*"): (errno.EBADF,),
    ("ioctl", "*"): (errno.EINVAL, errno.EPERM),
    ("unshare", "ENOSPC"): (errno.EPERM,),
    ("socket", "EPROTONOSUPPORT"): (errno.EOPNOTSUPP,),
}


def may_leave_open(fault: Fault) -> bool:
    """Tell if a descriptor may be left: to close somebody else's would be worse."""
    return fault.call == "fstat" and fault.kind != "KILL"


def tolerated(fault: Fault) -> str | None:
    """Say why this may be without an error."""
    for each in TOLERATED:
        if fault.call in each.calls and (each.kinds == ANY or fault.kind in each.kinds):
            return each.reason
    return None


def numbers(fault: Fault) -> set[int] | None:
    """Return what the error number may be; None is any."""
    if fault.kind in ("KILL", "PRETEND"):
        return None
    found = {fault.value} if fault.value > 0 else set()
    for kind in (fault.kind, "*"):
        found.update(BECOMES.get((fault.call, kind), ()))
    return found


def may_raise(fault: Fault, kind: str, number: int | None) -> bool:
    """Tell if an exception is what this fault should lead to."""
    if kind == "MemoryError":
        return fault.kind == "ENOMEM"
    if kind == "ValueError":
        # "netns must be a network namespace": whoever cannot ask that does not take it for one.
        return fault.call == "ioctl"
    allowed = numbers(fault)
    return number is not None and (allowed is None or number in allowed)


def may_fail(fault: Fault, number: int) -> bool:
    """Tell if a request of a batch may have failed so."""
    allowed = numbers(fault)
    # Whatever ends the answers of a batch leaves the rest of it unknown, which is ENOBUFS.
    return allowed is None or number in allowed or number == errno.ENOBUFS
