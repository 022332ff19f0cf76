"""The machine: what it is, and its settings, which are put back whatever happens."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from nlct.cli.signals import raise_first, stoppable, unstoppable

LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
BUCKETS = Path("/proc/sys/net/netfilter/nf_conntrack_buckets")


def describe() -> str:
    """Say what kind of machine this is, and nothing that tells it from others of its kind."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", info)
    virtual = "hypervisor" in info
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    # What follows the numbers is the builder's.
    release = re.match(r"[0-9]+(\.[0-9]+)*", platform.release())
    return (
        f"Linux {release[0] if release else '?'}, {'a virtual machine with ' * virtual}"
        f"{os.cpu_count()} cores of {model[1] if model else platform.machine()}, "
        f"{memory:.0f} GiB, {int(BUCKETS.read_text()):,} buckets"
    )


def versions() -> dict[str, str]:
    """Return the versions of what is measured, as far as they are here."""
    found = {"Python": platform.python_version()}
    for package in ("nlct", "pyroute2", "pyarrow", "matplotlib"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for name, package in (
        ("conntrack", "conntrack"),
        ("libnetfilter_conntrack", "libnetfilter-conntrack3"),
    ):
        version = _debian(package)
        if version:
            found[name] = version
    return found


def _debian(package: str) -> str | None:
    if not shutil.which("dpkg-query"):
        return None
    return _output("dpkg-query", "--show", "--showformat=${Version}", package) or None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextmanager
def kept(flows: int) -> Iterator[None]:
    """Make room for so many flows; at the end limit and buckets are what they were."""
    # No signal may come in place of what is done at the end.
    with unstoppable() as came:
        before = {path: int(path.read_text()) for path in (LIMIT, BUCKETS)}
        try:
            # A limit of 0 is none.
            set_to(LIMIT, before[LIMIT] and max(before[LIMIT], flows))
            with stoppable():
                raise_first(came)
                yield
        finally:
            for path, value in before.items():
                set_to(path, value)


def set_to(path: Path, value: int) -> None:
    """Write a setting, where it is not so yet."""
    if int(path.read_text()) != value:
        path.write_text(f"{value}\n")
        print(f"{path.name} is {path.read_text().strip()}", file=sys.stderr)
