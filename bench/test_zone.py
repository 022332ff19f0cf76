"""Flush of a zone.

One zone of a large table, and one that holds nothing. The bare C loop receives what the kernel
sends for that zone and deletes nothing: the floor of any flush by scanning. nlct chooses its way
by itself. Left out: pyroute2, which has no flush of a zone.
"""

from __future__ import annotations

from bench.turn import Turn, case

PEERS = ("kernel", "floor", "nlct", "ovs")


@case(*PEERS, slow=("nfct", "conntrack"), rounds=250, content=("some", "empty"))
def test_zone(turn: Turn, content: str) -> None:
    """Flush of a zone."""
    turn.even()
    zone = min(7, turn.scale.zones) if content == "some" else turn.scale.zones + 1
    if turn.who == "floor":
        turn.run("zone_dump", zone)
    else:
        turn.run("flush_zone", zone)
        turn.lab.put_back(zone)
