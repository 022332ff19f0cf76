"""The open descriptors of this process."""

from __future__ import annotations

import gc
import os


def descriptors(*, again: bool = False) -> int:
    """Count them, once the garbage of earlier tests has let go of its own.

    ``again``: leave the collection out, which is slow; the test has counted once already.
    """
    if not again:
        gc.collect()
    return len(os.listdir("/proc/self/fd"))
