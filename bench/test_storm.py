"""Storms: many zones at once.

As many callers as zones, each in a thread of its own asking for one zone, all at the same moment:
nlct.Flusher, from that moment until the last of them has its answer. Beside it the same zones one
after another, by the tools that can do no more. As on an old kernel the bare C loop receives the
table once for each zone, which is the least that any loop over the table costs.
"""

import math
from collections.abc import Iterable

from bench.peers import Answer
from bench.turn import Sizes, Turn, case

ZONES = Sizes((1, 10, 50, 200, 500), quick=(1, 10))
# What takes a second or more for each zone is left out where there are more of them.
MOST = {"conntrack": 50, "ovs-on-old-kernel": 200, "floor": 50}


@case("kernel", "nlct", "ovs", "conntrack", limit=60, zones=ZONES)
def test_storm(turn: Turn, zones: int) -> None:
    """Storms, by their zones."""
    storm(turn, zones)


@case(*("ovs-on-old-kernel", "floor", "nlct-on-old-kernel"), limit=60, zones=ZONES)
def test_storm_on_old_kernel(turn: Turn, zones: int) -> None:
    """Storms as on an old kernel, by their zones."""
    storm(turn, zones)


def storm(turn: Turn, zones: int) -> None:
    """Flush zones, at once or one after another, and put them back."""
    turn.at_most(MOST.get(turn.who, zones), zones)
    turn.even()
    flushed = range(1, zones + 1)
    if turn.who.startswith("nlct"):
        turn.run("storm", 1, zones)
    elif turn.who == "floor":
        turn.record(lambda: total(turn.peer.run("dump") for _ in flushed))
        return
    else:
        turn.record(lambda: total(turn.peer.run("flush_zone", zone) for zone in flushed))
    turn.lab.put_back(*flushed)


def total(answers: Iterable[Answer]) -> Answer:
    """Add up what was done one after another."""
    return Answer(math.fsum(answer.seconds for answer in answers), {})
