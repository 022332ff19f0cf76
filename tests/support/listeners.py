"""Programs that print the events of a namespace while a test makes some."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

import nlct
from tests.support.command import NLCT

# Longer than any event takes that comes at all.
PATIENCE = 60.0
NETFILTER = 12  # NETLINK_NETFILTER
GROUPS = 0x3F  # those of new, update and destroy, of flows and of expectations

# What a test makes and deletes to see if listeners have come so far. No other flow is in its zone.
MARKER = nlct.Flow(nlct.Tuple("192.0.2.9", "192.0.2.10", "udp", 9, 9), zone=4242, timeout=999)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, f"waited too long: {what}"
        time.sleep(0.005)


def count(netns: nlct.Netns) -> int:
    """Count the sockets that listen to events of flows or expectations."""
    fd = netns.open_file("/proc/thread-self/net/netlink")
    with open(fd, encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(int(row[1]) == NETFILTER and int(row[3], 16) & GROUPS != 0 for row in rows)


class Listener:
    """A program that listens; its output goes to a file."""

    def __init__(self, file: Path, process: subprocess.Popen[bytes]) -> None:
        self._file = file
        self.process = process

    def lines(self) -> list[str]:
        """Return the whole lines that it has printed, but those of the marker."""
        return [line for line in self._all() if " zone=4242" not in line]

    def markers(self) -> int:
        """Count the markers that have come and gone."""
        return sum("[DESTROY]" in line and " zone=4242" in line for line in self._all())

    def _all(self) -> list[str]:
        text = self._file.read_text()
        return text[: text.rfind("\n") + 1].splitlines()


@contextmanager
def listening(netns: nlct.Netns, file: Path, *command: str) -> Iterator[Listener]:
    """Run a program in a namespace, from when it listens to the end of the block."""
    for name in ("nsenter", command[0]):
        if not shutil.which(name):
            pytest.skip(f"MISSING: {name}")
    before = count(netns)
    words = ["nsenter", f"--net=/proc/self/fd/{netns.fileno()}", "--", *command]
    with file.open("wb") as out:
        process = subprocess.Popen(
            words, stdout=out, stderr=subprocess.PIPE, pass_fds=(netns.fileno(),)
        )
    try:
        wait_until(
            lambda: count(netns) > before or process.poll() is not None, f"{command} listens"
        )
        yield Listener(file, process)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def nlct_events(*options: str) -> tuple[str, ...]:
    """Return our command."""
    return (*NLCT, "events", *options)


def catch_up(ct: nlct.Conntrack, *listeners: Listener) -> None:
    """Wait until they have printed all that has happened."""
    before = [listener.markers() for listener in listeners]
    ct.create(MARKER)
    ct.delete_flow(MARKER)
    wait_until(
        lambda: all(now.markers() > then for now, then in zip(listeners, before)), "a marker"
    )
