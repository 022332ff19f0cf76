"""The table with everything, and its two readers held against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import pytest

from tests.support import everything, pyroute, tool
from tests.support.everything import ASSURED, FAMILIES, SEEN_REPLY, Everything, Flow

# Bits of the status.
EXPECTED, SRC_NAT, DST_NAT, SEQ_ADJUST = 0x1, 0x10, 0x20, 0x40

# Parts that may be missing, for these reasons alone.
MAY_BE_MISSING = {
    "dccp": "this kernel knows no ports",
    "udplite": "this kernel knows no ports",
    "synproxy": "this kernel drops it",
    "ftp_translated": "nf_nat_ftp",
    "offload": "this kernel has no flowtables|this kernel lets go of offloaded flows",
    "secctx": "no security module",
}


class Reading(NamedTuple):
    """A table, and what pyroute2 says of it; flows by id."""

    table: Everything
    full: bool
    flows: dict[int, Flow]


@pytest.fixture(scope="module", params=[True, False], ids=["full", "bare"])
def reading(request: pytest.FixtureRequest) -> Iterator[Reading]:
    """The table with accounting and timestamps, and without them."""
    with everything.everything(acct=request.param, timestamp=request.param) as table:
        yield Reading(table, request.param, everything.by_id(pyroute.dump(table.netns)))


@pytest.fixture(scope="module")
def xml(reading: Reading) -> dict[int, Flow]:
    """What the tool's XML says of the table, later."""
    return everything.by_id(tool.xml(reading.table.netns))


def is_known(name: str, ours: Any, xml: Any, flow: Flow) -> bool:
    """Tell whether this difference is one of the known."""
    if tool.PORTS.fullmatch(name) and (ours, xml) == (None, 0):
        return flow["orig"]["proto"] in everything.WITH_PORTS
    return xml is None and any(re.fullmatch(pattern, name) for pattern in tool.NOT_IN_XML)


def in_xmls_words(flow: Flow) -> Flow:
    """A flow of pyroute2's with the two bits that the XML tells beside the status."""
    status = flow["status"]
    return {**flow, "assured": bool(status & ASSURED), "unreplied": not status & SEEN_REPLY}


def test_the_readers_agree(reading: Reading, xml: dict[int, Flow]) -> None:
    """The tool's XML and pyroute2 tell the same flows, and the same of each but what is known."""
    assert xml.keys() == reading.flows.keys()
    unknown = {}
    for number, flow in reading.flows.items():
        found = everything.differences(in_xmls_words(flow), xml[number])
        unknown.update(
            {(number, name): two for name, two in found.items() if not is_known(name, *two, flow)}
        )
    assert not unknown, unknown


def test_what_is_known_still_holds(reading: Reading, xml: dict[int, Flow]) -> None:
    """Each known difference is seen: what a tool has learnt to say is to be compared."""
    seen = {
        name
        for number, flow in reading.flows.items()
        for name in everything.differences(flow, xml[number])
    }
    unseen = {p for p in tool.NOT_IN_XML if not any(re.fullmatch(p, name) for name in seen)}
    assert unseen == {p for p in tool.NOT_IN_XML if p.partition("_")[0] in reading.table.missing}


def test_nothing_is_left_unread(reading: Reading, xml: dict[int, Flow]) -> None:
    """Each attribute has a name, and each name is one of the common ones."""
    common = {f"{t}.{n}" for t in everything.TUPLES for n in everything.TUPLE_FIELDS}
    common.update(everything.FIELDS)
    for flows, own in ((reading.flows, set()), (xml, {"assured", "unreplied"})):
        names = {name for flow in flows.values() for name in everything.flat(flow)}
        assert names <= common | own


def test_the_table_holds_still(reading: Reading) -> None:
    """A second look sees the same, but for the timeouts."""
    again = everything.by_id(pyroute.dump(reading.table.netns))
    assert again.keys() == reading.flows.keys()
    moved = {
        number: found
        for number, flow in reading.flows.items()
        if (found := everything.differences(flow, again[number]))
    }
    assert not moved, moved


