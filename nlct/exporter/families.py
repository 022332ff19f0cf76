"""Metric families, put together sample by sample."""

from __future__ import annotations

import os
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
        family.add_sample(
            name, {label: _in_utf8(said) for label, said in labels.items()}, float(value)
        )

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


def _in_utf8(text: str) -> str:
    """Return the text; with escapes for bytes of a file's name that are not UTF-8."""
    if text.isascii():
        return text
    return os.fsencode(text).decode(errors="backslashreplace")
