"""Counts that events and dumps keep up to date, held against those of a dump."""

from __future__ import annotations

import random
import socket

import pytest

import nlct
from nlct import Filter, Flow, Proto, Tuple, live
from nlct.fill import fill
from nlct.live import LiveCounts, Sample
from tests.support import filters


def flow(zone: int, number: int, proto: str = "udp") -> Flow:
    """One flow of many."""
    orig = Tuple(f"10.0.{number // 200}.{number % 200 + 1}", "10.1.0.1", proto, 1000, 53)
    tcp = {"tcp_state": 3} if proto == "tcp" else {}
    return Flow(orig, zone=zone, timeout=1000, **tcp)  # type: ignore[arg-type]


def counts(counted: LiveCounts, sample: Sample) -> dict[object, int]:
    """What is counted, as count_by() says it."""
    found = {counted.values(key): flows for key, flows in sample.flows.items()}
    return {key[0] if len(key) == 1 else key: flows for key, flows in found.items()}


@pytest.mark.parametrize("by", [("zone",), ("src/24", "proto"), ("dst",), ("zone", "src")])
def test_events_keep_it_in_step(ct: nlct.Conntrack, by: tuple[str, ...]) -> None:
    """Whatever begins and ends, the counts are those of a dump, which is made once."""
    chance = random.Random(7)
    with LiveCounts(ct, *by) as counted:
        assert counted.told
        counted.dump()
        alive: list[Flow] = []
        for number in range(300):
            if alive and chance.random() < 0.4:
                ct.delete_flow(alive.pop(chance.randrange(len(alive))))
            else:
                alive.append(flow(chance.randrange(4), number, chance.choice(["udp", "tcp"])))
                ct.create(alive[-1])
            if number % 50 == 0:
                assert counts(counted, counted.sample()) == ct.count_by(*by)
        sample = counted.sample()
        assert counts(counted, sample) == ct.count_by(*by)
        ct.flush_all()
        sample = counted.sample()
        assert sample.flows == {}
        assert sum(sample.gone.values()) == len(alive)
        assert not sample.new


def test_a_sample_has_what_came_since_the_one_before(ct: nlct.Conntrack) -> None:
    """New and gone by group; a flow that came and went is both."""
    with LiveCounts(ct, "zone", filter=Filter(proto="udp")) as counted:
        counted.dump()
        for number in range(5):
            ct.create(flow(7, number))
        ct.create(flow(8, 0, "tcp"))
        ct.flush_zone(7)
        ct.create(flow(9, 0))
        sample = counted.sample()
        named = {counted.values(key)[0]: (sample.new[key], sample.gone[key]) for key in sample.new}
        assert named == {7: (5, 5), 9: (1, 0)}
        assert counts(counted, sample) == {9: 1}
        after = counted.sample()
        assert (sum(after.new.values()), sum(after.gone.values())) == (0, 0)
        assert after.seconds > 0


def test_a_dump_corrects_what_events_do_not_tell(ct: nlct.Conntrack) -> None:
    """Under the sysctl's value 2 older flows end in silence; and it says so."""
    fill(ct, flows=1000, zones=10)
    with LiveCounts(ct, "zone") as counted:
        counted.dump()
        ct.flush_zone(3)
        counted.dump()
        sample = counted.sample()
        assert (
            counts(counted, sample)
            == ct.count_by("zone")
            == dict.fromkeys({*range(1, 11)} - {3}, 100)
        )
        heard = sum(sample.gone.values())
        assert heard == 100 or counted.reason


def test_what_changes_is_counted_by_dumps(ct: nlct.Conntrack) -> None:
    """A mark may change in silence: events count all flows together, dumps the groups."""
    made = [flow(0, number) for number in range(10)]
    with LiveCounts(ct, "mark") as counted:
        assert (counted.listening, counted.told) == (True, False)
        assert "mark" in counted.reason
        counted.dump()
        for one in made:
            ct.create(one)
        ct.update(made[0], mark=7)
        sample = counted.sample()
        assert (dict(sample.flows), sample.change) == ({}, None)
        assert dict(sample.new) == {b"": 10}
        counted.dump()
        sample = counted.sample()
        assert counts(counted, sample) == ct.count_by("mark")
        assert sample.change == sample.flows
    with LiveCounts(ct, "zone", filter=Filter(mark=7)) as counted:
        assert not counted.listening
        assert "the filter asks for mark" in counted.reason
        with pytest.raises(ValueError, match="no events"):
            counted.fileno()
        counted.dump()
        assert counts(counted, counted.sample()) == {0: 1}


