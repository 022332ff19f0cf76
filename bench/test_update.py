"""Changing every flow of a table.

Each sets the mark of all flows to another one than it found. The bare C loop receives the table
and sends an update for each flow, 256 at a time; it matches nothing and counts nothing.
"""

from bench.turn import Sizes, Turn, case

MARKS = {"floor": 1, "nlct": 2}


@case("floor", "nlct", flows=Sizes((100_000,), quick=(10_000,)))
def test_update(turn: Turn, flows: int) -> None:
    """Set the mark of every flow, by the size of the table."""
    turn.even(flows)
    before = turn.lab.ct.count_by("mark")
    # Not what is there already, which would be no change.
    mark = MARKS[turn.who] + (4 if MARKS[turn.who] in before else 0)
    turn.run("update", mark)
    assert turn.lab.ct.count_by("mark") == {mark: flows}
