"""Setting counters to zero: exactly those of the flows that match, and none is lost."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import nlct
from nlct import Filter, zero
from nlct._ffi import ffi, lib
from tests.support import tool
from tests.support.core import Lib

HOME = "127.0.0.1"
ZONES = (5, 6, 7)
# More than fit into a datagram of a dump.
EACH = 100
# Zeroed between two chances for an interrupt, where a test wants many.
AT_ONCE = 50

RULES = """
table inet zeroing {
 chain output {
  type filter hook output priority -300
  udp dport 5 ct zone set 5
  udp dport 6 ct zone set 6
  udp dport 7 ct zone set 7
 }
 chain prerouting {
  type filter hook prerouting priority -300
  udp dport 5 ct zone set 5
  udp dport 6 ct zone set 6
  udp dport 7 ct zone set 7
 }
 chain marks {
  type filter hook output priority 0
  ct state new ct mark set 1
 }
}
"""

Key = tuple[int, int]
Packets = dict[Key, int]


def packets(flows: Iterator[nlct.Flow] | nlct.FlowTable) -> Packets:
    """Packets of each flow, by zone and port."""
    return Counter({(flow.zone, flow.orig.sport or 0): flow.packets_orig or 0 for flow in flows})


class Talkers:
    """Many who send datagrams in each zone."""

    def __init__(self, netns: nlct.Netns, stack: ExitStack) -> None:
        fd = netns.open_file("/proc/sys/net/netfilter/nf_conntrack_acct", os.O_WRONLY)
        os.write(fd, b"1")
        os.close(fd)
        try:
            tool.run(netns, "ip", "link", "set", "lo", "up")
            tool.run(netns, "nft", "-f", "-", given=RULES)
        except AssertionError as exc:
            pytest.skip(f"MISSING: what the rules need: {exc}")
        self.sent: Counter[Key] = Counter()
        self._socks = []
        for zone in ZONES:
            sock = stack.enter_context(netns.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind((HOME, zone))
        for number in range(EACH):
            sock = stack.enter_context(netns.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind((HOME, 1000 + number))
            self._socks.append(sock)

    def talk(self) -> None:
        """Have each say something in each zone."""
        for number, sock in enumerate(self._socks):
            for zone in ZONES:
                sock.sendto(b"x", (HOME, zone))
                self.sent[zone, 1000 + number] += 1


@pytest.fixture
def talkers(netns: nlct.Netns, root: None) -> Iterator[Talkers]:  # noqa: ARG001
    """They have said something already."""
    with ExitStack() as stack:
        made = Talkers(netns, stack)
        made.talk()
        yield made


def test_only_what_matches_is_zeroed(ct: nlct.Conntrack, talkers: Talkers) -> None:
    """By any filter; others keep their counters. What was there before is handed over."""
    for wanted in (
        Filter(zone=5),
        Filter(zone={5, 6}, sport=slice(1000, 1050)),
        Filter(sport=[1003, 1099]) | Filter(zone=7, dst="127.0.0.0/8"),
        ~Filter(zone=6),
        Filter(zone=99),
        nlct.ALL,
    ):
        talkers.talk()
        before = packets(ct.dump())
        matching = packets(ct.dump(wanted))
        zeroing = ct.zero_counters(wanted)
        table = zeroing.run()
        assert packets(table) == matching
        assert len(table) == zeroing.zeroed == len(matching)
        assert {flow.bytes_reply for flow in table} <= {0}
        assert zeroing.complete
        left = {key: count for key, count in before.items() if key not in matching}
        assert packets(ct.dump()) == {**dict.fromkeys(matching, 0), **left}
        assert len(zeroing.take()) == 0
    assert not any(packets(ct.dump()).values())


def test_no_packet_is_lost_nor_counted_twice(ct: nlct.Conntrack, talkers: Talkers) -> None:
    """While all go on talking; in batches and with few columns."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.is_set():
            talkers.talk()

    taken: Counter[Key] = Counter()
    thread = threading.Thread(target=talk)
    thread.start()
    try:
        for turn in range(12):
            zeroing = ct.zero_counters(
                nlct.ALL, rows=turn * 40 + 1, columns=["sport", "packets_orig"]
            )
            tables = list(zeroing)
            assert max(map(len, tables)) <= turn * 40 + 1
            assert sum(map(len, tables)) == 3 * EACH
            for table in tables:
                ports, counts = table.column("sport"), table.column("packets_orig")
                for zone, port, count in zip(table.column("zone"), ports, counts):
                    taken[zone, port] += count
    finally:
        stop.set()
        thread.join()
    assert taken + packets(ct.dump()) == talkers.sent


