"""Creating, finding and loading flows."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nlct
from nlct import Flow, FlowTable, Status, Tuple
from nlct import fill as filling
from nlct.load import ROWS as LOAD_ROWS
from tests.support import filters, flows, oracle


def untimed(conntrack: nlct.Conntrack) -> set[Flow]:
    """The flows of a table, without what the kernel gave them or what runs out."""
    return {flow.replace(id=None, use=None, timeout=None) for flow in conntrack.dump()}


def test_create_and_get(ct: nlct.Conntrack) -> None:
    """A flow is found by its original and by its reply tuple, in its zone alone."""
    flow = flows.udp(1, 7)
    ct.create(flow)
    for name in (flow.orig, flows.reverse(flow.orig)):
        assert ct.get(name, zone=7).orig == flow.orig
    for zone in (0, 6, 1792):
        with pytest.raises(nlct.NotFoundError) as caught:
            ct.get(flow.orig, zone=zone)
        assert caught.value.errno == errno.ENOENT


def test_get_finds_a_zone_of_one_direction_by_its_own_tuple(ct: nlct.Conntrack) -> None:
    """The tuple of a dump, handed back as it came, finds its flow."""
    for flow in flows.directional(5):
        ct.create(flow)
    for flow in ct.dump():
        assert ct.get(flow.orig).id == flow.id


def test_create_refuses_what_exists(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """The same tuple, or one whose reply is taken, in the same zone; another zone is free."""
    ct.create(flows.udp(1, 7))
    before = oracle.dump(netns)
    for flow in (flows.udp(1, 7, timeout=5), Flow(flows.reverse(flows.udp(1).orig), zone=7)):
        with pytest.raises(nlct.ExistsError) as caught:
            ct.create(flow.replace(timeout=5))
        assert caught.value.errno == errno.EEXIST
        assert caught.value.operation == "create a flow"
    assert oracle.dump(netns) == before
    ct.create(flows.udp(1, 8))


@pytest.mark.parametrize(
    "flow",
    [
        Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2)),
        Flow(Tuple("10.0.0.1", "10.0.0.2", "udp"), timeout=5),
        Flow(Tuple("10.0.0.1", "10.0.0.2"), timeout=5),
        Flow(Tuple("10.0.0.1", proto="udp", sport=1, dport=2), timeout=5),
        Flow(
            Tuple("10.0.0.1", "10.0.0.2", "icmp", icmp_id=1, icmp_type=200, icmp_code=0), timeout=5
        ),
    ],
    ids=["no-timeout", "no-ports", "no-proto", "no-dst", "unknown-icmp"],
)
def test_create_refuses_half_a_flow(ct: nlct.Conntrack, netns: nlct.Netns, flow: Flow) -> None:
    """The kernel's refusal comes out as InvalidRequestError, alone and in a load."""
    with pytest.raises(nlct.InvalidRequestError):
        ct.create(flow)
    assert dict(ct.load([flow]).failed) == {errno.EINVAL: 1}
    assert oracle.dump(netns) == {}


def test_create_refuses_a_flow_without_addresses(ct: nlct.Conntrack) -> None:
    """Nothing is sent for a flow of no family; in a load it counts as refused."""
    nowhere = Flow(Tuple(proto="udp", sport=1, dport=2), timeout=5)
    with pytest.raises(ValueError, match="address"):
        ct.create(nowhere)
    result = ct.load([nowhere, flows.udp(1)])
    assert (result.created, dict(result.failed)) == (1, {errno.EINVAL: 1})


# What is lost in silence -------------------------------------------------------------------------

PAIR = Tuple("10.0.0.1", "10.0.0.2", "tcp", 1000, 80)
PING = Tuple("10.0.0.1", "10.0.0.2", "icmp", icmp_id=1, icmp_type=8, icmp_code=0)
ESP = Tuple("10.0.0.1", "10.0.0.2", 50)
KEYS = Tuple("10.0.0.1", "10.0.0.2", "gre", 1, 2)
TAGS: Any = {"sctp_vtag_orig": 1, "sctp_vtag_reply": 2}
SCALED: Any = {"tcp_state": 3, "tcp_wscale_reply": 7, "tcp_flags_orig": 1, "tcp_flags_reply": 1}


