"""What a mirror cannot be told, and its audit, which finds it."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import nlct
from nlct import Filter, _keeper
from nlct._handle import Dump
from nlct.mirror import Mirror
from tests.support import flows, hidden, oracle, queue, tool
from tests.support.hidden import next_audit, set_mode, unannounced, until
from tests.support.threads import own_threads

# Rounds go on all the time, in which a flow is met again and again.
OFTEN = 0.1
PORT = 7777


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits that wait for little: where all is calm, events are there at once."""
    monkeypatch.setattr(_keeper, "MAKE_SURE", 0.05)
    monkeypatch.setattr(_keeper, "ON_ITS_WAY", 0.1)
    monkeypatch.setattr(_keeper, "LONGEST_DELAY", 0.1)


@pytest.fixture
def mirror(netns: nlct.Netns, quick: None) -> Iterator[Mirror]:  # noqa: ARG001
    """A mirror in step, whose audits go on all the time."""
    with in_step(netns) as made:
        yield made


@contextmanager
def in_step(netns: nlct.Netns, **options: object) -> Iterator[Mirror]:
    """Make a mirror, and wait until it is in step."""
    with Mirror(netns, **options) as made:  # type: ignore[arg-type]
        if "audit_interval" not in options:
            # No caller may ask for so little.
            made._keeper._interval = OFTEN
        assert made.wait(hidden.LONG)
        yield made


@contextmanager
def between_audits(mirror: Mirror) -> Iterator[None]:
    """Let the block run while no audit goes on."""
    keeper, turned = mirror._keeper, threading.Event()
    go_on = keeper._audit_some
    keeper._audit_some = lambda _now: turned.set()  # type: ignore[method-assign]
    try:
        assert turned.wait(hidden.LONG)
        yield
    finally:
        keeper._audit_some = go_on  # type: ignore[method-assign]


def by_zone(netns: nlct.Netns) -> dict[int, int]:
    """How many flows each zone has."""
    return oracle.by_zone(oracle.dump(netns))


# Flows that are never announced -------------------------------------------------------------------


