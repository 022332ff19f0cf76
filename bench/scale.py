"""How large the measurement is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The sizes.

    ``samples``: of each flush of a zone. ``few``: rounds of what takes long. ``limit``: seconds
    that a table of results may take. ``budget``: those that a slow peer may take of it; it gets
    fewer samples. ``patience``: seconds that one sample may take; what takes longer is left out,
    by name. ``old_patience``: the same for storms as on an old kernel, where all is slow.
    ``target_storm``: the storm that has targets.
    """

    flows: int = 500_000
    zones: int = 500
    samples: int = 250
    few: int = 9
    budget: float = 30
    limit: float = 400
    patience: float = 90
    old_patience: float = 400
    shares: tuple[float, ...] = (0, 0.2, 1, 5, 10, 20, 50, 100)
    several: tuple[int, ...] = (2, 3, 5, 10, 50, 200)
    storms: tuple[int, ...] = (1, 10, 50, 200, 500)
    target_storm: int = 200
    addresses: tuple[int, ...] = (1, 100, 10_000)
    growth: tuple[int, ...] = (10_000, 100_000, 500_000, 1_000_000, 2_000_000)
    grid_flows: tuple[int, ...] = (10_000, 100_000, 500_000, 2_000_000)
    grid_buckets: tuple[int, ...] = (16_384, 65_536, 262_144, 1_048_576)
    grid_limit: float = 40

    def room(self, cases: Collection[str]) -> int:
        """Return how many flows these cases need room for, and the same again for others."""
        sizes = [self.flows]
        sizes += self.growth if "growth" in cases else ()
        sizes += self.grid_flows if "grid" in cases else ()
        return 2 * max(sizes)


FULL = Scale()
# Enough to see that all of it runs. The hash table keeps its size.
QUICK = Scale(
    flows=10_000,
    zones=20,
    samples=2,
    few=2,
    budget=2,
    limit=10,
    patience=5,
    old_patience=5,
    target_storm=10,
    storms=(1, 10),
    addresses=(1, 100),
    growth=(2_000, 10_000),
    grid_flows=(10_000,),
    grid_buckets=(),
    grid_limit=2,
)
