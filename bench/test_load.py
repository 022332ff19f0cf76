"""Restore.

Filling an empty table from a file of `conntrack -L -o save`: `nlct load` and `conntrack -R`, each
from the start of the process to its end. Writing the file is not measured.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab import written
from bench.turn import Bench, Turn, case
from nlct.fill import SERVER, TIMEOUT, tables


@pytest.fixture(scope="module")
def saved(bench: Bench) -> Iterator[Path]:
    """A file with a line a flow."""
    with written(lines(bench.scale.flows, bench.scale.zones)) as file:
        yield file


@case("nlct-command", "conntrack")
def test_load(turn: Turn, saved: Path) -> None:
    """Restore all flows."""
    flows = turn.scale.flows
    turn.even(0)
    turn.lab.settings.make_room(flows)
    turn.run("load", saved)
    turn.lab.empty(flows)


def lines(flows: int, zones: int) -> Iterator[str]:
    """Yield the lines that dump_save() would."""
    for table in tables(flows, zones):
        for flow in table:
            orig = flow.orig
            yield (
                f"-A -t {TIMEOUT} -u UNSET -w {flow.zone} -s {orig.src} -d {SERVER} -r {SERVER} "
                f"-q {orig.src} -p udp --sport {orig.sport} --dport {orig.dport} "
                f"--reply-port-src {orig.dport} --reply-port-dst {orig.sport}\n"
            )
