"""Mirror: what it promises, held against the kernel's table as other clients read it."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nlct
from nlct import (
    ALL,
    Filter,
    Flow,
    Mirror,
    Tuple,
    _dump,
    _handle,
    _keeper,
    _memory,
    capabilities,
    strategy,
)
from nlct.fill import fill
from tests.support import filters, flows, oracle, tool, traffic
from tests.support.core import Lib
from tests.support.examples import examples, telling
from tests.support.namespaces import scratch

# Longer than anything here takes.
LONG = 30.0
BOTH = ("zone", "address")


def until(condition: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


@pytest.fixture
def mirror(ct: nlct.Conntrack) -> Iterator[Mirror]:
    """A mirror of the empty table, in step, with every index."""
    with Mirror(ct, index=BOTH) as made:
        assert made.wait(LONG)
        yield made


def name(flow: Flow) -> tuple[Any, ...]:
    """What a mirror keeps of a flow."""
    return flow.orig, flow.reply, flow.zone, flow.id


def check_memory(mirror: Mirror, netns: nlct.Netns) -> None:
    """All that the mirror tells out of memory is what a dump by another client tells."""
    with nlct.Conntrack(netns) as other:
        there = list(other.dump())
    assert Counter(map(name, mirror.flows())) == Counter(map(name, there))
    assert len(mirror) == mirror.count() == len(there)
    assert mirror.count_by("zone") == Counter(flow.zone for flow in there)
    assert mirror.count_by("src") == Counter(flow.orig.src for flow in there)
    assert mirror.count_by("dst") == Counter(flow.orig.dst for flow in there)
    replies = [flow.reply for flow in there if flow.reply is not None]
    assert mirror.count_by("reply_src") == Counter(reply.src for reply in replies)
    assert mirror.count_by("reply_dst") == Counter(reply.dst for reply in replies)


def audited(mirror: Mirror, zone: int) -> None:
    """Have an audit now, which sees the flows of a zone."""
    len(mirror)
    mirror._keeper._audit_at = 0.0
    until(lambda: mirror._keeper.knows(frozenset({zone})))


def numbers(result: nlct.FlushResult) -> tuple[Any, ...]:
    """What a flush counted."""
    return result.matched, result.deleted, result.already_gone, dict(result.failed)


# What each method does ----------------------------------------------------------------------------


def test_every_zone_is_flushed_by_itself(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """Also zones of one direction; nothing else is touched, attribute by attribute."""
    for zone in flows.ZONES:
        flows.populate(ct)
        before = oracle.dump(netns)
        meant = len(oracle.inside(before, {zone}))
        assert mirror.count(zone=zone) == meant
        dry = mirror.flush_zone(zone, dry_run=True)
        assert (dry.strategy, numbers(dry), dry.complete) == ("mirror", (meant, 0, 0, {}), False)
        assert oracle.dump(netns) == before
        result = mirror.flush_zone(zone)
        assert (result.strategy, numbers(result)) == ("mirror", (meant, meant, 0, {}))
        assert (result.scanned, result.passes) == (0, 0)
        assert oracle.dump(netns) == oracle.outside(before, {zone})
        check_memory(mirror, netns)
        assert numbers(mirror.flush_zone(zone)) == (0, 0, 0, {})
        ct.flush_all()


@pytest.mark.parametrize(
    "zones", [5, {5}, [5, 7, 9], range(2), range(30000), ()], ids=lambda zones: str(zones)[:20]
)
def test_many_zones(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, zones: Any) -> None:
    """As many as the caller likes; also more than there is a list to be looked at for each."""
    flows.populate(ct)
    before = oracle.dump(netns)
    wanted = {zones} if isinstance(zones, int) else set(zones)
    meant = len(oracle.inside(before, wanted))
    assert meant == mirror.count(zone=zones) == len(list(mirror.flows(zone=zones)))
    assert meant == ct.flush_zones(zones, dry_run=True).matched
    assert numbers(mirror.flush_zones(zones, dry_run=True)) == (meant, 0, 0, {})
    assert numbers(mirror.flush_zones(zones)) == (meant, meant, 0, {})
    assert oracle.dump(netns) == oracle.outside(before, wanted)
    check_memory(mirror, netns)


def test_everything_goes_by_nlct_all_alone(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """Any other filter that matches everything is refused, and nothing is sent."""
    flows.populate(ct)
    before = oracle.dump(netns)
    everything = Filter(zone=1) | ~Filter(zone=1)
    for wanted in (Filter(), everything, Filter(mark=slice(None, None))):
        for call in (mirror.delete, lambda one: asyncio.run(mirror.adelete(one))):
            with pytest.raises(ValueError, match=r"nlct\.ALL"):
                call(wanted)
    assert oracle.dump(netns) == before
    assert numbers(mirror.delete(ALL, dry_run=True)) == (46, 0, 0, {})
    assert numbers(mirror.delete(ALL)) == (46, 46, 0, {})
    assert oracle.dump(netns) == {}
    assert len(mirror) == 0
    assert mirror.count_by("zone") == {}


def test_given_flows_are_deleted(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """The mirror's own flows are as good as those of a dump."""
    flows.populate(ct)
    before = oracle.dump(netns)
    assert mirror.delete_flows(mirror.flows(zone={5, 7})).deleted == 18
    assert oracle.dump(netns) == oracle.outside(before, {5, 7})
    check_memory(mirror, netns)
    assert mirror.delete_flows([]).matched == 0


