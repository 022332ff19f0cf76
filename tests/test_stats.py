"""What the kernel counts, its limit, its other lists, and what flows lack: on the real kernel."""

from __future__ import annotations

import os
import re
import socket
import struct

import pytest

import nlct
from nlct import Filter, _handle, stats
from nlct._ffi import lib
from nlct.flow import Flow, Tuple
from tests.support import netlink, tool
from tests.support.core import Lib
from tests.support.flows import udp
from tests.support.queue import Queue

HOME = "127.0.0.1"


def tell(netns: nlct.Netns, *options: str) -> dict[str, dict[str, int]]:
    """What the tool says of each processor."""
    lines = tool.run(netns, "conntrack", "-S", *options).splitlines()
    said = [dict(re.findall(r"(\w+)=(\d+)", line)) for line in lines]
    return {
        line.pop("cpu"): {name.replace("expect_", ""): int(value) for name, value in line.items()}
        for line in said
    }


def rules(netns: nlct.Netns, *lines: str) -> None:
    """Track what the namespace says to itself; the lines are rules for what it sends."""
    body = "\n  ".join(("type filter hook output priority 0", *lines, "ct state new accept"))
    given = f"table inet stats {{\n chain output {{\n  {body}\n }}\n}}\n"
    try:
        tool.run(netns, "ip", "link", "set", "lo", "up")
        tool.run(netns, "nft", "-f", "-", given=given)
    except AssertionError as exc:
        pytest.skip(f"MISSING: what the rules need: {exc}")


def ping_reply(netns: nlct.Netns) -> None:
    """Send an answer to what nobody asked."""
    packet = struct.pack("!BBHHH", 0, 0, 0xFFFF - 7, 7, 0)
    with netns.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.sendto(packet, (HOME, 0))


