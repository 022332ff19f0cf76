"""Growth, from few flows to many.

The same work on tables of every size, in as many zones; the hash table keeps its size. "zone" is a
flush of one of the zones, which grows with the table; "delete" is of 100 addresses.
"""

from bench.turn import Sizes, Turn, case

FLOWS = Sizes((10_000, 100_000, 500_000, 1_000_000, 2_000_000), quick=(2_000, 10_000))
FLUSHES = ("floor.zone", "kernel.zone", "nlct.zone")
WORKS = {"table": (), "count_by": ("zone",), "loop": (), "text": ("/dev/null",)}
OURS = tuple(f"nlct.{work}" for work in WORKS)


@case(*FLUSHES, "floor.dump", *OURS, "nlct.delete", "conntrack", limit=30, flows=FLOWS)
def test_growth(turn: Turn, flows: int) -> None:
    """The same work, by flows in the table."""
    turn.even(flows)
    zone = min(7, turn.scale.zones)
    if turn.does == "delete":
        turn.run("delete", 0, flows // 100, 100)
        turn.lab.fill_up(100)
    elif turn.does != "zone":
        turn.run(turn.does or "dump", *WORKS.get(turn.does, ()))
    elif turn.who == "floor":
        turn.run("zone_dump", zone)
    else:
        turn.run("flush_zone", zone)
        turn.lab.put_back(zone)


@case("floor", "nlct", rounds=3, flows=FLOWS)
def test_growth_of_create(turn: Turn, flows: int) -> None:
    """Create, by flows."""
    turn.even(0)
    turn.lab.settings.make_room(flows)
    turn.run("create", flows, turn.scale.zones)
    turn.lab.empty(flows)