def test_tasks_flush_as_threads_do(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """With the same arguments and results, many at a time."""
    flows.populate(ct)
    before = oracle.dump(netns)

    async def main() -> None:
        dry = await mirror.aflush_zone(5, dry_run=True)
        assert numbers(dry) == (11, 0, 0, {})
        results = await asyncio.gather(
            mirror.aflush_zone(5, verify=True),
            mirror.adelete(Filter(zone=7, proto="udp")),
            mirror.adelete(Filter(zone=256, mark=1)),
            mirror.adelete(Filter(zone=0, family="ipv6"), dry_run=True),
        )
        assert [result.matched for result in results] == [11, 2, 1, 3]
        assert [result.deleted for result in results] == [11, 2, 1, 0]

    asyncio.run(main())
    assert len(oracle.dump(netns)) == len(before) - 14
    check_memory(mirror, netns)


def test_a_cancelled_task_has_its_flush_done(ct: nlct.Conntrack, mirror: Mirror) -> None:
    """Once it has begun."""
    fill(ct, 100, 1)

    async def main() -> None:
        task = asyncio.ensure_future(mirror.aflush_zone(1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ct.count(zone=1) == 0


BAD: dict[str, tuple[Callable[[Mirror], object], type[Exception], str]] = {
    "a zone too high": (lambda m: m.flush_zone(65536), ValueError, "zone.*0.*65535"),
    "a zone below": (lambda m: m.flush_zone(-1), ValueError, "zone.*0.*65535"),
    "no zone": (lambda m: m.flush_zone(None), TypeError, "zone"),  # type: ignore[arg-type]
    "true": (lambda m: m.flush_zone(True), TypeError, "zone"),
    "a zone in words": (lambda m: m.flush_zone("7"), TypeError, "zone"),  # type: ignore[arg-type]
    "zones": (lambda m: m.flush_zones({1, 65536}), ValueError, "zone.*0.*65535"),
    "zones in words": (lambda m: m.flush_zones("17"), TypeError, "zone"),  # type: ignore[arg-type]
    "no zones": (lambda m: m.flush_zones(None), TypeError, "zone"),  # type: ignore[arg-type]
    "no filter": (lambda m: m.delete(7), TypeError, "[Ff]ilter"),  # type: ignore[arg-type]
    "a zone as a filter": (lambda m: m.count(7), TypeError, "filter"),  # type: ignore[arg-type]
    "zone and filter": (lambda m: m.count(Filter(), zone=7), TypeError, "zone"),
    "flows of what": (lambda m: m.flows(zone=65536), ValueError, "zone.*0.*65535"),
    "by nothing": (lambda m: m.count_by(), TypeError, "field"),
    "by what is not": (lambda m: m.count_by("zone_"), ValueError, "zone_"),
    "no flows": (lambda m: m.delete_flows([7]), TypeError, "[Ff]low"),  # type: ignore[list-item]
    "a wait in words": (lambda m: m.wait("1"), TypeError, "timeout"),  # type: ignore[arg-type]
    "a wait below": (lambda m: m.wait(-1), ValueError, "timeout"),
    "a task": (lambda m: asyncio.run(m.aflush_zone(65536)), ValueError, "zone.*0.*65535"),
}


def test_bad_arguments_are_refused_before_anything_is_sent(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """The error names the argument and what it may be; the mirror goes on."""
    flows.populate(ct, [0, 7])
    before = oracle.dump(netns)
    for case, (call, kind, words) in BAD.items():
        print(case)
        with pytest.raises(kind, match=words):
            call(mirror)
    assert oracle.dump(netns) == before
    check_memory(mirror, netns)


BAD_MIRRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "index": ({"index": ("zone", "mark")}, ValueError, "index.*zone, address.*mark"),
    "an index of letters": ({"index": "zone"}, TypeError, "index"),
    "no index": ({"index": 7}, TypeError, "index"),
    "a small buffer": ({"buffer": 4095}, ValueError, "buffer.*4096.*1073741823"),
    "a large buffer": ({"buffer": 2**30}, ValueError, "buffer.*4096.*1073741823"),
    "a buffer in words": ({"buffer": "64k"}, TypeError, "buffer"),
    "a short interval": ({"audit_interval": 0.5}, ValueError, "audit_interval.*1"),
    "no interval": ({"audit_interval": None}, TypeError, "audit_interval"),
    "an interval without end": ({"audit_interval": float("inf")}, ValueError, "audit_interval"),
}


def test_bad_mirrors_are_refused(ct: nlct.Conntrack) -> None:
    """Nothing is left open, and a Conntrack that was given goes on."""
    for case, (arguments, kind, words) in BAD_MIRRORS.items():
        print(case)
        with pytest.raises(kind, match=words):
            Mirror(ct, **arguments)
    assert ct.count() == 0


def test_where_a_mirror_can_be(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """In a namespace by any name, or beside a Conntrack, which stays open."""
    with pytest.raises(nlct.NotFoundError):
        Mirror("no-such-netns")
    with pytest.raises(ValueError, match="kernel_filter"):
        Mirror(ct, kernel_filter=False)
    with Mirror(f"/proc/self/fd/{netns.fileno()}", kernel_filter=False) as mirror:
        assert mirror.wait(LONG)
        ct.create(flows.udp(1, zone=7))
        assert mirror.flush_zone(7).deleted == 1
    with Mirror(ct) as mirror:
        assert mirror.wait(LONG)
    assert ct.count() == 0


def test_a_closed_mirror_refuses(ct: nlct.Conntrack) -> None:
    """Each method, as often as it is called; to close it again is fine."""
    mirror = Mirror(ct)
    assert mirror.wait(LONG)
    fill(ct, 1000, 1)
    begun = mirror.flows()
    assert next(begun).zone == 1
    late = mirror.flows()
    mirror.close()
    mirror.close()
    assert repr(mirror) == "<nlct.Mirror: closed>"
    calls: tuple[Callable[[], object], ...] = (
        lambda: mirror.flush_zone(7),
        lambda: mirror.flush_zones([]),
        lambda: mirror.delete(Filter(zone=7)),
        lambda: mirror.delete(Filter(zone=[])),
        lambda: mirror.delete_flows([flows.udp(1, zone=7)]),
        lambda: asyncio.run(mirror.aflush_zone(7)),
        lambda: asyncio.run(mirror.adelete(Filter(zone=7))),
        mirror.count,
        lambda: mirror.count_by("zone"),
        lambda: mirror.count_by("mark"),
        lambda: len(mirror),
        lambda: list(mirror.flows()),
        lambda: mirror.state,
        lambda: mirror.wait(0),
        lambda: next(late),
        lambda: list(begun),
    )
    for number, call in enumerate(calls):
        print(number)
        with pytest.raises(ValueError, match="closed"):
            call()
    assert ct.count(zone=1) == 1000


def test_a_conntrack_that_is_closed_under_it(netns: nlct.Netns) -> None:
    """Whoever flushes is told; the mirror can be closed."""
    ct = nlct.Conntrack(netns)
    with Mirror(ct) as mirror:
        assert mirror.wait(LONG)
        ct.close()
        for call in (lambda: mirror.flush_zone(7), lambda: mirror.delete(Filter(mark=7))):
            with pytest.raises(ValueError, match="closed"):
                call()


def test_state_and_repr(ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the mirror says of itself, as events come and an audit goes round."""
    monkeypatch.setattr(_keeper, "MAKE_SURE", 0.5)
    with Mirror(ct, audit_interval=1) as mirror:
        assert mirror.wait(LONG)
        check_state(ct, mirror)


def check_state(ct: nlct.Conntrack, mirror: Mirror) -> None:
    """From the empty table on."""
    first = mirror.state
    assert (first.in_step, first.reason, first.dumps, first.flows) == (True, "", 1, 0)
    assert (first.overruns, first.lost, first.hidden, first.hidden_zones) == (0, 0, 0, frozenset())
    assert 0 < first.since <= time.time()
    assert repr(mirror) == "<nlct.Mirror: in step>"
    ct.load([flows.udp(number, zone=7) for number in range(100)])
    ct.flush_zone(7, strategy="scan")
    ct.create(flows.udp(1, zone=8))
    then = mirror.state
    assert (then.flows, then.in_step, then.since) == (1, True, first.since)
    assert then.events == first.events + 201
    assert then.memory >= first.memory
    assert mirror.wait(0) is True
    # The next but one has begun by now.
    until(lambda: mirror.state.audits >= then.audits + 2)
    assert mirror.state.exact
    assert mirror.flush_zone(8).complete


def test_dumps_are_asked_for_what_it_does_not_keep(ct: nlct.Conntrack, mirror: Mirror) -> None:
    """Counts by anything else, and filters by what may change, are those of Conntrack."""
    flows.populate(ct)
    for fields in (("mark",), ("zone", "proto")):
        assert mirror.count_by(*fields) == ct.count_by(*fields)
    for wanted in (Filter(zone=5, mark=0), Filter(zone=5, proto="udp")):
        mine, theirs = (one.count_by("zone", filter=wanted) for one in (mirror, ct))
        assert mine == theirs
        assert mirror.count(wanted) == ct.count(wanted)
        mine, theirs = (
            sorted(flow.id or 0 for flow in one) for one in (mirror.flows(wanted), ct.dump(wanted))
        )
        assert mine == theirs


@pytest.mark.usefixtures("kernel_flush")
def test_the_kernel_flushes_what_holds_much(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that is faster; then nothing is counted. A delete counts, and so does a dry run."""
    nlct.probe()
    fill(ct, 3000, 3)
    monkeypatch.setattr(strategy, "kernel_beats_mirror", lambda *_: True)
    assert numbers(mirror.flush_zone(2, dry_run=True)) == (1000, 0, 0, {})
    assert mirror.delete(Filter(zone=1)).deleted == 1000
    result = mirror.flush_zone(2)
    assert (result.strategy, result.deleted, result.complete) == ("kernel", None, True)
    assert oracle.by_zone(oracle.dump(netns)) == {3: 1000}
    check_memory(mirror, netns)
    monkeypatch.setattr(capabilities, "may_flush", lambda _: False)
    assert mirror.flush_zone(3).strategy == "mirror"
    check_memory(mirror, netns)


def test_verify_scans_afterwards(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """It finds what the mirror did not know of; the result has both parts, and is complete."""
    flows.populate(ct)
    len(mirror)
    # As if they had never been announced.
    for flow in list(ct.dump(zone=7))[:3]:
        with mirror._keeper.lock.real:
            mirror._keeper.memory.remove(flow)
    before = oracle.dump(netns)
    result = mirror.flush_zone(7, verify=True)
    assert (result.strategy, numbers(result)) == ("mirror+scan", (7, 7, 0, {}))
    assert (result.passes, result.complete) == (1, True)
    assert oracle.dump(netns) == oracle.outside(before, {7})
    result = mirror.delete(Filter(zone=5, proto="udp"), verify=True)
    assert (numbers(result), result.complete) == ((4, 4, 0, {}), True)
    dry = mirror.flush_zone(256, dry_run=True, verify=True)
    assert (dry.strategy, numbers(dry)) == ("scan", (7, 0, 0, {}))
    check_memory(mirror, netns)


# Filters ------------------------------------------------------------------------------------------


def without(table: oracle.Table, gone: set[int | None]) -> oracle.Table:
    """The entries but for those with these ids."""
    return {k: e for k, e in table.items() if int.from_bytes(e[oracle.ID], "big") not in gone}


def ids(table: oracle.Table) -> list[int]:
    """The ids of the entries."""
    return sorted(int.from_bytes(entry[oracle.ID], "big") for entry in table.values())


def check_delete(
    netns: nlct.Netns, mirror: Mirror, wanted: Filter, meant: set[int | None]
) -> nlct.FlushResult:
    """Delete what a filter means: these ids and no others."""
    before = oracle.dump(netns)
    assert {flow.id for flow in mirror.flows(wanted)} == meant
    dry = mirror.delete(wanted, dry_run=True)
    assert (numbers(dry), dry.complete and bool(meant)) == ((len(meant), 0, 0, {}), False)
    result = mirror.delete(wanted)
    assert numbers(result) == (len(meant), len(meant), 0, {})
    assert oracle.dump(netns) == without(before, meant)
    assert sorted(flow.id or 0 for flow in mirror.flows()) == ids(without(before, meant))
    return result


@pytest.mark.hypothesis
@pytest.mark.parametrize("index", telling([BOTH[:1], BOTH], [BOTH]), ids=" and ".join)
def test_random_filters_on_random_tables(index: tuple[str, ...]) -> None:
    """Exactly what they mean goes, as Conntrack and plain Python say; each way is taken."""
    ways: Counter[str] = Counter()
    with ExitStack() as stack:
        netns = stack.enter_context(scratch())
        filters.prepare(netns)
        ct = stack.enter_context(nlct.Conntrack(netns))
        mirror = stack.enter_context(Mirror(netns, index=index))
        assert mirror.wait(LONG)

        @examples(40)
        @given(st.integers(0, 2**32), filters.simple_specs() | filters.specs())
        @example(1, {"zone": 5, "mark": 1})
        @example(1, {"src": ["10.0.0.1", "fd00::2"], "status": "assured"})
        @example(2, {"reply_dst": "10.0.0.1", "proto": "tcp"})
        @example(3, {"dport": 53})
        @example(3, {"mark": range(5)})
        @example(4, {"timeout": slice(None, 2 * filters.STEP + 1)})
        @example(4, ("not", {"zone": {0, 5}}))
        @example(5, ("or", {"dst": "10.0.0.1"}, {"state": "established"}))
        @example(6, ("and", {"reply_src": "fd00::2"}, ("not", {"zone": 0})))
        @example(7, {"id": slice(2**31)})
        @example(8, {"any_nat": True})
        def check_one(seed: int, spec: filters.Spec) -> None:
            ct.flush_all()
            ct.load(filters.random_flows(seed, 100))
            wanted = filters.build(spec)
            if wanted.restricts_nothing:
                before = oracle.dump(netns)
                with pytest.raises(ValueError, match=r"nlct\.ALL"):
                    mirror.delete(wanted)
                assert oracle.dump(netns) == before
            else:
                meant = set(filters.ids(filters.read(netns), spec))
                assert {flow.id for flow in ct.dump(wanted)} == meant
                result = check_delete(netns, mirror, wanted, meant)
                ways[result.strategy] += bool(result.deleted)

        check_one()
        assert mirror.state.in_step
        assert mirror.state.dumps == 1
    assert ways["mirror"]
    assert ways["mirror+walk"]


# A filter of the menagerie, how many it means, and the way that it takes.
WAYS: dict[str, tuple[filters.Spec, int, str]] = {
    "a zone": ({"zone": 5}, 11, "mirror"),
    "a zone and a port": ({"zone": 5, "dport": 53}, 2, "mirror"),
    "a zone and ICMP": ({"zone": 5, "icmp_id": 7, "icmp_type": 8}, 1, "mirror"),
    "a zone and a mark": ({"zone": 5, "mark": 3}, 1, "mirror"),
    "an address": ({"src": "10.9.9.1"}, 1, "mirror"),
    "an address of a reply": ({"reply_src": "fd09::4"}, 1, "mirror"),
    "two addresses": ({"dst": ["10.9.9.2", "fd09::2"]}, 2, "mirror"),
    "a small network": ({"reply_dst": "10.9.9.0/30"}, 2, "mirror"),
    "an address and a status": ({"src": "10.9.9.3", "status": "confirmed"}, 1, "mirror"),
    "a large network": ({"src": "10.9.0.0/16"}, 2, "mirror+walk"),
    "a port": ({"sport": 1000, "proto": "tcp"}, 12, "mirror+walk"),
    "a family": ({"family": "ipv6"}, 20, "mirror+walk"),
    "a mark": ({"mark": 6}, 6, "mirror+walk"),
    "either": (("or", {"zone": 5}, {"src": "10.0.0.1"}), 31, "mirror+walk"),
    "neither": (("not", ("or", {"zone": 5}, {"family": "ipv6"})), 20, "mirror+walk"),
    "what both ask": (("and", ("not", {"dport": 53}), {"zone": 7}), 5, "mirror"),
    "nothing there": ({"zone": 9, "mark": 1}, 0, "mirror"),
    "nothing at all": ({"zone": []}, 0, "scan"),
}


def test_each_way_is_taken(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """What narrows a filter down, and what is looked up."""
    for case, (spec, count, way) in WAYS.items():
        print(case)
        ct.flush_all()
        ct.load(flows.menagerie())
        wanted = filters.build(spec)
        result = check_delete(netns, mirror, wanted, {flow.id for flow in ct.dump(wanted)})
        assert (result.deleted, result.strategy) == (count, way)
        # Looked up is what a list holds, not more.
        if way == "mirror":
            assert (result.scanned or 0) <= 11


def test_what_takes_too_long_to_look_up_is_dumped(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are the same."""
    monkeypatch.setattr(nlct.mirror, "LOOK_UP", 1.0)
    flows.populate(ct)
    before = oracle.dump(netns)
    result = mirror.delete(Filter(zone=5, mark=range(1, 4)))
    assert (result.strategy, numbers(result)) == ("scan", (3, 3, 0, {}))
    assert numbers(mirror.delete(Filter(zone=7, dport=53), dry_run=True)) == (2, 0, 0, {})
    assert len(oracle.dump(netns)) == len(before) - 3
    check_memory(mirror, netns)


def test_the_smallest_list_is_taken(ct: nlct.Conntrack, mirror: Mirror) -> None:
    """Whether it is that of a zone, or of one or several addresses."""
    flows.populate(ct)
    ct.load(flows.udp(number, zone=9) for number in range(30))
    len(mirror)
    for wanted, held in (
        (Filter(zone=5, src="10.9.9.1"), 1),
        (Filter(zone=5, dst=["10.0.0.2", "fd00::2"]), 11),
        (Filter(zone=9, src=["10.0.0.5", "10.0.0.6"]), 2),
        (Filter(zone={5, 9}, dst="192.0.2.1"), 30),
        (Filter(reply_src="192.0.2.1", reply_dst="10.0.0.0/30"), 28),
        (Filter(zone=5, dport=2), 11),
        (Filter(zone=4, dst="10.0.0.2"), 0),
        (Filter(dport=2), 76),
    ):
        lists = mirror._keeper.memory.lists(wanted)
        assert (lists.flows, lists.indexed) == (held, held < 76)
        assert mirror.count(wanted) == ct.count(wanted)


def test_what_changed_since_is_looked_up(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """The mark counts that a flow has now, not the one that it was announced with."""
    ct.load(flows.udp(number, zone=7).replace(mark=1) for number in range(20))
    for flow in list(ct.dump())[:5]:
        ct.update(flow, mark=2, timeout=60)
    assert numbers(mirror.delete(Filter(zone=7, mark=2), dry_run=True)) == (5, 0, 0, {})
    assert numbers(mirror.delete(Filter(timeout=slice(100)))) == (5, 5, 0, {})
    assert numbers(mirror.delete(Filter(zone=7, mark=2))) == (0, 0, 0, {})
    assert numbers(mirror.delete(Filter(mark=1, zone=7))) == (15, 15, 0, {})
    assert oracle.dump(netns) == {}


def test_of_two_entangled_flows_each_can_be_flushed(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """One's reply is the other's original tuple."""
    plain = Tuple("2001:db8::1", "fd00::3", "tcp", 1024, 80)
    other = Tuple("fd00::3", "fd00::1", "tcp", 80, 1024, zone=256)
    for zone, wanted in (
        (0, Filter(zone=0)),
        (256, Filter(zone=256)),
        (0, Filter(zone=0, mark=0)),
        (256, Filter(zone=256, mark=0)),
        (0, Filter(src=plain.src, status="confirmed")),
        (256, Filter(src=other.src, mark=0)),
    ):
        ct.create(Flow(plain, timeout=600))
        ct.create(Flow(other, plain, timeout=600))
        assert numbers(mirror.delete(wanted)) == (1, 1, 0, {})
        assert {key.zone for key in oracle.dump(netns)} == {256 - zone}
        check_memory(mirror, netns)
        ct.flush_all()


def test_a_flow_hidden_behind_two_others_is_not_called_gone(
    ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """Both of its tuples lead to other flows: the kernel finds neither of them with its id."""
    orig = Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2)
    reply = Tuple("10.0.0.9", "10.0.0.1", "udp", 2, 1)
    elsewhere = Tuple("10.6.0.1", "10.6.0.2", "udp", 7, 8)
    ct.create(Flow(orig, reply, zone=5, timeout=600))
    ct.create(Flow(Tuple("10.5.0.1", "10.5.0.2", "udp", 7, 8), orig.replace(zone=5), timeout=600))
    ct.create(Flow(reply.replace(zone=5), elsewhere, timeout=600))
    audited(mirror, 5)
    result = mirror.delete(Filter(src="10.0.0.1", zone=5))
    assert (result.deleted, result.already_gone, result.complete) == (0, 1, False)
    result = mirror.flush_zone(5)
    assert (result.deleted, result.complete, ct.count()) == (3, True, 0)


def test_a_flow_born_anew_with_another_reply_replaces_the_old_one() -> None:
    """The kernel's id does not cover the reply, and nobody may have told of the old one's end."""
    memory = _memory.Memory(addresses=True)
    orig = Tuple("10.0.0.1", "10.0.0.2", "udp", 1024, 53)
    old, new = (
        Flow(orig, Tuple(backend, "10.0.0.1", "udp", 53, 1024), zone=7, id=1)
        for backend in ("10.1.0.1", "10.1.0.2")
    )
    with memory.lock.real:
        for one, other in ((old, new), (new, old), (old, new), (new, old)):
            assert memory.add(one)
            assert (memory.has(one), memory.has(other)) == (True, False)
        for backend, flows_there in (("10.1.0.1", 0), ("10.1.0.2", 1)):
            assert memory.lists(Filter(reply_src=backend)).flows == flows_there
        assert memory.count() == 1
        # Seen in this round: a row with another reply may be older.
        memory.begin()
        assert [memory.add(one) for one in (new, old)] == [False, False]
        assert memory.has(new)
        memory.drop()
    memory.close()


@pytest.mark.parametrize("field", ["src", "zone"])
def test_values_that_overlap_count_once(ct: nlct.Conntrack, mirror: Mirror, field: str) -> None:
    """Each flow is in one list, however often the filter names it."""
    ct.load([flows.udp(number, 7) for number in range(10)])
    value = ["10.0.0.0/28", "10.0.0.0/29", "10.0.0.1"] if field == "src" else [7, 7, 8]
    wanted = Filter(**{field: value})
    assert mirror.count(wanted) == len(list(mirror.flows(wanted))) == 10
    assert mirror.delete(wanted, dry_run=True).matched == 10
    assert mirror.delete(Filter(mark=0) & wanted, dry_run=True).scanned == 10


def test_what_no_audit_has_seen_is_not_called_complete(ct: nlct.Conntrack, mirror: Mirror) -> None:
    """Neither by a zone nor by anything else; a dry run with verify= shows what a dump shows."""
    ct.create(flows.udp(1, 1))
    audited(mirror, 1)
    ct.create(flows.udp(2, 2))
    assert not mirror.flush_zone(2, dry_run=True).complete
    assert not mirror.delete(Filter(src=flows.udp(2, 2).orig.src)).complete
    assert mirror.delete(Filter(src=flows.udp(1, 1).orig.src)).complete
    result = mirror.flush_zone(1, dry_run=True, verify=True)
    assert (result.strategy, result.complete) == ("scan", True)


def test_a_mirror_whose_conntrack_was_closed_waits_for_nothing(ct: nlct.Conntrack) -> None:
    """It will never be in step."""
    with Mirror(ct) as mirror:
        ct.close()
        until(lambda: not mirror._keeper.in_step)
        with pytest.raises(ValueError, match="closed"):
            mirror.wait()


def test_every_protocol(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """With ports, with what ICMP has instead, and with neither; events and dumps say the same."""
    hosts = (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"), ("::a00:1", "::a00:2"))
    made = [
        Flow(orig, zone=zone, timeout=3600)
        for src, dst in hosts
        for zone in (0, 5)
        for proto in (0, 2, 6, 17, 33, 47, 50, 99, 132, 136, 255)
        for orig in (Tuple(src, dst, proto), Tuple(src, dst, proto, 1, 2))
    ] + [
        Flow(Tuple(src, dst, proto, icmp_id=7, icmp_type=kind, icmp_code=1), zone=5, timeout=3600)
        for src, dst in hosts
        for proto in ("icmp", "icmpv6")
        for kind in (8, 13, 15, 17, 128, 129, 139)
    ]
    assert ct.load(made).created > 50
    check_memory(mirror, netns)
    # As numbers these addresses are the same.
    for wanted in (Filter(src="10.0.0.1"), Filter(dst="::a00:2")):
        meant = {flow.id for flow in ct.dump(wanted)}
        assert meant
        assert check_delete(netns, mirror, wanted, meant).strategy == "mirror"
    before = oracle.dump(netns)
    assert not mirror.flush_zone(5).failed
    assert oracle.dump(netns) == oracle.outside(before, {5})
    check_memory(mirror, netns)


def test_one_tuple_in_zones_of_every_kind(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """Whole ones, for the original direction alone, and for the reply alone."""
    orig = Tuple("10.1.1.1", "10.1.1.2", "udp", 1, 2)
    reply = flows.reverse(orig)
    made = (
        Flow(orig, zone=5, timeout=3600),
        Flow(orig, reply.replace(dst="10.9.1.1", zone=5), timeout=3600),
        Flow(orig.replace(zone=6), timeout=3600),
        Flow(orig.replace(zone=7), reply.replace(dst="10.9.1.2"), timeout=3600),
        Flow(orig, reply.replace(dst="10.9.1.3"), zone=8, timeout=3600),
    )
    for zone in (5, 6, 7, 8):
        for flow in made:
            ct.create(flow)
        check_memory(mirror, netns)
        whole = {flow.id for flow in ct.dump(zone=zone)}
        assert len(whole) == (2 if zone == 5 else 1)
        for wanted in (Filter(zone=zone, src="10.1.1.1"), Filter(zone=zone, mark=0)):
            assert {flow.id for flow in mirror.flows(wanted)} == whole
        assert mirror.flush_zone(zone).deleted == len(whole)
        assert whole.isdisjoint(flow.id for flow in ct.dump())
        assert mirror.delete(Filter(src="10.1.1.1")).deleted == 5 - len(whole)
        check_memory(mirror, netns)


def test_connections_that_a_router_translates() -> None:
    """Their replies are known as they really are, and an address of one leads to them."""
    with ExitStack() as stack:
        where = stack.enter_context(traffic.forwarding())
        ct = stack.enter_context(nlct.Conntrack(where.router))
        mirror = stack.enter_context(Mirror(ct, index=BOTH))
        assert mirror.wait(LONG)
        server = stack.enter_context(where.server.socket(socket.AF_INET, socket.SOCK_STREAM))
        server.bind(("", traffic.PORT))
        server.listen(16)
        for count in (5, 3):
            for _ in range(count):
                client = where.client.socket(socket.AF_INET, socket.SOCK_STREAM)
                stack.enter_context(client).connect((where.ADDRESS, traffic.PORT))
                stack.enter_context(server.accept()[0])
            check_memory(mirror, where.router)
            (reply,) = {flow.reply and flow.reply.src for flow in mirror.flows(Filter(proto="tcp"))}
            assert str(reply) != where.ADDRESS
            wanted = Filter(reply_src=reply, dst=where.ADDRESS, dnat=True)
            assert numbers(mirror.delete(wanted, dry_run=True)) == (count, 0, 0, {})
            result = mirror.delete(Filter(reply_src=reply))
            assert (result.strategy, numbers(result)) == ("mirror", (count, count, 0, {}))
            assert ct.count(Filter(proto="tcp")) == 0
            check_memory(mirror, where.router)


# Random runs --------------------------------------------------------------------------------------


class Run:
    """A random run of whatever may happen to a table that is mirrored.

    ``model``: the entries that must be there. Each step says what becomes of them, and the whole
    table is held against it, and then the mirror.
    """

    def __init__(self, netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, seed: int) -> None:
        self._netns, self._ct, self._mirror = netns, ct, mirror
        self._rng = random.Random(seed)
        self._made = filters.random_flows(seed, 60) + [
            Flow(orig, zone=zone, timeout=3600)
            for orig in (flow.orig for flow in filters.random_flows(seed, 5))
            for zone in (1, 2, 3, 5, 256, 65535)
            if orig.zone is None
        ]
        self.model: oracle.Table = {}
        self.done: Counter[str] = Counter()

    def step(self) -> None:
        """Do something at random."""
        kinds = (
            *(self.create, self.create, self.create, self.flush_zone, self.flush_zones),
            *(self.delete, self.delete_flows, self.others_flush, self.kernel_flushes),
            *(self.others_delete, self.expire, self.reborn, self.change),
        )
        kind = self._rng.choice(kinds)
        meant = len(self.model)
        kind()
        assert oracle.dump(self._netns) == self.model, kind.__name__
        found = sorted(flow.id or 0 for flow in self._mirror.flows())
        assert found == ids(self.model), kind.__name__
        assert len(self._mirror) == len(self.model)
        assert self._mirror.count_by("zone") == oracle.by_zone(self.model)
        self.done[kind.__name__] += len(self.model) != meant

    def _zones(self, most: int) -> set[int]:
        return set(
            self._rng.sample((0, 1, 2, 3, 5, 9, 255, 256, 65535), self._rng.randint(1, most))
        )

    def _some(self) -> list[Flow]:
        found = sorted(self._ct.dump(), key=lambda flow: flow.id or 0)
        return self._rng.sample(found, min(len(found), self._rng.randint(1, 4)))

    def _forget(self, gone: list[Flow]) -> None:
        self.model = without(self.model, {flow.id for flow in gone})

    def create(self) -> None:
        """Some that are there already are refused; what there is stays what it is."""
        before = self.model
        result = self._ct.load(self._rng.sample(self._made, self._rng.randint(1, 25)))
        self.model = oracle.dump(self._netns)
        assert {key: self.model.get(key) for key in before} == before
        assert len(self.model) == len(before) + result.created

    def flush_zone(self) -> None:
        """By the mirror."""
        (zone,) = self._zones(1)
        self._check(self._mirror.flush_zone(zone), {zone})

    def flush_zones(self) -> None:
        """By the mirror."""
        zones = self._zones(4)
        self._check(self._mirror.flush_zones(zones), zones)

    def _check(self, result: nlct.FlushResult, zones: set[int]) -> None:
        assert result.strategy == "mirror"
        meant = len(oracle.inside(self.model, zones))
        assert numbers(result) == (meant, meant, 0, {})
        self.model = oracle.outside(self.model, zones)

    def delete(self) -> None:
        """By the mirror, with a filter that a list helps with, or none."""
        some = self._some()
        if not some:
            return
        flow = some[0]
        wanted = self._rng.choice(
            (
                Filter(src=flow.orig.src),
                Filter(reply_dst=flow.reply and flow.reply.dst, zone=flow.zone),
                Filter(proto=flow.orig.proto, zone=flow.zone),
                Filter(mark=flow.mark, family=flow.family),
                Filter(id=flow.id or 0),
                Filter(dport=80) | Filter(zone=flow.zone, mark=flow.mark),
            )
        )
        gone = list(self._ct.dump(wanted))
        assert numbers(self._mirror.delete(wanted)) == (len(gone), len(gone), 0, {})
        self._forget(gone)

    def delete_flows(self) -> None:
        """By the mirror."""
        some = self._some()
        assert numbers(self._mirror.delete_flows(some)) == (len(some), len(some), 0, {})
        self._forget(some)

    def others_flush(self) -> None:
        """By another client."""
        zones = self._zones(2)
        with nlct.Conntrack(self._netns) as other:
            other.flush_zones(zones, strategy="scan")
        self.model = oracle.outside(self.model, zones)

    def kernel_flushes(self) -> None:
        """By itself, one zone."""
        found = nlct.probe()
        if found.zone_flush and found.zone0_flush:
            zones = self._zones(1)
            self._ct.flush_zones(zones, strategy="kernel")
            self.model = oracle.outside(self.model, zones)

    def others_delete(self) -> None:
        """Without nlct, so that the mirror hears of it only from the kernel."""
        for key, entry in self._rng.sample(sorted(self.model.items()), min(3, len(self.model))):
            if oracle.delete(self._netns, key, entry) == 0:
                del self.model[key]

    def expire(self) -> None:
        """Their time has run out."""
        some = self._some()
        for flow in some:
            self._ct.update(flow, timeout=0)
        self._forget(some)

    def reborn(self) -> None:
        """The same tuple in the same zone, at once, behind the mirror's back."""
        some = [flow for flow in self._some() if flow.status is None or not flow.status & 0x30]
        for flow in some:
            with suppress(nlct.Error):
                self._ct.delete_flow(flow)
                self._ct.create(flow)
        self.model = oracle.dump(self._netns)

    def change(self) -> None:
        """What a mirror does not keep."""
        for flow in self._some():
            self._ct.update(flow, mark=self._rng.choice(filters.MARKS))
        self.model = oracle.dump(self._netns)


@pytest.mark.hypothesis
def test_random_runs() -> None:
    """Whatever happens, the mirror knows what there is, and a flush deletes it, and only it."""
    done: Counter[str] = Counter()
    with ExitStack() as stack:
        netns = stack.enter_context(scratch())
        filters.prepare(netns)
        ct = stack.enter_context(nlct.Conntrack(netns))
        mirror = stack.enter_context(Mirror(netns, index=BOTH))
        assert mirror.wait(LONG)

        @examples(20)
        # A tuple is there in a zone, and with that zone for its reply alone.
        @example(11751)
        @given(st.integers(0, 2**32))
        def check_one(seed: int) -> None:
            ct.flush_all()
            run = Run(netns, ct, mirror, seed)
            for _ in range(25):
                run.step()
            done.update(run.done)

        check_one()
        assert mirror.state.in_step
        assert mirror.state.dumps == 1
        assert mirror.state.hidden == 0
    print(dict(done))
    assert len(+done) >= 8


# What came before, and what is over --------------------------------------------------------------


@pytest.mark.parametrize("early", [False, True], ids=["before anybody listened", "announced"])
def test_flows_from_before_the_mirror(netns: nlct.Netns, ct: nlct.Conntrack, early: bool) -> None:
    """They are known from the dump; of some the end may never be told, which harms nothing."""
    with ExitStack() as stack:
        if early:
            stack.enter_context(ct.events())
        ct.load([*flows.menagerie(), *(flows.udp(number, zone=1) for number in range(100))])
        mirror = stack.enter_context(Mirror(netns, index=BOTH))
        assert mirror.wait(LONG)
        check_memory(mirror, netns)
        gone = list(ct.dump(zone=1))[:50]
        assert ct.delete_flows(gone).deleted == 50
        before = oracle.dump(netns)
        assert 57 <= mirror.count(zone=1) <= 107
        result = mirror.flush_zone(1)
        assert (result.deleted, result.failed) == (57, {})
        assert result.already_gone == (result.matched or 0) - 57
        assert oracle.dump(netns) == oracle.outside(before, {1})
        mirror.flush_zones(flows.ZONES)
        assert oracle.dump(netns) == {}


def test_flows_whose_time_has_run_out(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """They are gone for everybody, and forgotten as soon as the kernel says so."""
    ct.load(flows.udp(number, zone=7) for number in range(10))
    for flow in list(ct.dump(zone=7))[:4]:
        ct.update(flow, timeout=0)
    result = mirror.flush_zone(7)
    # Anybody's dump of the shared hash table may have collected some of the four before.
    assert 0 <= result.already_gone <= 4
    assert numbers(result) == (6 + result.already_gone, 6, result.already_gone, {})
    assert numbers(mirror.delete(Filter(zone=7, mark=0))) == (0, 0, 0, {})
    # A dump that meets them has the kernel collect them.
    assert oracle.dump(netns) == {}
    until(lambda: len(mirror) == 0)
    ct.load(flows.udp(number, zone=7, timeout=1) for number in range(10))
    assert len(mirror) == 10
    until(lambda: not oracle.dump(netns))
    until(lambda: len(mirror) == 0)


def test_a_flow_that_is_reborn(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """However often, in whatever slot, and whoever deleted it: it is known, and deleted."""
    with nlct.Conntrack(netns) as other:
        for turn in range(12):
            ct.create(flows.udp(1, zone=7))
            if turn % 3 == 0:
                assert mirror.flush_zone(7).deleted == 1
            elif turn % 3 == 1:
                assert other.flush_zone(7, strategy="scan").deleted == 1
            ct.load([flows.udp(1, zone=7), flows.udp(1, zone=8)])
            assert mirror.count(zone=7) == 1
            result = mirror.flush_zones({7, 8})
            assert numbers(result) == (2, 2, 0, {})
        check_memory(mirror, netns)


@pytest.mark.exhaustive
def test_flows_that_made_room(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """At its limit the kernel evicts flows for new ones, and the mirror knows which.

    Many creates, deletes and expiries in test_random_runs stay to `make test`.
    """
    limit = ct.limit
    if limit > 300_000:
        pytest.skip(f"MISSING: a limit that can be reached quickly, this one is {limit}")
    fill(ct, limit, 100)
    assert len(mirror) == limit
    made = ct.load(flows.udp(2**23 + number, zone=2000 + number % 3) for number in range(20_000))
    assert made.created
    with nlct.Conntrack(netns) as other:
        there = other.count_by("zone")
        assert mirror.count_by("zone") == there
        assert sum(there.values()) < limit + made.created
        for zone in (2000, 2001, 2002, 1, 2):
            assert numbers(mirror.flush_zone(zone)) == (there[zone], there.pop(zone), 0, {})
        assert other.count_by("zone") == mirror.count_by("zone") == there
        ct.flush_all()
        assert other.count_by("zone") == mirror.count_by("zone") == {}


# Losses -------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a mirror try at once to be in step again, however often that was lost."""
    monkeypatch.setattr(_keeper, "LONGEST_DELAY", 0.02)
    monkeypatch.setattr(_keeper, "FIRST_DELAY", 0.02)


@contextmanager
def deaf(mirror: Mirror) -> Iterator[None]:
    """Keep a mirror from receiving any event meanwhile."""
    with mirror._keeper.lock.real:
        yield


def test_out_of_step_it_does_what_conntrack_would(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every method, until it has earned being in step."""
    monkeypatch.setattr(_keeper.Keeper, "_earn", lambda _: None)
    with Mirror(netns, index=BOTH) as mirror:
        flows.populate(ct)
        assert mirror.wait(0.01) is False
        assert repr(mirror) == "<nlct.Mirror: not in step>"
        state = mirror.state
        assert (state.in_step, state.exact, state.dumps) == (False, False, 0)
        assert "dump" in state.reason
        assert len(mirror) == ct.count() == 46
        assert mirror.count(zone=5) == 11
        assert mirror.count_by("zone") == ct.count_by("zone")
        assert Counter(map(name, mirror.flows(zone=5))) == Counter(map(name, ct.dump(zone=5)))
        before = oracle.dump(netns)
        assert numbers(mirror.flush_zone(5, dry_run=True)) == (11, 0, 0, {})
        assert numbers(mirror.flush_zones({5, 7}, dry_run=True)) == (18, 0, 0, {})
        assert oracle.dump(netns) == before
        result = mirror.flush_zone(5, verify=True)
        assert oracle.dump(netns) == oracle.outside(before, {5})
        assert result.strategy in ("scan", "kernel", "scan+kernel")
        assert result.complete
        mirror.flush_zones({7, 256})
        assert oracle.dump(netns) == oracle.outside(before, {5, 7, 256})
        result = mirror.delete(Filter(zone=0, dport=53))
        assert (result.strategy, numbers(result)) == ("scan", (2, 2, 0, {}))
        result = asyncio.run(mirror.adelete(Filter(mark=3)))
        assert (result.strategy, numbers(result)) == ("scan", (3, 3, 0, {}))
        with pytest.raises(ValueError, match=r"nlct\.ALL"):
            mirror.delete(Filter())
        monkeypatch.undo()
        assert mirror.wait(LONG)
        check_memory(mirror, netns)
        assert mirror.flush_zone(1).strategy == "mirror"


@pytest.mark.usefixtures("quick")
def test_events_that_are_lost_are_counted(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """What came and what was lost is what was sent; and it is in step again, with all."""
    with Mirror(netns, buffer=4096) as mirror:
        assert mirror.wait(LONG)
        first = mirror.state
        with deaf(mirror):
            assert ct.load(flows.udp(number, zone=1 + number % 9) for number in range(2000)).created
        until(lambda: mirror.state.overruns)
        until(lambda: mirror.state.events + mirror.state.lost == first.events + 2000)
        assert mirror.wait(LONG)
        state = mirror.state
        assert (state.overruns, state.dumps, state.reason) == (1, 2, "")
        assert state.since > first.since
        assert state.buffer > first.buffer
        assert mirror.count_by("zone") == oracle.by_zone(oracle.dump(netns))


@pytest.mark.parametrize("wanted", [Filter(zone=7), Filter(zone=7, mark=0)], ids=str)
def test_a_delete_whose_answers_are_lost(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch, wanted: Filter
) -> None:
    """It is an error, counts are bounds from then on, and the next delete has a new socket."""
    monkeypatch.setattr(_keeper, "MAKE_SURE", 0.05)

    def fail(*_: object) -> int:
        return -errno.ENOBUFS

    with Mirror(netns) as mirror:
        ct.load(flows.udp(number, zone=7) for number in range(100))
        until(lambda: mirror.state.exact)
        for module, function in (
            (_memory, "nlct_walk_delete"),
            (nlct.mirror, "nlct_delete_flows"),
        ):
            monkeypatch.setattr(module, "lib", Lib(**{function: fail}))
        with pytest.raises(nlct.Error) as caught:
            mirror.delete(wanted)
        assert caught.value.errno == errno.ENOBUFS
        state = mirror.state
        assert (state.in_step, state.exact, state.flows) == (True, False, 100)
        monkeypatch.undo()
        assert mirror.delete(wanted).deleted == 100
        assert oracle.dump(netns) == {}
        assert len(mirror) == 0


def test_a_long_queue_is_taken_to_its_end(ct: nlct.Conntrack, mirror: Mirror) -> None:
    """However much there is to take at the start of a call."""
    with deaf(mirror):
        fill(ct, 20_000, 2)
        if mirror.count(zone=1) != 10_000:
            # Without privilege the queue has no room for so many.
            assert mirror.state.overruns
        else:
            assert (mirror.count_by("zone"), len(mirror)) == ({1: 10_000, 2: 10_000}, 20_000)


@pytest.mark.usefixtures("quick")
def test_a_loss_behind_the_dump(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Being in step is not earned by a dump, if events were lost before the next look at them."""
    end = _memory.Memory.end
    todo = [flows.udp(number, zone=1) for number in range(300)]

    def late(memory: _memory.Memory) -> bool:
        ct.load(todo)
        todo.clear()
        return end(memory)

    monkeypatch.setattr(_memory.Memory, "end", late)
    with Mirror(netns, buffer=4096) as mirror:
        assert mirror.wait(LONG)
        assert mirror.state.overruns
        assert mirror.count(zone=1) == 300
        assert mirror.flush_zone(1).deleted == 300
        assert oracle.dump(netns) == {}


@pytest.mark.usefixtures("quick")
def test_losses_in_the_middle_of_flushes(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """What was there before a flush is gone after it, whether the mirror was told or not."""
    with Mirror(netns, buffer=4096, index=BOTH) as mirror:
        assert mirror.wait(LONG)
        overruns = 0
        for turn in range(4):
            with deaf(mirror):
                ct.load(flows.udp(number, zone=1 + number % 4) for number in range(300))
                # The first flush has its turn before the mirror knows of the loss.
                before = oracle.dump(netns)
                result = mirror.flush_zone(1 + turn % 4)
            lost = mirror.state.overruns > overruns
            overruns = mirror.state.overruns
            assert (result.strategy == "mirror") is not lost
            assert oracle.dump(netns) == oracle.outside(before, {1 + turn % 4})
            assert mirror.delete(Filter(zone=1 + (turn + 1) % 4, src="10.0.0.0/8")).deleted == 75
            assert oracle.dump(netns) == oracle.outside(before, {1 + turn % 4, 1 + (turn + 1) % 4})
            assert mirror.wait(LONG)
            check_memory(mirror, netns)
            assert mirror.flush_zone(1 + (turn + 2) % 4).strategy == "mirror"
            assert len(oracle.dump(netns)) == 75
            ct.flush_all()
        assert overruns >= 2


@pytest.mark.usefixtures("quick")
def test_creates_between_the_error_and_the_end_of_the_queue(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops their events in silence until the queue is empty."""
    lib = _keeper.lib
    todo: list[Flow] = []

    def take(*arguments: Any) -> int:
        rc = lib.nlct_events_take(*arguments)
        if todo:
            ct.create(todo.pop())
        return rc

    with Mirror(netns, buffer=4096) as mirror:
        assert mirror.wait(LONG)
        monkeypatch.setattr(_keeper, "lib", Lib(nlct_events_take=take))
        for turn in range(5):
            with deaf(mirror):
                ct.load(flows.udp(number, zone=1) for number in range(400))
                todo += [flows.udp(1000 + number, zone=2 + number) for number in range(turn + 1)]
            until(lambda todo=todo: not todo)
            until(lambda turn=turn: mirror.state.overruns > turn)
            assert mirror.wait(LONG)
            assert mirror.count_by("zone") == oracle.by_zone(oracle.dump(netns))
            for zone in range(2, 3 + turn):
                assert mirror.flush_zone(zone).deleted == 1
            assert set(oracle.by_zone(oracle.dump(netns))) == {1}
            ct.flush_all()


LISTENER = """
import sys, nlct
with nlct.Mirror("/proc/self/fd/{}", buffer=65536) as mirror:
    print(mirror.wait(30), flush=True)
    for line in sys.stdin:
        print(eval(line), flush=True)
"""


@pytest.mark.usefixtures("root")
def test_a_listener_that_is_stopped(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """It misses much, knows that when it goes on, and deletes what is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER.format(netns.fileno())],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(netns.fileno(),),
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(what: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(what + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    with process:
        try:
            assert process.stdout.readline() == "True\n"
            ct.load(flows.udp(number, zone=1) for number in range(50))
            assert ask("mirror.count(zone=1)") == "50"
            for turn in range(3):
                process.send_signal(signal.SIGSTOP)
                ct.flush_zone(1)
                ct.load(flows.udp(number, zone=1 + number % 5) for number in range(2000))
                process.send_signal(signal.SIGCONT)
                before = oracle.dump(netns)
                ask("mirror.flush_zone(3)")
                assert oracle.dump(netns) == oracle.outside(before, {3})
                assert ask("mirror.wait(30)") == "True"
                assert int(ask("mirror.state.overruns")) >= turn + 1
                assert ask("mirror.count_by('zone')") == "{1: 400, 2: 400, 4: 400, 5: 400}"
                assert ask("mirror.flush_zone(1).deleted") == "400"
                ct.flush_all()
        finally:
            process.send_signal(signal.SIGCONT)
            process.stdin.close()
            assert process.wait(LONG) == 0


class Resizing(_handle.Dump):
    """A dump that the hash table is resized under, behind its first step, as often as is left."""

    sizes: Iterator[str]

    def steps(self, *arguments: Any) -> Iterator[None]:
        """Go on, and resize."""
        steps = super().steps(*arguments)
        yield next(steps)
        for size in Resizing.sizes:
            Path(_handle.BUCKETS).write_text(size)
            break
        yield from steps


@pytest.mark.usefixtures("alone", "quick")
def test_a_resize_during_the_first_dump(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a dump is not believed; the next one is."""
    buckets = Path(_handle.BUCKETS)
    before = buckets.read_text()
    try:
        buckets.write_text(before)
    except OSError as exc:
        pytest.skip(f"MISSING: the right to resize the hash table: {exc}")
    fill(ct, 20_000, 10)
    monkeypatch.setattr(_dump, "Dump", Resizing)
    monkeypatch.setattr(Resizing, "sizes", iter(("65536", before)), raising=False)
    try:
        with Mirror(netns) as mirror:
            assert mirror.wait(LONG)
            assert next(Resizing.sizes, None) is None
            assert mirror.state.dumps == 1
            assert mirror.count_by("zone") == dict.fromkeys(range(1, 11), 2000)
            assert mirror.flush_zone(4).deleted == 2000
    finally:
        buckets.write_text(before)
    assert 4 not in oracle.by_zone(oracle.dump(netns))


# Many at once -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_listeners_that_come_and_go(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Whoever else begins to listen or ends, the mirror hears of each new flow."""
    if tool.version() and os.geteuid() != 0:
        pytest.skip("MISSING: root, to run tools in a namespace")
    stop = threading.Event()
    command = ("nsenter", f"--net=/proc/self/fd/{netns.fileno()}", "conntrack", "-E")
    listened = 0

    def come_and_go() -> None:
        nonlocal listened
        while not stop.is_set():
            with subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(netns.fileno(),),
            ) as process:
                stop.wait(0.01)
                process.terminate()
            listened += 1

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        turn = 0
        while turn < 10 or listened < 20:
            with Mirror(netns) as mirror:
                assert mirror.wait(LONG)
                ct.load(flows.udp(number, zone=1 + number % 3) for number in range(90))
                assert mirror.count_by("zone") == {1: 30, 2: 30, 3: 30}
                assert numbers(mirror.flush_zone(2)) == (30, 30, 0, {})
                assert mirror.count_by("zone") == {1: 30, 3: 30}
            ct.flush_all()
            turn += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("root")
def test_a_namespace_that_is_deleted() -> None:
    """Its name is; the table stays for as long as a mirror holds it."""
    called = f"nlct-mirror-{os.getpid()}"
    traffic.run("ip", "netns", "add", called)
    try:
        ct, mirror = nlct.Conntrack(called), Mirror(called)
        assert mirror.wait(LONG)
        fill(ct, 100, 2)
    finally:
        traffic.run("ip", "netns", "delete", called)
    with pytest.raises(nlct.NotFoundError):
        Mirror(called)
    with ct, mirror:
        ct.create(flows.udp(1, zone=3))
        assert mirror.count_by("zone") == {1: 50, 2: 50, 3: 1}
        assert mirror.flush_zone(1).deleted == 50
        assert ct.count_by("zone") == {2: 50, 3: 1}


@pytest.mark.parametrize("callers", telling([20, 200], [20]))
def test_two_mirrors_and_a_flusher(netns: nlct.Netns, ct: nlct.Conntrack, callers: int) -> None:
    """They get in each other's way, and each zone that anybody flushed is empty."""
    with ExitStack() as stack:
        one = stack.enter_context(Mirror(netns))
        two = stack.enter_context(Mirror(ct, index=BOTH))
        flusher = stack.enter_context(nlct.Flusher(netns))
        assert one.wait(LONG)
        assert two.wait(LONG)
        zones = range(1, callers // 2 + 1)
        ct.load(flows.udp(number, zone=1 + number % callers) for number in range(20 * callers))
        before = oracle.dump(netns)
        calls = [each.flush_zone for each in (one, two, flusher)] * len(zones)
        asked = [zone for zone in zones for _ in range(3)]
        with ThreadPoolExecutor(len(calls)) as pool:
            results = list(pool.map(lambda call, zone: call(zone), calls, asked))
        deleted: Counter[int] = Counter()
        for zone, result in zip(asked, results):
            assert not result.failed
            deleted[zone] += result.deleted or 0
        # Several may be told that they did it, of one flow.
        assert all(20 <= deleted[zone] <= 60 for zone in zones)
        assert oracle.dump(netns) == oracle.outside(before, set(zones))
        check_memory(two, netns)
        until(lambda: len(one) == 10 * callers)


@pytest.mark.parametrize("callers", telling([50, 200], [50]))
def test_a_storm(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, callers: int) -> None:
    """Threads and tasks that flush, delete and look at the same time, while flows come."""
    each = 10
    ct.load(
        flows.udp(number, zone=1 + number % (2 * callers)) for number in range(each * 2 * callers)
    )
    stop = threading.Event()

    def create() -> None:
        with nlct.Conntrack(netns) as other:
            number = 2**20
            while not stop.is_set():
                other.load(flows.udp(number + more, zone=3000) for more in range(50))
                number += 50

    def work(zone: int) -> nlct.FlushResult:
        if zone % 10 == 0:
            list(mirror.flows(zone=3000))
            len(mirror)
        if zone % 5 == 0:
            return mirror.delete(Filter(zone=zone, proto="udp"))
        if zone % 7 == 0:
            return mirror.delete(Filter(zone=zone, mark=0))
        return mirror.flush_zone(zone)

    async def tasks() -> list[nlct.FlushResult]:
        zones = range(callers + 1, 2 * callers + 1)
        return list(await asyncio.gather(*map(mirror.aflush_zone, zones)))

    creator = threading.Thread(target=create)
    creator.start()
    try:
        with ThreadPoolExecutor(callers + 1) as pool:
            loop = pool.submit(asyncio.run, tasks())
            results = list(pool.map(work, range(1, callers + 1))) + loop.result(LONG)
    finally:
        stop.set()
        creator.join()
    assert all(numbers(result) == (each, each, 0, {}) for result in results)
    assert set(oracle.by_zone(oracle.dump(netns))) == {3000}
    check_memory(mirror, netns)
    # One at a time for the very same zone, and all at once.
    with ThreadPoolExecutor(callers) as pool:
        results = list(pool.map(mirror.flush_zone, [3000] * callers))
    assert oracle.dump(netns) == {}
    check_memory(mirror, netns)


class Creator:
    """A thread that creates flows without end, each with a number of its own.

    ``done``: flows with lower numbers were created, if there was no error.
    """

    ZONES = (1, 2, 3)

    def __init__(self, netns: nlct.Netns, first: int) -> None:
        self.done = self.first = first
        self._netns = netns
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with nlct.Conntrack(self._netns) as ct:
            while not self._stop.is_set():
                made = range(self.done, self.done + 40)
                result = ct.load(flows.udp(number, zone=self.zone(number)) for number in made)
                assert result.created == len(made)
                self.done += len(made)

    def zone(self, number: int) -> int:
        """The zone of a flow."""
        return self.ZONES[number % len(self.ZONES)]

    def __enter__(self) -> Creator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Create no more."""
        self._stop.set()
        self._thread.join()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("turns", telling([10, 200], [10]))
def test_whatever_is_lost_what_was_there_is_gone(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Flows come all the time, the listener now hears, now does not, and audits go round."""
    monkeypatch.setattr(_keeper, "MAKE_SURE", 0.05)
    ways: Counter[str] = Counter()
    rng = random.Random(turns)
    with ExitStack() as stack:
        mirror = stack.enter_context(Mirror(netns, index=BOTH, buffer=64 << 10, audit_interval=1))
        assert mirror.wait(LONG)
        creators = [stack.enter_context(Creator(netns, number << 22)) for number in range(2)]
        ct.load(flows.udp(3 << 22 | number, zone=9) for number in range(100))
        turn = 0
        while turn < turns or not ways["mirror"] or not ways["scan"]:
            zone = rng.choice(Creator.ZONES)
            wanted = rng.choice((None, Filter(zone=zone, mark=0), Filter(zone=zone, proto="udp")))
            if rng.randrange(5) == 0:
                with deaf(mirror):
                    reached = [creator.done + 500 for creator in creators]
                    until(lambda to=reached: all(c.done > n for c, n in zip(creators, to)))
            reached = [creator.done for creator in creators]
            result = mirror.flush_zone(zone) if wanted is None else mirror.delete(wanted)
            assert not result.failed
            ways[result.strategy] += 1
            for flow in ct.dump(zone=zone):
                number = int(flow.orig.src or 0) - 0x0A000000  # type: ignore[call-overload]
                creator = creators[number >> 22]
                assert number >= reached[number >> 22], (turn, result)
                assert creator.zone(number) == zone
            turn += 1
        print(dict(ways), mirror.state)
        for creator in creators:
            creator.stop()
        assert mirror.wait(LONG)
        check_memory(mirror, netns)
        assert mirror.count(zone=9) == 100
        assert mirror.state.hidden == 0
