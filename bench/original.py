"""The original measurement: a zone of a large table flushed by nlct, a bare C loop and its peers.

Prints Markdown. Measured: the wall time of one flush, each tool in turn (A B C A B C ...), in one
scratch namespace. Left out: starting Python and making the table; a peer that is a program of its
own is timed with its start. The bare C loop receives what the kernel sends for that zone and
deletes nothing, so it is the floor of any flush by scanning. Run it as root:

    python bench/original.py [--flows N] [--zones N] [--samples N] [--ovstest PATH]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from floor import Floor, room_for  # noqa: E402

import nlct  # noqa: E402
from nlct.cli.stats import ratio, summary  # noqa: E402
from nlct.fill import fill  # noqa: E402

Flush = Callable[[int], float]
STORM = 200


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


def ways(
    ct: nlct.Conntrack, netns: nlct.Netns, floor: Floor, ovstest: str | None
) -> dict[str, Flush]:
    """Name the tools that are here."""
    found: dict[str, Flush] = {
        "bare C loop": lambda zone: floor(f"dump {zone}"),
        "nlct": lambda zone: ct.flush_zone(zone).seconds,
    }
    if nlct.probe().zone_flush:
        found["kernel's flush"] = lambda zone: floor(f"flush {zone}")
    if ovstest:
        path = f"/proc/{os.getpid()}/fd/{netns.fileno()}"
        command = ["nsenter", f"--net={path}", ovstest, "test-netlink-conntrack", "flush"]
        found["Open vSwitch"] = lambda zone: timed(
            lambda: subprocess.run([*command, f"zone={zone}"], check=True, capture_output=True)
        )
    return found


def table(title: str, times: dict[str, list[float]]) -> None:
    """Print times as a table, tool by tool."""
    print(f"\n{title}, milliseconds:\n")
    rows = ("min", "median", "p90", "p99", "max", "mean", "total", "count")
    print("| tool | " + " | ".join(rows) + " | to the C loop |")
    print("| --- " * (len(rows) + 2) + "|")
    for tool, seconds in times.items():
        figures = summary([1e3 * value for value in seconds])
        values = [getattr(figures, row) for row in rows]
        texts = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
        beside = ratio(zip(seconds, times["bare C loop"]))
        print(f"| {tool} | " + " | ".join(texts) + f" | {beside:.3f} |")


def measure(ct: nlct.Conntrack, netns: nlct.Netns, options: argparse.Namespace) -> None:
    """Fill the table, take the samples, print them."""
    floor = Floor(netns)
    tools = ways(ct, netns, floor, options.ovstest)
    fill(ct, options.flows, options.zones)
    per_zone = options.flows // options.zones
    for title, zone in ((f"A zone of {per_zone:,} flows", 7), ("An empty zone", options.zones + 1)):
        times: dict[str, list[float]] = {tool: [] for tool in tools}
        for _ in range(options.samples):
            for tool, flush in tools.items():
                if zone <= options.zones:
                    fill(ct, options.flows, options.zones, zone=zone)
                times[tool].append(flush(zone))
        table(title, times)
    fill(ct, options.flows, options.zones, zone=7)
    one = ct.flush_zone(8).seconds
    storm = ct.flush_zones(range(9, 9 + STORM))
    print(
        f"\nA storm of {STORM} zones, {storm.deleted or 0:,} flows, in one pass: "
        f"{storm.seconds:.2f} s; one zone took {one:.2f} s, so one by one they take some "
        f"{STORM * one:.0f} s."
    )
    floor.close()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=500_000)
    parser.add_argument("--zones", type=int, default=500)
    parser.add_argument("--samples", type=int, default=25)
    parser.add_argument("--ovstest", help="Open vSwitch's ovstest, to be measured beside")
    options = parser.parse_args()
    with room_for(2 * options.flows), nlct.Netns.scratch() as netns, nlct.Conntrack(netns) as ct:
        print(
            f"Linux {platform.release()}, {os.cpu_count()} CPUs, {ct.buckets:,} buckets, "
            f"{options.flows:,} UDP flows in {options.zones:,} zones, {time.strftime('%Y-%m-%d')}."
        )
        measure(ct, netns, options)
        ct.flush_all()


if __name__ == "__main__":
    main()
