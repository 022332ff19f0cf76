"""Deleting flows that are given: these very ones, by tuple, zone and id, and no others."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import nlct
from nlct import ALL, Filter, Flow, FlowTable, FlushResult, Tuple, flush
from nlct._ffi import ffi
from tests.support import flows, oracle
from tests.support.core import Lib


def without(table: oracle.Table, gone: list[Flow]) -> oracle.Table:
    """A table without flows, by their id."""
    numbers = {(flow.id or 0).to_bytes(4, "big") for flow in gone}
    left = {key: entry for key, entry in table.items() if entry[oracle.ID] not in numbers}
    assert len(left) == len(table) - len(gone)
    return left


def counts(result: FlushResult) -> tuple[int | None, int | None, int, dict[int, int], bool]:
    """What came of it."""
    done = result.matched, result.deleted, result.already_gone
    return (*done, dict(result.failed), result.complete)


# Which flows -------------------------------------------------------------------------------------


def test_flows_of_every_kind(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Every second one of a dump goes, the others stay; then these go too."""
    flows.populate(ct)
    before = oracle.dump(netns)
    everyone = list(ct.dump())
    some = everyone[::2]
    result = ct.delete_flows(some)
    assert counts(result) == (len(some), len(some), 0, {}, True)
    assert (result.strategy, result.scanned, result.passes) == ("flows", 0, 0)
    assert 0 < result.seconds < 60
    assert oracle.dump(netns) == without(before, some)
    rest = len(everyone) - len(some)
    assert counts(ct.delete_flows(everyone)) == (len(everyone), rest, len(some), {}, True)
    assert oracle.dump(netns) == {}


