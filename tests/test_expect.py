"""Expectations: what every kernel does with them, and that nlct deletes no other."""

from __future__ import annotations

import errno
import pickle
import socket

import pytest

import nlct
from nlct import Expectation, ExpectFlags, Tuple
from tests.support import expectations, netlink, tool
from tests.support.expectations import DELETE, GET, ID, TUPLE, expected, number

COUNT = 4
ZONE = 7


@pytest.fixture
def filled(ct: nlct.Conntrack, netns: nlct.Netns) -> nlct.Conntrack:
    """Expectations in two zones; the first two tuples are in both. The last is of IPv6."""
    for zone in (0, ZONE):
        masters = expectations.masters(ct, COUNT, zone)
        for place, master in enumerate(masters):
            one = expected(place if place < 2 else place + zone)
            more = (number(expectations.ZONE, zone, 2),) if zone else ()
            assert expectations.create(netns, master, one, *more) == 0
    (six,) = expectations.masters(ct, 1, family=6)
    assert expectations.create(netns, six, expected(0, 6)) == 0
    return ct


def refill(ct: nlct.Conntrack, netns: nlct.Netns) -> dict[bytes, expectations.Found]:
    """Have all of those again, and one of each master alone. Returns the table."""
    assert expectations.ask(netns, DELETE)[0] == 0
    assert expectations.dump(netns) == {}
    for zone in (0, ZONE):
        for place in range(COUNT):
            master = Tuple("10.0.0.1", "10.0.0.2", "tcp", 40_000 + place, 21)
            one = expected(place if place < 2 else place + zone)
            more = (number(expectations.ZONE, zone, 2),) if zone else ()
            assert expectations.create(netns, master, one, *more) == 0
    return expectations.dump(netns)


# What the code relies on, and what it avoids, because every kernel does it so -----------------


def test_a_delete_without_a_tuple_empties_the_table(
    filled: nlct.Conntrack, netns: nlct.Netns
) -> None:
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
        assert len(refill(filled, netns)) == 2 * COUNT
        assert expectations.ask(netns, DELETE, *attributes)[0] == 0
        assert expectations.dump(netns) == {}


def test_a_delete_with_a_tuple_hits_one_or_nothing(
    filled: nlct.Conntrack, netns: nlct.Netns
) -> None:
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
        before = refill(filled, netns)
        assert expectations.ask(netns, DELETE, *attributes, family=family)[0] == meant
        assert expectations.dump(netns) == before
    helper = netlink.attr(expectations.HELPER, b"sip\0")
    for attributes in ((shared,), (shared, helper), (shared, zone), (alone, zone)):
        before = refill(filled, netns)
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
