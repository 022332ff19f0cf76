"""Dumps.

The whole table, then one zone of it, in the shapes that each tool gives: nothing (the bare C
loop), columns, counts, objects, text to nowhere. "loop" reads two fields and the zone of each flow
of dump(). "arrow" is what pyarrow.table() takes beyond table(). pyroute2's dump is iterated, and
its messages are not looked at. "groups" is of flows that have counters.
"""

import pytest

from bench.lab import Counted
from bench.turn import Turn, case

OURS = ("nlct.table", "nlct.count_by", "nlct.batches", "nlct.dump", "nlct.loop")
ARGUMENTS = {"count_by": ("zone",)}


@case("floor", *OURS, "nfct", "conntrack", "ovs", slow=("pyroute2",))
def test_dump(turn: Turn) -> None:
    """Dump of all flows."""
    turn.even()
    turn.run(turn.does or "dump", *ARGUMENTS.get(turn.does, ()))


@case("floor", "nlct.count_by", "nlct.sum_by")
def test_groups(turn: Turn) -> None:
    """Flows with counters, by networks, protocols and ports."""
    scale = turn.scale
    turn.lab.hold(Counted, scale.flows, scale.zones, tuple(turn.lab.inside))
    of = ("bytes_orig",) if turn.does == "sum_by" else ()
    by = ("src/24", "proto", "dport") if turn.does else ()
    turn.run(turn.does or "dump", *of, *by)


@case("nlct.table", "nlct.arrow")
def test_arrow(turn: Turn) -> None:
    """Table to Arrow."""
    pytest.importorskip("pyarrow", reason="MISSING: pyarrow")
    turn.even()
    turn.run(turn.does)


@case("floor", "nlct.zone_table", "nlct.zone_loop", "conntrack", "ovs", rounds=25, limit=60)
def test_dump_of_a_zone(turn: Turn) -> None:
    """Dump of one zone."""
    turn.even()
    turn.run(turn.does or "zone_dump", min(7, turn.scale.zones))
