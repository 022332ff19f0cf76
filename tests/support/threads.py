"""The threads that nlct itself has in Python. `threading` does not know of them."""

from __future__ import annotations

import sys
from types import FrameType

from nlct import _threads


def own_threads() -> list[int]:
    """Those at the moment."""
    return [ident for ident, frame in sys._current_frames().items() if _is_own(frame)]


def _is_own(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not _threads.Thread._run.__code__:
        frame = frame.f_back
    return frame is not None