def test_what_is_missing_may_be(reading: Reading) -> None:
    """Only what some kernels have not is missing."""
    for part, reason in reading.table.missing.items():
        assert re.match(MAY_BE_MISSING.get(part, "nothing"), reason), (part, reason)


def test_accounting_and_timestamps_are_as_asked(reading: Reading, xml: dict[int, Flow]) -> None:
    """Every flow has them, or none."""
    names = ("packets_orig", "bytes_orig", "packets_reply", "bytes_reply", "timestamp_start")
    for flows in (reading.flows, xml):
        for flow in flows.values():
            assert [name in flow for name in names] == [reading.full] * len(names)
    if reading.full:
        assert any(flow["bytes_reply"] > 1 for flow in reading.flows.values())


def proto(number: int, **fields: Any) -> Callable[[Flow], bool]:
    """A flow of this protocol with these values."""
    return lambda flow: (
        flow["orig"]["proto"] == number and fields.items() <= everything.flat(flow).items()
    )


def status(*bits: int, **fields: Any) -> Callable[[Flow], bool]:
    """A flow with these bits in its status and these values."""
    return lambda flow: (
        all(flow["status"] & bit for bit in bits)
        and fields.items() <= everything.flat(flow).items()
    )


ONES = 0xFFFFFFFF
# What the table must have in each family, by the part that puts it there.
WANTED: tuple[tuple[str, Callable[[Flow], bool]], ...] = (
    *(("tcp_by_packets", proto(6, tcp_state=n, tcp_wscale_orig=7)) for n in range(1, 10)),
    *(("tcp_by_netlink", proto(6, tcp_state=n, tcp_flags_orig=n)) for n in range(10)),
    *(("udp", lambda f, s=s: proto(17)(f) and f["status"] & 6 == s) for s in (0, 2, 6)),
    *(("udplite", lambda f, s=s: proto(136)(f) and f["status"] & 6 == s) for s in (0, 2, 6)),
    *(("sctp", proto(132, sctp_state=n)) for n in range(9)),
    ("sctp", proto(132, sctp_state=4, sctp_vtag_orig=0x01020304, sctp_vtag_reply=0xDEADBEEF)),
    *(("dccp", proto(33, dccp_state=n)) for n in range(1, 8)),
    ("gre", proto(47, **{"orig.sport": 0, "orig.dport": 0})),
    ("gre", proto(47, **{"orig.sport": 0xFFFF})),
    *(("unknown", proto(n)) for n in (0, 2, 50, 99, 255)),
    *(("marks", status(mark=mark)) for mark in (0, 1, 0x80000001, ONES)),
    *(("labels", status(labels=n)) for n in (1, 1 << 127, (1 << 128) - 1, 1 << 5 | 1 << 127)),
    ("statuses", status(everything.FIXED_TIMEOUT)),
    *(("zones", status(zone=zone)) for zone in (1, 7, 256, 65535)),
    *(("directional_zones", status(**{"orig.zone": zone})) for zone in (5, 8)),
    *(("directional_zones", status(**{"reply.zone": zone})) for zone in (9, 65535)),
    ("nat_by_packets", status(SRC_NAT, DST_NAT, ASSURED)),
    ("nat_by_packets", status(DST_NAT, SEEN_REPLY, **{"reply.sport": 8080})),
    ("nat_by_packets", status(SRC_NAT, SEEN_REPLY, **{"reply.dport": 4000})),
    ("nat_by_netlink", status(SRC_NAT, **{"reply.dport": 1234})),
    ("nat_by_netlink", status(DST_NAT, **{"reply.sport": 5678})),
    ("nat_by_netlink", status(SRC_NAT, DST_NAT, **{"reply.sport": 6789, "reply.dport": 2345})),
    ("synproxy", status(synproxy_isn=ONES, synproxy_its=0, synproxy_tsoff=0x80000000)),
    ("seqadj", status(SEQ_ADJUST, seqadj_orig_pos=ONES, seqadj_orig_after=ONES - 1)),
    ("seqadj", status(SEQ_ADJUST, seqadj_reply_pos=4, seqadj_reply_before=ONES - 4)),
    *(("helpers", status(helper=name)) for name in ("ftp", "tftp", "sip")),
    ("masters", status(EXPECTED, zone=3, **{"master.proto": 6})),
    ("ftp", status(SEEN_REPLY, helper="ftp", use=2)),
    ("ftp", status(EXPECTED, ASSURED, **{"master.dport": 21})),
    ("ftp_translated", status(EXPECTED, ASSURED, DST_NAT, **{"master.dport": 21})),
    ("ftp_translated", status(SEQ_ADJUST, ASSURED, SRC_NAT, helper="ftp")),
    ("offload", status(everything.OFFLOAD)),
    ("secctx", lambda flow: "secctx" in flow),
)
# And ICMP, of which each family has its own.
ICMP_WANTED = (
    *(proto(1, **{"orig.icmp_type": n, "reply.icmp_type": n + 1}) for n in (13, 15, 17)),
    proto(1, **{"orig.icmp_type": 8, "reply.icmp_type": 0, "orig.icmp_id": ONES >> 16}),
    proto(1, **{"orig.icmp_code": 9}),
    proto(58, **{"orig.icmp_type": 128, "reply.icmp_type": 129, "orig.icmp_id": ONES >> 16}),
    proto(58, **{"orig.icmp_code": 9}),
)


