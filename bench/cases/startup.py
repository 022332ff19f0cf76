"""Starting each tool.

From the start of its process, through `nsenter` into the namespace, until it is ready for work:
sockets open, and for nlct also the kernel probed. A tool that is started for each operation is
started here with nothing to do; that time is part of its times everywhere else. The import of
nlct is that of an installed package, whose bytecode is there.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.measure import Tool, in_turn
from bench.report import Section, times_text

if TYPE_CHECKING:
    from bench.run import Bench


def run(bench: Bench, section: Section) -> None:
    """Start all of them in turn."""
    samples = min(bench.scale.samples, 25)
    peers = list(bench.peers.values())
    series = in_turn([Tool(peer.name, peer.start) for peer in peers], samples)
    section.table(
        "Milliseconds until ready, median (quartiles)",
        ["tool", "to start", "is started"],
        [[peer.name, times_text(series.values(peer.name)), peer.starts] for peer in peers],
    )
    _python("import nlct")
    bare = [Tool("bare", lambda: _python("pass")), Tool("nlct", lambda: _python("import nlct"))]
    series = in_turn(bare, samples)
    beyond = [ours - theirs for ours, theirs in zip(series.values("nlct"), series.values("bare"))]
    detail = f"bare Python {1e3 * series.median('bare'):.1f} ms"
    section.figure("startup/import", 1e3 * statistics.median(beyond), detail)


def _python(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started