def test_what_was_read_outlives_an_interrupt(
    ct: nlct.Conntrack, talkers: Talkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes: it can be taken, or the rest be done as well."""
    names = ("nlct_zero", "nlct_rows_take", "nlct_rows_count")
    taken: Counter[Key] = Counter()
    for name in names:
        talkers.talk()
        before = talkers.sent - taken
        zeroing = ct.zero_counters(nlct.ALL)
        with monkeypatch.context() as patched:
            broken = Lib(**{name: _once(name)})
            patched.setattr(zero, "lib", broken)
            with pytest.raises(KeyboardInterrupt):
                zeroing.run()
        part = packets(zeroing.take())
        if name == "nlct_zero":
            assert 0 < len(part) < 3 * EACH
            assert not zeroing.complete
        assert packets(ct.dump()) == {**before, **dict.fromkeys(part, 0)}
        rest = packets(zeroing.run())
        assert not part.keys() & rest.keys()
        assert zeroing.complete
        taken += Counter(part) + Counter(rest)
        assert taken == talkers.sent


def _once(name: str) -> object:
    """A function of the core behind which Ctrl-C comes, the second time it is called."""
    calls = [0]

    def call(*arguments: Any) -> object:
        if name == "nlct_zero":
            sock, rows, count, into, milliseconds, state = arguments
            arguments = sock, rows, min(count, state.next + AT_ONCE), into, milliseconds, state
        result = getattr(lib, name)(*arguments)
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return result

    return call


def test_threads_share_it_and_a_child_does_not(ct: nlct.Conntrack, talkers: Talkers) -> None:
    """Each flow is handed over once, by whichever thread; the child of a fork is refused."""
    talkers.talk()
    zeroing = ct.zero_counters(nlct.ALL, rows=3)
    tables: list[nlct.FlowTable] = []

    def read() -> None:
        tables.extend(zeroing)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert zeroing.complete
    assert zeroing.zeroed == EACH * len(ZONES) == len({f.id for table in tables for f in table})
    assert {len(table) for table in tables} == {3}
    child = os.fork()
    if child == 0:
        try:
            zeroing.take()
        except RuntimeError:
            zeroing.close()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_flow_that_is_gone_or_reborn_is_left_alone(
    ct: nlct.Conntrack, talkers: Talkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name alone does not make it the flow that matched."""
    flows = list(ct.dump(zone=5))
    assert len(flows) == EACH

    def late(sock: object, rows: ffi.CData, *rest: object) -> int:
        if flows:
            assert ct.delete_flows(flows).complete
            talkers.talk()
        # Where the kernel gave the same place in memory to the same tuple, it has the same id.
        for number in range(EACH):
            rows[number].id = 0
        flows.clear()
        return int(lib.nlct_zero(sock, rows, *rest))

    monkeypatch.setattr(zero, "lib", Lib(nlct_zero=late))
    zeroing = ct.zero_counters(Filter(zone=5))
    flows_before = packets(ct.dump(zone={6, 7}))
    table = zeroing.run()
    assert (len(table), zeroing.zeroed) == (0, 0)
    assert zeroing.already_gone >= EACH
    assert zeroing.complete
    assert set(packets(ct.dump(zone=5)).values()) == {1}
    assert packets(ct.dump(zone={6, 7})) == {key: n + 1 for key, n in flows_before.items()}


def test_a_tuple_that_leads_to_another_flow(ct: nlct.Conntrack) -> None:
    """It may be another flow's reply, in the zone of that direction: each goes by its own id."""
    plain = nlct.Tuple("2001:db8::1", "fd00::3", "tcp", 1024, 80)
    other = nlct.Tuple("fd00::3", "fd00::1", "tcp", 80, 1024, zone=256)
    ct.create(nlct.Flow(plain, timeout=600))
    ct.create(nlct.Flow(other, plain, timeout=600))
    ids = {flow.zone: flow.id for flow in ct.dump()}
    for zone in (0, 256):
        zeroing = ct.zero_counters(Filter(zone=zone))
        assert [flow.id for flow in zeroing.run()] == [ids[zone]]
        assert (zeroing.replaced, zeroing.already_gone, zeroing.failed, zeroing.lost) == (
            0,
            0,
            {},
            0,
        )


def test_everything_must_be_meant(ct: nlct.Conntrack) -> None:
    """What restricts nothing is refused, as are wrong arguments, before anything is sent."""
    for wide in (Filter(), ~Filter(mark=[]), Filter(zone=slice(0, 65536))):
        with pytest.raises(ValueError, match=r"nlct\.ALL is for the counters of every flow"):
            ct.zero_counters(wide)
    with pytest.raises(TypeError, match="filter"):
        ct.zero_counters(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows must be from 1"):
        ct.zero_counters(nlct.ALL, rows=0)
    with pytest.raises(ValueError, match="column"):
        ct.zero_counters(nlct.ALL, columns=["weather"])
    with pytest.raises(TypeError, match="progress"):
        ct.zero_counters(nlct.ALL).run(progress=1)  # type: ignore[arg-type]
    assert list(ct.zero_counters(nlct.ALL)) == []


def test_without_privilege(ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the core comes out, and nothing counts as done."""
    ct.create(nlct.Flow(nlct.Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2), timeout=60))
    monkeypatch.setattr(zero, "lib", Lib(nlct_zero=lambda *_: -1))
    zeroing = ct.zero_counters(nlct.ALL)
    with pytest.raises(PermissionError, match="set counters to zero"):
        zeroing.run()
    assert not zeroing.complete
    monkeypatch.undo()
    assert len(zeroing.run()) == 1
    zeroing.close()
    assert zeroing.complete
