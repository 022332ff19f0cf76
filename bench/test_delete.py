"""Delete by addresses.

The flows of 1, 100 and 10,000 sources spread over the table, a flow each. nlct deletes them in
one dump. The bare C loop receives the whole table and deletes nothing.
"""

from ipaddress import IPv4Address

from bench.turn import Sizes, Turn, case
from nlct.fill import FIRST_SOURCE


@case("floor", "nlct", "conntrack", addresses=Sizes((1, 100, 10_000), quick=(1, 100)))
def test_delete(turn: Turn, addresses: int) -> None:
    """Delete, by the number of addresses."""
    turn.even()
    step = turn.scale.flows // addresses
    if turn.who == "floor":
        turn.run("dump")
        return
    if turn.who == "nlct":
        turn.run("delete", 0, step, addresses)
    else:
        # It takes one address a call, and a second or two for each.
        turn.at_most(1, addresses)
        turn.run("delete", IPv4Address(FIRST_SOURCE))
    turn.lab.fill_up(addresses)
