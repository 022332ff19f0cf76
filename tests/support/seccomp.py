"""Seccomp policies: what a service manager or a container may do to a system call.

A policy lasts as long as its process, so it belongs into the child of a fork.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

import pytest

# System calls by machine. The C library opens files by openat(2).
NUMBERS = {
    "x86_64": {
        "unshare": 272,
        "setns": 308,
        "clone": 56,
        "socket": 41,
        "openat": 257,
        "membarrier": 324,
    },
    "aarch64": {
        "unshare": 97,
        "setns": 268,
        "clone": 220,
        "socket": 198,
        "openat": 56,
        "membarrier": 283,
    },
}
KILL = 0x80000000
ERRNO = 0x00050000
ALLOW = 0x7FFF0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def required() -> None:
    """Skip a test where the numbers of the system calls are not known."""
    if os.uname().machine not in NUMBERS:
        pytest.skip(f"MISSING: numbers of system calls on {os.uname().machine}")


def enter(call: str, answer: int | None) -> None:
    """From now on ``call`` kills (None) or answers so: 0, or an errno. It does nothing else."""
    number = NUMBERS[os.uname().machine][call]
    steps = (
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, number),
        (RETURN, 0, 0, KILL if answer is None else ERRNO | answer),
        (RETURN, 0, 0, ALLOW),
    )
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "enter a seccomp policy")
