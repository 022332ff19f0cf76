"""Flushing one zone while real connections run in two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

import nlct
from nlct import Filter, Proto, SctpState
from tests.support import filters, oracle, traffic

FLUSHED, SPARED = 11, 65535
IDENTITY = (oracle.ID, oracle.TUPLE_ORIG, oracle.TUPLE_REPLY, oracle.ZONE)


@pytest.fixture(scope="module")
def where() -> Iterator[traffic.Site]:
    """A server with a client in each of two zones."""
    with traffic.site(FLUSHED, SPARED) as made:
        yield made


@pytest.fixture
def talks(where: traffic.Site) -> Iterator[dict[int, list[traffic.Talk | traffic.Ping]]]:
    """TCP and UDP of both families, and ICMP, running in each zone."""
    with ExitStack() as stack, nlct.Conntrack(where.server) as ct:
        ct.flush_all()
        made: dict[int, list[traffic.Talk | traffic.Ping]] = {}
        for zone in where.zones:
            made[zone] = [
                stack.enter_context(closing(talk))
                for talk in (
                    *(
                        traffic.Talk(where, zone, kind, family)
                        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
                        for family in (socket.AF_INET, socket.AF_INET6)
                    ),
                    traffic.Ping(where, zone),
                )
            ]
        for zone in where.zones:
            assert [talk.echoes() for talk in made[zone]] == [True] * 5
        yield made


def identities(where: traffic.Site, zone: int) -> dict[oracle.Key, list[bytes | None]]:
    """The entries of a zone with what does not change while they live."""
    table = oracle.inside(oracle.dump(where.server), {zone})
    # Neighbour discovery comes and goes by itself.
    return {
        key: [entry.get(kind) for kind in IDENTITY]
        for key, entry in table.items()
        if not is_neighbour_discovery(key)
    }


def is_neighbour_discovery(key: oracle.Key) -> bool:
    """Tell ICMPv6 apart, which no test sends."""
    return key.family == socket.AF_INET6 and bytes((5, 0, 1, 0, Proto.ICMPV6)) in key.orig


@pytest.mark.parametrize("strategy", ["scan", "auto", "kernel"])
def test_one_zone_is_flushed_and_the_other_talks_on(
    where: traffic.Site,
    talks: dict[int, list[traffic.Talk | traffic.Ping]],
    strategy: str,
    request: pytest.FixtureRequest,
) -> None:
    """The same TCP connections echo, the entries are the same ones; the other zone lost its own."""
    if strategy == "kernel":
        request.getfixturevalue("kernel_flush")
    assert len(identities(where, FLUSHED)) == 5
    spared = identities(where, SPARED)
    assert len(spared) == 5
    with nlct.Conntrack(where.server) as ct:
        result = ct.flush_zone(FLUSHED, strategy=strategy)
        assert result.complete
        assert ct.count(zone=FLUSHED) == 0
        for _ in range(5):
            assert [talk.echoes() for talk in talks[SPARED]] == [True] * 5
        assert identities(where, SPARED) == spared
    # Without its entry a TCP connection is dead here; UDP and ICMP begin anew.
    dead, alive = talks[FLUSHED][:2], talks[FLUSHED][2:]
    assert [talk.echoes(timeout=0.3) for talk in dead] == [False] * 2
    assert [talk.echoes() for talk in alive] == [True] * 3


def test_one_zone_is_flushed_again_and_again_under_traffic(
    where: traffic.Site, talks: dict[int, list[traffic.Talk | traffic.Ping]]
) -> None:
    """Every echo of the other zone arrives while flushes run, and its entries stay the same."""
    spared = identities(where, SPARED)
    stop = threading.Event()
    lost: list[str] = []
    heard = [0]

    def talk_on(zone: int, essential: bool) -> None:
        while not stop.is_set():
            for talk in talks[zone]:
                if talk.echoes(timeout=traffic.PATIENCE if essential else 0.01):
                    heard[0] += essential
                elif essential:
                    lost.append(f"an echo of zone {zone}")

    threads = [
        threading.Thread(target=talk_on, args=(SPARED, True)),
        threading.Thread(target=talk_on, args=(FLUSHED, False)),
    ]
    for thread in threads:
        thread.start()
    deleted = 0
    try:
        with nlct.Conntrack(where.server) as ct:
            turn = 0
            # Until flushing and talking have met often.
            while not lost and (turn < 60 or heard[0] <= 50 or deleted <= 5):
                assert all(thread.is_alive() for thread in threads)
                strategy = ("scan", "auto")[turn % 2]
                deleted += ct.flush_zone(FLUSHED, strategy=strategy, passes=2).deleted or 0
                turn += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert lost == []
    assert identities(where, SPARED) == spared
    assert [talk.echoes() for talk in talks[SPARED]] == [True] * 5


def test_a_mirror_flushes_one_zone_again_and_again_under_traffic(
    where: traffic.Site, talks: dict[int, list[traffic.Talk | traffic.Ping]]
) -> None:
    """What was there before a call is gone after it, however many come; the other zone talks on."""
    spared = identities(where, SPARED)
    with ExitStack() as stack:
        mirror = stack.enter_context(nlct.Mirror(where.server, index=("zone", "address")))
        assert mirror.wait(traffic.PATIENCE)
        heard = stack.enter_context(traffic.newcomers(where, FLUSHED))
        calls = (
            lambda: mirror.flush_zone(FLUSHED),
            lambda: mirror.delete(Filter(zone=FLUSHED, family="ipv4")),
            lambda: mirror.delete(Filter(dst=where.address(FLUSHED)) | Filter(zone=FLUSHED)),
            lambda: mirror.delete(Filter(zone=FLUSHED, status="confirmed")),
        )
        turn = deleted = 0
        while turn < 20 or deleted < 20 or heard[0] < 20:
            before = identities(where, FLUSHED)
            result = calls[turn % len(calls)]()
            after = identities(where, FLUSHED)
            assert not [key for key in before.keys() & after.keys() if key.family == socket.AF_INET]
            assert result.strategy.startswith("mirror")
            assert not result.failed
            deleted += result.deleted or 0
            turn += 1
            there = identities(where, SPARED)
            assert {key: there.get(key) for key in spared} == spared
            assert talks[SPARED][turn % 5].echoes()
        # It was told of everything, and lost nothing.
        assert (mirror.state.dumps, mirror.state.overruns) == (1, 0)
    assert [talk.echoes() for talk in talks[SPARED]] == [True] * 5


def test_real_entries_are_decoded(
    where: traffic.Site, talks: dict[int, list[traffic.Talk | traffic.Ping]]
) -> None:
    """Flows made by packets, not by us: protocols, zones, ports and status as they must be."""
    assert set(talks) == {FLUSHED, SPARED}
    with nlct.Conntrack(where.server) as ct:
        for zone in where.zones:
            flows = [f for f in ct.dump(zone=zone) if f.orig.icmp_type in (None, 8)]
            assert {(f.orig.proto, f.family, f.orig.dport) for f in flows} == {
                *((p, f, traffic.PORT) for p in (Proto.TCP, Proto.UDP) for f in (2, 10)),
                (Proto.ICMP, 2, None),
            }
            for flow in flows:
                assert flow.zone == zone
                assert flow.status is not None
                assert flow.status & nlct.Status.SEEN_REPLY
                assert flow.timeout
                assert str(flow.orig.dst) == where.address(zone, flow.family or 0)
            assert ct.get(flows[0].orig, zone=zone).id == flows[0].id


# SCTP by state -----------------------------------------------------------------------------------

HELLO = (("there", "init"), ("back", "init_ack"), ("there", "cookie_echo"), ("back", "cookie_ack"))
# What is said until an association is in a state.
ASSOCIATIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "cookie_wait": HELLO[:2],
    "cookie_echoed": HELLO[:3],
    "established": HELLO,
    "shutdown_sent": (*HELLO, ("there", "shutdown")),
    "shutdown_recd": (*HELLO, ("back", "shutdown")),
    "shutdown_ack_sent": (*HELLO, ("there", "shutdown"), ("back", "shutdown_ack")),
    "closed": (*HELLO, ("there", "abort")),
    "heartbeat_sent": (("there", "heartbeat"),),
}


@pytest.fixture
def associations(where: traffic.Site) -> Iterator[nlct.Conntrack]:
    """Two SCTP associations in each state, and a TCP connection that is established."""
    with ExitStack() as stack, nlct.Conntrack(where.server) as ct:
        ct.flush_all()
        try:
            for state in ASSOCIATIONS:
                filters.write(where.server, f"sctp_timeout_{state}", 3600)
        except FileNotFoundError:
            pytest.skip("MISSING: conntrack of SCTP")
        talk = stack.enter_context(closing(traffic.Talk(where, FLUSHED, socket.SOCK_STREAM)))
        assert talk.echoes()
        meant = {}
        for number, (state, said) in enumerate(ASSOCIATIONS.items()):
            for port in (1000 + number, 2000 + number):
                meant[port] = SctpState[state.upper()]
                one = stack.enter_context(closing(traffic.Association(where, FLUSHED, port)))
                for way, chunk in said:
                    one.say(way, chunk)
        assert {facts["sport"]: SctpState(facts["sctp_state"]) for facts in sctp(where)} == meant
        yield ct


def sctp(where: traffic.Site) -> list[filters.Facts]:
    """The SCTP flows of the server, as its kernel tells."""
    return [facts for facts in filters.read(where.server) if facts["proto"] == Proto.SCTP]


def test_sctp_by_state(where: traffic.Site, associations: nlct.Conntrack) -> None:
    """A state's name finds and deletes the flows that packets brought into it, and no others."""
    left = {facts["id"]: SctpState(facts["sctp_state"]) for facts in sctp(where)}
    tcp = associations.count(Filter(proto="tcp"))
    # Without a protocol a name is TCP's: no more is meant than ever was.
    (connection,) = associations.dump(Filter(state="established"))
    assert connection.orig.proto == Proto.TCP
    for name in ASSOCIATIONS:
        wanted = Filter(proto="sctp", state=name)
        meant = {one for one, state in left.items() if state == SctpState[name.upper()]}
        assert {flow.id for flow in associations.dump(wanted)} == meant
        assert associations.delete(wanted).deleted == 2
        left = {one: state for one, state in left.items() if one not in meant}
        assert {facts["id"]: facts["sctp_state"] for facts in sctp(where)} == left
    assert associations.count(Filter(proto="tcp")) == tcp


def test_sctp_by_state_on_the_command_line(
    where: traffic.Site, associations: nlct.Conntrack
) -> None:
    """The same there, where the order of the options does not matter."""
    before = {facts["id"]: facts["sctp_state"] for facts in sctp(where)}
    netns = f"/proc/{os.getpid()}/fd/{where.server.fileno()}"
    for options in (
        ("--proto", "sctp", "--state", "established"),
        ("--state", "COOKIE_WAIT", "-p", "sctp"),
    ):
        said = subprocess.run(
            (sys.executable, "-m", "nlct", "delete", "--netns", netns, *options, "--json"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(said.stdout)["deleted"] == 2
    gone = (SctpState.ESTABLISHED, SctpState.COOKIE_WAIT)
    left = {one: state for one, state in before.items() if state not in gone}
    assert {facts["id"]: facts["sctp_state"] for facts in sctp(where)} == left
    assert associations.count(Filter(proto="tcp", state="established")) == 1
