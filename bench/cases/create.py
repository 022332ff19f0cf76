"""Create.

Filling an empty table: nlct's load() of a FlowTable, a bare C loop that writes the same requests
256 a send, libnetfilter_conntrack with a request and an answer a flow, and `conntrack -R` of a
file with a line a flow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.lab import TableError
from bench.measure import Tool, in_turn
from bench.report import Section
from nlct.fill import SERVER, TIMEOUT, tables

if TYPE_CHECKING:
    from bench.run import Bench


def run(bench: Bench, section: Section) -> None:
    """The same flows by each tool."""
    scale = bench.scale
    flows, zones = scale.flows, scale.zones
    floor = bench.peers["floor"]
    bench.lab.even(0, 1)

    def check() -> None:
        there = bench.lab.ct.count()
        bench.lab.ct.flush_all()
        if there != flows:
            raise TableError(f"{there:,} flows were created, not {flows:,}")

    with tempfile.TemporaryDirectory() as folder:
        tools = [
            Tool(peer.name, partial(peer.run, "create", flows, zones), after=check)
            for peer in bench.able("create", "floor", "nlct", "nfct")
        ]
        path = Path(folder) / "flows"
        path.write_text("\n".join(_lines(flows, zones)) + "\n")
        tools += [
            Tool(
                "conntrack -R",
                partial(peer.run, "load_file", path),
                after=check,
                budget=scale.budget,
            )
            for peer in bench.able("load_file", "conntrack")
        ]
        series = in_turn(tools, scale.few)
    section.times(f"{flows:,} flows in {zones:,} zones", series, floor.name)
    section.ratio("create/floor", series, "nlct", floor.name)


def _lines(flows: int, zones: int) -> Iterator[str]:
    for table in tables(flows, zones):
        for flow in table:
            yield (
                f"-I -w {flow.zone} -t {TIMEOUT} -p udp -s {flow.orig.src} -d {SERVER} "
                f"--sport {flow.orig.sport} --dport {flow.orig.dport}"
            )
