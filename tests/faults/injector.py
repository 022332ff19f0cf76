"""The preload library: built, and controlled from the process that has it."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("inject.c")
FLAGS = ("-std=c11", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-shared", "-fPIC")
MODULE = b"/_nlct."

# As in inject.c: what may happen in place of an errno.
SPECIAL = {"TRUNCATE": -1, "KILL": -2, "PRETEND": -3}
# Each call that fails and all that follow.
ALWAYS = 2**32 - 1

# How each call may fail. A call that is not here always works, or its failure cannot be noticed.
FAULTS: dict[str, tuple[str, ...]] = {
    "socket": ("EMFILE", "ENFILE", "ENOBUFS", "EPERM", "EPROTONOSUPPORT", "KILL"),
    "bind": ("ENOMEM", "EADDRINUSE"),
    "getsockname": ("ENOBUFS",),
    "getsockopt": ("ENOBUFS",),
    "setsockopt": ("EPERM", "ENOPROTOOPT"),
    "sendto": ("ENOBUFS", "EINTR", "EPERM", "ENOMEM"),
    "recvmsg": ("ENOBUFS", "EINTR", "EAGAIN", "ENOMEM", "TRUNCATE"),
    "recvmmsg": ("ENOBUFS", "EINTR", "EAGAIN", "ENOMEM", "TRUNCATE"),
    "poll": ("EINTR", "ENOMEM"),
    "open": ("ENOENT", "EMFILE", "EACCES", "EINTR", "KILL"),
    "openat": ("ENOENT", "EMFILE", "EACCES", "EINTR", "KILL"),
    "read": ("EINTR", "EIO"),
    "pread": ("EINTR", "EIO"),
    # Not KILL: what was to be closed is left open, since to close it twice would be worse.
    "close": ("EINTR", "EIO"),
    "ioctl": ("EPERM", "ENOSYS", "KILL"),
    "fstat": ("ENOMEM", "EOVERFLOW", "KILL"),
    "fcntl": ("EMFILE",),
    "clone": ("EAGAIN", "ENOMEM", "EPERM", "ENOSYS"),
    "setns": ("EPERM", "ENOMEM", "EINVAL", "ENOSYS", "KILL", "PRETEND"),
    "unshare": ("EPERM", "ENOMEM", "ENOSPC", "ENOSYS", "KILL", "PRETEND"),
    "waitpid": ("EINTR", "ECHILD"),
    "malloc": ("ENOMEM",),
    "calloc": ("ENOMEM",),
    "realloc": ("ENOMEM",),
    "mmap": ("ENOMEM",),
    "madvise": ("ENOMEM", "EINVAL"),
    "pthread_create": ("EAGAIN",),
    # Both may also wake up without a reason.
    "pthread_cond_wait": ("PRETEND",),
    "pthread_cond_timedwait": ("ETIMEDOUT", "PRETEND"),
    "sched_getaffinity": ("EINVAL",),
    "syscall": ("ENOSYS", "EINVAL"),
    "getrandom": ("EINTR", "EAGAIN", "ENOSYS"),
}
# What stays as it is for a while. Of the others one at a time: to repeat them is to wait for ever.
LASTING = ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EPERM", "EACCES", "ENOSYS", "PRETEND", "KILL")
# Waking up without a reason does not last either.
BRIEF_CALLS = ("pthread_cond_wait", "pthread_cond_timedwait")


class Fault(NamedTuple):
    """Call number ``number`` fails, or that and all that follow."""

    call: str
    number: int
    kind: str
    lasts: bool = False

    def __str__(self) -> str:
        return f"{self.call}:{self.number}:{self.kind}" + ":always" * self.lasts

    @classmethod
    def read(cls, text: str) -> Fault:
        """Read what str() wrote."""
        call, number, kind, *lasts = text.split(":")
        return cls(call, int(number), kind, lasts == ["always"])

    @property
    def value(self) -> int:
        """What the library is told."""
        return SPECIAL[self.kind] if self.kind in SPECIAL else getattr(errno, self.kind)


def lasts(call: str, kind: str) -> tuple[bool, ...]:
    """Once, or once and always."""
    return (False, True) if kind in LASTING and call not in BRIEF_CALLS else (False,)


def build(folder: Path) -> Path:
    """Compile the library. Raises FileNotFoundError without a compiler."""
    library = folder / "inject.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, *FLAGS, "-o", library, SOURCE, "-ldl"], check=True)
    return library


class Injector:
    """The library in this very process, which was started with it."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._lib.faults_name.restype = ctypes.c_char_p
        self._lib.faults_held.restype = ctypes.c_long
        if self._lib.faults_watch(MODULE) < 0:
            raise RuntimeError("the compiled module is not loaded")
        self.calls: dict[str, int] = {}
        while (name := self._lib.faults_name(len(self.calls))) is not None:
            self.calls[name.decode()] = len(self.calls)

    def arm(self, fault: Fault) -> None:
        """Count from zero, and let a call fail."""
        last = ALWAYS if fault.lasts else fault.number
        self._lib.faults_arm(self.calls[fault.call], fault.number, last, fault.value)

    def disarm(self) -> None:
        """Count from zero, and let everything through."""
        self._lib.faults_arm(0, 0, 0, 0)

    def fired(self) -> int:
        """Return how many calls failed since it was armed."""
        return int(self._lib.faults_fired())

    def counts(self) -> dict[str, int]:
        """Return how often the core made each call."""
        return {name: int(self._lib.faults_count(number)) for name, number in self.calls.items()}

    def held(self) -> int:
        """Return how many blocks and mappings the core has taken and not given back."""
        return int(self._lib.faults_held())
