"""The table that is measured, the floor beside it, and the report of ratios.

Every figure is a ratio to what the kernel itself costs, taken pair by pair in one run (A B A B),
so that it holds while the machine's speed drifts. Timing never decides a test. Left out: the time
to start Python, and everything that is not named.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from floor import Floor, room_for

import nlct
from nlct import fill

FLOWS = 500_000
ZONES = 500

_figures: list[tuple[str, str, str]] = []


class Table:
    """A filled table in a scratch namespace."""

    def __init__(self, flows: int) -> None:
        self.flows = flows
        self.netns = nlct.Netns.scratch()
        self.ct = nlct.Conntrack(self.netns)
        self.as_on_an_old_kernel = nlct.Conntrack(self.netns, kernel_filter=False)
        self.floor = Floor(self.netns)
        self.refill()

    def refill(self, zone: int | None = None) -> None:
        """Bring back what was flushed."""
        fill.fill(self.ct, self.flows, ZONES, zone=zone)

    def close(self) -> None:
        """Leave nothing behind."""
        self.ct.flush_all()
        self.floor.close()
        self.as_on_an_old_kernel.close()
        self.ct.close()
        self.netns.close()


@pytest.fixture(scope="module")
def make_table() -> Iterator[Callable[[int], Table]]:
    """Make tables, with the limit raised for as long as they last."""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root, to raise nf_conntrack_max and to enter the namespace")
    made: list[Table] = []

    def make(flows: int) -> Table:
        made.append(Table(flows))
        return made[-1]

    with room_for(2 * FLOWS):
        yield make
        for table in made:
            table.close()


@pytest.fixture(scope="module")
def large(make_table: Callable[[int], Table]) -> Table:
    """500,000 flows in 500 zones."""
    return make_table(FLOWS)


@pytest.fixture(scope="module")
def small(make_table: Callable[[int], Table]) -> Table:
    """10,000 flows in 500 zones: a sparse table."""
    return make_table(FLOWS // 50)


@pytest.fixture
def pairs(benchmark: Any) -> Callable[..., None]:
    """Time ours and theirs in turn, and report the median of the ratios."""

    def run(
        figure: str,
        target: float,
        ours: Callable[[], object],
        theirs: Callable[[], float],
        *,
        rounds: int = 9,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        others: list[float] = []

        def setup() -> None:
            between()
            others.append(theirs())

        ours()
        benchmark.pedantic(ours, setup=setup, rounds=rounds)
        mine = benchmark.stats.stats.data
        ratio = statistics.median(a / b for a, b in zip(mine, others))
        benchmark.extra_info.update(ratio=ratio, target=target, others=others)
        detail = f"{1e3 * statistics.median(mine):.2f} to {1e3 * statistics.median(others):.2f} ms"
        report(figure, f"at most {target}", f"{ratio:.3f}  ({detail})")

    return run


def report(figure: str, target: str, value: str) -> None:
    """Put a line into the report at the end."""
    _figures.append((figure, target, value))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the report."""
    terminalreporter.section("figures")
    for figure, target, value in _figures:
        terminalreporter.write_line(f"{figure:<66} {target:<14} {value}")
