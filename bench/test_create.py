"""Create.

Filling an empty table: nlct's load() of a FlowTable, a bare C loop that writes the same requests
256 a send, libnetfilter_conntrack with a request and an answer a flow, and `conntrack -R` of a
file with a line a flow.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab import written
from bench.turn import Bench, Turn, case
from nlct.fill import SERVER, TIMEOUT, tables


@pytest.fixture(scope="module")
def saved(bench: Bench) -> Iterator[Path]:
    """A file for conntrack."""
    with written(lines(bench.scale.flows, bench.scale.zones)) as file:
        yield file


@case("floor", "nlct", "nfct", "conntrack")
def test_create(turn: Turn, saved: Path) -> None:
    """Create all flows."""
    flows, zones = turn.scale.flows, turn.scale.zones
    turn.even(0)
    turn.lab.settings.make_room(flows)
    if turn.who == "conntrack":
        turn.run("create", saved)
    else:
        turn.run("create", flows, zones)
    turn.lab.empty(flows)


def lines(flows: int, zones: int) -> Iterator[str]:
    """Yield what `conntrack -R` reads."""
    for table in tables(flows, zones):
        for flow in table:
            yield (
                f"-I -w {flow.zone} -t {TIMEOUT} -p udp -s {flow.orig.src} -d {SERVER} "
                f"--sport {flow.orig.sport} --dport {flow.orig.dport}\n"
            )
