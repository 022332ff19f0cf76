"""Flusher: what each caller is promised, however many there are and whatever happens to them."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

import nlct
from nlct import Filter, Flusher, FlushResult, _dump, _threads, strategy
from nlct import flush as flushing
from nlct import flusher as gathering
from nlct._handle import Dump, Handle
from nlct.fill import fill
from tests.support import flows, oracle
from tests.support.examples import examples
from tests.support.processes import AS_NOBODY, Script, in_child
from tests.support.threads import own_threads

# In Python 3.12 and later a fork beside threads is worth a warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

# Longer than anything here takes.
LONG = 30.0
FILTERED = pytest.mark.parametrize("kernel_filter", [True, False], ids=["filtered", "old kernel"])


def until(condition: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


class Gated(Flusher):
    """A Flusher whose rounds begin when the test says so.

    ``begun`` gets the requests of each round, which then waits for what ``gate`` brings: None, or
    an exception that the round shall die of.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.begun: queue.SimpleQueue[list[gathering._Request]] = queue.SimpleQueue()
        self.gate: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.submitted: list[gathering._Request] = []
        super().__init__(*arguments, **options)

    def _submit(self, request: gathering._Request) -> bool:
        done = super()._submit(request)
        self.submitted.append(request)
        return done

    def _gather(self, requests: list[gathering._Request]) -> None:
        """Leave it to the test who is in a round."""

    def _run(self, requests: list[gathering._Request]) -> None:
        self.begun.put(requests)
        order = self.gate.get(timeout=LONG)
        if order is not None:
            raise order
        super()._run(requests)

    def one_round(self) -> list[gathering._Request]:
        """Let one round go."""
        requests = self.begun.get(timeout=LONG)
        self.gate.put(None)
        return requests

    def wait_for(self, asked: int) -> None:
        """Wait until so many have asked since the beginning."""
        until(lambda: len(self.submitted) >= asked)


@contextmanager
def crowd(flusher: Gated, wanted: list[int | Filter]) -> Iterator[list[Future[FlushResult]]]:
    """Have a request for an empty zone in a round, which may go on, and these in the next one."""
    before = len(flusher.submitted)
    with ThreadPoolExecutor(len(wanted) + 1) as pool:
        first = pool.submit(flusher.flush_zone, 65534)
        batch = flusher.begun.get(timeout=LONG)
        assert len(batch) == 1
        futures = [
            pool.submit(flusher.delete if isinstance(each, Filter) else flusher.flush_zone, each)
            for each in wanted
        ]
        flusher.wait_for(before + 1 + len(wanted))
        flusher.gate.put(None)
        assert first.result(LONG).complete
        yield futures


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever a test does, in the end nobody leads any more."""
    yield
    until(lambda: not own_threads())


# Flushing -----------------------------------------------------------------------------------------


@FILTERED
def test_one_zone(netns: nlct.Netns, kernel_filter: bool) -> None:
    """Each kind of zone is wholly gone, nothing else is; in a namespace that is not ours."""
    with nlct.Conntrack(netns) as ct, Flusher(netns, kernel_filter=kernel_filter) as flusher:
        flows.populate(ct)
        before = oracle.dump(netns)
        gone: set[int] = set()
        for zone in flows.ZONES:
            result = flusher.flush_zone(zone)
            gone.add(zone)
            assert result.deleted in (len(oracle.inside(before, {zone})), None)
            assert (result.failed, result.complete) == ({}, True)
            assert oracle.dump(netns) == oracle.outside(before, gone)


@FILTERED
def test_two_hundred_threads_share_two_rounds(netns: nlct.Netns, kernel_filter: bool) -> None:
    """All who ask while a round runs are served by one dump; each count is its own."""
    with Gated(netns, kernel_filter=kernel_filter) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 4000, 250)
        ct.load([flows.udp(5000 + n, zone=7) for n in range(9)])
        before = oracle.dump(netns)
        with crowd(flusher, list(range(1, 201))) as futures:
            assert len(flusher.one_round()) == 200
            results = [future.result(LONG) for future in futures]
        assert flusher.passes == 2
        assert oracle.dump(netns) == oracle.outside(before, range(1, 201))
    for zone, result in enumerate(results, 1):
        own = len(oracle.inside(before, {zone}))
        assert own == (25 if zone == 7 else 16)
        assert (result.matched, result.deleted, result.already_gone) == (own, own, 0)
        assert (result.scanned, result.passes, result.strategy) == (len(before), 1, "scan")
        assert (result.failed, result.complete) == ({}, True)


def test_a_storm_by_itself(netns: nlct.Netns) -> None:
    """Nothing held back: threads and tasks together, every zone but theirs is untouched."""
    with Flusher(netns) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 20_000, 200)
        before = oracle.dump(netns)

        async def tasks() -> list[FlushResult]:
            return await asyncio.gather(*(flusher.aflush_zone(zone) for zone in range(51, 101)))

        with ThreadPoolExecutor(51) as pool:
            others = pool.submit(asyncio.run, tasks())
            results = list(pool.map(flusher.flush_zone, range(1, 51))) + others.result(LONG)
        assert oracle.dump(netns) == oracle.outside(before, range(1, 101))
        assert flusher.passes < 100
    for result in results:
        assert result.deleted in (100, None)
        assert (result.failed, result.complete) == ({}, True)


def test_many_want_one_zone(netns: nlct.Netns) -> None:
    """Each is told of all its flows, though they were deleted once."""
    with Gated(netns) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 40, 4)
        with crowd(flusher, [3, 3, Filter(zone=3), 4]) as futures:
            assert len(flusher.one_round()) == 4
            assert [future.result(LONG).matched for future in futures] == [10] * 4
        assert oracle.by_zone(oracle.dump(netns)) == {1: 10, 2: 10}


@FILTERED
def test_filters_that_overlap(netns: nlct.Netns, kernel_filter: bool) -> None:
    """A flow counts for each who wants it; what nobody wants stays."""
    with Gated(netns, kernel_filter=kernel_filter) as flusher, nlct.Conntrack(netns) as ct:
        flows.populate(ct)
        before = oracle.dump(netns)
        wanted: list[int | Filter] = [
            5,
            Filter(zone={5, 7}),
            Filter(proto="udp"),
            Filter(family="ipv6", zone=range(0, 7)),
            Filter(mark=99),
            Filter(zone=[]),
        ]
        own = [
            ct.count(each) if isinstance(each, Filter) else ct.count(zone=each) for each in wanted
        ]
        anybody = wanted[1] | wanted[2] | wanted[3]  # type: ignore[operator]
        left = len(before) - ct.count(anybody)
        kept = {(flow.orig, flow.zone) for flow in ct.dump(~anybody)}
        with crowd(flusher, wanted) as futures:
            flusher.one_round()
            results = [future.result(LONG) for future in futures]
        assert [result.deleted for result in results] == own
        assert own[-2:] == [0, 0]
        assert all(result.complete and not result.already_gone for result in results)
        after = oracle.dump(netns)
        assert len(after) == left > 0
        assert {(flow.orig, flow.zone) for flow in ct.dump()} == kept
        assert all(before[key] == entry for key, entry in after.items())


def test_zones_that_overlap_share_a_dump(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a dump for each zone should take less: a flow counts for each who wants it."""
    choose = strategy.choose
    monkeypatch.setattr(strategy, "choose", lambda facts: choose(facts)._replace(each=True))
    with Gated(netns) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 40, 4)
        wanted: list[int | Filter] = [1, Filter(zone={1, 2}), Filter(zone={2, 3})]
        with crowd(flusher, wanted) as futures:
            assert len(flusher.one_round()) == 3
            assert [future.result(LONG).deleted for future in futures] == [10, 20, 20]
        assert oracle.by_zone(oracle.dump(netns)) == {4: 10}


