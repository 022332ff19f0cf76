"""Two who listen to everything: one with room for much, and one that mostly overruns."""

from __future__ import annotations

import threading
import time

import nlct
from tests.soak.tally import Tally

BUFFERS = (128 << 20, 65536)


class Listener:
    """What was told and what was lost must be as much for the one as for the other."""

    def __init__(self, netns: nlct.Netns, tally: Tally) -> None:
        self._tally = tally
        with nlct.Conntrack(netns) as ct:
            self._streams = [ct.events(buffer=buffer) for buffer in BUFFERS]
        self._sent = [0] * len(BUFFERS)
        self._threads = [
            threading.Thread(target=self._read, args=(number,), name=f"listener {number}")
            for number in range(len(BUFFERS))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, number: int) -> None:
        for item in self._streams[number].batches(columns=["id"]):
            if isinstance(item, nlct.Overrun):
                self._sent[number] += item.lost or 0
                self._tally.count("events", "overruns")
            else:
                self._sent[number] += len(item)
                self._tally.count("events", "events told", len(item))

    def miscount(self) -> None:
        """Break it, by more than one stream may be ahead of the other."""
        self._sent[0] += 1_000_000

    def difference(self, patience: float = 30) -> str | None:
        """Say how the two differ, once both have read all there is; others may go on meanwhile."""
        until = time.monotonic() + patience
        while self._sent[0] != self._sent[1]:
            if time.monotonic() > until:
                return f"events and losses: {self._sent} of two streams"
            time.sleep(0.01)
        return None

    def close(self) -> None:
        """End both."""
        for stream in self._streams:
            stream.close()
        for thread in self._threads:
            thread.join()
