"""Expectations: what every kernel does with them, and that nlct deletes no other."""

from __future__ import annotations

import asyncio
import errno
import pickle
import re
import socket
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack, suppress

import pytest

import nlct
from nlct import Expectation, ExpectFlags, Tuple
from tests.support import expectations, ftp, netlink, tool
from tests.support.expectations import DELETE, GET, ID, TUPLE, expected, number

COUNT = 4
ZONE = 7
# Expected by a master of TCP.
OF_UDP = expected(2).replace(proto="udp")


@pytest.fixture(autouse=True, scope="module")
def translation() -> None:
    """Nothing else makes the kernel load it, where it is a module."""
    with suppress(OSError):
        subprocess.run(["modprobe", "-q", "nf_nat_ftp"], check=False)


def fill(netns: nlct.Netns) -> dict[bytes, expectations.Found]:
    """Have one expectation of each master in two zones, and nothing else. Returns the table.

    The first two tuples are in both zones.
    """
    assert expectations.ask(netns, DELETE)[0] == 0
    assert expectations.dump(netns) == {}
    for zone in (0, ZONE):
        for place in range(COUNT):
            master = Tuple("10.0.0.1", "10.0.0.2", "tcp", 40_000 + place, 21)
            one = expected(place if place < 2 else place + zone)
            more = (number(expectations.ZONE, zone, 2),) if zone else ()
            assert expectations.create(netns, master, one, *more) == 0
    return expectations.dump(netns)


@pytest.fixture
def filled(ct: nlct.Conntrack, netns: nlct.Netns) -> nlct.Conntrack:
    """Those, and one of IPv6."""
    for zone in (0, ZONE):
        expectations.masters(ct, COUNT, zone)
    fill(netns)
    (six,) = expectations.masters(ct, 1, family=6)
    assert expectations.create(netns, six, expected(0, 6)) == 0
    return ct


# What the code relies on, and what it avoids, because every kernel does it so -----------------


@pytest.mark.usefixtures("filled")
def test_a_delete_without_a_tuple_empties_the_table(netns: nlct.Netns) -> None:
    """Why each delete is read back before it is sent: all of these succeed, in every zone."""
    zone = number(expectations.ZONE, ZONE, 2)
    for attributes in (
        (),
        (number(ID, 1),),
        (zone,),
        (netlink.attr(expectations.HELPER, b"ftp\0"),),
        (netlink.attr(expectations.HELPER, b"ftp\0"), zone),
        (expectations.attr(expectations.MASTER, expected(0)),),
        (expectations.attr(expectations.MASK, expected(0)), number(ID, 1)),
        (number(40, 1),),
    ):
        assert len(fill(netns)) == 2 * COUNT
        assert expectations.ask(netns, DELETE, *attributes)[0] == 0
        assert expectations.dump(netns) == {}


@pytest.mark.usefixtures("filled")
def test_a_delete_with_a_tuple_hits_one_or_nothing(netns: nlct.Netns) -> None:
    """With a wrong tuple, zone, id or family, without a zone, with a helper beside it."""
    zone = number(expectations.ZONE, ZONE, 2)
    shared, alone = (expectations.attr(TUPLE, expected(place)) for place in (0, ZONE + 3))
    for attributes, family, meant in (
        ((expectations.attr(TUPLE, expected(99)),), socket.AF_INET, errno.ENOENT),
        ((alone,), socket.AF_INET, errno.ENOENT),
        ((alone, number(expectations.ZONE, 9, 2)), socket.AF_INET, errno.ENOENT),
        ((shared, number(ID, 1)), socket.AF_INET, errno.ENOENT),
        ((shared, zone, number(ID, 1)), socket.AF_INET, errno.ENOENT),
        ((shared, number(ID, 1, 2)), socket.AF_INET, errno.ERANGE),
        ((netlink.attr(TUPLE | netlink.NESTED),), socket.AF_INET, errno.EINVAL),
        ((alone,), socket.AF_INET6, errno.EINVAL),
    ):
        before = fill(netns)
        assert expectations.ask(netns, DELETE, *attributes, family=family)[0] == meant
        assert expectations.dump(netns) == before
    helper = netlink.attr(expectations.HELPER, b"sip\0")
    for attributes in ((shared,), (shared, helper), (shared, zone), (alone, zone)):
        before = fill(netns)
        _, found = expectations.ask(netns, GET, *attributes)
        assert expectations.ask(netns, DELETE, *attributes)[0] == 0
        del before[found[0][ID]]
        assert expectations.dump(netns) == before