def test_without_events(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Where the sysctl hides them, or nobody wants them, dumps do."""
    filters.write(netns, "events", 0)
    for listen, reason in ((True, "nf_conntrack_events is 0"), (False, "off")):
        with LiveCounts(ct, "zone", listen=listen) as counted:
            assert (counted.listening, counted.told) == (False, False)
            assert reason in counted.reason
            counted.dump()
            ct.create(flow(5, int(listen)))
            counted.dump()
            sample = counted.sample()
            assert counts(counted, sample) == ct.count_by("zone")
            assert sample.change is not None
            assert sum(sample.change.values()) == 1


def test_lost_events_are_counted(ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next dump makes it right again."""
    monkeypatch.setattr(live, "BUFFER", 4096)
    with LiveCounts(ct, "zone") as counted:
        counted.dump()
        fill(ct, flows=1000, zones=10)
        assert counted.sample().overruns == 1
        counted.dump()
        sample = counted.sample()
        assert counts(counted, sample) == ct.count_by("zone")
        assert sample.overruns == 1


def test_traffic_has_the_bytes_of_flows_that_ended(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Between two whole dumps: of flows that are there, and of those that went."""
    filters.prepare(netns)
    filters.talk(netns)
    ct.flush_all()

    def send(packets: int, port: int) -> None:
        for _ in range(packets):
            sender.sendto(bytes(100), ("127.0.0.1", port))

    def stop(_scanned: int) -> None:
        raise InterruptedError

    with (
        LiveCounts(ct, "dport", traffic=True) as counted,
        netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf,
    ):
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        counted.dump()
        assert counted.sample().traffic is None
        send(5, port)
        counted.dump()
        assert traffic(counted) == {port: 5 * 128}
        send(3, port)
        ct.delete(Filter(dport=port))
        with pytest.raises(InterruptedError):
            counted.dump(stop)
        assert traffic(counted) == {port: 5 * 128}
        send(2, port)
        counted.dump()
        assert traffic(counted) == {port: 5 * 128}
        counted.dump()
        assert traffic(counted) == {port: 0}


def traffic(counted: LiveCounts) -> dict[object, int]:
    """The bytes of each group, of a port."""
    found = counted.sample().traffic or {}
    return {counted.values(key)[0]: amount for key, amount in found.items()}


def test_order_is_that_of_values(ct: nlct.Conntrack) -> None:
    """As count_by() has them: absent ones first, IPv4 before IPv6."""
    for zone, number in ((300, 1), (2, 300), (70, 2)):
        ct.create(flow(zone, number))
        ct.create(flow(zone, number, "tcp"))
    ct.create(Flow(Tuple("fd00::1", "fd00::2", "esp"), zone=2, timeout=1000))
    for by in (("zone",), ("src",), ("zone", "dport"), ("dport", "src/24"), ("proto", "src")):
        with LiveCounts(ct, *by) as counted:
            counted.dump()
            sample = counted.sample()
            found = [counted.values(key) for key in sorted(sample.flows, key=counted.order)]
            expected = [key if len(by) > 1 else (key,) for key in ct.count_by(*by)]
            assert found == expected
    assert Proto.ESP in ct.count_by("proto")


def test_bad_arguments(ct: nlct.Conntrack) -> None:
    """They are named before anything is sent."""
    for fields in ((), ("zone", "src", "dst")):
        with pytest.raises(TypeError, match="from one to 2"):
            LiveCounts(ct, *fields)
    with pytest.raises(ValueError, match="'nonsense'"):
        LiveCounts(ct, "nonsense")


def test_closed_it_listens_no_more(ct: nlct.Conntrack) -> None:
    """The Conntrack stays open."""
    counted = LiveCounts(ct, "zone")
    counted.close()
    counted.close()
    with pytest.raises(ValueError, match="closed"):
        counted.read()
    assert ct.count() == 0
