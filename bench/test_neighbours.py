"""What a running flush does to others.

While somebody flushes, a process of its own in the same namespace does a small thing every
millisecond (bench/c/neighbour.c): it looks up one flow by its tuple ("get"); or sends a datagram
from a new port over loopback and waits for the answer; or opens a TCP connection over loopback.
Each time counts from when it was due, so it is what a caller would have waited. The namespace has a
rule that uses conntrack, so each datagram and connection becomes a flow. "nobody" is the same while
nothing is flushed. What is recorded is the longest wait of a round.
"""

import time

import pytest

from bench.peers import Answer, Program
from bench.turn import Turn, case

QUIET = 0.15


@pytest.mark.usefixtures("rule")
@case(
    *("nobody", "kernel", "nlct", "nlct-on-old-kernel", "nlct.storm"),
    rounds=15,
    thing=("get", "udp", "tcp"),
)
def test_neighbours(turn: Turn, thing: str) -> None:
    """Waits: median / 99 % / longest of all, microseconds."""
    turn.even()
    neighbour = turn.peers.get("neighbour")
    assert isinstance(neighbour, Program)
    storm = min(200, turn.scale.zones // 2)

    def work() -> Answer:
        neighbour.tell(thing, turn.scale.flows, turn.scale.zones)
        try:
            if turn.who == "nobody":
                time.sleep(QUIET)
            elif turn.does:
                turn.peer.run("storm", 1, storm)
            else:
                turn.peer.run("flush_zone", 1)
        finally:
            # Also if that failed: its flows must not get into the next table.
            neighbour.tell("stop")
            waits = [float(wait) for wait in neighbour.hear().split()]
        return Answer(max(waits) / 1e6, {"waits": waits})

    turn.record(work)
    if turn.who != "nobody":
        turn.lab.put_back(*range(1, storm + 1 if turn.does else 2))