@pytest.mark.usefixtures("root")
def test_counters_are_those_of_the_tool(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Of each processor, after traffic that makes some of them count; sums are sums."""
    rules(netns)
    ct.create(udp(1))
    ping_reply(netns)
    found = ct.stats()
    assert found.flows.invalid
    assert found.flows.unknown == found.expectations.unknown == {}
    assert (found.entries, found.limit) == (ct.count(), ct.limit)
    said = found.to_dict()
    for part, options in (("flows", ()), ("expectations", ("expect",))):
        told = tell(netns, *options)
        assert told == {
            cpu: {name: values[part].get(name) for name in told[cpu]}
            for cpu, values in said["cpus"].items()
        }
        for name, value in said[part].items():
            assert value == sum(values[part][name] for values in said["cpus"].values())


def test_what_the_kernel_does_not_send_is_absent(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not known keeps its number."""
    sent = {False: [(0, 2, 5), (0, 40, 6), (3, 2, 2**32 - 1)], True: []}
    monkeypatch.setattr(_handle.Handle, "stats_cpu", lambda _, expectations: sent[expectations])
    found = ct.stats()
    assert found.flows == stats.FlowCounters(found=2**32 + 4, unknown={40: 6})
    assert found.flows.to_dict() == {"found": 2**32 + 4, "unknown": {"40": 6}}
    assert found.cpus[3] == stats.FlowCounters(found=2**32 - 1)
    assert found.expectations == stats.ExpectationCounters()
    assert found.to_dict()["cpus"]["3"] == {"flows": {"found": 2**32 - 1}, "expectations": {}}


# The limit ----------------------------------------------------------------------------------------


def test_a_namespace_of_its_own_cannot_set_the_limit(ct: nlct.Conntrack) -> None:
    """It is told whose the limit is; wrong numbers are refused before."""
    before = ct.limit
    with pytest.raises(nlct.UnsupportedError, match="belongs to the initial network namespace"):
        ct.limit = before
    for wrong in (-1, 2**31):
        with pytest.raises(ValueError, match="limit must be from 0 to 2147483647"):
            ct.limit = wrong
    with pytest.raises(TypeError, match="limit"):
        ct.limit = "many"  # type: ignore[assignment]
    assert ct.limit == before


@pytest.mark.usefixtures("alone", "root")
def test_the_initial_namespace_sets_the_limit() -> None:
    """To what it is already."""
    if not os.access(_handle.LIMIT, os.W_OK):
        pytest.skip("MISSING: a limit that may be set")
    # Nothing else is done here.
    with nlct.Conntrack() as first:
        before = first.limit
        first.limit = before
        assert first.limit == before


def test_without_privilege_nobody_sets_the_limit(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file may be written by others, it is a matter of privilege."""
    monkeypatch.setattr(_handle.Handle, "may_write", lambda *_: True)
    with pytest.raises(nlct.PrivilegeError, match="nf_conntrack_max"):
        ct.limit = ct.limit


# Other lists --------------------------------------------------------------------------------------


def test_dying_flows(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Those whose end cannot be announced; filters apply, and the table has none of them."""
    assert list(ct.dying()) == list(ct.unconfirmed()) == []
    fd = netns.open_file(_handle.EVENTS, os.O_WRONLY)
    os.write(fd, b"1")
    os.close(fd)
    with netlink.connect(netns) as listener:
        listener.bind((0, 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # NETLINK_BROADCAST_ERROR: it is to miss nothing; NFNLGRP_CONNTRACK_DESTROY.
        listener.setsockopt(270, 4, 1)
        listener.setsockopt(270, 1, 3)
        for number in range(60):
            ct.create(udp(number, zone=number % 2))
        ct.flush_all()
        found = [(flow.orig.src, flow.zone or 0) for flow in ct.dying()]
        assert 20 < len(found) < 60
        assert {zone for _, zone in found} == {0, 1}
        in_zone = [(flow.orig.src, 1) for flow in ct.dying(zone=1)]
        assert sorted(in_zone, key=str) == sorted((x for x in found if x[1] == 1), key=str)
        few = list(ct.dying(Filter(src="10.0.0.0/28", zone=1)))
        assert len(few) <= 8
        assert list(ct.dump()) == []


@pytest.mark.usefixtures("root")
def test_an_unconfirmed_flow(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """A flow whose first packet is held is in no table; kernels before 5.19 list it."""
    try:
        rules(netns, "ct state new udp dport 9 queue num 7")
    except pytest.skip.Exception:
        pytest.skip("MISSING: rules that queue packets")
    with Queue(netns, 7) as queue, netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (HOME, 9))
        packet = queue.packet()
        assert list(ct.dump()) == []
        release = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
        listed = [9] if release < (5, 19) else []
        assert [flow.orig.dport for flow in ct.unconfirmed()] == listed
        queue.let_go(packet)
        assert [flow.orig.dport for flow in ct.dump(Filter(dport=9))] == [9]


def test_requests_of_other_lists(ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks for its own list, never for the table."""
    asked: list[int] = []

    def start(dump: object, sock: object, matching: object, which: int) -> int:
        asked.append(which)
        return int(lib.nlct_dump_start_unlisted(dump, sock, matching, which))

    monkeypatch.setattr(_handle, "lib", Lib(nlct_dump_start_unlisted=start, nlct_dump_start=None))
    assert list(ct.dying(zone=7)) == list(ct.unconfirmed(nlct.ALL)) == []
    assert asked == [lib.NLCT_DYING, lib.NLCT_UNCONFIRMED]


# What flows lack ----------------------------------------------------------------------------------


def test_missing_fields(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Sysctls are read where the table is; labels are looked for."""
    wanted = ("bytes_orig", "packets_reply", "timestamp_start", "labels", "mark")
    for sysctl, value in (("acct", b"0"), ("timestamp", b"0"), ("acct", b"1")):
        fd = netns.open_file(f"/proc/sys/net/netfilter/nf_conntrack_{sysctl}", os.O_WRONLY)
        os.write(fd, value)
        os.close(fd)
        if value == b"0":
            found = ct.missing(wanted)
    assert found["bytes_orig"] == found["packets_reply"]
    assert "sysctl -w net.netfilter.nf_conntrack_acct=1" in found["bytes_orig"]
    assert "net.netfilter.nf_conntrack_timestamp=1" in found["timestamp_start"]
    assert "rule" in found["labels"]
    assert "mark" not in found
    assert ct.missing(wanted).keys() == {"timestamp_start", "labels"}
    assert ct.missing(Filter(bytes_orig=5, src="10.0.0.1").fields) == {}
    with pytest.raises(ValueError, match="weather"):
        ct.missing(["weather"])


@pytest.mark.usefixtures("root")
def test_labels_are_not_missing_where_a_flow_has_some(
    netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """One is enough."""
    rules(netns, "ct label set 1")
    orig = Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2)
    ct.create(Flow(orig, timeout=60, labels=2))
    assert ct.missing(["labels"]) == {}
