"""Says why a field that is asked for is absent in every flow."""

from __future__ import annotations

from collections.abc import Iterable

from nlct.cli.output import note
from nlct.conntrack import Conntrack


def tell_missing(ct: Conntrack, fields: Iterable[str], netns: str | None = None) -> None:
    """Print a line on standard error for each sysctl or rule that these fields would need."""
    place = "" if netns is None else f"{netns}: "
    for line in sorted(set(ct.missing(fields).values())):
        note(f"nlct: {place}{line}")
