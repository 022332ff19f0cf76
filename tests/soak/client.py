"""A process of its own, which may be killed at any moment.

It reads what it is to do from the first line of its standard input, works until that ends, and
writes what it has counted as it goes, a line at a time: what is whole in the pipe survives it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import nlct
from tests.soak.operations import Place, Worker
from tests.soak.tally import Tally

THREADS = 2
# So little that its mirror loses events, and grows it.
BUFFER = 64 << 10
REPORT_EVERY = 0.3
# What a pipe takes in one piece, so that no line is cut by a kill.
ATOMIC = 4096


def report(tally: Tally) -> None:
    """Write what was counted since the last time."""
    taken = tally.take()
    for text in taken.pop("violations"):
        _write({"counts": {}, "violations": [text[:2500]]})
    for what, counts in taken["counts"].items():
        _write({"counts": {what: counts}, "violations": []})


def _write(line: dict[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    assert len(data) <= ATOMIC, f"a line of {len(data)} bytes"
    os.write(1, data)


def main() -> None:
    """Work until standard input ends."""
    # That its mirror loses events is no news.
    logging.getLogger("nlct").addHandler(logging.NullHandler())
    order = json.loads(sys.stdin.readline())
    kept = {int(zone): ids for zone, ids in order["kept"].items()}
    tally, stop = Tally(), threading.Event()
    with nlct.Netns.open(order["netns"]) as netns:
        place = Place(netns, order["total"], kept, tally, order["own"], BUFFER)
        workers = [Worker(place, f"{order['seed']} thread {n}", stop) for n in range(THREADS)]
        for worker in workers:
            worker.start()
        ended = threading.Thread(target=sys.stdin.read)
        ended.start()
        while ended.is_alive():
            ended.join(REPORT_EVERY)
            report(tally)
        stop.set()
        for worker in workers:
            worker.join()
        place.close()
    report(tally)


class Client:
    """Such a process, as seen by who started it."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.soak.client"],
            cwd=Path(__file__).parent.parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is not for it
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def end(self, tally: Tally, *, kill: bool) -> None:
        """End it, with SIGKILL or by asking it to, and take over what it counted."""
        if kill:
            self._process.kill()
        text, _ = self._process.communicate()
        said = []
        for line in text.splitlines():
            try:
                tally.add(json.loads(line))
            except json.JSONDecodeError:
                said.append(line)
        if said:
            tally.violation("a client says: " + "\n".join(said)[-2500:])
        if self._process.returncode not in ((-9, 0) if kill else (0,)):
            tally.violation(f"a client ended with {self._process.returncode}")


if __name__ == "__main__":
    main()
