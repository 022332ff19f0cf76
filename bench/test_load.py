"""Creating many flows, beside a C loop that does the same."""

from __future__ import annotations

from typing import Callable

from conftest import FLOWS, ZONES, Table

from nlct import fill


def test_load(pairs: Callable[..., None], large: Table) -> None:
    """load() of 500,000 flows, to creating them in C in batches of 256."""
    tables = list(fill.tables(FLOWS, ZONES))

    def load() -> None:
        for table in tables:
            large.ct.load(table)

    def create() -> float:
        seconds = large.floor(f"create {FLOWS} {ZONES}")
        large.ct.flush_all()
        return seconds

    large.ct.flush_all()
    pairs(
        "load of 500,000 flows, to a C loop",
        1.3,
        load,
        create,
        rounds=5,
        between=large.ct.flush_all,
    )
