"""Dumps, counts and counts by zone say what an independent reader of the table says."""

from __future__ import annotations

import functools
import socket
from collections import Counter
from collections.abc import Container

import pytest

import nlct
from nlct import Filter, Flow, Status, Tuple
from nlct.fill import fill
from tests.support import flows, oracle

# Zones and families, and the filter that names them.
FILTERS = [
    (None, None, Filter()),
    *(({zone}, None, Filter(zone=zone)) for zone in (0, 1, 5, 65535, 99)),
    ({0, 65535}, None, Filter(zone={0, 65535})),
    (range(1, 300), None, Filter(zone=range(1, 300))),
    ((), None, Filter(zone=())),
    (None, socket.AF_INET, Filter(family="ipv4")),
    (None, socket.AF_INET6, Filter(family=socket.AF_INET6)),
    ({5}, socket.AF_INET6, Filter(zone=5, family="ipv6")),
    ({0, 7}, socket.AF_INET, Filter(zone={0, 7}, family="ipv4")),
]


def matching(table: oracle.Table, zones: Container[int] | None, family: int | None) -> oracle.Table:
    """What a filter means, by the oracle."""
    return {
        key: entry
        for key, entry in table.items()
        if (zones is None or key.zone in zones) and family in (None, key.family)
    }


def ids(table: oracle.Table) -> list[int]:
    """The ids of the entries."""
    return sorted(int.from_bytes(entry[oracle.ID], "big") for entry in table.values())


@pytest.mark.parametrize("kernel_filter", [True, False], ids=["asked", "as-on-an-old-kernel"])
def test_every_filter_means_what_it_says(netns: nlct.Netns, kernel_filter: bool) -> None:
    """dump(), count() and count_by() agree with the oracle, whoever filters."""
    with nlct.Conntrack(netns, kernel_filter=kernel_filter) as ct:
        flows.populate(ct)
        table = oracle.dump(netns)
        for zones, family, wanted in FILTERS:
            meant = matching(table, zones, family)
            assert sorted(flow.id or 0 for flow in ct.dump(wanted)) == ids(meant), wanted
            assert ct.count(wanted) == len(meant), wanted
            assert ct.count_by("zone", filter=wanted) == oracle.by_zone(meant), wanted


def test_a_zone_may_stand_beside_the_filter(ct: nlct.Conntrack) -> None:
    """zone= is short for Filter(zone=), and the two together are refused."""
    flows.populate(ct, (0, 7))
    assert ct.count(zone=7) == 7
    assert ct.count_by("zone", zone=range(5)) == {0: 7}
    assert {flow.zone for flow in ct.dump(zone=[7])} == {7}
    calls = (ct.count, ct.dump, ct.dump_text, ct.dump_json, ct.table, ct.batches)
    for call in (*calls, functools.partial(ct.count_by, "zone")):
        with pytest.raises(TypeError, match="zone"):
            call(filter=Filter(family="ipv4"), zone=7)


def test_an_empty_table(ct: nlct.Conntrack) -> None:
    """Nothing is no error."""
    assert list(ct.dump()) == []
    assert ct.count() == 0
    assert ct.count_by("zone") == {}


def test_every_field_is_decoded(ct: nlct.Conntrack) -> None:
    """What was created comes back, field by field; what nobody set is None."""
    created = list(flows.menagerie())
    for flow in created:
        ct.create(flow)
    found = {(flow.orig, flow.zone): flow for flow in ct.dump()}
    assert len(found) == len(created)
    for flow in created:
        got = found[flow.orig, flow.zone]
        assert got.reply is not None
        assert (got.reply.src, got.reply.dst) == (flow.orig.dst, flow.orig.src)
        assert (got.reply.sport, got.reply.dport) == (flow.orig.dport, flow.orig.sport)
        assert got.reply.icmp_id == flow.orig.icmp_id
        assert got.reply.zone == (flow.reply.zone if flow.reply else None)
        assert got.mark == (flow.mark or 0)
        assert got.status == Status.CONFIRMED
        assert got.timeout is not None
        assert 3540 < got.timeout <= 3600
        assert got.id is not None
        if got.orig.zone is got.reply.zone is None:
            again = ct.get(flow.orig, zone=flow.zone)
            assert again.replace(timeout=got.timeout, use=got.use) == got


