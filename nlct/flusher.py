"""Flusher: callers that flush at the same time share one dump of the table.

It gathers requests as a database gathers commits: those that arrive during a round wait for the
next one, which serves them all. A thread of its own leads the rounds. The first request starts it,
and it ends when no request waits. So a caller that is interrupted, cancelled or fails does not take
the round away from the others, and no thread is left behind. The leader is a daemon and is stopped
at exit, so no request keeps the interpreter alive.

A waiting caller holds no lock, and the leader takes none that a caller may hold: a signal handler
may flush or close, too, whatever it interrupted.

Threads and locks are the interpreter's own, also under eventlet and gevent: callers there are
greenlets, and threads of their native pools.
"""

from __future__ import annotations

import atexit
import copy
import errno
import os
import time
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Callable

from nlct import _check, _log, _threads
from nlct._closing import Closing
from nlct._dump import require
from nlct._handle import Handle, Holder, borrow
from nlct.errors import Error
from nlct.filter import Filter, to_delete
from nlct.flush import Auto, Scan, Target, flush
from nlct.netns import NetnsLike
from nlct.observers import watched, watched_async
from nlct.result import FlushResult

# A round calls it after each step, with the flows scanned so far; it raises to stop the round.
Watch = Callable[[int], None]


class _Request:
    """What one caller asks for, and the answer.

    ``operation``: "flush" or "delete". ``wake``: tells the caller that the answer is there.
    """

    def __init__(self, wanted: Filter, operation: str, wake: Callable[[], object]) -> None:
        self.wanted = wanted
        self.operation = operation
        # The caller does not wait any longer.
        self.abandoned = False
        self._wake = wake
        self._started = time.monotonic()
        self._answer: FlushResult | BaseException | None = None

    def settle(self, answer: FlushResult | BaseException) -> None:
        """Answer the request. Only the first answer counts."""
        if self._answer is not None:
            return
        if isinstance(answer, FlushResult):
            answer = answer._replace(seconds=time.monotonic() - self._started)
        self._answer = answer
        # The caller's event loop may be closed by now.
        with suppress(RuntimeError):
            self._wake()

    def answer(self) -> FlushResult:
        """Return the result, or raise a copy of the error for this caller."""
        if isinstance(self._answer, BaseException):
            raise copy.copy(self._answer).with_traceback(self._answer.__traceback__)
        assert self._answer is not None
        return self._answer


