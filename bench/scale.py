"""How large the measurement is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The sizes.

    ``samples``: rounds of what is quick; no case takes more. ``limit``: seconds after which no
    further round of a group begins. ``grid_buckets``: sizes of the hash table, 0 for the one it
    has.
    """

    flows: int = 500_000
    zones: int = 500
    samples: int = 250
    limit: float = 400
    shares: tuple[float, ...] = (0, 0.2, 1, 5, 10, 20, 50, 100)
    several: tuple[int, ...] = (2, 3, 5, 10, 50, 200, 500)
    storms: tuple[int, ...] = (1, 10, 50, 200, 500)
    addresses: tuple[int, ...] = (1, 100, 10_000)
    growth: tuple[int, ...] = (10_000, 100_000, 500_000, 1_000_000, 2_000_000)
    grid_flows: tuple[int, ...] = (10_000, 100_000, 500_000, 2_000_000)
    grid_buckets: tuple[int, ...] = (16_384, 65_536, 262_144, 1_048_576)
    memory: tuple[int, ...] = (10_000, 500_000)


FULL = Scale()
# Enough to see that all of it runs. The hash table keeps its size.
QUICK = Scale(
    flows=10_000,
    zones=20,
    samples=2,
    limit=10,
    several=(2, 20),
    storms=(1, 10),
    addresses=(1, 100),
    growth=(2_000, 10_000),
    grid_flows=(10_000,),
    grid_buckets=(0,),
    memory=(2_000, 10_000),
)
