"""What nlct takes besides time: memory of a streaming pass, and the time to import it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from conftest import Table, report

MEASURE = """
import sys, nlct
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
with nlct.Conntrack(sys.argv[1]) as ct:
    ct.count()
    before = peak()
    {work}
    print(peak() - before)
"""
WORKS = {
    "count_by(zone)": "ct.count_by('zone')",
    "dump()": "for flow in ct.dump(): pass",
    "flush_zone scan": "ct.flush_zone(9, strategy='scan')",
}


def _added(table: Table, work: str) -> int:
    path = f"/proc/{os.getpid()}/fd/{table.netns.fileno()}"
    code = MEASURE.format(work=work)
    return int(subprocess.check_output([sys.executable, "-c", code, path]))


def test_memory_of_a_pass(small: Table, large: Table) -> None:
    """Peak resident memory that one pass adds, whatever the size of the table."""
    for name, work in WORKS.items():
        for table in (small, large):
            added = _added(table, work)
            report(f"memory of {name} over {table.flows:,} flows", "at most 4 MiB", f"{added} KiB")


def _seconds(code: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - started


def test_import() -> None:
    """`import nlct`, beyond bare Python."""
    beyond = sorted(_seconds("import nlct") - _seconds("pass") for _ in range(15))
    report("import nlct, beyond bare Python", "at most 30 ms", f"{1e3 * beyond[7]:.1f} ms")
