"""Receiving ahead, on and off.

A dump of many flows has a thread that receives the next datagrams while these are looked at, where
there is a second processor. "nlct-one-cpu" may use one processor alone, so it receives by itself.
"""

from bench.turn import Turn, case

WORKS = {"count_by": ("zone",), "table": (), "text": ("/dev/null",), "loop": ()}


@case("nlct", "nlct-one-cpu", work=tuple(WORKS))
def test_readahead(turn: Turn, work: str) -> None:
    """Dump with and without receiving ahead."""
    turn.even()
    turn.run(work, *WORKS[work])
