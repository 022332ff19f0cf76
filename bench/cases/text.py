"""Dump to text, in a file.

`conntrack -L` to a file, `nlct dump` to a file, each from the start of the process to its end,
and the same lines from a process that is already there. The file is in memory where there is a
/dev/shm.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Tool, in_turn
from bench.report import Section

if TYPE_CHECKING:
    from bench.run import Bench

MEMORY = Path("/dev/shm")


def run(bench: Bench, section: Section) -> None:
    """One file, written over and over."""
    scale = bench.scale
    bench.lab.even(scale.flows, scale.zones)
    floor, ours = bench.peers["floor"], bench.peers["nlct"]
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "flows"
        tools = [
            Tool(floor.name, partial(floor.run, "dump")),
            Tool("nlct dump_text()", partial(ours.run, "text", path)),
            *(
                Tool(peer.name, partial(peer.run, "text", path))
                for peer in bench.able("text", "cli", "conntrack")
            ),
        ]
        series = in_turn(tools, scale.few)
    section.times(f"{scale.flows:,} flows", series, floor.name)
    section.ratio("text/conntrack", series, "conntrack", "nlct (command)")
