"""What must hold when all pause."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import threading
import time
from collections.abc import Iterable

import nlct
from tests.soak.tally import Tally
from tests.support import netlink, oracle
from tests.support.memory import allocated, resident

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

# Operations leave a few sockets for the next, see nlct._handle.
IDLE_SOCKETS = 4
# What may come and go, as when a large dictionary of Python's own is rebuilt; and what may creep up
# in each round, where pieces fit badly. A leak of 100 bytes in each operation takes more.
SLACK = {"resident KiB": 2048, "KiB of malloc": 1024, "descriptors": IDLE_SOCKETS}
CREEP = {"resident KiB": 24, "KiB of malloc": 6, "descriptors": 0}
# Rounds until every cache is warm, and how many more it takes to tell.
WARM_UP, ENOUGH = 3, 3


def differences(what: str, wanted: oracle.Table, found: oracle.Table) -> str | None:
    """Say how a table differs from what it must hold."""
    lost = [key for key, entry in wanted.items() if key not in found]
    changed = [key for key, entry in wanted.items() if found.get(key, entry) != entry]
    new = [key for key in found if key not in wanted]
    if not (lost or changed or new):
        return None
    examples = ", ".join(map(repr, (lost + changed + new)[:3]))
    return f"{what}: {len(lost)} lost, {len(changed)} changed, {len(new)} new: {examples}"


def known(what: str, wanted: oracle.Table, found: oracle.Table) -> str | None:
    """Say what is missing or changed of those that must be there."""
    there = {key: entry for key, entry in found.items() if key in wanted}
    return differences(what, wanted, there)


def same_ids(what: str, wanted: oracle.Table, found: oracle.Table) -> str | None:
    """The same for what changes by itself: that it is the very same entry."""
    return known(what, _ids(wanted), _ids(found))


def _ids(table: oracle.Table) -> oracle.Table:
    return {key: {oracle.ID: entry[oracle.ID]} for key, entry in table.items()}


def mirrored(mirror: nlct.Mirror, found: oracle.Table, patience: float = 60) -> str | None:
    """Say where a mirror knows less than what is there, or found what was not announced."""
    if not mirror.wait(patience):
        return f"the mirror is not in step: {mirror.state}"
    counts = mirror.count_by("zone")
    less = {zone: n for zone, n in oracle.by_zone(found).items() if counts.get(zone, 0) < n}
    if less:
        return f"the mirror counts {counts}, where there is {less}"
    return f"all was announced, but: {mirror.state}" if mirror.state.hidden else None


def foreign_sockets(netns: nlct.Netns) -> list[str]:
    """The netlink sockets to conntrack in a namespace that are not of this process.

    Call it while nobody opens any.
    """
    with open(netns.open_file("/proc/net/netlink")) as file:
        rows = [line.split() for line in file.readlines()[1:]]
    # The kernel's own has no port.
    users = [row for row in rows if int(row[1]) == netlink.NETLINK_NETFILTER and row[2] != "0"]
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()}
    return [row[2] for row in users if f"socket:[{row[-1]}]" not in ours]


class Footprint:
    """Memory and descriptors of this process, measured at each pause."""

    def __init__(self) -> None:
        self.series: dict[str, list[int]] = {name: [] for name in SLACK}

    def measure(self) -> None:
        """Measure once more."""
        gc.collect()
        # What was freed is no leak; threads leave it lying about.
        if _trim is not None:
            _trim(0)
        self.series["resident KiB"].append(resident())
        self.series["KiB of malloc"].append(allocated() // 1024)
        self.series["descriptors"].append(len(_descriptors()))

    def growth(self) -> dict[str, float]:
        """How much more there is at the end than after the warm-up, at the median."""
        found = {}
        for name, series in self.series.items():
            warm = series[WARM_UP:]
            third = max(len(warm) // 3, 1)
            if len(warm) >= ENOUGH:
                found[name] = statistics.median(warm[-third:]) - statistics.median(warm[:third])
        return found

    def check(self, tally: Tally) -> None:
        """Whatever grew is a violation."""
        for name, grown in self.growth().items():
            if grown > SLACK[name] + CREEP[name] * len(self.series[name]):
                tally.violation(f"{name} grew by {grown:.0f}: {self.series[name]}")


def descriptors() -> list[str]:
    """What the open descriptors of this process lead to."""
    return sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in _descriptors())


def _descriptors() -> list[str]:
    """The open ones, without that of the directory itself."""
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


def check_ended(tally: Tally, open_before: Iterable[str], patience: float = 10) -> None:
    """All threads but this one have ended, and the same descriptors are open as in the beginning.

    A thread that was joined may take a moment to leave the kernel.
    """
    gc.collect()
    others = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    if others:
        tally.violation(f"threads are left: {', '.join(others)}")
    until = time.monotonic() + patience
    while not others and len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > until:
            tally.violation("a thread is left that Python does not know of")
            break
        time.sleep(0.01)
    now = descriptors()
    if now != list(open_before):
        tally.violation(f"descriptors: {open_before} became {now}")
