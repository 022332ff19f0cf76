"""pyroute2 in a process of its own: answers each line with the seconds that it took.

"dump" iterates over the whole table and looks at nothing, which is kind to it: an attribute is
decoded when it is looked at, or with the rest of its flow.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket


def _dump() -> None:
    with NFCTSocket() as socket:
        for _ in socket.dump():
            pass


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def main() -> None:
    """Answer until the input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        before = _peak_kib()
        started = time.perf_counter()
        _dump()
        seconds = time.perf_counter() - started
        peak = _peak_kib() - before
        print(peak if line.startswith("peak ") else f"{seconds:.9f}", flush=True)


if __name__ == "__main__":
    main()
