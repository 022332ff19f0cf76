"""Flusher: many who flush at the same time share one walk over the table.

Requests are gathered as a database gathers commits: those that arrive while a pass runs wait for
the next one, which serves them all. A thread leads the passes. The request that finds none starts
it, and it ends as soon as nobody waits. So an interrupt, a cancelled task or an error of one who
waits cannot take the pass away from the others, and no thread is left behind. It is a daemon that
is stopped at exit, so that no request keeps the interpreter alive.

Who waits holds no lock, and the leader needs none that a caller may hold: a signal handler may
flush or close, too, whatever it interrupted.

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
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Callable

from nlct import _buckets, _check, _log, _threads
from nlct._closing import Closing
from nlct._dump import Dump
from nlct._ffi import ffi, lib, new_sink
from nlct._handle import Handle
from nlct._socket import Socket
from nlct.capabilities import by_release, known
from nlct.conntrack import Conntrack
from nlct.errors import Error
from nlct.filter import Filter, to_delete
from nlct.flush import FlushResult, flush
from nlct.netns import NetnsLike
from nlct.strategy import MANY, Scan, experience

# Called between the steps of a pass; raises to stop it.
Watch = Callable[[], None]


class _Request:
    """What one caller asked for, and the answer. ``wake`` tells the caller that it is there.

    ``operation``: "flush" or "delete".
    """

    def __init__(self, wanted: Filter, operation: str, wake: Callable[[], object]) -> None:
        self.wanted = wanted
        self.operation = operation
        # Set by a caller who will not wait any longer.
        self.abandoned = False
        self._wake = wake
        self._started = time.monotonic()
        self._answer: FlushResult | BaseException | None = None

    def settle(self, answer: FlushResult | BaseException) -> None:
        """Answer it; the first answer counts."""
        if self._answer is not None:
            return
        if isinstance(answer, FlushResult):
            answer = answer._replace(seconds=time.monotonic() - self._started)
        self._answer = answer
        # The event loop that waited may be closed by now.
        with suppress(RuntimeError):
            self._wake()

    def answer(self) -> FlushResult:
        """Return the result or raise the error, each caller one of its own."""
        if isinstance(self._answer, BaseException):
            raise copy.copy(self._answer).with_traceback(self._answer.__traceback__)
        assert self._answer is not None
        return self._answer


class Flusher(Closing):
    """Flushes for many callers at once: those who come while a pass runs share the next one.

    ``netns``: the namespace, as for Conntrack, or a Conntrack to work with, which stays open.
    ``kernel_filter``: as for Conntrack.

    Any number of threads, and of asyncio tasks in any number of event loops, may use one object.
    When a call returns, a pass that began after the call has covered what it asked for, so that
    nothing which existed at the time of the call is left. Its FlushResult counts what it asked for,
    whoever else asked for the same flows; ``scanned`` and ``passes`` are those of the walks that it
    shared, ``seconds`` includes the wait.

    Errors reach those they concern: a bad argument only the caller, before anything is sent; what
    ends a walk, all who shared it. A caller who is interrupted, or a task that is cancelled, leaves
    the others undisturbed; a pass for which nobody waits any more is stopped.

    After a fork the child begins anew: it runs no request of its parent. With None for ``netns``
    it works in the namespace in which it was made, and its callers stay there.

    Under eventlet or gevent greenlets and the threads of native pools may use one object, whenever
    the patching was done. A call from a greenlet holds up its hub for as long as it takes: make it
    in the pool (``eventlet.tpool``, gevent's ``threadpool``) where that is too long.
    """

    def __init__(
        self, netns: NetnsLike | Conntrack | None = None, *, kernel_filter: bool = True
    ) -> None:
        if isinstance(netns, Conntrack):
            if not kernel_filter:
                raise ValueError("kernel_filter is for the Conntrack to say")
            self._conntrack, self._owned = netns, False
        else:
            self._conntrack, self._owned = Conntrack(netns, kernel_filter=kernel_filter), True
        self._closed = self._cancelled = False
        self._passes = 0
        self._begin()
        _flushers.add(weakref.ref(self, _flushers.discard))

    def _begin(self) -> None:
        # Reentrant: a signal handler may ask in the middle of another request.
        self._lock = _threads.Lock()
        # Another one in a forked child.
        self._waiting: deque[_Request] = deque()
        # Who leads, or waits for another one to end; None when that thread is about to end.
        self._leader: _threads.Thread | None = None
        # Held by who leads.
        self._leading = _threads.Lock()
        # What the leader said, for a caller to log.
        self._said: list[_log.Said] = []

    @property
    def passes(self) -> int:
        """How many passes there were so far."""
        return self._passes

    # Asking ----------------------------------------------------------------------------------

    def flush_zone(self, zone: int) -> FlushResult:
        """Delete every flow of one zone and nothing else, as Conntrack.flush_zone() does."""
        return self._ask(_zone(zone), "flush")

    def delete(self, filter: Filter) -> FlushResult:
        """Delete every flow that matches and nothing else, as Conntrack.delete() does.

        A filter that matches everything is refused with ValueError, unless it is nlct.ALL.
        """
        return self._ask(to_delete(filter), "delete")

    async def aflush_zone(self, zone: int) -> FlushResult:
        """Like flush_zone(), for asyncio."""
        return await self._ask_async(_zone(zone), "flush")

    async def adelete(self, filter: Filter) -> FlushResult:
        """Like delete(), for asyncio."""
        return await self._ask_async(to_delete(filter), "delete")

    def _ask(self, wanted: Filter, operation: str) -> FlushResult:
        # No Event: its set() takes a lock that whoever waits may hold.
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
        # Imported by whoever runs this; for all others it would be slow.
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def wake() -> None:
            if not answered.done():
                answered.set_result(None)

        request = _Request(wanted, operation, lambda: loop.call_soon_threadsafe(wake))
        try:
            if not self._submit(request):
                raise RuntimeError("no thread can be started to lead the pass")
            await answered
        except BaseException:
            self._abandon(request)
            raise
        finally:
            _log.say_all(self._said)
        return request.answer()

    def _abandon(self, request: _Request) -> None:
        """Leave nothing behind of a request for which nobody waits any longer."""
        request.abandoned = True
        with suppress(ValueError):
            self._waiting.remove(request)

    def _submit(self, request: _Request) -> bool:
        """Queue a request; False where no thread can be had, as when the interpreter ends."""
        with self._lock.real:
            if self._closed:
                raise ValueError("this Flusher is closed")
            self._waiting.append(request)
            # It is not alive yet where it was us that a signal handler interrupted below.
            if self._leader is None or not self._leader.is_alive():
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
        """Lead passes until nobody waits."""
        with self._leading.real, _log.keep(self._said):
            while True:
                requests = self._take()
                if requests:
                    self._gather(requests)
                    self._lead(requests)
                    continue
                # From now on whoever comes starts another leader. Some may have come before.
                self._leader = None
                if not self._waiting:
                    return
                self._leader = leader

    def _take(self) -> list[_Request]:
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._waiting.popleft())
        return [request for request in taken if not request.abandoned]

    def _gather(self, requests: list[_Request]) -> None:
        """Wait a little for more who are on their way, and add them.

        A storm takes a while to arrive, and who comes too late costs another walk. So who is alone
        waits for a 25th of what the pass will take; where several came, more may be on their way,
        and they wait until nobody has come for a 20th, a fifth at most.
        """
        began = time.monotonic()
        # Whatever is wrong, the pass will say it.
        with suppress(Exception):
            while not self._closed:
                seconds = _seconds(self._conntrack._handle, {each.wanted for each in requests})
                _threads.sleep(seconds / (25 if len(requests) == 1 else 20))
                more = self._take()
                requests += more
                if not more or time.monotonic() - began > seconds / 5:
                    return

    def _lead(self, requests: list[_Request]) -> None:
        """Run one pass, and answer each of the requests."""
        try:
            self._run(requests)
        except BaseException as exc:
            for request in requests:
                request.settle(exc)

    def _run(self, requests: list[_Request]) -> None:
        targets: dict[Filter, _Target] = {}
        for request in requests:
            targets.setdefault(request.wanted, _Target(request.wanted)).requests.append(request)

        def watch() -> None:
            if self._cancelled or all(request.abandoned for request in requests):
                raise Error(errno.ECANCELED, "flush with a Flusher that was closed meanwhile")

        self._passes += 1
        watch()
        _work(self._conntrack._handle, list(targets.values()), watch)

    # Ending ----------------------------------------------------------------------------------

    def close(self, *, wait: bool = True) -> None:
        """End. Every call from now on raises ValueError.

        ``wait``: those who wait are served first. Otherwise they get an Error with ECANCELED; what
        they asked for may have been done in part. Returns when the last pass has ended, which
        without ``wait`` it does at its next step. May be called again.
        """
        with self._lock.real:
            self._closed = True
            self._cancelled = self._cancelled or not wait
            leader = self._leader
        if leader is not None:
            leader.join()
        # One that is about to end is not named any more.
        with self._leading.real:
            pass
        if self._owned:
            self._conntrack.close()

    def _after_fork(self) -> None:
        """Begin anew in a child, which has no leader."""
        self._begin()


# Of plain references: it is read at once, whatever other threads do to it.
_flushers: set[weakref.ref[Flusher]] = set()


def _open_flushers() -> list[Flusher]:
    found = [reference() for reference in list(_flushers)]
    return [flusher for flusher in found if flusher is not None]


def _after_fork() -> None:
    for flusher in _open_flushers():
        flusher._after_fork()


def _at_exit() -> None:
    for flusher in _open_flushers():
        flusher.close(wait=False)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


def _zone(zone: int) -> Filter:
    return Filter(zone=_check.integer("zone", zone, 0, _check.U16))


# Passes -------------------------------------------------------------------------------------------


def _single_zone(wanted: Filter) -> int | None:
    """Return the zone, where that is all the filter is about."""
    zones = wanted.zone if wanted.is_zones else None
    return next(iter(zones)) if zones is not None and len(zones) == 1 else None


class _Target:
    """What some of the requests of a pass have asked for, and what has come of it."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.zone = _single_zone(wanted)
        self.requests: list[_Request] = []
        self._scanned = self._matched = self._deleted = self._walks = 0
        self._refused: Counter[int] = Counter()
        # Did the latest walk see the whole table, and hit what it aimed at?
        self.certain = False

    def settle(self, answer: FlushResult | BaseException) -> None:
        """Answer all of the requests."""
        for request in self.requests:
            request.settle(answer)

    def add(self, walk: Dump, matched: int, deleted: int, refused: dict[int, int]) -> None:
        """Add what a walk did."""
        self._scanned += walk.scanned
        self._matched += matched
        self._deleted += deleted
        self._refused.update(refused)
        self._walks += 1
        # "Already gone" and "no such zone or id" are one answer of the kernel.
        missed = matched > 0 and deleted == 0
        self.certain = not (walk.disturbed or missed)

    def result(self) -> FlushResult:
        """Return the sum of the walks."""
        failed = dict(self._refused)
        gone = failed.pop(errno.ENOENT, 0)
        return FlushResult(
            scanned=self._scanned,
            matched=self._matched,
            deleted=self._deleted,
            already_gone=gone,
            failed=failed,
            passes=self._walks,
            complete=self.certain and not failed,
        )


def _work(handle: Handle, targets: list[_Target], watch: Watch) -> None:
    """Do what all of the targets want, and settle each as soon as it is done."""
    able = [target for target in targets if _is_able(handle, target)]
    if len(able) <= 1 or _apart(handle, able):
        for target in able:
            _alone(handle, target, watch)
    else:
        _together(handle, able, watch)


def _is_able(handle: Handle, target: _Target) -> bool:
    """Settle what this kernel cannot do, as a zone where it has none."""
    try:
        handle.require(target.wanted)
    except Exception as exc:
        target.settle(exc)
        return False
    return True


def _costs(handle: Handle, wanted: Iterable[Filter]) -> tuple[float, float]:
    """Estimate, as strategies do, what it costs to walk for each, and once for all: nanoseconds.

    A walk for each is for zones, of which the kernel sends no more than is wanted.
    """
    size = (handle.stats()[0], handle.buckets or 0)
    zones = [_single_zone(each) for each in wanted]
    found = known() or by_release(os.uname().release)
    filtered = None not in zones and handle.kernel_filter and found.zone_dump
    for_each = experience.cost("scan", 1 if filtered else MANY, *size)
    return len(zones) * for_each, experience.cost("scan", MANY, *size)


def _seconds(handle: Handle, wanted: Iterable[Filter]) -> float:
    """Estimate what a pass takes."""
    return min(_costs(handle, wanted)) / 1e9


def _apart(handle: Handle, targets: list[_Target]) -> bool:
    """Tell if a walk for each of several is faster than one for all."""
    for_each, for_all = _costs(handle, [target.wanted for target in targets])
    return for_each < for_all


def _alone(handle: Handle, target: _Target, watch: Watch) -> None:
    try:
        watch()
        operation = "delete" if any(r.operation == "delete" for r in target.requests) else "flush"
        target.settle(
            flush(handle, target.wanted, "auto", False, 1, lambda _scanned: watch(), operation)
        )
    except Exception as exc:
        target.settle(exc)


def _together(handle: Handle, targets: list[_Target], watch: Watch) -> None:
    """Walk for all of them, and again for those that are not certain."""
    for walks_left in reversed(range(_buckets.MAX_PASSES)):
        if not targets:
            return
        _walk(handle, targets, watch)
        for target in targets:
            if target.certain or not walks_left:
                target.settle(target.result())
        targets = [target for target in targets if not target.certain]


def _walk(handle: Handle, targets: list[_Target], watch: Watch) -> None:
    flows, buckets, began = handle.stats()[0], handle.buckets or 0, time.monotonic_ns()
    # The kernel sends everything: no filter of its own would let through what each target wants.
    with handle.walk(Filter()) as walk, handle.pool.lend() as sock:
        sink = _Sink(sock, targets)
        for _ in walk.steps(sink.c):
            watch()
        deleted = sink.account(walk)
    # What several filters want is counted more than once.
    if all(target.zone is not None for target in targets):
        took = time.monotonic_ns() - began
        experience.learn_scan(Scan(MANY, flows, buckets, walk.scanned, deleted, took))


class _Sink:
    """Deletes what any of the targets wants."""

    def __init__(self, sock: Socket, targets: list[_Target]) -> None:
        self._targets = targets
        self._c_targets = ffi.new("struct nlct_target[]", len(targets))
        # Zones cost one look-up for all of them, filters one test each.
        self._filters = [t.wanted.to_c() if t.zone is None else [ffi.NULL] for t in targets]
        for c_target, target, c_filter in zip(self._c_targets, targets, self._filters):
            c_target.filter = c_filter[0]
            c_target.zone = target.zone or 0
        self.c = new_sink(lib.nlct_deletes_new, sock.handle, self._c_targets, len(targets))

    def account(self, walk: Dump) -> int:
        """Tell each target what the walk did for it. Return the deletes of all."""
        shares = lib.nlct_deletes_get(self.c[0])
        refused = self._refused()
        deleted = 0
        for number, target in enumerate(self._targets):
            share = shares[number]
            own = {error: counts[number] for error, counts in refused.items() if counts[number]}
            target.add(walk, share.matched, share.deleted, own)
            deleted += share.deleted
        return deleted

    def _refused(self) -> dict[int, ffi.CData]:
        """Return how many were refused, by errno, then by target."""
        error = ffi.new("int *")
        refused: dict[int, ffi.CData] = {}
        while True:
            counts = lib.nlct_deletes_refused(self.c[0], len(refused), error)
            if counts == ffi.NULL:
                return refused
            refused[error[0]] = counts
