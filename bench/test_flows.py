"""Delete flows that are given.

The flows of one zone, which was dumped before, deleted by tuple, zone and id. The bare C loop
copies the names that it kept into requests, 256 a send. Beside it nlct's delete_flows() and, one by
one, its delete_flow(), which looks each flow up first.
"""

from bench.turn import Sizes, Turn, case
from nlct.cli.measure import SyntheticTable

ZONE = 7


@case("floor", "nlct", "nlct.each", rounds=50, limit=60, flows=Sizes((200, 10_000), quick=(200,)))
def test_flows(turn: Turn, flows: int) -> None:
    """Delete flows that are given, by their number."""
    turn.lab.hold(SyntheticTable, turn.scale.flows, turn.scale.flows // flows)
    if turn.who == "floor":
        turn.peer.run("keep", ZONE, 1)
        turn.run("delete_kept")
    else:
        turn.run("delete_each" if turn.does else "delete_flows", ZONE)
    turn.lab.put_back(ZONE)
