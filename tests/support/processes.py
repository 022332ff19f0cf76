"""Code in a process of its own: a script, perhaps without privilege, or the child of a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

NOBODY = 65534
WALL = 0x40000000  # waitpid: children of clone(2) too, whatever their exit signal

# What an unprivileged user may not be able to read must be imported before.
AS_NOBODY = f"""
import ctypes, errno, ipaddress, logging, os, nlct, nlct.fill
import tests.support.oracle, tests.support.flows
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as after a login
"""

Script = Callable[..., str]


def script(code: str, *, nobody: bool = False, pass_fds: tuple[int, ...] = ()) -> str:
    """Run Python code in a process of its own, perhaps without privilege; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AS_NOBODY * nobody + code],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=240,
        pass_fds=pass_fds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def in_child(work: object, timeout: float = 240.0) -> int:
    """Run a function in a forked child and return its exit status; -1 where it hangs."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()  # type: ignore[operator]
            status = 0
        except BaseException as exc:
            os.write(2, f"in the child: {exc!r}\n".encode())
        finally:
            os._exit(status)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1
