"""Calls to the system that fail: the most telling of `make faults`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nlct import _nlct
from tests.faults.injector import FAULTS

ROOT = Path(__file__).parent.parent
EXIT_MISSING = 77

# Whatever the number of the call, something must come of it.
CASES = (
    "dump/recvmsg:1:ENOBUFS",
    "dump/sendto:1:EINTR",
    "dump large/recvmsg:6:ENOMEM",
    "dump large/recvmsg:7:TRUNCATE",
    "dump large/pthread_create:1:EAGAIN",
    "table large/calloc:9:ENOMEM:always",
    "table large/realloc:3:ENOMEM",
    "count by large/realloc:2:ENOMEM",
    "count/setsockopt:1:EPERM:always",
    "stats/socket:1:EMFILE:always",
    "get/clone:1:EAGAIN",
    "flush scan/sendto:2:EPERM",
    "flush scan/pread:1:EIO",
    "flush all/recvmsg:1:TRUNCATE",
    "delete/recvmsg:4:EAGAIN",
    "delete large/recvmsg:3:ENOBUFS",
    "delete large/sendto:4:ENOBUFS:always",
    "delete flow/recvmsg:2:EAGAIN",
    "create/bind:1:ENOMEM",
    "load/malloc:1:ENOMEM",
    "load/recvmsg:1:EAGAIN",
    "load/recvmsg:2:ENOBUFS",
    "load/recvmsg:3:ENOBUFS:always",
    "events/recvmmsg:1:ENOBUFS",
    "events/recvmmsg:1:ENOBUFS:always",
    "events/recvmmsg:1:TRUNCATE",
    "events/recvmmsg:1:EAGAIN",
    "event batches/recvmmsg:1:ENOMEM",
    "flusher large/malloc:1:ENOMEM",
    "flusher large/recvmsg:9:ENOBUFS",
    "scratch/unshare:1:EPERM",
    "scratch/unshare:1:ENOSPC:always",
    "scratch/mmap:1:ENOMEM",
    # Process 1 cannot be seen.
    "scratch/open:1:EACCES",
    "open/setns:1:EPERM",
    # The helper child is killed, or a call only says that it did something.
    "scratch/unshare:1:KILL",
    "open/ioctl:3:KILL",
    "get/fstat:2:KILL",
    "scratch/unshare:1:PRETEND:always",
    "probe/unshare:1:KILL",
    "get/socket:2:KILL:always",
    "get/setns:1:KILL",
    "get/setns:1:PRETEND:always",
    # Nothing is flushed where it cannot be told which namespace a socket is in.
    "flush kernel/fstat:5:ENOMEM:always",
    # No descriptor for the size of the hash table, and none for a probe.
    "stats/open:2:EMFILE:always",
    "probe/socket:1:EMFILE:always",
)
# Functions of the C library that do not fail, or whose failure cannot be brought about from here.
NEVER_FAIL = (
    r"__cxa_finalize|__errno_location|__gmon_start__|_ITM_\w+|__stack_chk_fail",
    r"(__)?(mem|str)\w+|qsort|inet_pton|__sched_cpucount|sig\w+|free|getauxval|munmap|getpid|time|clock_gettime",
    r"pthread_(mutex|condattr|self|join|sigmask|atfork)\w*|pthread_cond_(init|signal|destroy)",
)


# Whoever hangs is found by the driver; a machine with more to do takes as long as it takes.
@pytest.mark.timeout(3600)
def test_the_most_telling_faults() -> None:
    """No crash, nothing deleted that was not named, the right error, nothing left open."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *CASES],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == EXIT_MISSING:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    missed = re.findall(r"^(.*): not reached$", done.stdout, re.MULTILINE)
    # With one processor nothing is received ahead, and the calls have other numbers.
    assert all(" large/" in case for case in missed), missed


def test_every_call_of_the_core_can_fail() -> None:
    """A call that is new in the core belongs into the injector."""
    if shutil.which("nm") is None:
        pytest.skip("MISSING: nm")
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", os.fspath(_nlct.__file__)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    called = {re.split("@", line.split()[-1])[0] for line in listed.splitlines()}
    # Some have another name with _FORTIFY_SOURCE.
    plain = {name: re.sub(r"^__(\w+?)(_chk|_2)$", r"\1", name) for name in called}
    never = re.compile("|".join(NEVER_FAIL))
    unknown = [
        name
        for name, known in plain.items()
        if known not in FAULTS and not never.fullmatch(known) and not name.startswith(("Py", "_Py"))
    ]
    assert not unknown