def test_the_kernel_tells_no_zone_and_drops_the_oldest(
    filled: nlct.Conntrack, netns: nlct.Netns
) -> None:
    """Why an expectation's zone is looked up, and what a create may cost."""
    before = expectations.dump(netns)
    assert not [one for one in before.values() if expectations.ZONE in one]
    master = Tuple("10.0.0.1", "10.0.0.2", "tcp", 40_000, 21)
    _, (oldest,) = expectations.ask(netns, GET, expectations.attr(TUPLE, expected(0)))
    assert expectations.create(netns, master, expected(99)) == 0
    after = expectations.dump(netns)
    assert before.keys() - after.keys() == {oldest[ID]}
    assert len(after) == len(before) == filled.expectations.count()


# nlct's own --------------------------------------------------------------------------------------


def test_one_at_a_time(filled: nlct.Conntrack, netns: nlct.Netns) -> None:
    """What is dumped, got and deleted is what the kernel has; nothing else goes."""
    table = expectations.dump(netns)
    found = filled.expectations
    assert {one.id for one in found.dump()} == {int.from_bytes(one, "big") for one in table}
    assert {one.zone for one in found.dump()} == {None}
    zoned = list(found.dump(zone=ZONE))
    assert {one.zone for one in zoned} == {ZONE}
    assert {one.tuple.dport for one in zoned} == {50_000, 50_001, 50_009, 50_010}
    assert [found.count(zone=zone) for zone in (0, ZONE, 9)] == [COUNT + 1, COUNT, 0]
    for one in zoned:
        assert found.get(one.tuple, zone=ZONE) == one
        # Any source port: the mask says so.
        assert found.get(one.tuple.replace(sport=1234), zone=ZONE).id == one.id
        for wrong in (
            one.replace(zone=None),
            one.replace(zone=9),
            one.replace(id=(one.id or 0) ^ 1),
            one.replace(tuple=one.tuple.replace(dport=1)),
        ):
            with pytest.raises(nlct.NotFoundError):
                found.delete(wrong)
        assert expectations.dump(netns) == table
        try:
            found.delete(one)
        except nlct.UnsupportedError:
            pytest.skip("MISSING: a kernel that finds an expectation by its id")
        del table[(one.id or 0).to_bytes(4, "big")]
        assert expectations.dump(netns) == table
        with pytest.raises(nlct.NotFoundError):
            found.get(one.tuple, zone=ZONE)
        with pytest.raises(nlct.NotFoundError):
            found.delete(one)
    for one in found.dump(zone=0):
        found.delete(one.replace(zone=None))
    assert expectations.dump(netns) == {}


