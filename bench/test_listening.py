"""What listening costs everybody else.

The same work while nobody listens, while a mirror in a process of its own does, and while one does
in another namespace. Each flow is told of twice: when it is new, and at its end. Flows are created
by nlct's load() and, over loopback, by TCP connections one after another: connect, accept, reset.
What listening adds to a delete is among the cases of the mirror.
"""

import time
from typing import Callable

import pytest

from bench.peers import Answer
from bench.turn import Sizes, Turn, case
from nlct import fill

FLOWS = Sizes((100_000,), quick=(2_000,))
CONNECTIONS = Sizes((20_000,), quick=(500,))
WHO = ("nlct.nobody", "nlct.here", "nlct.elsewhere")


@case(*WHO, rounds=25, flows=FLOWS)
def test_listening_load(turn: Turn, flows: int) -> None:
    """load() of so many flows."""
    turn.even(0)
    tables = list(fill.tables(flows, turn.scale.zones))

    def work() -> Answer:
        started = time.perf_counter()
        for table in tables:
            turn.lab.ct.load(table)
        return Answer(time.perf_counter() - started, {})

    beside_a_mirror(turn, work)
    turn.lab.empty(flows)


@pytest.mark.usefixtures("rule")
@case(*WHO, rounds=25, connections=CONNECTIONS)
def test_listening_tcp(turn: Turn, connections: int) -> None:
    """So many TCP connections."""
    turn.even(0)
    connect = turn.peers.get("connect")
    beside_a_mirror(turn, lambda: connect.run("tcp", connections))
    turn.lab.ct.flush_zone(0)


def beside_a_mirror(turn: Turn, work: Callable[[], Answer]) -> None:
    """Record the work while a mirror listens, or nobody."""
    if turn.does != "nobody":
        turn.peer.run("listen", *("zone",) if turn.does == "here" else ("elsewhere",))
    turn.record(work)
    if turn.does != "nobody":
        turn.peer.run("close")
