"""Flushing a zone of a sparse table, where walking the buckets is what costs.

In a module of its own: the hash table is shared, and a large table elsewhere would fill it.
"""

from __future__ import annotations

from typing import Callable

from conftest import Table


def test_sparse_table(pairs: Callable[..., None], small: Table) -> None:
    """flush_zone() of 20 of 10,000 flows, to the better of scan and kernel."""

    def better() -> float:
        scan = small.ct.flush_zone(8, strategy="scan").seconds
        small.refill(zone=8)
        return min(scan, small.ct.flush_zone(8, strategy="kernel").seconds)

    def between() -> None:
        small.refill(zone=7)
        small.refill(zone=8)

    pairs(
        "flush_zone auto on a sparse table, to the better of both",
        1.3,
        lambda: small.ct.flush_zone(7),
        better,
        rounds=25,
        between=between,
    )