def test_a_timeout_of_0_makes_no_flow(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """The kernel would call it a success: ValueError, and in a load a refusal."""
    none = flows.udp(1, timeout=0)
    with pytest.raises(ValueError, match="timeout must be from 1 to 4294967295"):
        ct.create(none)
    result = ct.load([none, flows.udp(2)])
    assert (result.created, dict(result.failed)) == (1, {errno.EINVAL: 1})
    assert len(oracle.dump(netns)) == 1
    ct.create(flows.udp(3, timeout=2**32 - 1))
    assert 8_589_900 < (ct.get(flows.udp(3).orig).timeout or 0) <= 8_589_934


@pytest.mark.parametrize(
    ("flow", "number", "says"),
    [
        (Flow(PAIR), errno.EINVAL, "timeout is missing"),
        (Flow(Tuple("10.0.0.1", "10.0.0.2", "udp"), timeout=5), errno.EINVAL, "sport, dport"),
        (Flow(Tuple("10.0.0.1", proto="udp"), timeout=5), errno.EINVAL, "orig must have dst"),
        (Flow(PING.replace(icmp_type=200), timeout=5), errno.EINVAL, "icmp_type.*not 200"),
        (Flow(PING.replace(icmp_id=None), timeout=5), errno.EINVAL, "icmp_id"),
        (Flow(PING.replace(sport=5), timeout=5), errno.EINVAL, "no sport: ICMP"),
        (Flow(ESP.replace(sport=5), timeout=5), errno.EINVAL, "no sport: ESP"),
        (Flow(PAIR.replace(icmp_type=5), timeout=5), errno.EINVAL, "no icmp_type: TCP"),
        (Flow(PAIR, timeout=5, sctp_state=3), errno.EINVAL, "sctp_state is of SCTP"),
        (Flow(PAIR.replace(proto="udp"), timeout=5, tcp_state=3), errno.EINVAL, "of UDP"),
        (
            Flow(PAIR.replace(proto="sctp"), timeout=5, sctp_state=3),
            errno.EINVAL,
            "only with sctp_vtag_orig, sctp_vtag_reply",
        ),
        (Flow(PAIR, timeout=5, tcp_state=77), errno.ERANGE, "tcp_state 77"),
        (Flow(PAIR, timeout=5, status=Status.DYING), errno.EBUSY, "status: dying"),
        (Flow(PAIR, timeout=5, status=Status.EXPECTED), errno.EBUSY, "status: expected"),
        (Flow(PAIR, timeout=5, status=Status.SRC_NAT), errno.EINVAL, "src_nat.*no reply"),
        (Flow(PAIR, PING, timeout=5), errno.EINVAL, "reply must be of the protocol"),
        (
            Flow(PAIR, PAIR.replace(proto=None, icmp_type=3), timeout=5, status=Status.SRC_NAT),
            errno.EINVAL,
            "reply must have no icmp_type: TCP",
        ),
        (Flow(PAIR, timeout=5, master=PAIR.replace(sport=9)), errno.ENOENT, "master"),
        (Flow(PAIR, timeout=5, helper="no such"), errno.EOPNOTSUPP, "helper.*'no such'"),
        (
            Flow(KEYS, timeout=5, master=PAIR, helper="pptp"),
            errno.EOPNOTSUPP,
            "master: a GRE flow may have none; many [^:]* creates none$",
        ),
        (Flow(PAIR, timeout=5, tcp_wscale_orig=15, **SCALED), errno.ERANGE, "wscale_orig .*14"),
        (
            Flow(PAIR.replace(proto="sctp"), timeout=5, sctp_state=9, **TAGS),
            errno.ERANGE,
            "sctp_state 9 is no state that every kernel knows",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_names_its_field(
    ct: nlct.Conntrack, netns: nlct.Netns, flow: Flow, number: int, says: str
) -> None:
    """The class and number are the kernel's, the words say which field and why; a load counts."""
    with pytest.raises(nlct.Error, match=says) as caught:
        ct.create(flow)
    # Kernels before policies had ranges say EINVAL.
    assert caught.value.errno in {number, errno.EINVAL}
    assert type(caught.value) is type(nlct.errors.error(caught.value.errno or 0, ""))
    assert dict(ct.load([flow]).failed) == {caught.value.errno: 1}
    assert oracle.dump(netns) == {}
    assert caught.value.reason
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, str(again)) == (caught.value.reason, str(caught.value))


def test_data_of_a_helper_is_never_sent_with_a_new_flow(ct: nlct.Conntrack) -> None:
    """Kernels before 6.0 crash. create() refuses, load() leaves it out and counts it."""
    flow = Flow(PAIR, timeout=60, helper="ftp", helper_info=bytes(4))
    with pytest.raises(nlct.UnsupportedError, match=r"helper_info: .* update\("):
        ct.create(flow)
    assert ct.count() == 0
    result = ct.load([flow])
    if errno.EOPNOTSUPP in result.failed:
        pytest.skip("MISSING: the helper of FTP")
    assert (result.created, dict(result.dropped or {})) == (1, {"helper_info": 1})
    ct.update(flow, helper=flow.helper, helper_info=flow.helper_info)


def test_a_reply_to_translate_to_needs_no_protocol(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """It is that of the original tuple, whether one flow is created or a table loaded."""
    to = Tuple("10.0.0.2", "192.0.2.9", None, PAIR.dport, 4000)
    flow = Flow(PAIR, to, timeout=60, status=Status.SRC_NAT)
    translated = to.replace(proto=PAIR.proto)
    ct.create(flow)
    assert [found.reply for found in ct.dump()] == [translated]
    ct.flush_all()
    names = [name for name in FlowTable.from_flows([flow]).names if name != "reply_proto"]
    whole = FlowTable.from_flows([flow.replace(reply=translated)])
    table = FlowTable({name: whole.column(name) for name in names})
    assert "reply_proto" in whole.names
    result = ct.load(table)
    assert (result.created, dict(result.failed)) == (1, {})
    assert [found.reply for found in ct.dump()] == [translated]
    assert len(oracle.dump(netns)) == 1


def test_a_table_may_have_zeros_everywhere(ct: nlct.Conntrack) -> None:
    """A column without a mask has a value in every row; a zero that is out of place is no loss."""
    orig = [flows.udp(1).orig, PING, ESP]
    table = FlowTable(
        {
            "family": bytes(one.family or 0 for one in orig),
            "src": b"".join(one.src.packed.ljust(16, b"\0") for one in orig if one.src),
            "dst": b"".join(one.dst.packed.ljust(16, b"\0") for one in orig if one.dst),
            "proto": bytes(one.proto or 0 for one in orig),
            "sport": array("H", (one.sport or 0 for one in orig)),
            "dport": array("H", (one.dport or 0 for one in orig)),
            "icmp_id": array("H", (one.icmp_id or 0 for one in orig)),
            "icmp_type": bytes(one.icmp_type or 0 for one in orig),
            "icmp_code": bytes(3),
            "tcp_state": bytes(3),
            "labels": bytes(16 * 3),
            "timeout": array("I", [60, 60, 60]),
        }
    )
    result = ct.load(table)
    assert (result.created, dict(result.failed), dict(result.dropped)) == (3, {}, {})
    assert {flow.orig for flow in ct.dump()} == set(orig)


def test_labels_that_no_rule_uses(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """The kernel drops them: create() makes no flow, load() counts, and both say so."""
    with pytest.raises(nlct.Error, match=r"labels: no rule .*ct label.*connlabel") as caught:
        ct.create(flows.udp(1).replace(labels=1))
    assert caught.value.errno == errno.ENOSPC
    assert oracle.dump(netns) == {}
    ct.create(flows.udp(1).replace(labels=0))
    mixture = [flows.udp(number, 7).replace(labels=number % 3) for number in range(9)]
    zones = [flow.replace(labels=1 << 127) for flow in flows.directional(5)]
    already = flows.udp(1).replace(labels=4)
    # Nor do these count: one that is there, one that the kernel refuses.
    refused = flows.udp(10).replace(labels=4, timeout=None)
    result = ct.load([already, refused, *mixture, *zones])
    assert dict(result.failed) == {errno.EEXIST: 1, errno.EINVAL: 1}
    assert (result.created, dict(result.dropped)) == (13, {"labels": 6 + 4})
    assert dict(ct.load([*mixture, already]).dropped) == {}
    assert dict(ct.load([flows.udp(99)]).dropped) == {}


@pytest.mark.usefixtures("root")
def test_labels_that_a_rule_uses(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Nothing is said of them, and they are there."""
    filters.prepare(netns)
    ct.create(flows.udp(1).replace(labels=1 << 127))
    result = ct.load(flows.udp(number).replace(labels=number) for number in range(2, 9))
    assert (result.created, dict(result.failed), dict(result.dropped)) == (7, {}, {})
    assert {flow.labels for flow in ct.dump()} == {1 << 127, *range(2, 9)}


def test_what_cannot_be_taken_away_again_is_said(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow stays without its labels, and the error tells both."""

    def refuse(*_: object) -> None:
        raise nlct.OverrunError(errno.ENOBUFS, "delete a flow")

    monkeypatch.setattr(ct, "_delete", refuse)
    with pytest.raises(nlct.Error, match=r"labels.*still there: .*delete a flow") as caught:
        ct.create(flows.udp(1).replace(labels=1))
    assert caught.value.errno == errno.ENOSPC
    assert len(oracle.dump(netns)) == 1


def test_a_load_that_cannot_be_looked_at_afterwards(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Without a descriptor for the look-up: all is counted, and what was dropped is not known."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    busy: list[Iterator[Flow]] = []

    def progress(_done: int) -> None:
        # The one socket is taken, and no other can be had.
        busy.append(ct.dump())
        next(busy[0])
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))

    made = [flows.udp(number).replace(labels=1) for number in range(5)]
    try:
        result = ct.load(made, progress=progress)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (result.created, dict(result.failed), result.dropped) == (5, {}, None)
    busy.clear()
    assert len(oracle.dump(netns)) == 5


def test_a_new_flow_that_cannot_be_looked_at(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and the error tells that."""

    def get(*_: object) -> None:
        raise nlct.Error(errno.EMFILE, "open a netlink socket")

    monkeypatch.setattr(ct._handle, "get", get)
    with pytest.raises(nlct.Error, match=r"create a flow: .*the flow was created, but") as caught:
        ct.create(flows.udp(1).replace(labels=1))
    assert (caught.value.errno, caught.value.operation) == (errno.EMFILE, "create a flow")
    assert "could not be looked at" in caught.value.reason
    assert len(oracle.dump(netns)) == 1


def test_ports_of_a_protocol_that_the_kernel_does_not_know(
    ct: nlct.Conntrack, netns: nlct.Netns
) -> None:
    """Without its ports it would be another flow: none is made, and load() counts."""
    made = [Flow(PAIR.replace(proto="dccp", src=f"10.0.0.{n}"), timeout=60) for n in range(3, 6)]
    result = ct.load([*made, flows.udp(1)])
    assert result.created == 4
    if any(flow.orig.sport for flow in ct.dump(nlct.Filter(proto="dccp"))):
        pytest.skip("MISSING: a kernel without DCCP")
    assert dict(result.dropped) == {"sport": 3, "dport": 3}
    before = oracle.dump(netns)
    with pytest.raises(nlct.UnsupportedError, match="sport, dport"):
        ct.create(Flow(PAIR.replace(proto="dccp"), timeout=60))
    assert oracle.dump(netns) == before


def test_a_full_table_says_so(netns: nlct.Netns) -> None:
    """Where the limit is reached the table refuses with TableFullError, and load() counts it."""
    with nlct.Conntrack(netns) as ct:
        limit = ct.limit
        if limit > 300_000:
            pytest.skip(f"MISSING: a limit that can be reached quickly, this one is {limit}")
        # Flows that have seen a reply and are assured are not evicted for new ones.
        for table in filling.tables(limit, 100):
            columns = {name: table.column(name) for name in nlct.table.COLUMNS if name in table}
            columns["status"] = array("I", [0xE]) * len(table)
            assert ct.load(FlowTable(columns)).failed == {}
        assert ct.count() == limit
        with pytest.raises(nlct.TableFullError) as caught:
            ct.create(flows.udp(2**23, 7))
        assert caught.value.errno == errno.ENOMEM
        result = ct.load(flows.udp(2**23 + number, 7) for number in range(1000))
        assert (result.created, dict(result.failed)) == (0, {errno.ENOMEM: 1000})
        ct.flush_all()
        assert ct.load([flows.udp(1)]).created == 1


def test_load_takes_a_table_and_any_iterable(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """A table, a list and a generator make the same entries."""
    made = list(flows.menagerie())
    tables = []
    for source in (made, iter(made), FlowTable.from_flows(made)):
        result = ct.load(source)
        assert (result.created, result.failed) == (len(made), {})
        assert result.seconds > 0
        tables.append({k: sorted(set(e) - {12}) for k, e in oracle.dump(netns).items()})
        assert len(tables[-1]) == len(made)
        ct.flush_all()
    assert tables[0] == tables[1] == tables[2]


def test_load_of_nothing(ct: nlct.Conntrack) -> None:
    """An empty load is no error."""
    assert ct.load([]).created == 0
    assert ct.load(FlowTable({"family": b""})).created == 0
    for name in ("flows.json", Path("flows.json")):
        with pytest.raises(TypeError, match=r"as read_flows\(.*'flows.json'\)+ makes"):
            ct.load(name)  # type: ignore[arg-type]


def test_what_was_dumped_can_be_loaded(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """From dump to load to dump: the same flows, every kind and zone, in another namespace."""
    flows.populate(ct)
    with nlct.Netns.scratch() as other, nlct.Conntrack(other) as twin:
        result = twin.load(ct.dump())
        assert dict(result.failed) == {}
        assert untimed(twin) == untimed(ct)
        assert set(oracle.dump(other)) == set(oracle.dump(netns))


def test_load_accounts_for_every_refusal(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Refusals of several kinds among thousands of flows: each counted, the rest created."""
    half = Flow(Tuple("10.0.0.1", "10.0.0.2", "udp"), timeout=5)

    def mixture() -> Iterator[Flow]:
        for number in range(3000):
            yield flows.udp(number, 7)
            if number % 3 == 0:
                yield half
            if number % 2 == 0:
                yield flows.udp(number, 7)

    result = ct.load(mixture())
    assert result.created == 3000
    assert dict(result.failed) == {errno.EINVAL: 1000, errno.EEXIST: 1500}
    assert len(oracle.dump(netns)) == 3000


def test_load_reports_progress(ct: nlct.Conntrack) -> None:
    """The callback sees every piece, and the last number is the total."""
    total = 2 * LOAD_ROWS + 5
    (table,) = filling.tables(total, 3)
    seen: list[int] = []
    assert ct.load(table, progress=seen.append).created == total
    assert seen == [LOAD_ROWS, 2 * LOAD_ROWS, total]


def test_fill_makes_what_it_promises(ct: nlct.Conntrack) -> None:
    """Zones 1 to M in turn, and a second fill finds every flow there."""
    result = filling.fill(ct, 1000, 7)
    assert (result.created, dict(result.failed)) == (1000, {})
    assert ct.count_by("zone") == {z: 1000 // 7 + (z <= 1000 % 7) for z in range(1, 8)}
    result = filling.fill(ct, 1001, 7)
    assert (result.created, dict(result.failed)) == (1, {errno.EEXIST: 1000})


def test_a_table_gives_back_its_flows() -> None:
    """Columns and rows are two views of one thing, absent values included."""
    made = list(flows.menagerie())
    table = FlowTable.from_flows(made)
    assert len(table) == len(made)
    assert list(table) == made
    assert table[-1] == made[-1]
    assert [table[row] for row in (0, len(made) - 1)] == [made[0], made[-1]]
    with pytest.raises(IndexError):
        table[len(made)]


@pytest.mark.parametrize(
    ("columns", "valid"),
    [
        ({"zone": b"\0\0"}, {}),
        ({"family": b"\2", "colour": b"\0"}, {}),
        ({"family": b"\2", "zone": b"\0"}, {}),
        ({"family": b"\2", "zone": array("I", [1])}, {}),
        ({"family": b"\2", "src": bytes(4)}, {}),
        ({"family": b"\2"}, {"zone": b"\1"}),
        ({"family": b"\2"}, {"family": b"\1\1"}),
    ],
)
def test_a_table_refuses_columns_that_do_not_fit(
    columns: dict[str, bytes], valid: dict[str, bytes]
) -> None:
    """Too short, too wide, unknown or without a family: nothing that the core would read past."""
    with pytest.raises(ValueError, match=r"column|valid|family"):
        FlowTable(columns, valid)
