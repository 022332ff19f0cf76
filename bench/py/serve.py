"""What the Python programs here share: they read operations from standard input, one a line.

Each is answered with JSON: the seconds that it took, and what else there is to say of its result.
What an operation is given is made before the clock starts. "peak OPERATION ..." says as well how
many MiB it adds to the most memory that the process ever had.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable


def serve(
    operations: Mapping[str, Callable[..., Callable[[], Any]]],
    greeting: str = "",
    notes: Callable[[Any], dict[str, Any]] = lambda _: {},
) -> None:
    """Answer until the input ends.

    ``operations``: make, of words, what is timed. ``notes``: what is to be said of a result; other
    "seconds", if the operation has its own clock.
    """
    print("ready", greeting, flush=True)
    for line in sys.stdin:
        words = line.split()
        wants_peak = words[0] == "peak"
        try:
            operation, *arguments = words[wants_peak:]
            work = operations[operation](*arguments)
            before = _peak_kib()
            started = time.perf_counter()
            # Kept, so that what it takes to free it is not counted.
            result = work()
            answer = {"seconds": time.perf_counter() - started}
            if wants_peak:
                answer["added_mib"] = round((_peak_kib() - before) / 1024, 2)
            print(json.dumps({**answer, **notes(result)}), flush=True)
            del result
        except Exception as exc:
            print(f"error: {line.strip()}: {exc!r}", flush=True)


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
