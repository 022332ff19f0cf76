"""What a running flush does to others.

While somebody flushes, a process of its own in the same namespace does a small thing every
millisecond (bench/c/neighbour.c): it looks up one flow by its tuple; or sends a datagram from a
new port over loopback and waits for the answer; or opens a TCP connection over loopback. Each time
counts from when it was due, so it is what a caller would have waited. The namespace has a rule that
uses conntrack, so each datagram and connection becomes a flow. "nobody" is the same while nothing
is flushed.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Callable, NamedTuple

from bench import peers
from bench.report import Section
from nlct.cli.measure import summary

if TYPE_CHECKING:
    from bench.run import Bench

QUIET = 0.15
RULE = """
table inet bench {
    chain input { type filter hook input priority 0; ct state new counter accept; }
}
"""


class Flush(NamedTuple):
    """Somebody who flushes, and the zones that go with it."""

    name: str
    work: Callable[[], object]
    zones: range


def run(bench: Bench, section: Section) -> None:
    """Each small thing beside each flush."""
    scale = bench.scale
    bench.lab.even(scale.flows, scale.zones)
    things = {"get": f"get {scale.flows} {scale.zones}"}
    if shutil.which("nft"):
        command = [*bench.lab.inside, "nft", "-f", "-"]
        subprocess.run(command, input=RULE, text=True, check=True)
        things.update({"new UDP flow": "udp", "new TCP connection": "tcp"})
    else:
        section.notes.append("Left out: new connections, for want of nft.")
    neighbour = peers.Program("neighbour", [*bench.lab.inside, str(peers.BUILT / "neighbour")], ())
    rounds = min(scale.samples, 15)
    try:
        for thing, line in things.items():
            found: dict[str, list[float]] = {}
            for _ in range(rounds):
                for flush in _flushes(bench):
                    neighbour.tell(line)
                    flush.work()
                    neighbour.tell("stop")
                    found.setdefault(flush.name, []).extend(map(float, neighbour.hear().split()))
                    bench.lab.put_back(*flush.zones)
            _show(section, thing, found)
    finally:
        neighbour.close()
        bench.lab.ct.flush_zone(0)


def _flushes(bench: Bench) -> Iterator[Flush]:
    zone = range(1, 2)
    ours, old = bench.peers["nlct"], bench.peers["old"]
    yield Flush("nobody", lambda: time.sleep(QUIET), range(0))
    for kernel in bench.able("flush_zone", "kernel"):
        yield Flush("kernel's own flush of a zone", partial(kernel.run, "flush_zone", 1), zone)
    yield Flush("nlct, a zone", partial(ours.run, "flush_zone", 1), zone)
    yield Flush("nlct, a zone as on an old kernel", partial(old.run, "flush_zone", 1), zone)
    many = min(200, bench.scale.zones // 2)
    zones = range(1, many + 1)
    yield Flush(f"nlct, a storm of {many} zones", partial(ours.run, "storm", 1, many), zones)


def _show(section: Section, thing: str, found: dict[str, list[float]]) -> None:
    rows = []
    for name, times in found.items():
        figures = summary(times)
        shown = (figures.median, figures.p90, figures.p99, figures.max)
        rows.append([name, *(f"{value:,.0f}" for value in shown), f"{figures.count:,}"])
    headers = ["who flushes", "median", "90 %ile", "99 %ile", "max", "count"]
    section.table(f"{thing}, microseconds", headers, rows)
    title = f"{thing}: how long it takes while somebody flushes"
    section.boxes(f"neighbours-{len(section.pictures) + 1}", title, found, "µs")