class Flusher(Closing):
    """Flushes for many callers at once: those that come during a round share the next one.

    ``netns``: the namespace, as for Conntrack, or a Conntrack to work with, which stays open.
    ``kernel_filter``: as for Conntrack.

    Any number of threads, and of asyncio tasks in any number of event loops, may use one object.
    A call returns after a round that began after the call, so no flow that existed at the time of
    the call is left. Its FlushResult counts the flows that the caller asked for, even if others
    asked for the same ones; ``scanned`` and ``passes`` are those of the dumps that it shared, and
    ``seconds`` includes the wait.

    A bad argument raises in the call that has it, before anything is sent. An error that ends a
    dump raises in every call that shares it. Interrupting a call or cancelling a task does not
    disturb the others; a round that no caller waits for any more is stopped.

    After a fork the child begins anew and runs no request of its parent. With None for ``netns``
    it works in the namespace of the thread that made it, and its callers stay in theirs.

    Under eventlet or gevent, greenlets and the threads of native pools may use one object, whether
    patching comes before or after. A call from a greenlet blocks its hub until it returns: make it
    in the pool (``eventlet.tpool``, gevent's ``threadpool``) where that takes too long.
    """

    def __init__(
        self, netns: NetnsLike | Holder | None = None, *, kernel_filter: bool = True
    ) -> None:
        self._handle, self._owned = borrow(netns, kernel_filter)
        self._closed = self._cancelled = False
        self._passes = 0
        self._begin()
        _flushers.add(weakref.ref(self, _flushers.discard))

    def _begin(self) -> None:
        """Begin with no request and no leader. A forked child does so again."""
        # Reentrant: a signal handler may ask in the middle of another request.
        self._lock = _threads.Lock()
        self._waiting: deque[_Request] = deque()
        # The thread that leads, or waits for the one before it to end; None once it will end.
        self._leader: _threads.Thread | None = None
        # The leader holds it.
        self._leading = _threads.Lock()
        # What the leader has to log; a caller logs it.
        self._said: list[_log.Said] = []

    @property
    def passes(self) -> int:
        """How many rounds there were so far."""
        return self._passes

    # Asking ----------------------------------------------------------------------------------

    def flush_zone(self, zone: int) -> FlushResult:
        """Delete every flow of one zone and nothing else, as Conntrack.flush_zone() does.

        Raises ValueError for a zone outside 0 to 65535, and after close(); Error (ECANCELED) if
        close(wait=False) is called meanwhile.
        """
        return self._watched(_zone(zone), "flush")

    def delete(self, filter: Filter) -> FlushResult:
        """Delete every flow that matches and nothing else, as Conntrack.delete() does.

        Raises ValueError for a filter that matches everything, unless it is nlct.ALL; otherwise as
        flush_zone() does.
        """
        return self._watched(to_delete(filter), "delete")

    async def aflush_zone(self, zone: int) -> FlushResult:
        """Like flush_zone(), for asyncio."""
        return await self._watched_async(_zone(zone), "flush")

    async def adelete(self, filter: Filter) -> FlushResult:
        """Like delete(), for asyncio."""
        return await self._watched_async(to_delete(filter), "delete")

    def _watched(self, wanted: Filter, operation: str) -> FlushResult:
        return watched(operation, wanted.zone, lambda: self._ask(wanted, operation))

    async def _watched_async(self, wanted: Filter, operation: str) -> FlushResult:
        return await watched_async(
            operation, wanted.zone, lambda: self._ask_async(wanted, operation)
        )

    def _ask(self, wanted: Filter, operation: str) -> FlushResult:
        # Not an Event: its set() takes a lock that a waiting caller may hold.
        answered = _threads.latch()
        request = _Request(wanted, operation, answered.release)
        waiting = self._waiting
        try:
            if not self._submit(request):
                self._lead([request])
            while not answered.acquire(timeout=_threads.PATIENCE):
                if self._waiting is not waiting:
                    raise RuntimeError("a flush does not outlive a fork: ask again")
        except BaseException:
            self._abandon(request)
            raise
        finally:
            _log.say_all(self._said)
        return request.answer()

    async def _ask_async(self, wanted: Filter, operation: str) -> FlushResult:
        # Imported here: its caller has it already, and all others need not load it.
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def wake() -> None:
            if not answered.done():
                answered.set_result(None)

        request = _Request(wanted, operation, lambda: loop.call_soon_threadsafe(wake))
        try:
            if not self._submit(request):
                raise RuntimeError("no thread can be started to lead the round")
            await answered
        except BaseException:
            self._abandon(request)
            raise
        finally:
            _log.say_all(self._said)
        return request.answer()

    def _abandon(self, request: _Request) -> None:
        """Forget a request whose caller does not wait any longer."""
        request.abandoned = True
        with suppress(ValueError):
            self._waiting.remove(request)

    def _submit(self, request: _Request) -> bool:
        """Queue a request. Return False if no thread can be started: the interpreter ends."""
        with self._lock.real:
            if self._closed:
                raise ValueError("this Flusher is closed")
            self._waiting.append(request)
            # It may end at any time, without the lock.
            leader = self._leader
            # A signal handler may have interrupted us below: then the leader is not alive yet.
            if leader is None or not leader.is_alive():
                return self._start_leader(request)
        return True

    def _start_leader(self, request: _Request) -> bool:
        leader = _threads.Thread(self._serve)
        self._leader = leader
        try:
            leader.start()
        except RuntimeError:
            with suppress(ValueError):
                self._waiting.remove(request)
                return False
        return True

    # Leading ---------------------------------------------------------------------------------

    def _serve(self, leader: _threads.Thread) -> None:
        """Lead rounds until no request waits."""
        with self._leading.real, _log.keep(self._said):
            while True:
                requests = self._take()
                if requests:
                    self._gather(requests)
                    self._lead(requests)
                    continue
                # From now on a new request starts another leader. One may have come before.
                self._leader = None
                if not self._waiting:
                    return
                self._leader = leader

    def _take(self) -> list[_Request]:
        """Take the requests that wait."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._waiting.popleft())
        return [request for request in taken if not request.abandoned]

    def _gather(self, requests: list[_Request]) -> None:
        """Wait a little for requests that are on their way, and add them.

        A storm takes a while to arrive, and a request that comes too late costs another dump. A
        lone request waits for 4 % of the estimated time of the round. Several wait until none has
        come for 5 % of it, but no longer than 20 %.
        """
        began = time.monotonic()
        # The round itself will meet the same error, and report it.
        with suppress(Exception):
            auto = Auto(self._handle, counts=True)
            while not self._closed:
                seconds = _seconds(auto, {each.wanted for each in requests})
                _threads.sleep(seconds / (25 if len(requests) == 1 else 20))
                more = self._take()
                requests += more
                if not more or time.monotonic() - began > seconds / 5:
                    return

    def _lead(self, requests: list[_Request]) -> None:
        """Run one round, and answer each of the requests."""
        try:
            self._run(requests)
        except BaseException as exc:
            for request in requests:
                request.settle(exc)

    def _run(self, requests: list[_Request]) -> None:
        targets: dict[Filter, _Target] = {}
        for request in requests:
            targets.setdefault(request.wanted, _Target(request.wanted)).requests.append(request)

        def watch(_scanned: int) -> None:
            if self._cancelled or all(request.abandoned for request in requests):
                raise Error(errno.ECANCELED, "flush", reason="the Flusher was closed meanwhile")

        self._passes += 1
        watch(0)
        _work(self._handle, list(targets.values()), watch)

    # Ending ----------------------------------------------------------------------------------

    def close(self, *, wait: bool = True) -> None:
        """End. Every call from now on raises ValueError.

        ``wait``: serve the calls that wait first. Otherwise they raise Error with ECANCELED, and
        what they asked for may have been done in part. Returns when the last round has ended;
        without ``wait`` it ends at its next step. May be called again.
        """
        with self._lock.real:
            self._closed = True
            self._cancelled = self._cancelled or not wait
            leader = self._leader
        if leader is not None:
            leader.join()
        # A leader that is about to end is no longer in _leader.
        with self._leading.real:
            pass
        if self._owned:
            self._handle.close()


# Not a WeakSet: list() copies a plain set at once, whatever other threads do to it.
_flushers: set[weakref.ref[Flusher]] = set()


def _open_flushers() -> list[Flusher]:
    found = [reference() for reference in list(_flushers)]
    return [flusher for flusher in found if flusher is not None]


def _after_fork() -> None:
    for flusher in _open_flushers():
        flusher._begin()


def _at_exit() -> None:
    for flusher in _open_flushers():
        flusher.close(wait=False)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


def _zone(zone: int) -> Filter:
    return Filter(zone=_check.integer("zone", zone, 0, _check.U16))


# Rounds -------------------------------------------------------------------------------------------


class _Target(Target):
    """What one or more requests of a round ask for."""

    def __init__(self, wanted: Filter) -> None:
        super().__init__(wanted)
        self.requests: list[_Request] = []

    @property
    def operation(self) -> str:
        """What to call it: "delete" if any request is one, since a delete must count."""
        return "delete" if any(r.operation == "delete" for r in self.requests) else "flush"

    def settle(self, answer: FlushResult | BaseException) -> None:
        """Answer all of the requests."""
        for request in self.requests:
            request.settle(answer)


def _seconds(auto: Auto, wanted: Iterable[Filter]) -> float:
    """Estimate what a round takes."""
    return auto.plan(map(Target, wanted)).scan_seconds


def _work(handle: Handle, targets: list[_Target], watch: Watch) -> None:
    """Do what the targets want, and settle each as soon as it is done."""
    able = [target for target in targets if _is_able(handle, target)]
    if _go_apart(handle, able):
        for target in able:
            _alone(handle, target, watch)
        return
    for done in Scan(handle, 1, watch).run_all(able):
        done.settle(done.result())


def _go_apart(handle: Handle, targets: list[_Target]) -> bool:
    """Tell if each target is to have dumps of its own."""
    if len(targets) <= 1:
        return True
    # Others may overlap: what the first of them deletes, the next would not count.
    different_zones = all(target.single is not None for target in targets)
    return different_zones and Auto(handle, counts=True).plan(targets).each


def _is_able(handle: Handle, target: _Target) -> bool:
    """Tell if the kernel can do it; settle it if not, as a zone on a kernel without zones."""
    try:
        require(handle, target.zone)
    except Exception as exc:
        target.settle(exc)
        return False
    return True


def _alone(handle: Handle, target: _Target, watch: Watch) -> None:
    try:
        watch(0)
        target.settle(flush(handle, target.wanted, "auto", False, 1, watch, target.operation))
    except Exception as exc:
        target.settle(exc)
