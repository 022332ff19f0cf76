"""Metric families, put together sample by sample."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric, Sample

_TOTAL = "_total"


def sample(name: str, value: float, **labels: str) -> Sample:
    """Make a sample. It may serve in many scrapes."""
    said = {label: _in_utf8(text) for label, text in labels.items()}
    return Sample(f"nlct_{name}", said, float(value))


class Families:
    """What a scrape returns: families by name, in the order in which they first appear."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, name: str, help: str, value: float, **labels: str) -> None:
        """Add a sample."""
        self.extend(name, help, (sample(name, value, **labels),))

    def extend(self, name: str, help: str, samples: Iterable[Sample]) -> None:
        """Add samples of that name: of a counter if it ends with "_total", otherwise of a gauge."""
        name = f"nlct_{name}"
        family = self._families.get(name)
        if family is None:
            kind = "counter" if name.endswith(_TOTAL) else "gauge"
            # The library wants the name of a counter without its suffix.
            bare = name[: -len(_TOTAL)] if kind == "counter" else name
            family = self._families[name] = Metric(bare, help, kind)
        family.samples.extend(samples)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


def _in_utf8(text: str) -> str:
    """Return the text; with escapes for bytes of a file's name that are not UTF-8."""
    if text.isascii():
        return text
    return os.fsencode(text).decode(errors="backslashreplace")