@FILTERED
def test_everything_beside_a_zone(netns: nlct.Netns, kernel_filter: bool) -> None:
    """nlct.ALL in a shared round is everything, and the zone still counts its own."""
    with Gated(netns, kernel_filter=kernel_filter) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 40, 4)
        with crowd(flusher, [2, nlct.ALL]) as futures:
            flusher.one_round()
            assert [future.result(LONG).deleted for future in futures] == [10, 40]
        assert oracle.dump(netns) == {}


def goes_apart(handle: Handle, *wanted: Filter) -> bool:
    """Tell if a round for these is a dump for each."""
    targets = [flushing.Target(each) for each in wanted]
    return flushing.Auto(handle, counts=True).plan(targets).each


def test_a_few_zones_are_dumped_one_by_one_where_that_is_faster(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round may be several filtered dumps; the promise and the counts are the same."""
    if not nlct.probe().zone_dump:
        pytest.skip("MISSING: a kernel that filters a dump by zone")
    with Gated(netns) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 60_000, 600)
        before = oracle.dump(netns)
        handle = flusher._handle
        # As long as it would take alone on a machine that is not too slow.
        monkeypatch.setattr(handle, "dump_seconds", 0.02)
        monkeypatch.setattr(strategy, "learned", lambda *_: None)
        filters = [Filter(zone=zone) for zone in (1, 2)]
        assert goes_apart(handle, *filters)
        with crowd(flusher, [1, 2]) as futures:
            flusher.one_round()
            for future in futures:
                result = future.result(LONG)
                assert result.scanned in (100, None)
                assert result.deleted in (100, None)
        assert oracle.dump(netns) == oracle.outside(before, {1, 2})
        # Never where the kernel would send everything each time.
        assert not goes_apart(handle, *filters, Filter(proto="udp"))
        handle.kernel_filter = False
        assert not goes_apart(handle, *filters)


# The promise --------------------------------------------------------------------------------------


@FILTERED
def test_what_was_there_at_the_call_is_gone_at_its_return(
    netns: nlct.Netns, kernel_filter: bool
) -> None:
    """Whatever others ask at the same time, in every way to ask."""
    with Flusher(netns, kernel_filter=kernel_filter) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 5000, 5)
        kept = oracle.dump(netns)

        def by_thread(zone: int) -> None:
            for turn in range(20):
                flow = flows.udp(zone * 1000 + turn, zone)
                ct.create(flow)
                if turn % 2:
                    result = flusher.flush_zone(zone)
                else:
                    result = flusher.delete(Filter(zone=zone, src=flow.orig.src))
                assert result.deleted in (1, None)
                with pytest.raises(nlct.NotFoundError):
                    ct.get(flow.orig, zone=zone)

        async def by_task(zone: int) -> None:
            for turn in range(20):
                flow = flows.udp(zone * 1000 + turn, zone)
                ct.create(flow)
                if turn % 2:
                    result = await flusher.aflush_zone(zone)
                else:
                    result = await flusher.adelete(Filter(zone=zone, src=flow.orig.src))
                assert result.deleted in (1, None)
                with pytest.raises(nlct.NotFoundError):
                    ct.get(flow.orig, zone=zone)

        async def tasks(zones: range) -> None:
            await asyncio.gather(*(by_task(zone) for zone in zones))

        with ThreadPoolExecutor(10) as pool:
            done = [pool.submit(by_thread, zone) for zone in range(100, 108)]
            done += [pool.submit(asyncio.run, tasks(range(a, a + 8))) for a in (200, 300)]
            for future in done:
                future.result(LONG * 2)
        assert oracle.dump(netns) == kept


def test_who_asks_during_a_round_waits_for_the_next(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump that has begun is not good enough: what came meanwhile may lie behind it."""
    dumped, go_on = threading.Event(), threading.Event()
    settle = gathering._Target.settle

    def held(target: gathering._Target, answer: FlushResult | BaseException) -> None:
        dumped.set()
        assert go_on.wait(LONG)
        settle(target, answer)

    monkeypatch.setattr(gathering._Target, "settle", held)
    with Flusher(netns) as flusher, nlct.Conntrack(netns) as ct, ThreadPoolExecutor(2) as pool:
        ct.create(flows.udp(1, zone=3))
        first = pool.submit(flusher.delete, Filter(zone=3, proto="udp"))
        assert dumped.wait(LONG)
        ct.create(flows.udp(2, zone=3))
        second = pool.submit(flusher.delete, Filter(zone=3, proto="udp"))
        until(lambda: flusher._waiting)
        go_on.set()
        assert [first.result(LONG).deleted, second.result(LONG).deleted] == [1, 1]
        assert flusher.passes == 2
        assert oracle.dump(netns) == {}


def test_a_storm_that_is_on_its_way_is_waited_for(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a round begins those who come one after the other join it, and nobody is lost."""

    def request(zone: int) -> gathering._Request:
        return gathering._Request(Filter(zone=zone), "flush", lambda: None)

    with Flusher(netns) as flusher:
        late = [[request(2)], [request(3), request(4)], [], [request(5)]]
        monkeypatch.setattr(gathering, "_seconds", lambda _auto, wanted: len(wanted) * LONG)
        monkeypatch.setattr(gathering._threads, "sleep", lambda _seconds: None)
        monkeypatch.setattr(flusher, "_take", lambda: late.pop(0))
        requests = [request(1)]
        flusher._gather(requests)
        assert [each.wanted for each in requests] == [Filter(zone=zone) for zone in (1, 2, 3, 4)]
        assert len(late) == 1


def test_counters_are_read_once_for_those_who_are_waited_for(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GET_STATS, however many turns they take to come."""

    def request(zone: int) -> gathering._Request:
        return gathering._Request(Filter(zone=zone), "flush", lambda: None)

    with Flusher(netns) as flusher:
        late = [[request(2)], [request(3)], []]
        stats, read = flusher._handle.stats, itertools.count()
        monkeypatch.setattr(flusher._handle, "stats", lambda: (next(read), stats())[1])
        monkeypatch.setattr(gathering, "_seconds", lambda _auto, _wanted: LONG)
        monkeypatch.setattr(gathering._threads, "sleep", lambda _seconds: None)
        monkeypatch.setattr(flusher, "_take", lambda: late.pop(0))
        flusher._gather([request(1)])
        assert (late, next(read)) == ([], 1)


def test_several_wait_longer_than_one(netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is alone is hardly delayed; where there are two, a storm may have begun."""
    waits: list[float] = []
    monkeypatch.setattr(gathering, "_seconds", lambda _auto, wanted: len(wanted) * 1.0)
    monkeypatch.setattr(gathering._threads, "sleep", waits.append)
    with Flusher(netns) as flusher:
        for wanted in ([1], [1, 2]):
            flusher._gather(
                [gathering._Request(Filter(zone=each), "flush", int) for each in wanted]
            )
    assert waits == [1 / 25, 2 / 20]


def test_a_storm_without_end_is_not_waited_for(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else always comes: the round begins all the same."""
    with Flusher(netns) as flusher:
        monkeypatch.setattr(
            flusher, "_take", lambda: [gathering._Request(Filter(zone=2), "flush", int)]
        )
        requests = [gathering._Request(Filter(zone=1), "flush", int)]
        flusher._gather(requests)
        assert len(requests) > 1


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [-1, 65536, "7", None, True, 7.0, {7}])
def test_bad_zones_are_refused_at_once(netns: nlct.Netns, zone: Any) -> None:
    """In the caller, before anybody is disturbed."""
    with Flusher(netns) as flusher:
        with pytest.raises((TypeError, ValueError), match="zone must be"):
            flusher.flush_zone(zone)
        with pytest.raises((TypeError, ValueError), match="zone must be"):
            asyncio.run(flusher.aflush_zone(zone))
        assert flusher.passes == 0


@pytest.mark.parametrize("filter", [None, 7, "zone", Filter(), ~Filter(zone=[])])
def test_filters_that_restrict_nothing_are_refused(
    ct: nlct.Conntrack, netns: nlct.Netns, filter: Any
) -> None:
    """As by Conntrack.delete()."""
    fill(ct, 10, 1)
    with Flusher(netns) as flusher:
        with pytest.raises((TypeError, ValueError), match="filter must"):
            flusher.delete(filter)
        with pytest.raises((TypeError, ValueError), match="filter must"):
            asyncio.run(flusher.adelete(filter))
        assert flusher.passes == 0
    assert ct.count() == 10


def test_an_error_of_the_round_reaches_all_who_shared_it(netns: nlct.Netns) -> None:
    """Each gets an exception of its own, and those of the next round get none."""
    with Gated(netns) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 40, 4)
        with crowd(flusher, [1, 2, Filter(proto="udp", zone=3)]) as futures:
            flusher.begun.get(timeout=LONG)
            flusher.gate.put(nlct.OverrunError(errno.ENOBUFS, "dump the table", "no room"))
            errors = [future.exception(LONG) for future in futures]
        assert len({id(error) for error in errors}) == 3
        for error in errors:
            assert isinstance(error, nlct.OverrunError)
            assert (error.errno, error.kernel_message) == (errno.ENOBUFS, "no room")
        assert len(oracle.dump(netns)) == 40
        with crowd(flusher, [1, 2]) as futures:
            flusher.one_round()
            assert [future.result(LONG).deleted for future in futures] == [10, 10]


def test_an_error_in_the_middle_of_a_dump(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves behind does not trouble the next dump."""

    class Failing(Dump):
        def steps(self, *arguments: Any) -> Iterator[None]:
            for step in super().steps(*arguments):
                yield step
                raise nlct.InvalidRequestError(errno.EBADMSG, "dump the table")

    with Gated(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 40, 4)
        with crowd(flusher, [1, Filter(zone={2, 3})]) as futures:
            monkeypatch.setattr(_dump, "Dump", Failing)
            flusher.one_round()
            for future in futures:
                assert isinstance(future.exception(LONG), nlct.InvalidRequestError)
            monkeypatch.undo()
        with crowd(flusher, [1, 4]) as futures:
            flusher.one_round()
            assert all(future.result(LONG).complete for future in futures)
        assert not {1, 4} & set(ct.count_by("zone"))


def test_a_zone_that_the_kernel_cannot_have_concerns_one_alone(netns: nlct.Netns) -> None:
    """On a kernel without zones zone 0 and filters go on."""
    with Gated(netns) as flusher, nlct.Conntrack(netns) as ct:
        ct.load([flows.udp(n) for n in range(5)])
        with crowd(flusher, [5, 0, Filter(mark=3)]) as futures:
            flusher._handle.has_zones = False
            flusher.one_round()
            assert isinstance(futures[0].exception(LONG), nlct.UnsupportedError)
            assert futures[1].result(LONG).deleted == 5
            assert futures[2].result(LONG).deleted == 0


@pytest.mark.usefixtures("netns")
def test_without_privilege_everyone_is_told(script: Script) -> None:
    """PermissionError, for threads and tasks; and nobody hangs."""
    imports = "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor"
    code = """
with nlct.Flusher() as flusher, ThreadPoolExecutor(8) as pool:
    futures = [pool.submit(flusher.flush_zone, 65000 + n) for n in range(8)]
    futures.append(pool.submit(flusher.delete, nlct.Filter(zone=65000, proto="udp")))
    futures.append(pool.submit(asyncio.run, flusher.aflush_zone(65000)))
    print({type(future.exception(30)).__name__ for future in futures})
"""
    assert script(imports + AS_NOBODY + code) == "{'PrivilegeError'}"


# Doubtful dumps -----------------------------------------------------------------------------------


class Disturbed(Dump):
    """A dump that a resize of the table has disturbed, as often as is left."""

    left = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._disturbed = Disturbed.left > 0
        Disturbed.left -= 1

    @property
    def disturbed(self) -> bool:
        """True as often as the test says."""
        return self._disturbed or super().disturbed


@pytest.mark.parametrize(("times", "passes", "complete"), [(1, 2, True), (9, 3, False)])
def test_a_disturbed_dump_is_made_again(
    netns: nlct.Netns,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    passes: int,
    complete: bool,
) -> None:
    """Up to a limit, and then the result says that it is unsure."""
    monkeypatch.setattr(flushing, "MAX_DUMPS", 3)
    with Gated(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 40, 4)
        with crowd(flusher, [1, 2]) as futures:
            monkeypatch.setattr(_dump, "Dump", Disturbed)
            monkeypatch.setattr(Disturbed, "left", times)
            flusher.one_round()
            results = [future.result(LONG) for future in futures]
        for result in results:
            assert (result.passes, result.complete, result.deleted) == (passes, complete, 10)
            assert result.scanned == 40 + 20 * (passes - 1)


def test_a_target_that_was_missed_is_looked_for_again(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump that hit nothing of what one caller aimed at is not believed, for that caller."""
    with Gated(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct:
        ct.load([flows.udp(n, zone=1 + n % 2) for n in range(10)])
        with crowd(flusher, [1, 2, Filter(proto="udp")]) as futures:
            real = flushing.dump

            @contextmanager
            def late(*arguments: Any, **options: Any) -> Iterator[Dump]:
                # The kernel has read the first flows, and all of these, by the time it is asked.
                with real(*arguments, **options) as begun:
                    monkeypatch.undo()
                    ct.delete(Filter(zone=1), strategy="scan")
                    monkeypatch.setattr(flushing, "dump", late)
                    yield begun

            monkeypatch.setattr(flushing, "dump", late)
            flusher.one_round()
            missed, hit, both = (future.result(LONG) for future in futures)
    assert (missed.matched, missed.deleted, missed.already_gone, missed.passes) == (5, 0, 5, 2)
    assert (hit.matched, hit.deleted, hit.already_gone, hit.passes) == (5, 5, 0, 1)
    assert (both.matched, both.deleted, both.already_gone, both.passes) == (10, 5, 5, 1)
    assert missed.complete
    assert hit.complete
    assert both.complete


def test_misses_without_end_are_not_called_complete(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deletes that go to another namespace hit nothing, ever: nothing may be claimed."""
    with nlct.Netns.scratch() as elsewhere:
        other = nlct.Conntrack(elsewhere)
    with Gated(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct, other:
        fill(ct, 10, 2)
        make = flushing._Sink.__init__
        with other._handle.pool.lend() as wrong, crowd(flusher, [1, 2]) as futures:
            monkeypatch.setattr(
                flushing._Sink, "__init__", lambda sink, _sock, *rest: make(sink, wrong, *rest)
            )
            flusher.one_round()
            for future in futures:
                result = future.result(LONG)
                assert (result.deleted, result.complete) == (0, False)
                assert (result.matched, result.already_gone) == (50, 50)
                assert result.passes == _dump.MAX_DUMPS
        assert len(oracle.dump(netns)) == 10


# Closing ------------------------------------------------------------------------------------------


def test_close_serves_those_who_wait(netns: nlct.Netns) -> None:
    """Then it lets go; every call from then on is refused, and closing again is fine."""
    flusher = Gated(netns)
    with nlct.Conntrack(netns) as ct, ThreadPoolExecutor(1) as pool:
        fill(ct, 40, 4)
        with crowd(flusher, [1, 2]) as futures:
            closing = pool.submit(flusher.close)
            until(lambda: flusher._closed)
            with pytest.raises(ValueError, match="closed"):
                flusher.flush_zone(3)
            assert not closing.done()
            flusher.one_round()
            closing.result(LONG)
            assert [future.result(LONG).deleted for future in futures] == [10, 10]
        assert not own_threads()
        assert ct.count() == 20
    for call in (
        lambda: flusher.flush_zone(1),
        lambda: flusher.delete(Filter(zone=1)),
        lambda: asyncio.run(flusher.aflush_zone(1)),
        lambda: asyncio.run(flusher.adelete(Filter(zone=1))),
    ):
        with pytest.raises(ValueError, match="this Flusher is closed"):
            call()
    flusher.close()
    flusher.close(wait=False)


def test_close_without_waiting_tells_those_who_wait(netns: nlct.Netns) -> None:
    """Both those in a round that has not begun its dump and those behind it; nothing is deleted."""
    flusher = Gated(netns)
    with nlct.Conntrack(netns) as ct, ThreadPoolExecutor(4) as pool:
        fill(ct, 40, 4)
        first = pool.submit(flusher.flush_zone, 1)
        flusher.begun.get(timeout=LONG)
        second = pool.submit(flusher.delete, Filter(zone={2, 3}))
        third = pool.submit(asyncio.run, flusher.aflush_zone(4))
        flusher.wait_for(3)
        closing = pool.submit(flusher.close, wait=False)
        until(lambda: flusher._cancelled)
        flusher.gate.put(None)
        flusher.one_round()
        closing.result(LONG)
        for future in (first, second, third):
            error = future.exception(LONG)
            assert isinstance(error, nlct.Error)
            assert error.errno == errno.ECANCELED
            assert "closed" in str(error)
        assert len(oracle.dump(netns)) == 40
    assert not own_threads()


class Stepping(Dump):
    """A dump that stops in its first step, until it may go on."""

    stepped: threading.Event
    go_on: threading.Event

    def steps(self, *arguments: Any) -> Iterator[None]:
        """Go on when the test says so."""
        for step in super().steps(*arguments):
            Stepping.stepped.set()
            assert Stepping.go_on.wait(LONG)
            yield step


@pytest.fixture
def stepping(monkeypatch: pytest.MonkeyPatch) -> type[Stepping]:
    """Let every dump stop in its first step."""
    monkeypatch.setattr(_dump, "Dump", Stepping)
    monkeypatch.setattr(Stepping, "stepped", threading.Event(), raising=False)
    monkeypatch.setattr(Stepping, "go_on", threading.Event(), raising=False)
    return Stepping


def test_close_without_waiting_stops_a_dump(netns: nlct.Netns, stepping: type[Stepping]) -> None:
    """At its next step, and who waited is told."""
    flusher = Flusher(netns, kernel_filter=False)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(flusher.delete, Filter(proto="udp"))
        assert stepping.stepped.wait(LONG)
        closing = pool.submit(flusher.close, wait=False)
        until(lambda: flusher._cancelled)
        stepping.go_on.set()
        closing.result(LONG)
        error = waiting.exception(LONG)
    assert isinstance(error, nlct.Error)
    assert error.errno == errno.ECANCELED


def test_a_conntrack_that_was_given_stays_open(ct: nlct.Conntrack) -> None:
    """It is the caller's; and if that closes it, whoever flushes is told."""
    with Flusher(ct) as flusher:
        ct.create(flows.udp(1, zone=1))
        assert flusher.delete(Filter(zone=1)).complete
    assert ct.count(zone=1) == 0
    with Flusher(ct) as flusher:
        ct.close()
        with pytest.raises(ValueError, match="closed"):
            flusher.flush_zone(1)
    with pytest.raises(ValueError, match="kernel_filter"):
        Flusher(ct, kernel_filter=False)


def test_a_namespace_that_is_not_there() -> None:
    """The arguments are those of Conntrack."""
    with pytest.raises(nlct.NotFoundError):
        Flusher("no-such-netns")
    with pytest.raises(TypeError):
        Flusher(netns=True)


def test_the_callers_own_namespace(netns: nlct.Netns, script: Script) -> None:
    """Without arguments it works where the caller is."""
    with nlct.Conntrack(netns) as ct:
        fill(ct, 20, 2)
    enter = f"""
import ctypes, os, nlct
libc = ctypes.CDLL(None, use_errno=True)
if os.geteuid() == 0 and libc.setns({netns.fileno()}, 0x40000000) == 0:
    with nlct.Flusher() as flusher:
        print(flusher.delete(nlct.Filter(zone=2)).complete)
"""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root, to enter a namespace")
    assert script(enter, pass_fds=(netns.fileno(),)) == "True"
    assert oracle.by_zone(oracle.dump(netns)) == {1: 10}


def test_an_idle_flusher_has_no_thread(netns: nlct.Netns) -> None:
    """Not only when it is closed; and the next call finds another leader."""
    with Flusher(netns) as flusher:
        for _ in range(3):
            flusher.flush_zone(1)
            until(lambda: not own_threads())


# Interrupted callers ------------------------------------------------------------------------------


def test_a_cancelled_task_does_not_disturb_the_others(netns: nlct.Netns) -> None:
    """In a round that runs, or while it waits for one, which then leaves its zone alone."""
    with Gated(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 60, 6)

        async def main() -> None:
            running = [asyncio.ensure_future(flusher.aflush_zone(1))]
            await asyncio.to_thread(flusher.begun.get)
            waiting = [asyncio.ensure_future(flusher.aflush_zone(zone)) for zone in (2, 3, 4)]
            await asyncio.sleep(0)
            running[0].cancel()
            waiting[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await running[0]
            with pytest.raises(asyncio.CancelledError):
                await waiting[1]
            flusher.gate.put(None)
            assert len(await asyncio.to_thread(flusher.one_round)) == 2
            results = await asyncio.gather(waiting[0], waiting[2])
            assert [result.deleted for result in results] == [10, 10]

        asyncio.run(main())
        # Zone 1 was left alone because nobody waited for it any more.
        assert oracle.by_zone(oracle.dump(netns)) == {1: 10, 3: 10, 5: 10, 6: 10}


def test_a_round_for_nobody_is_stopped(netns: nlct.Netns, stepping: type[Stepping]) -> None:
    """The last who waited has given up: it does not go on to the end of the table."""
    with Flusher(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct:
        ct.create(flows.udp(1, zone=1))

        async def main() -> None:
            call = asyncio.ensure_future(flusher.adelete(Filter(zone=1, proto="udp")))
            assert await asyncio.to_thread(stepping.stepped.wait, LONG)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        asyncio.run(main())
        stepping.go_on.set()
        until(lambda: not own_threads())
        assert flusher.passes == 1


def test_an_event_loop_that_ends_before_the_answer(netns: nlct.Netns) -> None:
    """The answer finds nobody, and the other callers of the round get theirs."""
    with Gated(netns) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 20, 2)
        loop = asyncio.new_event_loop()
        task = loop.create_task(flusher.aflush_zone(1))
        loop.run_until_complete(asyncio.sleep(0))
        with ThreadPoolExecutor(1) as pool:
            requests = flusher.begun.get(timeout=LONG)
            other = pool.submit(flusher.flush_zone, 2)
            flusher.wait_for(2)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            flusher.gate.put(None)
            flusher.one_round()
            assert other.result(LONG).complete
        assert len(requests) == 1
        assert oracle.dump(netns) == {}
        # To spare the test the warning of a task that was pending.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()  # type: ignore[union-attr]


def test_a_keyboard_interrupt_leaves_the_others_alone(netns: nlct.Netns) -> None:
    """It comes out of the caller it hits, who waits in the main thread."""
    with Gated(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 40, 4)
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            flusher.wait_for(3)
            signal.pthread_kill(main, signal.SIGINT)

        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(flusher.flush_zone, 1)
            flusher.begun.get(timeout=LONG)
            second = pool.submit(flusher.flush_zone, 2)
            flusher.wait_for(2)
            interrupted = pool.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                flusher.flush_zone(3)
            interrupted.result(LONG)
            flusher.gate.put(None)
            assert len(flusher.one_round()) == 1
            assert first.result(LONG).deleted in (10, None)
            assert second.result(LONG).deleted in (10, None)
        assert oracle.by_zone(oracle.dump(netns)) == {3: 10, 4: 10}


@pytest.mark.parametrize("not_yet_started", [False, True])
def test_a_signal_handler_may_flush(netns: nlct.Netns, not_yet_started: bool) -> None:
    """Even where it interrupted a request that was about to start a leader."""
    with Flusher(netns) as flusher, nlct.Conntrack(netns) as ct:
        ct.create(flows.udp(1, zone=1))
        with flusher._lock.real:
            if not_yet_started:
                flusher._leader = _threads.Thread(flusher._serve)
            assert flusher.flush_zone(1).complete
        assert ct.count(zone=1) == 0


class InterruptedCallError(Exception):
    """What a signal handler raises."""


class Waiting(deque[gathering._Request]):
    """Requests that wait; a signal comes when one has come."""

    def append(self, request: gathering._Request) -> None:
        """Have it wait."""
        super().append(request)
        raise InterruptedCallError


def interrupt_before_the_leader_starts(monkeypatch: pytest.MonkeyPatch, _: Flusher) -> None:
    """Nobody leads yet."""

    def start(_thread: _threads.Thread) -> None:
        raise InterruptedCallError

    monkeypatch.setattr(_threads.Thread, "start", start)


def interrupt_after_the_leader_started(monkeypatch: pytest.MonkeyPatch, _: Flusher) -> None:
    """It leads, for nobody."""
    real = _threads.Thread.start

    def start(thread: _threads.Thread) -> None:
        real(thread)
        raise InterruptedCallError

    monkeypatch.setattr(_threads.Thread, "start", start)


def interrupt_while_the_leader_starts(monkeypatch: pytest.MonkeyPatch, _: Flusher) -> None:
    """It is there, and nobody has seen it."""

    def start(thread: _threads.Thread) -> None:
        _threads._thread.start_new_thread(thread._run, ())
        raise InterruptedCallError

    monkeypatch.setattr(_threads.Thread, "start", start)


def interrupt_when_queued(monkeypatch: pytest.MonkeyPatch, flusher: Flusher) -> None:
    """The request waits, and nobody leads."""
    monkeypatch.setattr(flusher, "_waiting", Waiting())


def interrupt_while_it_waits(monkeypatch: pytest.MonkeyPatch, _: Flusher) -> None:
    """The leader is about to answer."""

    class Latch:
        """Is never released before the signal."""

        def acquire(self, *, timeout: float) -> bool:
            """Wait, until the signal comes."""
            assert timeout > 0
            raise InterruptedCallError

        def release(self) -> None:
            """Too late."""

    real, made = _threads.latch, []

    def latch() -> Any:
        # The first one is that of the request.
        made.append(Latch() if not made else real())
        return made[-1]

    monkeypatch.setattr(_threads, "latch", latch)


@pytest.mark.parametrize(
    "interrupt",
    [
        interrupt_when_queued,
        interrupt_before_the_leader_starts,
        interrupt_while_the_leader_starts,
        interrupt_after_the_leader_started,
        interrupt_while_it_waits,
    ],
)
def test_an_interrupted_call_leaves_nothing_behind(
    netns: nlct.Netns,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable[[pytest.MonkeyPatch, Flusher], None],
) -> None:
    """No request, no thread; the next call is served."""
    with Flusher(netns) as flusher, nlct.Conntrack(netns) as ct:
        ct.create(flows.udp(1, zone=1))
        with monkeypatch.context() as patch:
            interrupt(patch, flusher)
            with pytest.raises(InterruptedCallError):
                flusher.flush_zone(2)
            assert not flusher._waiting
        until(lambda: not own_threads())
        assert not flusher._waiting
        assert flusher.delete(Filter(zone=1)).deleted == 1


TWO_NUMBERS_ONE = """
import ctypes, os, signal, threading, time
import nlct
from nlct.fill import fill

assert os.getpid() == 1
signal.alarm(240)
ct = nlct.Conntrack(nlct.Netns.scratch())
flusher = nlct.Flusher(ct)
fill(ct, 2000, 20)
stop = []

def forever(zone):
    while not stop:
        assert flusher.flush_zone(zone).complete

threads = [threading.Thread(target=forever, args=(zone,)) for zone in (1, 2)]
for thread in threads:
    thread.start()
while flusher.passes < 2:
    time.sleep(0.001)
assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID
pid = os.fork()
if pid == 0:
    assert os.getpid() == 1
    signal.alarm(240)
    for zone in (3, 4, 5):
        result = flusher.delete(nlct.Filter(zone=zone))
        assert (result.deleted, result.complete) == (100, True), result
    flusher.close()
    os._exit(17)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
stop.append(True)
for thread in threads:
    thread.join()
print(status, ct.count())
"""


@pytest.mark.usefixtures("netns", "root")
def test_a_parent_and_a_child_that_are_both_number_one() -> None:
    """Of two pid namespaces: they share neither locks nor sockets nor requests."""
    if shutil.which("unshare") is None:
        pytest.skip("MISSING: unshare")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", TWO_NUMBERS_ONE],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["17", "1500"], done.stderr


def test_a_signal_handler_may_close(netns: nlct.Netns) -> None:
    """Where it interrupted a request, and a leader is about to end."""
    flusher = Flusher(netns)
    flusher.flush_zone(1)
    with flusher._lock.real:
        flusher.flush_zone(1)
        flusher.close()
    with pytest.raises(ValueError, match="closed"):
        flusher.flush_zone(1)


def test_who_comes_just_before_the_leader_ends_is_served(netns: nlct.Netns) -> None:
    """By that leader: who saw it relies on it."""
    answered = _threads.latch()

    class Late(deque[gathering._Request]):
        """What looks empty until somebody looks whether it is."""

        def __bool__(self) -> bool:
            if not late:
                late.append(gathering._Request(Filter(zone=1), "flush", answered.release))
                self.append(late[0])
            return len(self) > 0

    late: list[gathering._Request] = []
    with Flusher(netns) as flusher:
        flusher._waiting = Late()
        assert flusher.flush_zone(2).complete
        assert answered.acquire(timeout=LONG)
        assert late[0].answer().complete
        assert flusher.passes == 2


def test_leaders_never_lead_at_the_same_time(netns: nlct.Netns) -> None:
    """A signal handler may start another one, beside one that is about to begin."""
    with Gated(netns) as flusher, ThreadPoolExecutor(2) as pool:
        first = pool.submit(flusher.flush_zone, 1)
        assert flusher.begun.get(timeout=LONG)
        # As it is where the handler comes before anybody can see that the first one is alive.
        flusher._leader = None
        second = pool.submit(flusher.flush_zone, 2)
        until(lambda: len(own_threads()) == 2)
        assert flusher.begun.empty()
        flusher.gate.put(None)
        assert first.result(LONG).complete
        flusher.one_round()
        assert second.result(LONG).complete


def test_where_no_thread_can_be_had(netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that asks leads its round itself; a task cannot, and is told."""

    def refuse(_thread: _threads.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Flusher(netns) as flusher, nlct.Conntrack(netns) as ct:
        ct.create(flows.udp(1, zone=1))
        monkeypatch.setattr(_threads.Thread, "start", refuse)
        assert flusher.delete(Filter(zone=1)).complete
        assert ct.count(zone=1) == 0
        with pytest.raises(RuntimeError, match="thread"):
            asyncio.run(flusher.aflush_zone(1))
        monkeypatch.undo()
        assert flusher.flush_zone(1).complete


# Forks and the end --------------------------------------------------------------------------------


def test_a_fork_in_the_middle_of_a_round(netns: nlct.Netns) -> None:
    """The child runs nothing of what its parent was asked, can ask by itself, and can close."""
    with Gated(netns, kernel_filter=False) as flusher, nlct.Conntrack(netns) as ct:
        fill(ct, 60, 6)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(flusher.flush_zone, 1)
            flusher.begun.get(timeout=LONG)
            second = pool.submit(flusher.flush_zone, 2)
            flusher.wait_for(2)

            def child() -> None:
                flusher.gate.put(None)
                assert flusher.flush_zone(3).deleted in (10, None)
                assert flusher.passes == 1
                assert {1, 2} < set(ct.count_by("zone"))
                flusher.close()

            assert in_child(child) == 0
            assert oracle.by_zone(oracle.dump(netns)) == dict.fromkeys((1, 2, 4, 5, 6), 10)
            flusher.gate.put(None)
            flusher.one_round()
            assert first.result(LONG).deleted in (10, None)
            assert second.result(LONG).deleted in (10, None)


def test_a_fork_by_a_signal_handler_that_interrupted_a_caller(netns: nlct.Netns) -> None:
    """In the child the caller gets an error, for nobody would ever answer; the parent goes on."""
    children: list[int] = []
    parent = os.getpid()

    def fork(_number: int, _frame: object) -> None:
        children.append(os.fork())

    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with Gated(netns) as flusher, ThreadPoolExecutor(1) as pool:

            def send() -> None:
                flusher.begun.get(timeout=LONG)
                signal.pthread_kill(main, signal.SIGUSR1)
                until(lambda: children)
                flusher.gate.put(None)

            sent = pool.submit(send)
            try:
                result = flusher.flush_zone(1)
            except RuntimeError as exc:
                os._exit(17 if os.getpid() != parent and "fork" in str(exc) else 1)
            if os.getpid() != parent:
                os._exit(2)
            assert result.complete
            sent.result(LONG)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 17


STORM_AT_EXIT = """
import asyncio, atexit, threading, time
from tests.support.threads import own_threads

@atexit.register
def last():
    # One that has ended its work may take a moment to go.
    for _ in range(10_000):
        if not own_threads():
            return
        time.sleep(0.001)
    print("somebody still leads")

import nlct
from nlct.fill import fill
netns = nlct.Netns.scratch()
ct = nlct.Conntrack(netns, kernel_filter=False)
fill(ct, 2000, 20)
flusher = nlct.Flusher(ct)
"""

AT_EXIT = {
    "daemons that never stop": """
def forever(zone):
    while True:
        flusher.flush_zone(zone)
for zone in range(1, 9):
    threading.Thread(target=forever, args=(zone,), daemon=True).start()
while flusher.passes < 3:
    time.sleep(0.001)
print("end")
""",
    "threads that wait": """
def once(zone):
    results.append(flusher.flush_zone(zone).complete)
    if len(results) == 8:
        print("end" if all(results) else results)
results = []
for zone in range(1, 9):
    threading.Thread(target=once, args=(zone,)).start()
""",
    "a handler that flushes": """
def late():
    print("end" if flusher.delete(nlct.Filter(zone=1)).complete else "no")
atexit.register(late)
""",
    "tasks that are dropped": """
async def main():
    for zone in range(1, 9):
        asyncio.ensure_future(flusher.aflush_zone(zone))
    await asyncio.sleep(0.005)
asyncio.run(main())
print("end")
""",
    "a loop that is dropped": """
loop = asyncio.new_event_loop()
task = loop.create_task(flusher.aflush_zone(1))
loop.run_until_complete(asyncio.sleep(0))
task._log_destroy_pending = False
print("end")
""",
}


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("case", AT_EXIT)
def test_the_interpreter_ends(case: str, script: Script) -> None:
    """Whatever is still asked for; without a word on standard error, and with status 0."""
    assert script(STORM_AT_EXIT + AT_EXIT[case]) == "end"


# Random interleavings, against a model ------------------------------------------------------------


def key_of(flow: nlct.Flow) -> tuple[int, int, int]:
    """What the model knows of a flow: zone, protocol, number."""
    assert flow.orig.proto is not None
    assert flow.orig.sport is not None
    return flow.zone, int(flow.orig.proto), flow.orig.sport


WANTED: dict[str, tuple[int | Filter, Callable[[int, int, int], bool]]] = {
    "zone 0": (0, lambda zone, _proto, _number: zone == 0),
    "zone 1": (1, lambda zone, _proto, _number: zone == 1),
    "zone 2": (2, lambda zone, _proto, _number: zone == 2),
    "udp": (Filter(proto="udp"), lambda _zone, proto, _number: proto == 17),
    "low": (Filter(sport=range(1, 4)), lambda _zone, _proto, number: number < 4),
    "udp in zones": (Filter(proto="udp", zone={1, 2}), lambda z, p, _number: 0 < z < 3 and p == 17),
    "other": (~Filter(proto="udp"), lambda _zone, proto, _number: proto != 17),
    "nothing": (Filter(zone=[]), lambda *_key: False),
    "all": (nlct.ALL, lambda *_key: True),
}


class HeldAfterDump(Gated):
    """Its rounds also wait after their dump, before anybody is answered."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.dumped: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.answer: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.held = False
        super().__init__(*arguments, **options)

    def _run(self, requests: list[gathering._Request]) -> None:
        self.held = False
        for request in requests:
            settle = request.settle
            request.settle = lambda *a, settle=settle: self.hold(settle, *a)  # type: ignore[method-assign]
        super()._run(requests)

    def hold(self, settle: Callable[..., None], answer: FlushResult | BaseException) -> None:
        """Hold the first answer of a dump, and with it all of them."""
        if isinstance(answer, FlushResult) and not self.held:
            self.held = True
            self.dumped.put(None)
            self.answer.get(timeout=LONG)
        settle(answer)


@dataclass(eq=False)
class Call:
    """One call under way."""

    name: str
    future: Future[FlushResult]
    request: gathering._Request
    is_task: bool
    cancelled: bool = False
    count: int | None = None


class Storm(RuleBasedStateMachine):
    """Callers come, give up and close at any time; rounds begin, dump, fail and end step by step.

    The model is the set of flows, who is in the round, and who waits. The kernel is the real one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netns = nlct.Netns.scratch()
        self.ct = nlct.Conntrack(self.netns)
        # As on an old kernel: whoever shares a round shares its dump, and never a kernel's flush.
        self.flusher = HeldAfterDump(self.netns, kernel_filter=False)
        self.pool = ThreadPoolExecutor(64)
        self.loop = asyncio.new_event_loop()
        self.looping = self.pool.submit(self.loop.run_forever)
        self.closing: Future[None] | None = None
        self.flows: set[tuple[int, int, int]] = set()
        self.calls: dict[gathering._Request, Call] = {}
        # In the round: None when there is none.
        self.batch: list[Call] | None = None
        self.dumped = False
        self.waiting: list[Call] = []
        self.closed = self.dropped = False

    # What the callers do

    @rule(zone=st.integers(0, 3), proto=st.sampled_from([6, 17]), number=st.integers(1, 6))
    def create(self, zone: int, proto: int, number: int) -> None:
        """A flow appears, at any moment of a round."""
        if (zone, proto, number) not in self.flows:
            orig = nlct.Tuple("10.0.0.1", "10.0.0.2", proto, number, 80)
            self.ct.create(nlct.Flow(orig, zone=zone, timeout=3600))
            self.flows.add((zone, proto, number))

    @rule(name=st.sampled_from(sorted(WANTED)), is_task=st.booleans())
    def ask(self, name: str, is_task: bool) -> None:
        """A thread or a task asks."""
        wanted, _ = WANTED[name]
        by_filter = isinstance(wanted, Filter)
        if is_task:
            method = self.flusher.adelete if by_filter else self.flusher.aflush_zone
            future = asyncio.run_coroutine_threadsafe(method(wanted), self.loop)  # type: ignore[operator]
        else:
            call = self.flusher.delete if by_filter else self.flusher.flush_zone
            future = self.pool.submit(call, wanted)  # type: ignore[arg-type]
        if self.closed:
            assert isinstance(future.exception(LONG), ValueError)
            return
        self.flusher.wait_for(len(self.calls) + 1)
        request = self.flusher.submitted[-1]
        self.calls[request] = Call(name, future, request, is_task)
        self.waiting.append(self.calls[request])
        self.expect_round()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A task gives up, before its round or in it."""
        calls = [call for call in [*self.waiting, *(self.batch or [])] if call.is_task]
        calls = [call for call in calls if not call.cancelled]
        if calls:
            call = data.draw(st.sampled_from(calls))
            call.future.cancel()
            until(lambda: call.request.abandoned)
            call.cancelled = True

    @precondition(lambda self: not self.closed)
    @rule(wait=st.booleans(), really=st.integers(0, 3))
    def close(self, wait: bool, really: int) -> None:
        """Somebody closes; not too often, or little else would be seen."""
        if really == 0:
            self.closing = self.pool.submit(self.flusher.close, wait=wait)
            self.closed, self.dropped = True, not wait
            until(lambda: self.flusher._closed and (wait or self.flusher._cancelled))

    # What a round does

    def expect_round(self) -> None:
        """If there is no round, one begins as soon as somebody waits, with all who do."""
        if self.batch is not None:
            return
        self.waiting = [call for call in self.waiting if not call.cancelled]
        if self.waiting:
            requests = self.flusher.begun.get(timeout=LONG)
            assert {self.calls[each] for each in requests} == set(self.waiting)
            self.batch, self.waiting, self.dumped = self.waiting, [], False

    @precondition(lambda self: self.batch is not None and not self.dumped)
    @rule()
    def dump(self) -> None:
        """The round dumps, and deletes what was asked for; before anybody is answered."""
        assert self.batch is not None
        self.flusher.gate.put(None)
        if self.dropped or all(call.cancelled for call in self.batch):
            self.fail_with(errno.ECANCELED)
            return
        self.flusher.dumped.get(timeout=LONG)
        self.dumped = True
        for call in self.batch:
            _, matches = WANTED[call.name]
            call.count = sum(matches(*key) for key in self.flows)
        self.flows -= {
            key for key in self.flows if any(WANTED[c.name][1](*key) for c in self.batch)
        }
        self.compare()

    @precondition(lambda self: self.dumped)
    @rule()
    def answer(self) -> None:
        """Everybody in the round is told what is his."""
        assert self.batch is not None
        self.flusher.answer.put(None)
        for call in self.batch:
            if not call.cancelled:
                result = call.future.result(LONG)
                counts = (result.matched, result.deleted)
                assert counts == (call.count, call.count)
                assert (result.already_gone, result.failed, result.complete) == (0, {}, True)
        self.end_round()

    @precondition(lambda self: self.batch is not None and not self.dumped)
    @rule()
    def fail(self) -> None:
        """The round dies: those in it are told, nothing is deleted, the next ones go on."""
        self.flusher.gate.put(nlct.OverrunError(errno.ENOBUFS, "dump the table"))
        self.fail_with(errno.ENOBUFS)

    def fail_with(self, number: int) -> None:
        """Each who still waits for this round gets that error."""
        assert self.batch is not None
        for call in self.batch:
            if not call.cancelled:
                error = call.future.exception(LONG)
                assert isinstance(error, nlct.Error)
                assert error.errno == number
        self.end_round()
        self.compare()

    def end_round(self) -> None:
        """Whoever waits is in the next one; nobody else is answered."""
        self.batch, self.dumped = None, False
        assert not any(call.future.done() for call in self.waiting if not call.cancelled)
        self.expect_round()

    def compare(self) -> None:
        """The kernel's table is the model's."""
        assert {key_of(flow) for flow in self.ct.dump()} == self.flows

    def teardown(self) -> None:
        """Whatever is under way comes to its end, and nothing is left."""
        while self.batch is not None:
            if self.dumped:
                self.answer()
            else:
                self.dump()
        if self.closing is not None:
            self.closing.result(LONG)
        self.flusher.close()
        assert all(call.future.done() for call in self.calls.values())
        self.compare()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.looping.result(LONG)
        self.loop.close()
        self.pool.shutdown()
        self.ct.close()
        self.netns.close()
        until(lambda: not own_threads())


@pytest.mark.hypothesis
@pytest.mark.usefixtures("netns")
def test_any_interleaving() -> None:
    """The promise, the counts, the errors and the end, in random order."""
    storms = int(os.environ.get("NLCT_TEST_STORMS", "40"))
    run_state_machine_as_test(Storm, settings=settings(examples(storms), stateful_step_count=30))