def test_icmp_replies_have_the_reply_type(ct: nlct.Conntrack) -> None:
    """Echo is answered by echo reply, in both families."""
    flows.populate(ct, (0,))
    replies = {f.orig.icmp_type: f.reply.icmp_type for f in ct.dump() if f.reply and f.orig.icmp_id}
    assert replies == {8: 0, 128: 129}


def test_a_large_table_comes_whole_and_once(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """More flows than fit a step or a batch of rows: none lost, none twice, in every zone."""
    fill(ct, 30_000, 7)
    seen = Counter((flow.zone, flow.orig.src) for flow in ct.dump())
    assert set(seen.values()) == {1}
    assert Counter(zone for zone, _ in seen) == oracle.by_zone(oracle.dump(netns))
    assert ct.count_by("zone") == oracle.by_zone(oracle.dump(netns))
    assert ct.count() == ct.count(Filter(family="ipv4")) == 30_000


def test_a_dump_may_be_abandoned(ct: nlct.Conntrack) -> None:
    """Half a dump leaves nothing behind that would disturb the next one."""
    fill(ct, 5000, 5)
    for _ in range(3):
        dump = ct.dump()
        next(dump)
        dump.close()
        assert ct.count(zone=3) == 1000


def test_dumps_may_be_interleaved(ct: nlct.Conntrack) -> None:
    """Two dumps and other calls at once each have their own socket."""
    fill(ct, 4000, 4)
    first, second = ct.dump(zone=1), ct.dump(zone=2)
    pairs = 0
    for one, two in zip(first, second):
        assert (one.zone, two.zone) == (1, 2)
        pairs += 1
        if pairs % 300 == 0:
            assert ct.count() == 4000
    assert pairs == 1000


def test_a_flow_may_be_deleted_while_it_is_dumped(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """A flush inside the loop over a dump of another zone disturbs neither."""
    fill(ct, 6000, 2)
    seen = 0
    for flow in ct.dump(zone=1):
        assert flow.zone == 1
        if seen == 0:
            assert ct.flush_zone(2, strategy="scan").deleted == 3000
        seen += 1
    assert seen == 3000
    assert oracle.by_zone(oracle.dump(netns)) == {1: 3000}


def test_limit_and_buckets_are_the_kernels(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Both are read, not guessed."""
    with open(netns.open_file("/proc/sys/net/netfilter/nf_conntrack_max")) as file:
        assert ct.limit == int(file.read())
    with open(netns.open_file("/proc/sys/net/netfilter/nf_conntrack_buckets")) as file:
        assert ct.buckets == int(file.read())


# Values ----------------------------------------------------------------------------------------

UDP = Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2)


def test_flows_and_tuples_are_values() -> None:
    """Equal by what names them, hashable, immutable; text and ipaddress objects are one."""
    same = Tuple(UDP.src, UDP.dst, 17, 1, 2)
    assert same == UDP
    assert {Flow(UDP, zone=7), Flow(same, zone=7)} == {Flow(UDP, zone=7)}
    assert Flow(UDP) != Flow(UDP, zone=1)
    assert Flow(UDP) == Flow(UDP, zone=0)
    assert Flow(UDP, mark=0) == Flow(UDP)
    assert Flow(UDP, mark=0).to_dict() != Flow(UDP).to_dict()
    for value, name in ((UDP, "src"), (Flow(UDP), "zone"), (Filter(zone=1), "zone")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_replace_makes_a_changed_copy() -> None:
    """The original stays, and the copy is checked like a new one."""
    flow = Flow(UDP, zone=7, timeout=5)
    assert flow.replace(zone=8) == Flow(UDP, zone=8, timeout=5)
    assert flow.zone == 7
    with pytest.raises(ValueError, match="zone"):
        flow.replace(zone=65536)


def test_the_zone_of_one_direction_is_the_zone_of_the_flow() -> None:
    """One id, in whichever direction it applies; contradictions are refused."""
    orig = Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2, zone=5)
    assert Flow(orig).zone == Flow(orig, zone=5).zone == 5
    assert Flow(UDP, flows.reverse(UDP, 6)).zone == 6
    with pytest.raises(ValueError, match="contradicts"):
        Flow(orig, zone=6)
    with pytest.raises(ValueError, match="one direction"):
        Flow(orig, flows.reverse(orig, 5))


@pytest.mark.parametrize(
    "fields",
    [
        {"src": "10.0.0.300"},
        {"src": "host"},
        {"src": "10.0.0.1", "dst": "fd00::1"},
        {"proto": 256},
        {"proto": -1},
        {"proto": "quic"},
        {"sport": 65536},
        {"dport": -1},
        {"icmp_type": 256},
        {"icmp_id": 65536},
        {"zone": 65536},
    ],
)
def test_a_tuple_refuses_what_cannot_be(fields: dict[str, object]) -> None:
    """Out of range is a ValueError that names the field."""
    with pytest.raises(ValueError, match=next(iter(fields))):
        Tuple(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [{"src": 167772161}, {"src": b"\n\0\0\1"}, {"proto": True}, {"sport": "53"}, {"dport": 5.0}],
)
def test_a_tuple_refuses_other_types(fields: dict[str, object]) -> None:
    """The wrong type is a TypeError that names the field."""
    with pytest.raises(TypeError, match=next(iter(fields))):
        Tuple(**fields)  # type: ignore[arg-type]


def test_a_flow_refuses_what_cannot_be() -> None:
    """Out of range and wrong types name the field."""
    for fields in ({"zone": -1}, {"mark": 2**32}, {"timeout": -1}, {"status": 2**32}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            Flow(UDP, **fields)
    for orig in (None, "10.0.0.1", Flow(UDP)):
        with pytest.raises(TypeError, match="orig"):
            Flow(orig)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reply"):
        Flow(UDP, "10.0.0.1")  # type: ignore[arg-type]


def test_enums_name_the_kernels_numbers() -> None:
    """A status has names, unknown bits included, and a protocol is a number."""
    assert Flow(UDP, status=6).status == Status.SEEN_REPLY | Status.ASSURED
    assert int(Flow(UDP, status=2**31).status or 0) == 2**31
    assert UDP.proto == nlct.Proto.UDP == 17
    assert Tuple(proto=200).proto == 200


def test_counting_tells_how_far_it_is(ct: nlct.Conntrack) -> None:
    """Both counts call back with what they have scanned, and end at the whole table."""
    flows.populate(ct)
    for look in (
        lambda tell: ct.count(zone=range(65536), progress=tell),
        lambda tell: ct.count_by("zone", progress=tell),
    ):
        seen: list[int] = []
        look(seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == ct.count()


def test_a_protocol_of_the_other_family_spoils_no_dump(ct: nlct.Conntrack) -> None:
    """The kernel takes ICMPv6 over IPv4 and ICMP over IPv6, so we read and write them."""
    echo = {"icmp_id": 7, "icmp_code": 0}
    odd = [
        Flow(Tuple("10.0.0.1", "10.0.0.2", "icmpv6", icmp_type=128, **echo), timeout=60),
        Flow(Tuple("fd00::1", "fd00::2", "icmp", icmp_type=8, **echo), timeout=60),
    ]
    for flow in odd:
        ct.create(flow)
    seen = list(ct.dump())
    assert {flow.orig for flow in seen} == {flow.orig for flow in odd}
    ct.flush_all()
    assert ct.load(seen).created == 2