def test_only_their_zone_is_scanned(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """Zones of both directions and of one; those beside them stay quick."""
    ct.load([flows.udp(number, 1 + number % 2) for number in range(20)])
    until(lambda: mirror.state.flows == 20)
    next_audit(mirror)
    assert mirror.flush_zones({1}, dry_run=True).strategy == "mirror"
    assert mirror.state.exact
    with unannounced(netns, mirror):
        for flow in (*flows.menagerie((3, 0)), *flows.directional(4)):
            ct.create(flow)
    assert len(mirror) == 20
    until(lambda: mirror.state.hidden_zones == {0, 3, 4})
    assert mirror.state.in_step
    until(lambda: mirror.state.hidden == 18)
    assert mirror.count_by("zone") == by_zone(netns)
    assert mirror.count(zone=4) == 4
    # A new one, of which no audit has told yet.
    with unannounced(netns, mirror):
        ct.create(flows.udp(100, 3))
    result = mirror.flush_zone(3)
    assert (result.strategy, result.deleted, result.complete) == ("scan", 8, True)
    result = mirror.flush_zone(1)
    assert (result.strategy, result.deleted, result.complete) == ("mirror", 10, True)
    # A hidden zone beside another: each in its own way.
    result = mirror.flush_zones({2, 4}, dry_run=True)
    assert (result.strategy, result.matched, result.deleted) == ("mirror+scan", 14, 0)
    result = mirror.delete(Filter(zone={2, 4}))
    assert (result.strategy, result.deleted, result.complete) == ("mirror+scan", 14, True)
    assert by_zone(netns) == {0: 7}
    # Where no zone is named, any of them may be meant.
    result = mirror.delete(Filter(proto="udp"))
    assert (result.strategy, result.deleted) == ("scan", 2)
    assert mirror.count() == ct.count() == 5


def test_before_the_audit_nothing_wrong_is_claimed(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown flows stay, and the result does not say that all are gone; verify=True sees all."""
    monkeypatch.setattr(_keeper, "MAKE_SURE", 3600.0)
    with in_step(netns, audit_interval=3600) as mirror:
        with unannounced(netns, mirror):
            ct.load([flows.udp(number, 1 + number % 3) for number in range(30)])
        ct.load([flows.udp(number, 1 + number % 3) for number in range(30, 60)])
        result = mirror.flush_zone(1)
        assert (result.strategy, result.deleted, result.complete) == ("mirror", 10, False)
        assert by_zone(netns) == {1: 10, 2: 20, 3: 20}
        result = mirror.flush_zone(2, verify=True)
        assert (result.strategy, result.deleted, result.complete) == ("mirror+scan", 20, True)
        assert by_zone(netns) == {1: 10, 3: 20}
        result = mirror.delete(Filter(zone=3, src="10.0.0.0/27"), verify=True)
        assert (result.deleted, result.complete) == (10, True)
        assert by_zone(netns) == {1: 10, 3: 10}


def test_ghosts_are_dropped(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """Flows whose end nobody told: they are deleted in vain, counted too high, and forgotten."""
    with unannounced(netns, mirror):
        ct.load([flows.udp(number, 1) for number in range(20)])
    until(lambda: mirror.state.hidden == 20)
    with between_audits(mirror):
        for flow in ct.dump(zone=1):
            ct.delete_flow(flow)
        assert mirror.state.flows == 20
    # A zone with ghosts alone is empty.
    until(lambda: mirror.state.ghosts == 20)
    until(lambda: mirror.state.exact)
    assert mirror.state.flows == 0
    assert mirror.state.in_step


def half_dies_and_half_is_hidden(netns: nlct.Netns, ct: nlct.Conntrack, many: int) -> None:
    """Start on many flows without event state, half of which end; then hide as many new ones.

    The number of flows is the same in the end, and tells nothing.
    """
    set_mode(netns, 0)
    ct.load([flows.udp(number, 1 + number % 4) for number in range(many)])
    set_mode(netns, 1)
    with in_step(netns) as mirror:
        gone = set(itertools.islice(ct.dump(zone={1, 2}), many // 2))
        with between_audits(mirror):
            assert ct.delete_flows(gone).deleted == many // 2
            assert len(mirror) == many
            # Ghosts, all of them: nothing is deleted but what is there.
            result = mirror.flush_zone(1)
            assert (result.deleted, result.complete) == (0, False)
        assert by_zone(netns) == {3: many // 4, 4: many // 4}
        until(lambda: mirror.state.ghosts == many // 2)
        until(lambda: mirror.state.exact)
        assert len(mirror) == many // 2
        result = mirror.flush_zone(3)
        assert result.strategy in ("mirror", "kernel")
        assert (result.deleted or many // 4, result.complete) == (many // 4, True)
        assert by_zone(netns) == {4: many // 4}
        with unannounced(netns, mirror):
            ct.load([flows.udp(number, 5 + number % 2) for number in range(many // 2)])
        result = mirror.flush_zone(5)
        assert (result.deleted, result.complete) in ((0, False), (many // 4, True))
        until(lambda: mirror.state.hidden_zones == {5, 6})
        result = mirror.flush_zones({5, 6})
        assert result.complete
        assert by_zone(netns) == {4: many // 4}
        result = mirror.flush_zone(4)
        # So much may be left to the kernel, which does not count.
        assert result.strategy in ("mirror", "kernel")
        assert (result.deleted or many // 4, result.complete) == (many // 4, True)
        assert ct.count() == 0


@pytest.mark.usefixtures("quick")
def test_half_dies_and_half_is_hidden(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """A few."""
    half_dies_and_half_is_hidden(netns, ct, 800)


@pytest.mark.exhaustive
def test_half_of_very_many_dies_and_half_is_hidden(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """A hundred thousand."""
    half_dies_and_half_is_hidden(netns, ct, 100_000)


# The same by packets ------------------------------------------------------------------------------

# On the loopback interface: everything is in zone 5.
RULES = """
table ip hidden {
    ct helper ftp { type "ftp" protocol tcp; }
    chain zones {
        type filter hook output priority raw
        ct zone set 5
    }
    chain output {
        type filter hook output priority filter
        %s
    }
}
"""
HOME = "127.0.0.1"


def rules(netns: nlct.Netns, text: str) -> None:
    """Have packets on the loopback interface meet these rules."""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root")
    tool.run(netns, "ip", "link", "set", "lo", "up")
    try:
        tool.run(netns, "nft", "-f", "-", given=RULES % text)
    except AssertionError as exc:
        pytest.skip(f"MISSING: what the rules need: {exc}")


def hold(netns: nlct.Netns) -> None:
    """Hold what goes to port 80 in queue 3."""
    nft = ("nft", "add rule ip hidden output tcp dport 80 queue num 3")
    words = ("-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "NFQUEUE", "--queue-num", "3")
    try:
        tool.run(netns, *nft)
    except AssertionError:
        try:
            tool.run(netns, "iptables-legacy", *words)
        except AssertionError as exc:
            pytest.skip(f"MISSING: rules that queue packets: {exc}")


def datagram(netns: nlct.Netns, port: int) -> None:
    """Send one that nobody waits for."""
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"word", (HOME, port))


def test_an_event_mask(netns: nlct.Netns, mirror: Mirror) -> None:
    """A rule lets nothing but the end of a flow be announced."""
    rules(netns, "udp dport 7 ct event set destroy")
    datagram(netns, 9)
    assert mirror.count(zone=5) == 1
    datagram(netns, 7)
    assert by_zone(netns) == {5: 2}
    result = mirror.flush_zone(5, dry_run=True)
    assert not result.complete
    until(lambda: mirror.state.hidden_zones == {5})
    datagram(netns, 7)
    result = mirror.flush_zone(5)
    assert (result.strategy, result.deleted, result.complete) == ("scan", 3, True)
    assert by_zone(netns) == {}
    # The ends of those that the mirror knew are announced.
    assert mirror.state.flows == 0


def test_expected_connections(netns: nlct.Netns, mirror: Mirror) -> None:
    """An FTP session is announced; its data connection would carry another event."""
    rules(netns, 'tcp dport 21 ct helper set "ftp"\n ct event set new,destroy')
    with ExitStack() as stack:

        def listen(port: int) -> socket.socket:
            sock = stack.enter_context(netns.socket(socket.AF_INET, socket.SOCK_STREAM))
            sock.settimeout(hidden.LONG)
            sock.bind((HOME, port))
            sock.listen()
            return sock

        def connect(port: int) -> socket.socket:
            sock = stack.enter_context(netns.socket(socket.AF_INET, socket.SOCK_STREAM))
            sock.settimeout(hidden.LONG)
            sock.connect((HOME, port))
            return sock

        server, data = listen(21), listen(0)
        port = data.getsockname()[1]
        control = connect(21)
        served = stack.enter_context(server.accept()[0])
        # The helper reads lines from the second on.
        for line in ("USER nobody", f"PORT {HOME.replace('.', ',')},{port >> 8},{port & 255}"):
            control.sendall(f"{line}\r\n".encode())
            served.recv(2048)
        assert mirror.count(zone=5) == 1
        connect(port)
        if by_zone(netns) != {5: 2} or not any("helper" in str(f) for f in nlct_flows(netns)):
            pytest.skip("MISSING: an FTP helper")
        until(lambda: mirror.state.hidden_zones == {5})
        assert mirror.count(zone=5) == 2
        assert mirror.state.hidden == 1
        result = mirror.flush_zone(5)
        assert (result.strategy, result.complete) == ("scan", True)


def nlct_flows(netns: nlct.Netns) -> list[nlct.Flow]:
    """All flows."""
    with nlct.Conntrack(netns) as ct:
        return list(ct.dump())


@pytest.mark.usefixtures("quick")
def test_a_packet_that_is_held_over_the_start(netns: nlct.Netns) -> None:
    """Its flow is made before the mirror listens, and appears after the mirror has dumped."""
    rules(netns, "")
    hold(netns)
    set_mode(netns, 0)
    with ExitStack() as stack:
        held = stack.enter_context(queue.Queue(netns, 3))
        server, sock = (
            stack.enter_context(netns.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(2)
        )
        server.bind((HOME, 80))
        server.listen()
        sock.setblocking(False)
        sock.connect_ex((HOME, 80))
        packet = held.packet()
        # As under 2 where nobody listened.
        set_mode(netns, 1)
        mirror = stack.enter_context(in_step(netns))
        assert len(mirror) == 0
        held.let_go(packet)
        until(lambda: by_zone(netns) == {5: 1})
        result = mirror.flush_zone(5, dry_run=True)
        assert not result.complete
        until(lambda: mirror.state.hidden_zones == {5})
        result = mirror.flush_zone(5)
        assert (result.strategy, result.deleted, result.complete) == ("scan", 1, True)


# The sysctl ---------------------------------------------------------------------------------------


def test_where_no_flow_has_events(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """The error names the sysctl, and nothing is left behind."""
    set_mode(netns, 0)
    opened = []
    for _ in range(2):
        with pytest.raises(nlct.UnsupportedError, match="nf_conntrack_events is 0"):
            Mirror(ct)
        opened.append(len(os.listdir("/proc/self/fd")))
    assert opened[0] == opened[1]
    assert own_threads() == []
    for mode in (1, 2):
        set_mode(netns, mode)
        with in_step(netns) as mirror:
            ct.create(flows.udp(mode, 1))
            assert mirror.flush_zone(1).deleted == 1


@pytest.mark.usefixtures("quick")
def test_the_sysctl_is_switched(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Out of step at once, and right all the time; in step again when there are events again."""
    set_mode(netns, 2)
    with in_step(netns) as mirror:
        modes = (2, 0, 2, 1, 0, 1, 2)
        for number, (before, mode) in enumerate(zip(modes, modes[1:])):
            ct.load([flows.udp(zone, zone) for zone in range(10)])
            next_audit(mirror) if before else None
            known = mirror._keeper.knows
            assert known(frozenset(range(10))) == bool(before)
            with mirror._keeper.lock.real:
                set_mode(netns, mode)
                assert "nf_conntrack_events" in mirror.state.reason
                assert not mirror.state.in_step
                assert not known(frozenset({1}))
            # Out of step it is done as ever.
            result = mirror.flush_zone(number)
            assert result.deleted in (1, None)
            assert result.complete
            assert sorted(by_zone(netns)) == [zone for zone in range(10) if zone != number]
            if mode == 0:
                until(lambda: "set it to 1 or 2" in mirror.state.reason)
                assert not mirror.wait(0.01)
                assert mirror.count_by("zone") == by_zone(netns)
                continue
            assert mirror.wait(hidden.LONG)
            # Flows from a time without events do not announce their end.
            until(lambda: mirror.state.exact)
            assert mirror.count_by("zone") == by_zone(netns)
            result = mirror.flush_zone(number + 1)
            assert (result.strategy, result.deleted, result.complete) == ("mirror", 1, True)
            assert number + 1 not in by_zone(netns)


# The audit itself ---------------------------------------------------------------------------------


def busy(netns: nlct.Netns, stop: threading.Event, first: int, tuples: int) -> None:
    """Create and delete at full rate, the same tuples again and again: ids come back as well."""
    made = [flows.udp(first + number, number % 4) for number in range(tuples)]
    with nlct.Conntrack(netns) as ct:
        while not stop.is_set():
            for flow in made:
                ct.create(flow)
            for part in range(0, tuples, 50):
                ct.delete_flows(
                    found
                    for flow in made[part : part + 50]
                    if (found := ct.get(flow.orig, zone=flow.zone)) is not None
                )


@contextmanager
def at_full_rate(netns: nlct.Netns, *, many: int = 300) -> Iterator[None]:
    """Have two threads at it during the block."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=busy, args=(netns, stop, first << 16, count))
        for first, count in ((1, many), (2, 1))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def no_announced_flow_is_called_hidden(netns: nlct.Netns, ct: nlct.Conntrack, rounds: int) -> None:
    """Let audits go round beside creates and deletes at full rate, and flushes by the mirror."""
    ct.load([flows.udp(number, number % 4) for number in range(1000)])
    with in_step(netns) as mirror:
        with at_full_rate(netns):
            while mirror.state.audits < rounds:
                time.sleep(0.01)
                state = mirror.state
                assert state.hidden == 0, state
                assert state.ghosts == 0, state
        assert mirror.state.in_step
        assert mirror.state.exact
        assert mirror.count_by("zone") == by_zone(netns)
        result = mirror.flush_zone(1)
        assert (result.strategy, result.complete) == ("mirror", True)
        assert by_zone(netns) == mirror.count_by("zone")


def test_no_announced_flow_is_called_hidden(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """A few rounds."""
    no_announced_flow_is_called_hidden(netns, ct, 2)


@pytest.mark.exhaustive
def test_no_announced_flow_is_ever_called_hidden(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Rounds for a minute or so."""
    no_announced_flow_is_called_hidden(netns, ct, 40)


def test_a_flow_that_is_made_anew_in_that_very_moment(
    ct: nlct.Conntrack, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel inserts a flow and then announces it: in between it is there and not known."""
    keeper = mirror._keeper
    looked: list[nlct.Flow] = []

    def stale(flow: nlct.Flow, losses: int) -> bool:
        """Nothing has come yet, the first time."""
        if flow not in looked:
            looked.append(flow)
            return False
        return has_come(flow, losses)

    has_come = keeper._has_come
    ct.create(flows.udp(1, 1))
    until(lambda: len(mirror) == 1)
    (flow,) = ct.dump()
    monkeypatch.setattr(keeper, "_has_come", stale)
    monkeypatch.setattr(keeper.memory, "strangers", lambda: [flow] if not looked else [])
    audits = mirror.state.audits
    until(lambda: looked)
    until(lambda: mirror.state.audits > audits + 1)
    assert mirror.state.hidden == 0


class Step:
    """Stops audits after a step, at will: ``here`` is called there, once."""

    def __init__(self, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here: threading.Event | None = None
        self.on = threading.Event()
        audited = mirror._keeper._audited

        def stepping(losses: int) -> Iterator[None]:
            for _ in audited(losses):
                if self.here is not None:
                    self.here.set()
                    self.here = None
                    assert self.on.wait(hidden.LONG)
                yield

        monkeypatch.setattr(mirror._keeper, "_audited", stepping)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block run while an audit stands in its middle."""
        here = self.here = threading.Event()
        self.on.clear()
        assert here.wait(hidden.LONG)
        try:
            yield
        finally:
            self.on.set()


def test_an_overrun_in_the_middle_of_an_audit(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel dropped was announced all the same."""
    monkeypatch.setattr(_keeper, "MAKE_SURE", 0.05)
    with in_step(netns, buffer=4096) as mirror:
        step = Step(mirror, monkeypatch)
        ct.load([flows.udp(number, 1) for number in range(300)])
        assert mirror.wait(hidden.LONG)
        audits = mirror.state.audits
        with step.held(), mirror._keeper.lock.real:
            ct.load([flows.udp(number, 2) for number in range(300, 900)])
        until(lambda: mirror.state.overruns)
        assert mirror.wait(hidden.LONG)
        until(lambda: mirror.state.audits > audits)
        assert mirror.state.hidden == mirror.state.ghosts == 0
        assert mirror.count_by("zone") == {1: 300, 2: 600}


def test_events_that_are_lost_are_not_hidden(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """A flow that an audit met before the overrun, and looks up after it."""
    keeper = mirror._keeper
    with unannounced(netns, mirror):
        ct.create(flows.udp(1, 1))
    (flow,) = ct.dump()
    losses = keeper._losses
    with keeper.lock.real:
        assert keeper._is_hidden(flow, losses)
        keeper.lose("a test says so")
        assert not keeper._is_hidden(flow, losses)
        # Nor where the last event is not at hand.
        drain, keeper.drain = keeper.drain, lambda: False  # type: ignore[method-assign]
        assert not keeper._is_hidden(flow, keeper._losses)
        keeper.drain = drain  # type: ignore[method-assign]


@pytest.mark.usefixtures("alone")
def test_a_resize_in_the_middle_of_an_audit(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round counts for nothing; what it has found stays found, and nobody loses step."""
    try:
        oracle.BUCKETS.write_text(oracle.BUCKETS.read_text())
    except PermissionError as exc:
        pytest.skip(f"MISSING: the right to resize the hash table: {exc}")
    step = Step(mirror, monkeypatch)
    ct.load([flows.udp(number, 1) for number in range(100)])
    next_audit(mirror)
    buckets = int(oracle.BUCKETS.read_text())
    with step.held():
        audits = mirror.state.audits
        try:
            oracle.BUCKETS.write_text(str(buckets // 2))
            with unannounced(netns, mirror):
                ct.create(flows.udp(200, 2))
            assert mirror.flush_zone(1, dry_run=True).matched == 100
        finally:
            oracle.BUCKETS.write_text(str(buckets))
    until(lambda: mirror.state.audits > audits)
    assert (mirror.state.in_step, mirror.state.dumps, mirror.state.ghosts) == (True, 1, 0)
    until(lambda: mirror.state.hidden_zones == {2})
    assert mirror.state.hidden == 1


def test_callers_do_not_wait_for_its_dump(
    ct: nlct.Conntrack, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the kernel goes through the machine's table for the next flow of this one."""
    ct.create(flows.udp(1, 1))
    plain = Dump.steps
    results: list[nlct.FlushResult] = []

    def slow(dump: Dump, *arguments: object) -> Iterator[None]:
        for _ in plain(dump, *arguments):  # type: ignore[arg-type]
            if not results and threading.get_ident() == mirror._keeper._ident:
                caller = threading.Thread(target=lambda: results.append(mirror.flush_zone(1)))
                caller.start()
                caller.join(hidden.LONG)
            yield

    monkeypatch.setattr(Dump, "steps", slow)
    until(lambda: results)
    assert (results[0].strategy, results[0].deleted) == ("mirror", 1)


def test_an_audit_that_fails_is_survived(
    ct: nlct.Conntrack, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out, too: it is told, no step is lost, and the next audit comes."""
    monkeypatch.setattr(_keeper, "MAKE_SURE", 0.05)
    ct.create(flows.udp(1, 1))
    failures = iter((MemoryError(), OSError(5, "no luck"), None))
    said: list[object] = []
    keeper = mirror._keeper
    strangers = keeper.memory.strangers

    def fail() -> list[nlct.Flow]:
        exc = next(failures, None)
        if exc is not None:
            raise exc
        return strangers()

    monkeypatch.setattr(keeper, "_say", lambda _level, _text, *values: said.extend(values))
    monkeypatch.setattr(keeper.memory, "strangers", fail)
    until(lambda: len(said) == 2)
    assert said == ["MemoryError", "[Errno 5] no luck"]
    next_audit(mirror)
    assert (mirror.state.in_step, mirror.state.dumps) == (True, 1)
    assert mirror.flush_zone(1).deleted == 1
