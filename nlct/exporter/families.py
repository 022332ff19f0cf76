"""Metric families, put together sample by sample."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

_TOTAL = "_total"


class Families:
    """What a scrape returns: families by name, in the order in which they first appear."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, name: str, help: str, value: float, **labels: str) -> None:
        """Add a sample: of a counter if the name ends with "_total", otherwise of a gauge."""
        name = f"nlct_{name}"
        family = self._families.get(name)
        if family is None:
            kind = "counter" if name.endswith(_TOTAL) else "gauge"
            # The library wants the name of a counter without its suffix.
            bare = name[: -len(_TOTAL)] if kind == "counter" else name
            family = self._families[name] = Metric(bare, help, kind)
        family.add_sample(name, labels, float(value))

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())
