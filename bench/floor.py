"""What the measurements share: the floor beside them, and room in the table."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nlct

MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
HERE = Path(__file__).parent


class Floor:
    """The bare C loops of floor.c, in a process of their own inside the namespace."""

    def __init__(self, netns: nlct.Netns) -> None:
        self._process = subprocess.Popen(
            [HERE / "floor", f"/proc/{os.getpid()}/fd/{netns.fileno()}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __call__(self, command: str) -> float:
        """Run one command; return the seconds it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@contextmanager
def room_for(flows: int) -> Iterator[None]:
    """Raise the limit of the table, and put it back."""
    before = MAX.read_text()
    MAX.write_text(str(max(int(before), flows)))
    try:
        yield
    finally:
        MAX.write_text(before)