def test_each_flow_by_itself(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Of each kind, whatever its zone: never another one."""
    flows.populate(ct)
    left = oracle.dump(netns)
    for flow in list(ct.dump()):
        assert counts(ct.delete_flows([flow])) == (1, 1, 0, {}, True)
        left = without(left, [flow])
        assert oracle.dump(netns) == left
    assert left == {}


ORIG = Tuple("10.0.0.1", "10.0.0.2", "udp", 1000, 53)
REPLY = flows.reverse(ORIG)
KINDS = {
    "no zone": Flow(ORIG, timeout=3600),
    "both directions": Flow(ORIG, zone=5, timeout=3600),
    "orig alone": Flow(ORIG.replace(zone=5), timeout=3600),
    "reply alone": Flow(ORIG, REPLY.replace(zone=5), timeout=3600),
}
# By the first request or, where the original tuple is wrong, by the second.
SIDES: dict[str, Callable[[Flow], Flow]] = {
    "as dumped": lambda flow: flow,
    "turned round": lambda flow: Flow(flow.reply or ORIG, flow.orig, zone=flow.zone, id=flow.id),
    "without its reply": lambda flow: flow.replace(reply=None, zone=flow.zone),
    "by its reply": lambda flow: flow.replace(
        orig=flow.orig.replace(sport=999), reply=flow.reply, zone=flow.zone
    ),
}
# Without the reply nothing says that the zone is the reply's alone.
CASES = [(kind, side) for kind in KINDS for side in SIDES]
CASES.remove(("reply alone", "without its reply"))


@pytest.mark.parametrize(("kind", "side"), CASES)
def test_every_kind_of_zone_from_both_sides(
    netns: nlct.Netns, ct: nlct.Conntrack, kind: str, side: str
) -> None:
    """The flow goes, and the same tuples in another zone stay."""
    ct.create(KINDS[kind])
    (flow,) = ct.dump()
    ct.create(Flow(ORIG, zone=6, timeout=3600))
    other = oracle.inside(oracle.dump(netns), {6})
    assert counts(ct.delete_flows([SIDES[side](flow)])) == (1, 1, 0, {}, True)
    assert oracle.dump(netns) == other


def entangled(ct: nlct.Conntrack) -> list[Flow]:
    """Two flows, of which the reply of one is the original tuple of the other."""
    plain = Tuple("2001:db8::1", "fd00::3", "tcp", 1024, 80)
    other = Tuple("fd00::3", "fd00::1", "tcp", 80, 1024, zone=256)
    ct.create(Flow(plain, timeout=600))
    ct.create(Flow(other, plain, timeout=600))
    return list(ct.dump())


def test_an_original_tuple_that_leads_to_another_flow(
    netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """The id protects that one, and the flow is found by its reply."""
    for zone in (0, 256):
        both = entangled(ct)
        meant = [flow for flow in both if flow.zone == zone]
        assert counts(ct.delete_flows(meant)) == (1, 1, 0, {}, True)
        assert {key.zone for key in oracle.dump(netns)} == {256 - zone}
        ct.flush_all()
    assert counts(ct.delete_flows(entangled(ct))) == (2, 2, 0, {}, True)
    assert oracle.dump(netns) == {}


WRONG: dict[str, Callable[[Flow], Flow]] = {
    "id": lambda flow: flow.replace(id=(flow.id or 0) ^ 1),
    "an id of 0": lambda flow: flow.replace(id=0),
    "zone": lambda flow: flow.replace(zone=8),
    "no zone": lambda flow: flow.replace(zone=None),
    "zone of one direction": lambda flow: Flow(flow.orig.replace(zone=8), id=flow.id),
    "port": lambda flow: Flow(flow.orig.replace(dport=54), zone=7, id=flow.id),
    "protocol": lambda flow: Flow(flow.orig.replace(proto="tcp"), zone=7, id=flow.id),
    "address": lambda flow: Flow(flow.orig.replace(src="10.9.9.9"), zone=7, id=flow.id),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_flow_that_is_not_there(netns: nlct.Netns, ct: nlct.Conntrack, name: str) -> None:
    """Something of it is wrong: it is gone already, and nothing is deleted."""
    ct.create(flows.udp(1, zone=7))
    ct.create(flows.udp(2, zone=7))
    (flow,) = ct.dump(Filter(src=flows.udp(1).orig.src))
    before = oracle.dump(netns)
    assert counts(ct.delete_flows([WRONG[name](flow)])) == (1, 0, 1, {}, True)
    assert oracle.dump(netns) == before
    both = [WRONG[name](flow), flow]
    assert counts(ct.delete_flows(both)) == (2, 1, 1, {}, True)
    assert oracle.dump(netns) == without(before, [flow])


def test_another_flow_took_its_place(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """The id tells them apart: the new one stays."""
    ct.load(flows.udp(number) for number in range(50))
    old = list(ct.dump())
    assert ct.delete_flows(old).deleted == 50
    # Others take the places in memory, of which the kernel makes the ids.
    ct.load(flows.udp(number + 1000) for number in range(50))
    ct.load(flows.udp(number) for number in range(50))
    ids = {flow.id for flow in old}
    born_again = sum(flow.id in ids for flow in ct.dump())
    assert born_again < 50
    assert ct.delete_flows(old).deleted == born_again
    assert len(oracle.dump(netns)) == 100 - born_again


HALVES = {
    "no port": Tuple("10.0.0.1", "192.0.2.1", "udp", 1024),
    "no ports": Tuple("10.0.0.1", "192.0.2.1", "udp"),
    "no protocol": Tuple("10.0.0.1", "192.0.2.1", sport=1024, dport=53),
    "no destination": Tuple("10.0.0.1", None, "udp", 1024, 53),
    "no source": Tuple(None, "192.0.2.1", "udp", 1024, 53),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_flow(netns: nlct.Netns, ct: nlct.Conntrack, name: str) -> None:
    """To the kernel a delete without a tuple is a flush: none is ever sent. The rest goes on."""
    for number in (1, 2):
        ct.create(flows.udp(number))
    before = oracle.dump(netns)
    (flow,) = ct.dump(Filter(src="10.0.0.1"))
    half = Flow(HALVES[name], id=flow.id)
    result = ct.delete_flows([half])
    assert counts(result) == (1, 0, 0, {errno.EINVAL: 1}, False)
    assert oracle.dump(netns) == before
    assert counts(ct.delete_flows([half, flow, half])) == (3, 1, 0, {errno.EINVAL: 2}, False)
    assert oracle.dump(netns) == without(before, [flow])


# How they are given ------------------------------------------------------------------------------


def test_a_flow_that_is_given_again_is_gone_already(ct: nlct.Conntrack) -> None:
    """In one batch and in another."""
    ct.load(flows.udp(number) for number in range(3))
    (first, *_) = three = list(ct.dump())
    assert counts(ct.delete_flows([first, *three])) == (4, 3, 1, {}, True)
    ct.create(flows.udp(7))
    (flow,) = ct.dump()
    times = flush.ROWS + 10
    assert counts(ct.delete_flows([flow] * times)) == (times, 1, times - 1, {}, True)


ENDS = ("src", "dst", "proto", "sport", "dport")
TUPLES = [prefix + name for prefix in ("", "reply_") for name in ENDS]


def test_what_may_hold_flows(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Lists, sets, tables, generators that dump meanwhile, what get() found, and nothing."""
    ways: list[Callable[[], Any]] = [
        lambda: list(ct.dump()),
        lambda: frozenset(ct.dump()),
        lambda: dict.fromkeys(ct.dump()),
        ct.table,
        lambda: ct.table(columns=[*TUPLES, "id"]),
        lambda: ct.table()[::1],
        ct.dump,
        lambda: (flow for flow in ct.table()),
        lambda: [ct.get(flows.udp(number).orig, zone=3) for number in range(5)],
    ]
    for way in ways:
        ct.load(flows.udp(number, 3) for number in range(5))
        assert counts(ct.delete_flows(way())) == (5, 5, 0, {}, True)
        assert oracle.dump(netns) == {}
    ct.create(flows.udp(1))
    for nothing in ([], (), iter([]), {}, FlowTable.from_flows([])):
        assert counts(ct.delete_flows(nothing)) == (0, 0, 0, {}, True)
    assert ct.count() == 1


def test_a_table_without_replies(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """It keeps the zones of each direction, and names every kind of flow."""
    columns = [*ENDS, "icmp_id", "icmp_type", "icmp_code", "id"]
    flows.populate(ct)
    table = ct.table(columns=columns)
    assert counts(ct.delete_flows(table)) == (len(table), len(table), 0, {}, True)
    assert oracle.dump(netns) == {}


def test_a_generator_is_taken_little_by_little(ct: nlct.Conntrack) -> None:
    """No more flows are in memory than go to the kernel at once."""
    total = 3 * flush.ROWS
    ct.load(flows.udp(number) for number in range(total))
    left: list[int] = []

    def given() -> Iterator[Flow]:
        for number, flow in enumerate(list(ct.dump())):
            if number % flush.ROWS == 0:
                left.append(ct.count())
            yield flow

    assert ct.delete_flows(given()).deleted == total
    assert left == [total, total - flush.ROWS, total - 2 * flush.ROWS]


# What is refused ---------------------------------------------------------------------------------


def test_only_flows_name_flows(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Anything else is a TypeError, and nothing is deleted, of the flows beside it either."""
    flows.populate(ct)
    before = oracle.dump(netns)
    (flow, *_) = ct.dump()
    for wrong in (None, 7, Filter(zone=5), ALL, flow, flow.orig):
        with pytest.raises(TypeError):
            ct.delete_flows(wrong)  # type: ignore[arg-type]
    for wrong in (None, 7, ALL, flow.orig, (flow,), {}, b"flow", flow.to_dict()):
        for given in ([wrong], [flow, wrong], iter([flow, wrong])):
            with pytest.raises(TypeError, match="flows must be Flow objects"):
                ct.delete_flows(given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="flows must be Flow objects, not 'f'"):
        ct.delete_flows("flow")  # type: ignore[arg-type]
    assert oracle.dump(netns) == before


NAMELESS = {
    "flows must have an id": flows.udp(999_999),
    "flows must have a src or a dst": Flow(Tuple(proto="udp", sport=1, dport=2), id=7),
}


@pytest.mark.parametrize("says", NAMELESS)
def test_flows_that_name_no_entry(netns: nlct.Netns, ct: nlct.Conntrack, says: str) -> None:
    """They are a ValueError before anything is sent, wherever in a collection they are."""
    many = flush.ROWS + 5
    ct.load(flows.udp(number) for number in range(many))
    before = oracle.dump(netns)
    everyone = list(ct.dump())
    wrong = NAMELESS[says]
    for given in (
        [wrong],
        [*everyone, wrong],
        [wrong, *everyone],
        dict.fromkeys([*everyone, wrong]),
    ):
        with pytest.raises(ValueError, match=says):
            ct.delete_flows(given)
    with pytest.raises(ValueError, match="flows must have an id"):
        ct.delete_flows(ct.table(columns=TUPLES))
    assert oracle.dump(netns) == before
    # An iterator can be gone through only once.
    with pytest.raises(ValueError, match=says):
        ct.delete_flows(iter([*everyone, wrong]))
    assert len(oracle.dump(netns)) == many - flush.ROWS


def test_an_iterator_that_raises(ct: nlct.Conntrack) -> None:
    """What it gave before, in whole batches, is gone; the exception comes out."""
    ct.load(flows.udp(number) for number in range(3))
    everyone = list(ct.dump())

    def given() -> Iterator[Flow]:
        yield from everyone
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ct.delete_flows(given())
    assert ct.count() == 3
    assert ct.delete_flows(everyone).deleted == 3


def test_a_kernel_without_zones(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """It refuses flows of a zone before anything is sent, and takes the others."""
    for zone in (0, 7):
        ct.create(flows.udp(1, zone))
    before = oracle.dump(netns)
    everyone = list(ct.dump())
    ct._handle.has_zones = False
    with pytest.raises(nlct.UnsupportedError, match="use zone 7"):
        ct.delete_flows(everyone)
    assert oracle.dump(netns) == before
    assert ct.delete_flows([flow for flow in everyone if flow.zone == 0]).deleted == 1
    assert oracle.dump(netns) == oracle.inside(before, {7})


def test_what_the_kernel_says_is_counted(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By errno, over all batches; a failure is not complete, a flow that is gone is."""
    says = [0, -errno.ENOENT, -errno.EBUSY, -errno.ENOBUFS]

    def delete(_sock: ffi.CData, _flows: ffi.CData, count: int, results: ffi.CData) -> int:
        for number in range(count):
            results[number] = says[number % len(says)]
        return 0

    ct.create(flows.udp(1))
    (flow,) = ct.dump()
    monkeypatch.setattr(flush, "lib", Lib(nlct_delete_flows=delete))
    each = flush.ROWS // 2
    failed = {errno.EBUSY: each, errno.ENOBUFS: each}
    assert counts(ct.delete_flows([flow] * 4 * each)) == (4 * each, each, each, failed, False)
    assert counts(ct.delete_flows([flow] * 2)) == (2, 1, 1, {}, True)


def test_without_privilege_nothing_is_deleted(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends a batch is an error."""
    ct.create(flows.udp(1))
    everyone = list(ct.dump())
    monkeypatch.setattr(flush, "lib", Lib(nlct_delete_flows=lambda *_: -errno.EPERM))
    with pytest.raises(PermissionError) as caught:
        ct.delete_flows(everyone)
    assert isinstance(caught.value, nlct.Error)
    assert caught.value.operation == "delete flows"
