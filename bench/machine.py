"""The machine: what it is, and its settings, which are restored whatever happens."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path

LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
BUCKETS = Path("/proc/sys/net/netfilter/nf_conntrack_buckets")
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def describe() -> str:
    """Say what kind of machine this is, in no more detail than others of its kind share."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", info)
    virtual = "hypervisor" in info
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    # The builder adds what follows the numbers.
    release = re.match(r"[0-9]+(\.[0-9]+)*", platform.release())
    return (
        f"Linux {release[0] if release else '?'}, {'a virtual machine with ' * virtual}"
        f"{os.cpu_count()} cores of {model[1] if model else platform.machine()}, "
        f"{memory:.0f} GiB, {int(BUCKETS.read_text()):,} buckets"
    )


def versions() -> dict[str, str]:
    """Return the versions of what is measured, if it is installed."""
    found = {"Python": platform.python_version()}
    for package in ("nlct", "pyroute2", "pyarrow", "pytest-benchmark"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    for package in ("conntrack", "libnetfilter-conntrack3"):
        command = ("dpkg-query", "--show", "--showformat=${Version}", package)
        with suppress(FileNotFoundError, subprocess.CalledProcessError):
            found[package] = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
    return found


class Settings:
    """The kernel's settings, to change and to restore."""

    def __init__(self) -> None:
        self._before: dict[Path, int] = {}

    def make_room(self, flows: int) -> None:
        """Raise the limit to so many flows, and as many of others. 0 is no limit."""
        if 0 < int(LIMIT.read_text()) < 2 * flows:
            self._set(LIMIT, 2 * flows)

    def set_buckets(self, buckets: int) -> None:
        """Resize the hash table; 0 restores its size."""
        if buckets or BUCKETS in self._before:
            self._set(BUCKETS, buckets or self._before[BUCKETS])

    def put_back(self) -> None:
        """Restore everything."""
        for path, value in self._before.items():
            path.write_text(f"{value}\n")

    def _set(self, path: Path, value: int) -> None:
        self._before.setdefault(path, int(path.read_text()))
        path.write_text(f"{value}\n")


def stop_once() -> None:
    """Let a signal that ends the program unwind it first; ignore those that follow."""

    def stop(*_: object) -> None:
        for each in heard:
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt

    heard = [each for each in STOP if signal.getsignal(each) is not signal.SIG_IGN]
    for each in heard:
        signal.signal(each, stop)