def test_a_delete_that_names_none_is_not_sent(filled: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Without an id, an address, the protocol or its ports."""
    before = expectations.dump(netns)
    (one,) = (one for one in filled.expectations.dump(zone=0) if one.family == socket.AF_INET6)
    with pytest.raises(ValueError, match="an id"):
        filled.expectations.delete(one.replace(id=None))
    for name in ("src", "dst", "proto", "sport", "dport"):
        with pytest.raises(nlct.InvalidRequestError):
            filled.expectations.delete(one.replace(tuple=one.tuple.replace(**{name: None})))
    with pytest.raises(nlct.InvalidRequestError):
        filled.expectations.delete(one.replace(tuple=one.tuple.replace(zone=0)))
    with pytest.raises(TypeError, match="Expectation"):
        filled.expectations.delete(one.tuple)  # type: ignore[arg-type]
    assert expectations.dump(netns) == before
    filled.expectations.flush_all()
    assert expectations.dump(netns) == {}


def untimed(lines: Iterable[str]) -> list[str]:
    """Leave the seconds left out of lines."""
    return sorted(line.split(" ", 1)[1] for line in lines)


def tool_lines(netns: nlct.Netns) -> list[str]:
    """What the real tool lists of both families."""
    listed = (
        tool.run(netns, "conntrack", "-L", "expect", "-f", family) for family in ("ipv4", "ipv6")
    )
    return untimed(line for said in listed for line in said.splitlines())


def test_created_is_what_was_meant(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Of both families, in a zone, with every field; beside what the real tool prints and makes."""
    masters = expectations.masters(ct, 6, ZONE)
    (six,) = expectations.masters(ct, 1, family=6)
    flags = ExpectFlags.PERMANENT | ExpectFlags.INACTIVE
    address = "10.9.9.9"
    meant = [
        Expectation(Tuple("10.0.0.2", "10.0.0.1", "tcp", dport=1), master=masters[0], zone=ZONE),
        # A port 0 is a port, and counts.
        Expectation(Tuple(None, "10.0.0.1", "tcp", 0, 2), master=masters[1], zone=ZONE),
        Expectation(expected(3), master=masters[2], zone=ZONE, flags=flags, timeout=5),
        Expectation(
            *(expected(4), Tuple("255.255.255.0", "255.255.255.255", "tcp", 0, 0xFFFF)),
            **{"master": masters[3], "zone": ZONE, "helper": "ftp", "expect_class": 0},
            **{"nat": Tuple(address, "0.0.0.0", "tcp", 9, 0), "nat_direction": 1},
            function="nat-follow-master",
        ),
        Expectation(expected(5), master=masters[4], zone=ZONE, flags=ExpectFlags.PERMANENT),
        Expectation(expected(6, 6), master=six),
    ]
    for one in meant:
        ct.expectations.create(one)
    found = {one.tuple.dport: one for one in ct.expectations.dump()}
    for one in meant:
        made = found[one.tuple.dport]
        for name in ("src", "sport"):
            bits = getattr(made.mask, name)
            assert bool(int(bits)) == (getattr(one.tuple, name) is not None) or one.mask
        assert (made.master, made.helper, made.expect_class) == (one.master, "ftp", 0)
        assert (made.flags, made.nat_direction) == (one.flags or 0, one.nat_direction)
        assert made.timeout is not None
        assert 5 < made.timeout <= 300
    translated = found[50_004]
    assert translated.mask == meant[3].mask
    assert translated.nat is not None
    assert (str(translated.nat.src), translated.nat.sport) == (address, 9)
    assert translated.function == "nat-follow-master"
    assert translated.to_dict()["nat"]["src"] == address
    assert found[50_003].to_dict()["flags"] == ["permanent", "inactive"]
    for one in found.values():
        assert pickle.loads(pickle.dumps(one)).to_dict() == one.to_dict()
        assert len({one, one.replace(timeout=1), one.replace(id=1), one.replace(zone=1)}) == 3
        assert repr(one).startswith("Expectation(tuple=Tuple(src=")
    assert untimed(map(str, found.values())) == tool_lines(netns)


def test_what_a_dump_gave_is_created_again(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """It names the helper of the master, which has no part in a tuple of another protocol."""
    masters = expectations.masters(ct, 2)
    for one, master in zip((expected(1), OF_UDP), masters):
        ct.expectations.create(Expectation(one, master=master, helper="ftp"))
    before = expectations.dump(netns)
    found = list(ct.expectations.dump())
    assert [one.helper for one in found] == ["ftp", "ftp"]
    ct.expectations.flush_all()
    for one in found:
        ct.expectations.create(one)
    again = expectations.dump(netns)
    without_id = ({**one, expectations.ID: b""} for one in (*before.values(), *again.values()))
    assert len({str(sorted(one.items())) for one in without_id}) == len(before) == len(again) == 2


def test_refusals(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Each as its own kind of error, and the table as it was."""
    first, second, third = expectations.masters(ct, 3)
    ct.create(nlct.Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2), timeout=60))
    create = ct.expectations.create
    create(Expectation(expected(1), master=first))
    before = expectations.dump(netns)
    with pytest.raises(nlct.ExistsError):
        create(Expectation(expected(1), master=second))
    with pytest.raises(nlct.NotFoundError):
        create(Expectation(expected(2), master=second.replace(sport=1)))
    with pytest.raises(nlct.NotFoundError, match=f"master: .* in zone {ZONE}"):
        create(Expectation(expected(2), master=second, zone=ZONE))
    bare = Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2)
    for helper in (None, "ftp"):
        with pytest.raises(nlct.Error, match="the flow has no helper") as failed:
            create(Expectation(expected(2), master=bare, helper=helper))
        assert failed.value.errno == errno.EOPNOTSUPP
        assert not isinstance(failed.value, nlct.UnsupportedError)
        with pytest.raises(nlct.UnsupportedError, match="tuple: GRE cannot be expected"):
            create(Expectation(expected(2).replace(proto="gre"), master=second, helper=helper))
    translated = Expectation(expected(2), master=second, nat=expected(2), nat_direction=1)
    with pytest.raises(nlct.InvalidRequestError):
        create(translated.replace(function="nonesuch"))
    with pytest.raises(nlct.InvalidRequestError, match="that of the master, 'ftp', or left out"):
        create(Expectation(expected(2), master=second, helper="sip"))
    with pytest.raises(nlct.InvalidRequestError, match="expect_class must be 0"):
        create(Expectation(OF_UDP, master=second, helper="ftp", expect_class=1))
    with pytest.raises(nlct.InvalidRequestError, match="master must have dst, sport, dport"):
        create(Expectation(expected(2), master=Tuple("10.0.0.1", proto="tcp"), helper="ftp"))
    with pytest.raises(nlct.NotFoundError, match=f"master: .* in zone {ZONE}"):
        create(Expectation(expected(2), master=second, zone=ZONE, helper="ftp"))
    with pytest.raises(ValueError, match="master"):
        create(Expectation(expected(2)))
    with pytest.raises(ValueError, match="nat_direction must be 0 or 1, not 2"):
        create(translated.replace(nat_direction=2))
    with pytest.raises(ValueError, match="function goes only with nat"):
        create(Expectation(expected(2), master=third, function="nat-follow-master"))
    with pytest.raises(ValueError, match="go together"):
        create(Expectation(expected(2), master=third, nat_direction=1))
    with pytest.raises(nlct.InvalidRequestError):
        ct.expectations.get(Tuple("10.0.0.1", "10.0.0.2", "tcp"))
    assert expectations.dump(netns) == before
    for bad, error in (
        ({"helper": "sixteen-letters-"}, ValueError),
        ({"function": "a\0b"}, ValueError),
        ({"helper": 7}, TypeError),
        ({"zone": 65536}, ValueError),
        ({"flags": -1}, ValueError),
        ({"mask": "all"}, TypeError),
        ({"mask": expected(0, 6)}, ValueError),
        ({"nat": Tuple(proto="tcp")}, ValueError),
    ):
        (name,) = bad
        with pytest.raises(error, match=name):
            Expectation(expected(1), **bad)  # type: ignore[arg-type]


# Real FTP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("passive", [True, False], ids=["passive", "active"])
def test_ftp_through_nat(passive: bool) -> None:
    """The data connection is expected, translated as the control connection, and comes through."""
    with ExitStack() as stack:
        there = stack.enter_context(ftp.forwarding())
        session = ftp.Session(there, passive, stack)
        ct = stack.enter_context(nlct.Conntrack(there.router))
        (one,) = ct.expectations.dump()
        (master,) = (flow.orig for flow in ct.dump() if flow.helper == "ftp")
        assert (one.master, one.helper, one.tuple.dport) == (master, "ftp", session.port)
        if one.nat is None:
            pytest.skip("MISSING: an FTP helper that translates")
        # The address is that of the master, which the function looks up.
        assert (one.nat.sport, one.function) == (session.port, "nat-follow-master")
        assert one.nat_direction == (0 if passive else 1)
        assert ct.expectations.get(one.tuple, zone=0).id == one.id
        assert untimed([str(one)]) == tool_lines(there.router)
        session.transfer()
        assert [flow.master for flow in ct.dump() if flow.orig.dport == session.port] == [master]
        assert ct.expectations.count() == 0


# Events -------------------------------------------------------------------------------------------


def test_events(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """What comes and goes, in order, and nothing of flows; nor do those hear of expectations."""
    found = ct.expectations
    with found.events() as events, found.events("update") as none, ct.events() as of_flows:
        first, second = expectations.masters(ct, 2)
        made = [Expectation(expected(place), master=first) for place in range(2)]
        for one in made:
            found.create(one)
        with suppress(nlct.UnsupportedError):
            found.delete(found.get(made[1].tuple))
        found.create(Expectation(expected(2), master=second))
        found.flush_all()
        # The kernel drops the first to make room for the second.
        heard = [events.get(timeout=0) for _ in range(6)]
        told = [item for item in heard if isinstance(item, nlct.ExpectationEvent)]
        ports = [(item.kind, (item.expectation.tuple.dport or 0) - 50_000) for item in told]
        assert sorted(ports) == [(kind, n) for kind in ("destroy", "new") for n in range(3)]
        assert ports[:3] in ([("new", 0), ("destroy", 0), ("new", 1)],)
        assert events.get(timeout=0) is none.get(timeout=0) is None
        assert (events.received, none.received, events.mode > 0) == (6, 0, True)
        line = str(told[0])
        assert re.match(r" *\[NEW\] \d+ proto=6 src=10\.0\.0\.2 ", line)
        assert line.endswith(f" {str(told[0].expectation).split(' ', 1)[1]}")
        assert list(told[0].to_dict())[:2] == ["event", "tuple"]
        assert told[0].expectation.helper == "ftp"
        flows = [of_flows.get(timeout=0) for _ in range(3)]
        assert [isinstance(item, nlct.Event) for item in flows] == [True, True, False]
        found.create(made[0])
        events.close()
        assert list(events) == []
        assert repr(events) == "<nlct.ExpectationEvents: closed>"
    for bad, says in ((("weather",), "new, update, destroy"), ((7,), "new")):
        with pytest.raises(ValueError, match=says):
            found.events(*bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffer"):
        found.events(buffer=1)
    assert len(expectations.dump(netns)) == 1


@pytest.mark.usefixtures("root")
def test_an_overrun_of_expectations(ct: nlct.Conntrack) -> None:
    """What the kernel drops is counted, and the stream goes on, also for a task."""
    with ct.expectations.events("new", buffer=4096) as events:
        # One of a master that nobody heard of may have no events.
        (master,) = expectations.masters(ct, 1)
        for place in range(40):
            ct.expectations.create(Expectation(expected(place), master=master))
        items = list(iter(lambda: events.get(timeout=0), None))
        (overrun,) = (item for item in items if isinstance(item, nlct.Overrun))
        assert overrun is items[-1]
        assert overrun.lost in (None, 40 - events.received)
        assert 0 < len(items) - 1 == events.received < 40
        ct.expectations.create(Expectation(expected(40), master=master))

        async def one() -> object:
            async for item in events:
                return item
            return None

        item = asyncio.run(one())
        assert isinstance(item, nlct.ExpectationEvent)
        assert item.expectation.tuple.dport == 50_040