def test_everything_is_in_the_table(reading: Reading) -> None:
    """What each part is for is there, in both families."""
    flows = reading.flows.values()
    lacking = [
        (place, family, part)
        for place, (part, is_it) in enumerate(WANTED)
        for family in FAMILIES
        if part not in reading.table.missing
        and not any(is_it(flow) for flow in flows if flow["family"] == family)
    ]
    assert not lacking, lacking
    assert [n for n, is_it in enumerate(ICMP_WANTED) if not any(map(is_it, flows))] == []


def test_the_text_has_every_flow(reading: Reading) -> None:
    """One line for each, and the same again but for what goes on by itself."""
    netns = reading.table.netns
    lines = tool.lines(netns, "-o", "extended,id,labels")
    assert sorted(int(re.findall(r" id=(\d+)", line)[-1]) for line in lines) == sorted(
        reading.flows
    )
    of_ipv6 = tool.lines(netns, "-f", "ipv6", "-o", "extended,id,labels")
    assert {line.split()[0] for line in of_ipv6} == {"ipv6"}
    assert {line.split()[0] for line in lines} == {"ipv4", "ipv6"}
    still = sorted(map(tool.without_clocks, lines))
    again = tool.lines(netns, "-o", "extended,id,labels")
    assert sorted(map(tool.without_clocks, again)) == still


def test_clocks_are_all_that_is_taken_from_a_line() -> None:
    """The timeout and the age go, the rest stays; a flow without a timeout loses nothing."""
    for line, left in (
        (
            "tcp      6 99 CLOSE src=1.2.3.4 delta-time=7 use=1",
            "tcp      6 CLOSE src=1.2.3.4 use=1",
        ),
        ("ipv4     2 udp      17 5 src=1.2.3.4", "ipv4     2 udp      17 src=1.2.3.4"),
        ("udp      17 src=1.2.3.4 [OFFLOAD]", "udp      17 src=1.2.3.4 [OFFLOAD]"),
    ):
        assert tool.without_clocks(line) == left


def test_differences_are_found() -> None:
    """A changed, an added and a lost field is told; a timeout may go down, but not up or far."""
    flow = {"id": 1, "timeout": 5000, "orig": {"src": "::1", "sport": 0}}
    assert everything.differences(flow, {**flow, "timeout": 4998}) == {}
    assert everything.differences(flow, {**flow, "timeout": 5001}) == {"timeout": (5000, 5001)}
    assert everything.differences(flow, {**flow, "timeout": 4000}) == {"timeout": (5000, 4000)}
    assert everything.differences(flow, {**flow, "orig": {"src": "::1"}}) == {
        "orig.sport": (0, None)
    }
    assert everything.differences({"id": 1}, {"id": 2, "mark": 0}) == {
        "id": (1, 2),
        "mark": (None, 0),
    }
