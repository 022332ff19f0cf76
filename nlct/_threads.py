"""Threads and locks of the interpreter itself, also where a library has replaced them.

eventlet and gevent put greenlets in the place of threads, and locks that only greenlets of one
thread can wait for: in `threading`, in `_thread`, in `time` and in objects that are there already,
at any time. Callers that share a dump may be in real threads as well. So these come out of a
`_thread` of our own, which no library has seen.
"""

from __future__ import annotations

import sys
from importlib.machinery import BuiltinImporter, ModuleSpec
from types import ModuleType
from typing import Any, Callable


def _untouched(name: str) -> ModuleType:
    """Make another instance of a built-in module."""
    spec = ModuleSpec(name, BuiltinImporter, origin="built-in")  # type: ignore[arg-type]
    # Python 3.9 would fill the one that it finds there, and undo what was replaced.
    found = sys.modules.pop(name)
    try:
        module: ModuleType = BuiltinImporter.create_module(spec)  # type: ignore[assignment]
    finally:
        sys.modules[name] = found
    BuiltinImporter.exec_module(module)
    return module


_thread = _untouched("_thread")
get_ident: Callable[[], int] = _thread.get_ident

# A signal that comes between Python's last look and a wait does not end that wait: how long a wait
# may be, in seconds.
PATIENCE = 0.5


class Lock:
    """A lock that its thread may take again: ``with lock.real``.

    In a slot, where eventlet, which goes through `vars()`, does not find and replace it.
    """

    __slots__ = ("real",)

    def __init__(self) -> None:
        self.real: Any = _thread.RLock()


def latch() -> Any:
    """Make a lock that is taken already, for one thread to wait until another one releases it."""
    made = _thread.allocate_lock()
    made.acquire()
    return made


def sleep(seconds: float) -> None:
    """Do nothing, and let nothing else be done in this thread."""
    latch().acquire(timeout=seconds)


class Thread:
    """A thread of its own, even among greenlets. The end of the interpreter does not wait for it.

    `threading` does not know of it, nor of what it calls: so nothing may that runs in it ask
    `threading` who it is.
    """

    def __init__(self, work: Callable[[Thread], None]) -> None:
        self._work = work
        self._begun, self._ended = latch(), latch()
        self._alive = False

    def start(self) -> None:
        """Start it. Raises RuntimeError where no thread can be had."""
        _thread.start_new_thread(self._run, ())
        while not self._begun.acquire(timeout=PATIENCE):
            pass

    def _run(self) -> None:
        self._alive = True
        self._begun.release()
        try:
            self._work(self)
        finally:
            self._alive = False
            self._ended.release()

    def is_alive(self) -> bool:
        """Tell if it has begun and not ended."""
        return self._alive

    def join(self) -> None:
        """Wait until it has ended, if it has begun."""
        while self._alive:
            # If we are interrupted in between, other waiters see that it is not alive.
            if self._ended.acquire(timeout=PATIENCE):
                self._ended.release()
