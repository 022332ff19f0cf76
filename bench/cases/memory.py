"""Memory.

What one piece of work adds to the most memory that its process ever held, in a fresh process
each, over a small and a large table. The process has imported nlct, probed the kernel and read a
counter before. table() must hold all its columns, dump() and the others stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.peers import Program
from bench.report import Section

if TYPE_CHECKING:
    from bench.run import Bench

STREAMS = {
    "dump()": ("dump",),
    "dump_text()": ("text", "/dev/null"),
    'count_by("zone")': ("count_by", "zone"),
    "flush_zone(), scan": ("flush_zone", "1", "scan"),
}
OTHERS = {"batches()": ("batches",), "table()": ("table",)}
MIB = 1024


def run(bench: Bench, section: Section) -> None:
    """Each of them on both tables."""
    scale = bench.scale
    sizes = (scale.flows // 50, scale.flows)
    added: dict[str, list[float]] = {}
    per_flow = 0.0
    for flows in sizes:
        bench.lab.even(flows, scale.zones)
        for name, words in {**STREAMS, **OTHERS}.items():
            with bench.fresh_worker() as worker:
                kib, *nbytes = worker.ask("peak", *words).split()
            added.setdefault(name, []).append(int(kib) / MIB)
            if nbytes:
                per_flow = int(nbytes[0]) / flows
        pyroute2 = bench.peers.get("pyroute2")
        if isinstance(pyroute2, Program):
            kib = pyroute2.ask("peak", "dump")
            added.setdefault("pyroute2, dump()", []).append(int(kib) / MIB)
    section.table(
        "MiB added",
        ["work", *(f"{flows:,} flows" for flows in sizes)],
        [[name, *(f"{value:.2f}" for value in values)] for name, values in added.items()],
    )
    section.notes.append(f"The columns of table() take {per_flow:.0f} bytes a flow.")
    most = max(STREAMS, key=lambda name: max(added[name]))
    section.figure("memory/stream", max(added[most]), most)
    section.figure("memory/batches", max(added["batches()"]), "of 65,536 rows")
    section.figure("memory/table", per_flow, f"{scale.flows:,} plain UDP flows")
