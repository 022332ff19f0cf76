"""Flush of a zone.

One zone of a large table, and one that holds nothing. The bare C loop receives what the kernel
sends for that zone and deletes nothing: the floor of any flush by scanning. nlct chooses its way
by itself. Left out: pyroute2, which has no flush of a zone.

As on an old kernel: the kernel ignores the zone of a dump, so it sends the whole table, and it
cannot be trusted with a zone flush. nlct is told not to ask the kernel for a filter.
Open vSwitch is made to believe that it runs on Linux 6.1, and the zone is taken out of its requests
(bench/c/old.c); it then deletes in a loop over the whole dump. conntrack and libnetfilter_conntrack
never ask for a zone, so what they take on a new kernel holds. The bare C loop receives the whole
table.
"""

from bench.turn import Turn, case

CONTENT = ("some", "empty")


@case("kernel", "floor", "nlct", "ovs", slow=("nfct", "conntrack"), rounds=250, content=CONTENT)
def test_zone(turn: Turn, content: str) -> None:
    """Flush of a zone with some flows, and of an empty one."""
    flush(turn, content, "zone_dump")


@case("floor", "nlct-on-old-kernel", "ovs-on-old-kernel", rounds=250, content=CONTENT)
def test_old_kernel(turn: Turn, content: str) -> None:
    """The same as on an old kernel."""
    flush(turn, content, "dump")


def flush(turn: Turn, content: str, floor: str) -> None:
    """Flush a zone and put it back, or receive what a scan would."""
    turn.even()
    zone = min(7, turn.scale.zones) if content == "some" else turn.scale.zones + 1
    if turn.who == "floor":
        turn.run(floor, *[zone] * (floor == "zone_dump"))
    else:
        turn.run("flush_zone", zone)
        turn.lab.put_back(zone)
