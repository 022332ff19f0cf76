"""Delete by addresses.

The flows of 1, 100 and 10,000 sources spread over the table, a flow each. nlct deletes them in
one pass; conntrack takes one address a call, so it is called for each. The bare C loop
receives the whole table and deletes nothing.
"""

from __future__ import annotations

import math
from functools import partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from bench.lab import TableError
from bench.measure import Tool, in_turn
from bench.report import Section
from nlct.fill import FIRST_SOURCE

if TYPE_CHECKING:
    from bench.peers import Peer
    from bench.run import Bench


def run(bench: Bench, section: Section) -> None:
    """Ever more addresses."""
    scale = bench.scale
    bench.lab.even(scale.flows, scale.zones)
    floor, ours = bench.peers["floor"], bench.peers["nlct"]
    for count in scale.addresses:
        step = scale.flows // count

        def put_back(count: int = count) -> None:
            there = bench.lab.ct.count()
            if there != scale.flows - count:
                raise TableError(f"{there:,} flows were left of {scale.flows:,} less {count:,}")
            bench.lab.fill_up()

        def delete(count: int = count, step: int = step) -> float:
            return ours.run("delete", 0, step, count)

        tools = [
            Tool(floor.name, partial(floor.run, "dump")),
            Tool(ours.name, delete, after=put_back),
        ]
        for peer in bench.able("delete", "conntrack"):
            addresses = [IPv4Address(FIRST_SOURCE + step * n) for n in range(count)]

            def one_by_one(peer: Peer = peer, addresses: list[IPv4Address] = addresses) -> float:
                return math.fsum(peer.run("delete", address) for address in addresses)

            once = peer.run("delete", addresses[0])
            bench.lab.fill_up()
            if once * count > scale.patience:
                section.notes.append(
                    f"Left out: {count:,} addresses by {peer.name}: {once:.2f} s for one."
                )
                continue
            tools.append(Tool(peer.name, one_by_one, after=put_back, budget=scale.budget))
        series = in_turn(tools, scale.few, limit=scale.limit)
        title = f"{count:,} address{'es' * (count > 1)}, {scale.flows:,} flows"
        section.times(title, series, floor.name)
        if count == 10_000:
            section.ratio("delete/floor", series, ours.name, floor.name)
