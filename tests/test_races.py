"""Two threads at the same place at the same time: arranged, so that chance decides nothing."""

from __future__ import annotations

import gc
import mmap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import pytest

import nlct
from nlct import _forks, _handle, _program, _threads
from nlct.fill import fill

# Longer than anything here takes on a busy machine.
LONG = 60
# What the names of the threads here begin with: others may be left over in this process.
OURS = "race"


def at_once(work: Callable[[], Any], threads: int = 2) -> list[Any]:
    """Let threads do the same, and return what each got."""
    # A finalizer of what other tests left would come to the meeting in the middle of their waiting.
    gc.collect()
    gc.disable()
    try:
        with ThreadPoolExecutor(threads, OURS) as pool:
            return [one.result(LONG) for one in [pool.submit(work) for _ in range(threads)]]
    finally:
        gc.enable()


def ours() -> bool:
    """Return whether this is one of the threads that at_once() started."""
    return threading.current_thread().name.startswith(OURS)


class Meeting:
    """Where our threads wait for each other, each the first times that it comes."""

    def __init__(self, threads: int = 2, times: int = 1) -> None:
        self._barrier = threading.Barrier(threads)
        self._times = times
        self._own = threading.local()

    def meet(self) -> None:
        """Wait for the others."""
        if not ours():
            return
        self._own.times = getattr(self._own, "times", 0) + 1
        if self._own.times <= self._times:
            self._barrier.wait(LONG)


def test_threads_of_a_child_count_a_fork_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They see it at the same time, and agree on which process they are in."""
    meeting = Meeting(times=2)

    class Cleared(bytearray):
        """The marks as a child finds them, and for the others as they are without a fork."""

        def __getitem__(self, at: Any) -> Any:
            found = super().__getitem__(at) if ours() else 1
            meeting.meet()
            return found

    before = _forks.process()
    monkeypatch.setattr(_forks, "_forks", _forks._forks)
    monkeypatch.setattr(_forks, "_marks", Cleared(mmap.PAGESIZE))
    one, other = at_once(_forks.process)
    assert one == other == _forks.process() == (before[0] + 1, before[1])


def test_threads_of_a_child_share_one_pool(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes first after a fork, they agree on the lock and on the sockets."""
    pool, meeting = ct._handle.pool, Meeting()
    parents = pool._own()
    child = (_forks.process()[0] + 1, 1)

    def process() -> tuple[int, int]:
        meeting.meet()
        return child

    monkeypatch.setattr(_handle, "process", process)
    one, other = at_once(pool._own)
    assert one is other is pool._own()
    assert one is not parents


def test_threads_that_compile_one_filter_share_it(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None takes it away from another, who may be matching with it just then."""
    meeting, compile_filter = Meeting(), _program.compile_filter

    def compile_together(node: Any) -> Any:
        made = compile_filter(node)
        meeting.meet()
        return made

    monkeypatch.setattr(_program, "compile_filter", compile_together)
    wanted = nlct.Filter(zone=1)
    one, other = at_once(wanted.to_c)
    assert one is other is wanted.to_c()
    fill(ct, 10, 2)
    assert ct.count(wanted) == 5


def test_a_leader_may_end_while_a_caller_looks_at_it(netns: nlct.Netns) -> None:
    """It takes no lock to say so, so whether there is one is asked once."""

    class Ending(nlct.Flusher):
        """Its leader ends as soon as somebody has seen it."""

        _seen: _threads.Thread | None = None

        @property
        def _leader(self) -> _threads.Thread | None:
            seen, self._seen = self._seen, None
            return seen

        @_leader.setter
        def _leader(self, leader: _threads.Thread | None) -> None:
            self._seen = leader

    with nlct.Conntrack(netns) as ct, Ending(ct) as flusher:
        fill(ct, 10, 2)
        flusher._seen = _threads.Thread(lambda _: None)
        assert flusher.flush_zone(1).deleted == 5
