"""Where the time of a walk goes on our side of the kernel: instructions, by callgrind.

    make profile        prints a table for each kind of walk; PROFILE.md keeps them

Instructions in user space are repeatable, whatever else the machine does. The kernel's share, most
of the time, is not seen here: RESULTS.md has that, as the ratio to a bare receive loop.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nlct
from nlct import fill

WORKS = {
    "flush": "delete 1 of 20 zones, without the kernel's filter",
    "count": "count by zone",
    "table": "keep every column",
    "text": "write every line",
}
FLOWS = 20_000
ZONES = 20
SCAN = Path(__file__).parent / "build/scan"
# A line of callgrind_annotate: instructions, perhaps their share, file, function.
LINE = re.compile(r"\s*([\d,]+)\s+(?:\([ \d.]+%\)\s+)?\S*?:(\S+)")
SHOWN = 8


def fresh_table(netns: nlct.Netns) -> None:
    """Fill the table."""
    with nlct.Conntrack(netns) as ct:
        ct.flush_all()
        fill.fill(ct, FLOWS, ZONES)


def instructions(netns: nlct.Netns, work: str) -> list[tuple[str, float]]:
    """Return how many instructions each function took for each flow, the most first."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/callgrind"
        subprocess.run(
            [
                *("nsenter", f"--net=/proc/self/fd/{netns.fileno()}"),
                *("valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"),
                *("--toggle-collect=nlct_dump_next", SCAN, work),
            ],
            pass_fds=(netns.fileno(),),
            check=True,
        )
        command = ["callgrind_annotate", "--threshold=100", out]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, int] = {}
    for line in said.splitlines():
        match = LINE.match(line)
        if match:
            name = match[2].partition("'")[0]
            found[name] = found.get(name, 0) + int(match[1].replace(",", ""))
    return sorted(((name, n / FLOWS) for name, n in found.items()), key=lambda row: -row[1])


def main() -> None:
    """Print a table for each kind of walk."""
    if not SCAN.exists():
        sys.exit("profile: build bench/build/scan first, as `make profile` does")
    with nlct.Netns.scratch() as netns:
        for work, meaning in WORKS.items():
            fresh_table(netns)
            rows = instructions(netns, work)
            total = sum(count for _, count in rows)
            print(f"\n### {meaning}: {total:.0f} instructions a flow\n")
            print("| function | instructions a flow | share |\n| --- | ---: | ---: |")
            for name, count in rows[:SHOWN]:
                print(f"| `{name}` | {count:.0f} | {count / total:.0%} |")


if __name__ == "__main__":
    main()
