"""Interrupting a call at every point where a signal handler could run, which mostly raises.

Python runs signal handlers between its own instructions, above all behind each call, and inside
none of the core's. A trace function sees each of these points, so nothing is left to chance.
"""

from __future__ import annotations

import dis
import functools
import gc
import itertools
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Callable

# What opens and holds descriptors and the core's objects.
MODULES = {
    f"nlct.{name}"
    for name in (
        *("netns", "conntrack", "flush", "load", "capabilities", "table", "counts"),
        *("events", "stream", "expect", "mirror", "_keeper", "_memory"),
        *("_ffi", "_forks", "_dump", "_handle", "_lookup"),
    )
}


class Interrupted(BaseException):
    """What the handler raises."""


def _interrupt() -> None:
    raise Interrupted


def _is_ours(frame: FrameType) -> bool:
    """Code of nlct's; an exception in a finalizer would be swallowed."""
    at: FrameType | None = frame
    while at is not None:
        if at.f_code.co_name == "__del__":
            return False
        at = at.f_back
    return str(frame.f_globals.get("__name__")) in MODULES


@functools.cache
def _behind_calls(code: CodeType) -> frozenset[int]:
    """Where instructions begin that follow a call."""
    shown = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    pairs = zip(shown, shown[1:])
    return frozenset(after.offset for call, after in pairs if call.opname.startswith("CALL"))


def _run(work: Callable[[], object], point: int, handler: Callable[[], object]) -> bool:
    """Call a handler when so many calls have returned to nlct. Return if it came that far."""
    done = itertools.count()
    reached = False

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal reached
        if event == "call":
            if not _is_ours(frame):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif (
            event == "opcode"
            and not reached
            and frame.f_lasti in _behind_calls(frame.f_code)
            and next(done) == point
        ):
            reached = True
            handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        pass
    finally:
        sys.settrace(before)
    return reached


def everywhere(
    work: Callable[[], object], handler: Callable[[], object] = _interrupt, step: int = 1
) -> Iterator[int]:
    """Interrupt ``work`` at every so many points in turn, and yield after every time."""
    # Whoever collects garbage each time looks at what is new, not at all that other tests left.
    gc.collect()
    gc.freeze()
    try:
        for point in itertools.count(0, step):
            if not _run(work, point, handler):
                return
            yield point
    finally:
        gc.unfreeze()
