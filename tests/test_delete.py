"""Deleting by a filter, deleting one flow, changing one: what was named, and nothing else."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nlct
from nlct import ALL, Filter, Flow, SctpState, Status, TcpState, Tuple, _handle, strategy
from nlct._ffi import lib
from nlct.fill import fill
from tests.support import filters, flows, oracle
from tests.support.core import Lib
from tests.support.examples import examples
from tests.support.namespaces import scratch
from tests.support.processes import Script

WAYS = {"asked": ("auto", True), "scan": ("scan", True), "as-on-an-old-kernel": ("auto", False)}
Way = tuple[nlct.Conntrack, str]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, netns: nlct.Netns) -> Iterator[Way]:
    """A table to delete from, and the strategy: with the kernel's help, and without."""
    strategy, kernel_filter = WAYS[request.param]
    with nlct.Conntrack(netns, kernel_filter=kernel_filter) as ct:
        yield ct, strategy


def ids(table: oracle.Table) -> list[int]:
    """The ids of the entries."""
    return sorted(int.from_bytes(entry[oracle.ID], "big") for entry in table.values())


def without(table: oracle.Table, gone: list[int]) -> oracle.Table:
    """The entries but for these."""
    return {k: e for k, e in table.items() if int.from_bytes(e[oracle.ID], "big") not in gone}


def check(netns: nlct.Netns, way: Way, spec: filters.Spec) -> int:
    """Delete what a filter means, and hold the table against what it was. Returns how many."""
    ct, strategy = way
    before, facts = oracle.dump(netns), filters.read(netns)
    meant = filters.ids(facts, spec)
    result = ct.delete(filters.build(spec), strategy=strategy)
    assert oracle.dump(netns) == without(before, meant)
    if result.strategy == "scan":
        assert (result.matched, result.deleted) == (len(meant), len(meant))
        assert len(meant) <= (result.scanned or 0) <= len(before)
    else:
        assert isinstance(spec, dict)
        assert spec.keys() == {"zone"}
    assert (result.already_gone, result.failed, result.complete) == (0, {}, True)
    return len(meant)


# By filters --------------------------------------------------------------------------------------


@pytest.mark.hypothesis
@pytest.mark.parametrize("kernel_filter", [True, False], ids=["asked", "as-on-an-old-kernel"])
def test_random_filters_on_random_tables(kernel_filter: bool) -> None:
    """Exactly what plain Python says goes; every other entry stays, attribute by attribute."""
    hits = []
    netns = scratch()
    with netns, nlct.Conntrack(netns, kernel_filter=kernel_filter) as ct:
        filters.prepare(netns)

        @examples(40)
        @given(st.integers(0, 2**32), filters.simple_specs() | filters.specs())
        @example(1, {"proto": "udp"})  # this one hits
        def check_one(seed: int, spec: filters.Spec) -> None:
            ct.flush_all()
            ct.load(filters.random_flows(seed, 150))
            if filters.build(spec).restricts_nothing:
                before = oracle.dump(netns)
                with pytest.raises(ValueError, match=r"nlct\.ALL"):
                    ct.delete(filters.build(spec))
                assert oracle.dump(netns) == before
            else:
                hits.append(check(netns, (ct, "auto"), spec))

        check_one()
    assert any(hits)


