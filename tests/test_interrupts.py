"""A signal handler that raises loses nothing, wherever it comes in between."""

from __future__ import annotations

import gc
import os
import stat
from typing import Callable

import pytest

import nlct
from nlct import capabilities as probing
from tests.support import flows, interrupts
from tests.support.examples import telling
from tests.support.namespaces import scratch


def descriptors() -> int:
    """How many are open."""
    return len(os.listdir("/proc/self/fd"))


def opened(ct: nlct.Conntrack, netns: nlct.Netns) -> dict[str, Callable[[], object]]:
    """What opens descriptors, by name."""
    gone = flows.udp(1, 8).replace(id=1)

    def fresh() -> None:
        with nlct.Conntrack(netns) as other:
            other.get(flows.udp(1, 7).orig, zone=7)

    def dropped() -> None:
        nlct.Conntrack(netns).get(flows.udp(1, 7).orig, zone=7)

    return {
        "get": fresh,
        "get without close": dropped,
        "dump": lambda: list(nlct.Conntrack(netns).dump(zone=7)),
        "table": lambda: nlct.Conntrack(netns).table(),
        "count_by": lambda: nlct.Conntrack(netns).count_by("zone"),
        "flush": lambda: nlct.Conntrack(netns).flush_zone(8, strategy="scan"),
        "delete flows": lambda: nlct.Conntrack(netns).delete_flows([gone]),
        "buckets": lambda: nlct.Conntrack(netns).buckets,
        "own table": lambda: nlct.Conntrack().close(),
        "scratch": lambda: nlct.Netns.scratch().close(),
        "current": lambda: nlct.Netns.current().close(),
        "by path": lambda: nlct.Netns.open(f"/proc/self/fd/{netns.fileno()}").close(),
        "by descriptor": lambda: nlct.Netns.open(netns.fileno()).close(),
        "probe": lambda: probing.measure("this one"),
        "pooled": lambda: ct.get(flows.udp(1, 7).orig, zone=7),
    }


# Of so many points that each takes seconds; their parts are among the others.
LONG = {"probe", "table", "count_by", "flush"}
NAMES = opened(None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", telling(NAMES, NAMES.keys() - LONG))
def test_no_descriptor_is_lost(ct: nlct.Conntrack, netns: nlct.Netns, name: str) -> None:
    """Interrupted behind every call, an operation leaves as many descriptors as there were."""
    for number in range(10):
        ct.create(flows.udp(number, 7))
    work = opened(ct, netns)[name]
    work()
    # What other tests have left in cycles.
    gc.collect()
    before = descriptors()
    times = 0
    for point in interrupts.everywhere(work):
        assert descriptors() <= before, f"interrupted behind call {point}"
        times += 1
    assert times > 10
    work()
    assert descriptors() == before
    assert ct.count() == 10


def test_a_close_that_was_interrupted_closes_nobody_elses() -> None:
    """What takes the number meanwhile stays open when close() is called again."""
    held = scratch()
    times = 0

    def close() -> None:
        held.close()

    for point in interrupts.everywhere(close):
        stranger = os.open("/dev/null", os.O_RDONLY)
        held.close()
        assert stat.S_ISCHR(os.fstat(stranger).st_mode), f"interrupted behind call {point}"
        os.close(stranger)
        held = nlct.Netns.scratch()
        times += 1
    assert times > 1
