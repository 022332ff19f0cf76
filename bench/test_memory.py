"""Memory.

What one piece of work adds to the most memory that its process ever held, in a fresh process
each, over a small and a large table. A process of nlct has probed the kernel and read a counter
before. table() must hold all its columns, dump() and the others stream.
"""

from bench.turn import Sizes, Turn, case

FLOWS = Sizes((10_000, 500_000), quick=(2_000, 10_000))
WORKS = {
    "dump": ("dump",),
    "text": ("text", "/dev/null"),
    "count_by": ("count_by", "zone"),
    "scan": ("flush_zone", "1", "scan"),
    "batches": ("batches",),
    "table": ("table",),
}


@case(*(f"nlct.{work}" for work in WORKS), "pyroute2", rounds=1, flows=FLOWS)
def test_memory(turn: Turn, flows: int) -> None:
    """MiB added, by flows in the table."""
    turn.even(flows)
    with turn.fresh() as worker:
        turn.record(lambda: worker.run("peak", *WORKS[turn.does or "dump"]))
    if turn.does == "scan":
        turn.lab.put_back(1)
