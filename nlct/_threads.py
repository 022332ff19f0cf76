"""Threads and locks of the interpreter itself, also where a library has replaced them.

eventlet and gevent replace threads by greenlets, and locks by locks that only greenlets of one
thread can wait for. They do so at any time, in `threading`, `_thread` and `time`, and in objects
that exist already. Callers that share a dump may be in real threads as well. So this module takes
threads and locks from a `_thread` of its own, which no library has seen.
"""

from __future__ import annotations

import sys
from importlib.machinery import BuiltinImporter, ModuleSpec
from types import ModuleType
from typing import Any, Callable


def _untouched(name: str) -> ModuleType:
    """Make another instance of a built-in module."""
    spec = ModuleSpec(name, BuiltinImporter, origin="built-in")  # type: ignore[arg-type]
    # Python 3.9 would fill the module that it finds there, and undo the replacements.
    found = sys.modules.pop(name)
    try:
        module: ModuleType = BuiltinImporter.create_module(spec)  # type: ignore[assignment]
    finally:
        sys.modules[name] = found
    BuiltinImporter.exec_module(module)
    return module


_thread = _untouched("_thread")
get_ident: Callable[[], int] = _thread.get_ident

# The longest wait, in seconds. A signal that comes between Python's last check and a wait does not
# end it.
PATIENCE = 0.5


class Lock:
    """A lock that its thread may take again: ``with lock.real``.

    It lies in a slot: eventlet would find it by `vars()`, and replace it.
    """

    __slots__ = ("real",)

    def __init__(self) -> None:
        self.real: Any = _thread.RLock()


def latch() -> Any:
    """Make a lock that is already taken: one thread waits for it until another releases it."""
    made = _thread.allocate_lock()
    made.acquire()
    return made


def sleep(seconds: float) -> None:
    """Block this thread, with every greenlet in it."""
    latch().acquire(timeout=seconds)


class Thread:
    """A real thread, even among greenlets. The interpreter does not wait for it at its end.

    `threading` does not know this thread or what it calls, so nothing that runs in it may ask
    `threading` for the current thread.
    """

    def __init__(self, work: Callable[[Thread], None]) -> None:
        self._work = work
        self._begun, self._ended = latch(), latch()
        self._alive = False

    def start(self) -> None:
        """Start it. Raises RuntimeError if no thread can be started."""
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
