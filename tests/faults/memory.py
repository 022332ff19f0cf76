"""Tells if memory grows with every call."""

from __future__ import annotations

import gc
import sys
from typing import Callable

from tests.support.memory import allocated

WARM_UP, ROUNDS, CALLS = 6, 5, 6

# How to measure, and the least that a leak takes with each call.
MEASURES: dict[str, tuple[Callable[[], int], int]] = {
    "blocks of Python": (sys.getallocatedblocks, 1),
    "bytes of malloc": (allocated, 16),
}


def _repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()
    gc.collect()


def grown(call: Callable[[], object]) -> str | None:
    """Say what grows. What leaks takes more in every single round."""
    _repeat(call, WARM_UP)
    suspects = set(MEASURES)
    more: dict[str, int] = {}
    for _ in range(ROUNDS):
        before = {name: measure() for name, (measure, _) in MEASURES.items()}
        _repeat(call, CALLS)
        more = {name: measure() - before[name] for name, (measure, _) in MEASURES.items()}
        suspects &= {name for name, (_, least) in MEASURES.items() if more[name] >= least * CALLS}
        if not suspects:
            return None
    return f"{', '.join(sorted(suspects))} grow: {more} in {CALLS} calls"