# What is easily taken for more, or for less, than it is; and how many of the menagerie it means.
TRAPS: dict[str, tuple[filters.Spec, int]] = {
    "mark 0": ({"mark": 0}, 10),
    "zone 0": ({"zone": 0}, 7),
    "zone 0 and mark 0": ({"zone": 0, "mark": 0}, 1),
    "protocol 0": ({"proto": 0}, 0),
    "port 0": ({"sport": 0}, 6),
    "no status bit": ({"status_none": "assured"}, 46),
    "no status bit, and all have it": ({"status_none": "confirmed"}, 0),
    "a status that none has": ({"status": Status.SEEN_REPLY | Status.ASSURED}, 0),
    "one bit of a status that none has": ({"status": Status.CONFIRMED | Status.ASSURED}, 0),
    "a tuple in a zone": ({"src": "10.0.0.1", "dport": 53, "proto": "udp", "zone": 5}, 1),
    "a tuple in no zone in use": ({"src": "10.0.0.1", "dport": 53, "proto": "udp", "zone": 9}, 0),
    "a tuple in every zone": ({"src": "10.0.0.1", "dport": 53, "proto": "udp"}, 6),
    "a zone of directions too": ({"zone": 5}, 11),
    "flows of directional zones": ({"src": ["10.9.0.0/16", "fd09::/16"]}, 4),
    "a directional zone and a port": ({"zone": 5, "dport": 2}, 2),
    "a directional zone, elsewhere": ({"zone": 0, "dport": 2}, 0),
    "an IPv6 source": ({"src": "fd00::1"}, 18),
    "an IPv6 source that is not there": ({"src": "fd00::7"}, 0),
    "an IPv6 destination in a zone": ({"dst": "fd00::2", "zone": 7}, 3),
    "both IPv6 addresses": ({"src": "fd00::1", "dst": "fd00::2", "family": "ipv6"}, 18),
    "IPv4 of IPv6": ({"src": ["10.0.0.1", "fd00::7"], "family": "ipv6"}, 0),
    "a port without its protocol": ({"dport": 53}, 12),
    "a port of a protocol": ({"dport": 53, "proto": "udp", "family": "ipv4"}, 6),
    "a port of a protocol without": ({"dport": 53, "proto": "icmp"}, 0),
    "ICMP of both families": ({"icmp_id": 7}, 12),
    "ICMPv6": ({"icmp_id": 7, "icmp_type": 128}, 6),
    "all zones but one": (("not", {"zone": 5}), 35),
    "all zones but two": (("not", {"zone": {5, 0}}), 28),
    "neither": (("not", ("or", {"zone": 5}, {"family": "ipv6"})), 20),
    "all ports but one, so what has none": (("not", {"dport": 53}), 34),
    "an empty set": ({"src": []}, 0),
    "an empty set of zones": ({"zone": []}, 0),
    "an empty set, and more": ({"zone": 5, "dport": set()}, 0),
    "an empty set or one": (("or", {"zone": []}, {"mark": 3, "zone": 1}), 1),
    "odd marks": ({"mark": (1, 1)}, 18),
    "a far end": ({"zone": 65535}, 7),
    "a reply": ({"reply_src": "10.0.0.2", "reply_dport": 1000}, 12),
    "translated": ({"any_nat": True}, 0),
    "an id that none has": ({"id": 0}, 0),
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps(netns: nlct.Netns, way: Way, name: str) -> None:
    """Zeroes, zones of one direction, what kernels filter wrongly, what is empty."""
    flows.populate(way[0])
    spec, expected = TRAPS[name]
    assert check(netns, way, spec) == expected


FRESH = """
import nlct
from tests.support import flows
with nlct.Conntrack(nlct.Netns.scratch()) as ct, nlct.Flusher(ct) as flusher:
    def results():
        yield ct.delete(nlct.Filter(zone=1))
        yield ct.delete(nlct.Filter(zone={1, 2}))
        yield ct.delete(nlct.ALL)
        yield flusher.delete(nlct.Filter(zone=1))
        yield flusher.delete(nlct.ALL)
        yield ct.flush_zone(1)
        yield flusher.flush_zone(1)
    todo = results()
    while True:
        ct.create(flows.udp(1, zone=1))
        result = next(todo, None)
        if result is None:
            break
        print(result.strategy, result.matched, result.deleted, result.complete)
"""


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("first", ["", "import nlct\nnlct.probe()\n"], ids=["fresh", "probed"])
def test_a_delete_counts(script: Script, first: str) -> None:
    """In a process that has learned nothing, and in one that knows what the kernel can do."""
    assert script(first + FRESH).splitlines() == ["scan 1 1 True"] * 7


@pytest.mark.usefixtures("kernel_flush")
def test_a_delete_counts_however_large_the_table(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the rest of a flush is left to the kernel as soon as it may."""
    nlct.probe()
    choose = strategy.choose

    def for_kernel(facts: strategy.Facts) -> strategy.Plan:
        return choose(facts)._replace(kernel=facts.kernel is True)

    monkeypatch.setattr(strategy, "choose", for_kernel)
    with nlct.Conntrack(netns) as ct, nlct.Flusher(ct) as flusher:
        for how in (lambda: ct.delete(Filter(zone=1)), lambda: flusher.delete(Filter(zone=1))):
            fill(ct, 20_000, 1)
            assert ct.flush_zone(1).strategy == "kernel"
            fill(ct, 20_000, 1)
            result = how()
            assert (result.strategy, result.deleted, result.complete) == ("scan", 20_000, True)


@pytest.mark.usefixtures("kernel_flush")
def test_zones_by_the_kernel(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """A filter by zones alone may be the kernel's; it says nothing about what it did."""
    flows.populate(ct)
    before = oracle.dump(netns)
    result = ct.delete(Filter(zone={5, 7}), strategy="kernel")
    assert (result.strategy, result.matched, result.deleted, result.passes) == (
        "kernel",
        None,
        None,
        2,
    )
    assert oracle.dump(netns) == oracle.outside(before, {5, 7})


NOT_BY_KERNEL = {
    "a port": Filter(dport=53),
    "a zone and a port": Filter(zone=5, dport=53),
    "a zone and another zone": Filter(zone=5) & Filter(zone=7),
    "a zone or another zone": Filter(zone=5) | Filter(zone=7),
    "all but a zone": ~Filter(zone=5),
    "all but all but a zone, and a mark": ~~Filter(zone=5) & Filter(mark=1),
    "a mark": Filter(mark=1),
    "a family": Filter(family="ipv4"),
    "nothing": ~ALL,
}


@pytest.mark.parametrize("name", NOT_BY_KERNEL)
def test_the_kernel_flushes_nothing_but_zones(
    netns: nlct.Netns, ct: nlct.Conntrack, name: str
) -> None:
    """strategy="kernel" never widens: nothing is sent."""
    flows.populate(ct)
    before = oracle.dump(netns)
    with pytest.raises(nlct.UnsupportedError, match="zones or everything"):
        ct.delete(NOT_BY_KERNEL[name], strategy="kernel")
    assert oracle.dump(netns) == before


@pytest.mark.parametrize("strategy", ["auto", "scan", "kernel"])
def test_everything_on_purpose(netns: nlct.Netns, ct: nlct.Conntrack, strategy: str) -> None:
    """nlct.ALL deletes all there is; a dry run of it nothing."""
    flows.populate(ct)
    before = oracle.dump(netns)
    result = ct.delete(ALL, strategy=strategy, dry_run=True)
    assert (result.matched, result.deleted, result.complete) == (len(before), 0, False)
    assert oracle.dump(netns) == before
    assert ct.delete(ALL, strategy=strategy).complete
    assert oracle.dump(netns) == {}


@pytest.mark.parametrize("wrong", [None, {}, {"zone": 5}, 5, [], "zone=5", Filter], ids=repr)
def test_a_delete_wants_a_filter(netns: nlct.Netns, ct: nlct.Conntrack, wrong: Any) -> None:
    """What is forgotten or of another kind is not everything."""
    flows.populate(ct)
    before = oracle.dump(netns)
    with pytest.raises(TypeError, match="filter must be a Filter"):
        ct.delete(wrong)
    with pytest.raises(TypeError):
        ct.delete()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ct.delete(zone=5)  # type: ignore[call-arg]
    assert oracle.dump(netns) == before


@pytest.mark.parametrize(
    "options",
    [{"strategy": "fast"}, {"passes": 0}, {"passes": True}, {"progress": 7}, {"dry": True}],
    ids=repr,
)
def test_bad_options(netns: nlct.Netns, ct: nlct.Conntrack, options: dict[str, Any]) -> None:
    """They are refused before anything is deleted."""
    flows.populate(ct)
    before = oracle.dump(netns)
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        ct.delete(Filter(dport=53), **options)
    assert oracle.dump(netns) == before


def test_what_the_result_says(ct: nlct.Conntrack) -> None:
    """How much was looked at, meant and deleted, in how many dumps; and progress on the way."""
    ct.load(flows.udp(number, zone=number % 4) for number in range(2000))
    seen: list[int] = []
    result = ct.delete(Filter(sport=1024, zone=range(1, 3)), passes=3, progress=seen.append)
    assert result.matched == result.deleted == 1000
    assert result.scanned == 2000 + 1000
    # The second dump finds nothing, so there is no third one.
    assert (result.strategy, result.passes, result.complete) == ("scan", 2, True)
    assert seen == sorted(seen)
    assert seen[-1] == 3000
    assert result.to_dict()["failed"] == {}
    nothing = ct.delete(Filter(zone=()))
    assert (nothing.scanned, nothing.matched, nothing.deleted, nothing.passes) == (0, 0, 0, 0)
    assert nothing.complete


def test_ten_thousand_addresses(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """In one dump, whatever else is there; addresses without a flow do not count."""
    ct.load(flows.udp(number) for number in range(6000))
    before = oracle.dump(netns)
    addresses = [flows.udp(number).orig.src for number in range(30_000)]
    result = ct.delete(Filter(src=addresses[::3]))
    assert (result.matched, result.deleted, result.passes) == (2000, 2000, 1)
    after = oracle.dump(netns)
    assert after.items() <= before.items()
    left = [facts["src"] for facts in filters.read(netns)]
    assert sorted(left) == [a for number, a in enumerate(addresses[:6000]) if number % 3]


def test_a_refused_request_deletes_what_was_named(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel refuses to filter it sends everything; no more is deleted for that."""
    asked = []

    def start(handle: Any, sock: Any, wanted: Any, ask: Any, fd: int) -> int:
        asked.append(bool(ask))
        if ask:
            # A family without tuples of its own: Ethernet bridges.
            ask.family = ask.orig.family = 7
        return int(lib.nlct_dump_start(handle, sock, wanted, ask, fd))

    flows.populate(ct)
    monkeypatch.setattr(_handle, "lib", Lib(nlct_dump_start=start))
    spec = {"family": "ipv4", "proto": "udp", "dport": 53}
    assert check(netns, (ct, "auto"), spec) == 6
    assert asked == [True, False]


@pytest.mark.parametrize("one_by_one", [True, False], ids=["delete_flow", "delete"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_tuple_and_one_zone_of_two_kinds(
    netns: nlct.Netns, ct: nlct.Conntrack, which: int, one_by_one: bool
) -> None:
    """The same original tuple, with zone 5 for the whole flow, for its reply alone, and zone 6."""
    orig = flows.udp(1).orig
    kinds = ((orig, None, 5), (orig, 5, None), (orig.replace(zone=6), None, None))
    for mark, (forth, reply_zone, zone) in enumerate(kinds):
        # Replies must differ, or they would collide.
        reply = flows.reverse(orig, reply_zone).replace(dport=2000 + mark)
        ct.create(Flow(forth, reply, zone=zone, timeout=3600, mark=mark))
    before = {facts["mark"]: facts["id"] for facts in filters.read(netns)}
    assert len(before) == 3
    if one_by_one:
        (flow,) = ct.dump(Filter(mark=which))
        ct.delete_flow(flow)
    else:
        assert ct.delete(Filter(mark=which)).deleted == 1
    del before[which]
    assert {facts["mark"]: facts["id"] for facts in filters.read(netns)} == before


def test_deleting_while_others_come_and_go(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """All that was there and is meant goes; what is not meant keeps its id, whatever comes."""
    ct.load(flows.udp(number, zone=number % 3) for number in range(6000))
    before = oracle.dump(netns)
    stop = threading.Event()
    turns = [0]

    def come_and_go() -> None:
        with nlct.Conntrack(netns) as other:
            while not stop.is_set():
                first = 1_000_000 + turns[0] % 5 * 100
                for flow in (flows.udp(number, zone=1) for number in range(first, first + 100)):
                    # Whoever deletes it first.
                    with suppress(nlct.NotFoundError):
                        try:
                            other.create(flow)
                        except nlct.ExistsError:
                            other.delete_flow(flow)
                turns[0] += 1

    thread = threading.Thread(target=come_and_go)
    thread.start()
    results = []
    try:
        # Until deleting and coming have met often.
        while turns[0] < 20 and thread.is_alive():
            results.append(ct.delete(Filter(zone=1, dport=53)))
    finally:
        stop.set()
        thread.join()
    assert turns[0] >= 20
    assert all(result.failed == {} for result in results)
    assert sum(result.deleted or 0 for result in results) > 2000
    after = oracle.dump(netns)
    assert oracle.outside(after, {1}) == oracle.outside(before, {1})
    assert oracle.inside(before, {1}).keys().isdisjoint(after.keys())


# One flow ----------------------------------------------------------------------------------------


def entry(netns: nlct.Netns, flow: Flow) -> list[filters.Facts]:
    """What the oracle says of flows between the same ends in the same zone."""
    spec = {"src": str(flow.orig.src), "dst": str(flow.orig.dst), "zone": flow.zone}
    spec["proto"] = flow.orig.proto
    return [facts for facts in filters.read(netns) if filters.matches(spec, facts)]


def test_every_dumped_flow_is_deleted_by_itself(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Of each kind, whatever its zone: one at a time, and never another one."""
    flows.populate(ct)
    left = oracle.dump(netns)
    for flow in list(ct.dump()):
        ct.delete_flow(flow)
        left = without(left, [flow.id or 0])
        assert oracle.dump(netns) == left
    assert left == {}


def test_without_an_id_it_is_looked_up(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """By tuple and zone; where the zone applies to the original direction, by the tuple's own."""
    flows.populate(ct)
    left = oracle.dump(netns)
    for flow in flows.menagerie():
        (facts,) = entry(netns, flow)
        ct.delete_flow(flow)
        left = without(left, [facts["id"]])
        assert oracle.dump(netns) == left
    assert left == {}


def test_the_reply_names_it_too(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """With its id or without, in its zone and no other."""
    for zone in (0, 7):
        ct.create(flows.udp(1, zone))
    for flow in list(ct.dump()):
        assert flow.reply is not None
        other = Flow(flow.reply, zone=9)
        with pytest.raises(nlct.NotFoundError):
            ct.delete_flow(other)
        ct.delete_flow(Flow(flow.reply, zone=flow.zone, id=flow.id if flow.zone else None))
        assert entry(netns, flow) == []
    assert oracle.dump(netns) == {}


def entangled(ct: nlct.Conntrack) -> list[Flow]:
    """Two flows, of which the reply of one is the original tuple of the other."""
    plain = Tuple("2001:db8::1", "fd00::3", "tcp", 1024, 80)
    other = Tuple("fd00::3", "fd00::1", "tcp", 80, 1024, zone=256)
    ct.create(Flow(plain, timeout=600))
    ct.create(Flow(other, plain, timeout=600))
    return list(ct.dump())


def test_of_two_entangled_flows_each_can_be_deleted(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """A look-up of the tuple that both have leads to one of them; the other is found as well."""
    for zone in (0, 256):
        both = entangled(ct)
        (flow,) = (flow for flow in both if flow.zone == zone)
        (other,) = (flow for flow in both if flow.zone != zone)
        ct.delete_flow(flow)
        assert [left.id for left in ct.dump()] == [other.id]
        ct.flush_all()
    for zone in (0, 256):
        entangled(ct)
        result = ct.delete(Filter(zone=zone), strategy="scan")
        assert (result.matched, result.deleted, result.already_gone) == (1, 1, 0)
        assert {key.zone for key in oracle.dump(netns)} == {256 - zone}
        ct.flush_all()
    entangled(ct)
    assert ct.delete(Filter(proto="tcp")).deleted == 2
    assert oracle.dump(netns) == {}


WRONG: dict[str, Callable[[Flow], Flow]] = {
    "id": lambda flow: flow.replace(id=(flow.id or 0) ^ 1),
    "an id of 0": lambda flow: flow.replace(id=0),
    "zone": lambda flow: flow.replace(zone=8),
    "no zone": lambda flow: flow.replace(zone=None),
    "port": lambda flow: Flow(flow.orig.replace(dport=54), zone=7, id=flow.id),
    "protocol": lambda flow: Flow(flow.orig.replace(proto="tcp"), zone=7, id=flow.id),
    "address": lambda flow: Flow(flow.orig.replace(src="10.9.9.9"), zone=7, id=flow.id),
    "id, and looked up in no zone": lambda flow: flow.replace(zone=None, id=None),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_flow_that_is_not_there(netns: nlct.Netns, ct: nlct.Conntrack, name: str) -> None:
    """Something of it is wrong: NotFoundError, and nothing is deleted."""
    ct.create(flows.udp(1, zone=7))
    (flow,) = ct.dump()
    before = oracle.dump(netns)
    with pytest.raises(nlct.NotFoundError) as caught:
        ct.delete_flow(WRONG[name](flow))
    assert caught.value.errno == errno.ENOENT
    assert oracle.dump(netns) == before
    ct.delete_flow(flow)
    with pytest.raises(nlct.NotFoundError):
        ct.delete_flow(flow)


HALVES = {
    "no port": Tuple("10.0.0.1", "192.0.2.1", "udp", 1024),
    "no ports": Tuple("10.0.0.1", "192.0.2.1", "udp"),
    "no protocol": Tuple("10.0.0.1", "192.0.2.1", sport=1024, dport=53),
    "no destination": Tuple("10.0.0.1", None, "udp", 1024, 53),
    "no source": Tuple(None, "192.0.2.1", "udp", 1024, 53),
    "nothing": Tuple(),
    "only a protocol": Tuple(proto="udp"),
}


@pytest.mark.parametrize("with_id", [True, False])
@pytest.mark.parametrize("name", HALVES)
def test_half_a_flow(netns: nlct.Netns, ct: nlct.Conntrack, name: str, with_id: bool) -> None:
    """To the kernel a delete without a tuple is a flush: none is ever sent."""
    for number in (1, 2):
        ct.create(flows.udp(number))
    before = oracle.dump(netns)
    some = ids(before)[0] if with_id else None
    with pytest.raises((ValueError, nlct.InvalidRequestError, nlct.NotFoundError)):
        ct.delete_flow(Flow(HALVES[name], id=some))
    assert oracle.dump(netns) == before


def test_another_flow_took_its_place(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """The id tells them apart: the new one stays."""
    # The kernel makes ids of the place in memory, too: a place that is used again, by the very
    # same tuple, gives the same id.
    kept = []
    for number in range(50):
        ct.create(flows.udp(number))
        (old,) = ct.dump(Filter(src=flows.udp(number).orig.src))
        ct.delete_flow(old)
        ct.create(flows.udp(number + 1000))
        ct.create(flows.udp(number))
        (new,) = ct.dump(Filter(src=flows.udp(number).orig.src))
        if new.id != old.id:
            with pytest.raises(nlct.NotFoundError):
                ct.delete_flow(old)
            kept.append(new.id)
    assert kept
    assert set(kept) <= set(ids(oracle.dump(netns)))


def test_wrong_arguments_of_delete_flow(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Only a flow names one."""
    flows.populate(ct)
    before = oracle.dump(netns)
    for wrong in (None, Filter(zone=5), ALL, flows.udp(1).orig, 7, {}, []):
        with pytest.raises(TypeError, match="flow must be a Flow"):
            ct.delete_flow(wrong)  # type: ignore[arg-type]
    assert oracle.dump(netns) == before


# Changing ----------------------------------------------------------------------------------------

TCP = Tuple("10.0.0.1", "10.0.0.2", "tcp", 1000, 21)
SCTP = Tuple("10.0.0.1", "10.0.0.2", "sctp", 1000, 80)


def facts_of(netns: nlct.Netns, orig: Tuple, zone: int = 0) -> filters.Facts:
    """What the oracle says of one flow."""
    (facts,) = entry(netns, Flow(orig, zone=zone))
    return facts


def test_update_changes_what_is_given(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """One field at a time: that one is changed, the others and other flows are as they were."""
    filters.prepare(netns)
    for zone in (0, 7):
        ct.create(Flow(TCP, zone=zone, timeout=3600, mark=1, tcp_state="established"))
    spared = facts_of(netns, TCP, 0)
    was = facts_of(netns, TCP, 7)
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"mark": 0}, {"mark": 0}),
        ({"mark": 0xFFFFFFFF}, {"mark": 0xFFFFFFFF}),
        ({"status": was["status"] | Status.SEEN_REPLY}, {"status": was["status"] | 2}),
        ({"status": Status.SEEN_REPLY | Status.ASSURED}, {"status": was["status"] | 6}),
        ({"tcp_state": TcpState.TIME_WAIT}, {"tcp_state": 7}),
        ({"labels": 1 << 127 | 1}, {"labels": 1 << 127 | 1}),
        ({"labels": 1 << 3}, {"labels": 1 << 3}),
    ]
    for given_fields, expected in changes:
        ct.update(Flow(TCP, zone=7, **given_fields))
        was.update(expected)
        now = facts_of(netns, TCP, 7)
        assert {**now, "timeout": 0} == {**was, "timeout": 0}, given_fields
    assert abs(now["timeout"] - 3600) < 60
    ct.update(Flow(TCP, zone=7, timeout=100_000))
    assert abs(facts_of(netns, TCP, 7)["timeout"] - 100_000) < 60
    assert {**facts_of(netns, TCP, 0), "timeout": 0} == {**spared, "timeout": 0}


def test_update_of_an_sctp_flow(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Its state, with both of its tags."""
    tags = {"sctp_vtag_orig": 1, "sctp_vtag_reply": 2}
    ct.create(Flow(SCTP, timeout=3600, sctp_state=SctpState.COOKIE_WAIT, **tags))
    ct.update(Flow(SCTP, sctp_state=SctpState.ESTABLISHED, **tags))
    assert facts_of(netns, SCTP)["sctp_state"] == SctpState.ESTABLISHED
    (flow,) = ct.dump()
    assert (flow.sctp_vtag_orig, flow.sctp_vtag_reply, flow.mark) == (1, 2, 0)


def test_update_of_a_helper(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """A flow with one may be told so again; with another or an unknown one it may not."""
    try:
        ct.create(Flow(TCP, timeout=3600, helper="ftp"))
    except nlct.UnsupportedError:
        pytest.skip("MISSING: the helper of FTP")
    before = oracle.dump(netns)
    ct.update(Flow(TCP, helper="ftp"))
    assert oracle.dump(netns) == before
    with pytest.raises(nlct.UnsupportedError):
        ct.update(Flow(TCP, helper="no such helper"))
    assert oracle.dump(netns) == before


@pytest.mark.parametrize("flow", list(flows.menagerie((0, 5))), ids=str)
def test_update_of_every_kind(netns: nlct.Netns, ct: nlct.Conntrack, flow: Flow) -> None:
    """Also where the zone applies to one direction; no other flow changes."""
    flows.populate(ct, (0, 5))
    before = filters.read(netns)
    (meant,) = entry(netns, flow)
    ct.update(Flow(flow.orig, flow.reply, zone=flow.zone, mark=99))
    marks = {facts["id"]: facts["mark"] for facts in before}
    marks[meant["id"]] = 99
    assert {facts["id"]: facts["mark"] for facts in filters.read(netns)} == marks


def test_what_update_refuses(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Bits that cannot be taken back or given, labels that no rule uses, flows not there."""
    ct.create(Flow(TCP, timeout=3600, status=Status.SEEN_REPLY | Status.ASSURED))
    (flow,) = ct.dump()
    assert flow.status is not None
    before = oracle.dump(netns)
    for status in (
        flow.status & ~Status.ASSURED,
        flow.status & ~Status.SEEN_REPLY,
        flow.status | Status.DYING,
        flow.status | Status.EXPECTED,
    ):
        with pytest.raises(nlct.Error) as caught:
            ct.update(Flow(TCP, status=status))
        assert caught.value.errno == errno.EBUSY
    with pytest.raises(nlct.Error) as caught:
        ct.update(Flow(TCP, labels=1))
    assert caught.value.errno == errno.ENOSPC
    for absent in (
        Flow(TCP, zone=7, mark=1),
        Flow(TCP.replace(zone=7), mark=1),
        Flow(TCP.replace(dport=22), mark=1),
        Flow(TCP.replace(proto="udp"), mark=1),
    ):
        with pytest.raises(nlct.NotFoundError):
            ct.update(absent)
    for wrong in (None, TCP, Filter(zone=5)):
        with pytest.raises(TypeError, match="flow must be a Flow"):
            ct.update(wrong)  # type: ignore[arg-type]
    assert oracle.dump(netns) == before
