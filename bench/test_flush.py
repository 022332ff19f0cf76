"""Flushing zones, beside the kernel's own flush and a bare receive loop."""

from __future__ import annotations

from itertools import count
from typing import Callable

from conftest import ZONES, Table

Pairs = Callable[..., None]


def test_zone_to_kernel_flush(pairs: Pairs, large: Table) -> None:
    """flush_zone() of 1,000 of 500,000 flows, to the kernel's own flush of such a zone."""

    def between() -> None:
        large.refill(zone=7)
        large.refill(zone=8)

    pairs(
        "flush_zone auto, to the kernel's flush",
        0.5,
        lambda: large.ct.flush_zone(7),
        lambda: large.floor("flush 8"),
        rounds=25,
        between=between,
    )


def test_zone_to_receive_loop(pairs: Pairs, large: Table) -> None:
    """The same, to receiving that zone and looking at nothing."""
    pairs(
        "flush_zone auto, to a bare filtered receive loop",
        1.10,
        lambda: large.ct.flush_zone(7),
        lambda: large.floor("dump 8"),
        rounds=25,
        between=lambda: large.refill(zone=7),
    )


def test_scan_as_on_an_old_kernel(pairs: Pairs, large: Table) -> None:
    """flush_zone() with the kernel's filter switched off, to receiving the whole table."""
    pairs(
        "flush_zone scan without the kernel's filter, to a bare receive loop",
        1.10,
        lambda: large.as_on_an_old_kernel.flush_zone(7, strategy="scan"),
        lambda: large.floor("dump"),
        between=lambda: large.refill(zone=7),
    )


def test_many_zones(pairs: Pairs, large: Table) -> None:
    """flush_zones() of 50 zones, to 50 kernel flushes one after another."""
    zones = range(1, 51)

    def kernel() -> float:
        return sum(large.floor(f"flush {zone}") for zone in range(51, 101))

    pairs(
        "flush_zones of 50 zones, to 50 kernel flushes",
        0.08,
        lambda: large.ct.flush_zones(zones),
        kernel,
        rounds=3,
        between=large.refill,
    )


def test_empty_zone(pairs: Pairs, large: Table) -> None:
    """flush_zone() of a zone without flows, to the kernel's own flush of one."""
    unused = count(ZONES + 1)
    pairs(
        "flush_zone auto of an empty zone, to the kernel's flush",
        0.5,
        lambda: large.ct.flush_zone(next(unused)),
        lambda: large.floor(f"flush {next(unused)}"),
        rounds=25,
    )
