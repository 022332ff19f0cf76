"""Flush of a zone as on an old kernel.

The same where the kernel ignores the zone of a dump, so that the whole table comes, and cannot be
trusted with a zone flush. nlct is told not to ask the kernel for a filter. Open vSwitch is made to
believe that it runs on Linux 6.1, and the zone is taken out of its requests (bench/c/old.c); it
then deletes in a loop over the whole dump. conntrack and libnetfilter_conntrack never ask for a
zone, so what stands above holds for them here. The bare C loop receives the whole table and deletes
nothing.
"""

from __future__ import annotations

from bench.turn import Turn, case


@case(*("floor", "nlct-on-old-kernel", "ovs-on-old-kernel"), rounds=250, content=("some", "empty"))
def test_old_kernel(turn: Turn, content: str) -> None:
    """Flush of a zone as on an old kernel."""
    turn.even()
    zone = min(7, turn.scale.zones) if content == "some" else turn.scale.zones + 1
    if turn.who == "floor":
        turn.run("dump")
    else:
        turn.run("flush_zone", zone)
        turn.lab.put_back(zone)
