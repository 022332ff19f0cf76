"""What must hold on every kernel, and what differs: one that obeys, one that does not, one without.

These tests ask the kernel at hand which one it is, so it takes several kernels to run them all:
see kernels/README.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Callable

import pytest

import nlct
from nlct import Filter, Flow, Tuple, UnsupportedError, capabilities
from tests.support import flows, netlink, oracle

# Numbers as a vendor may give them to a kernel with or without the filter.
RELEASES = ("4.18.0-553.el8", "5.10.0-32", "6.7.12", "6.8.0", "7.2.12", "99.0", "unheard-of")


@pytest.fixture
def zoned(netns: nlct.Netns) -> None:  # noqa: ARG001
    """Skip on a kernel without zones."""
    if not nlct.probe().zones:
        pytest.skip("MISSING: conntrack zones in this kernel")


@pytest.fixture
def zoneless(netns: nlct.Netns) -> None:  # noqa: ARG001
    """Skip on a kernel with zones."""
    if nlct.probe().zones:
        pytest.skip("MISSING: a kernel without conntrack zones")


@pytest.fixture
def disobedient(zoned: None) -> None:  # noqa: ARG001
    """Skip on a kernel that honours the zone of a flush."""
    if nlct.probe().zone_flush:
        pytest.skip("MISSING: a kernel that ignores the zone of a flush")


def answers(found: nlct.Capabilities) -> dict[str, bool]:
    """What a probe says, without where it has it from."""
    return {name: getattr(found, name) for name in found.evidence}


# The probe -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("netns")
def test_what_the_release_promises_is_never_wrong() -> None:
    """Whatever the number of this kernel makes us believe has been measured to be so."""
    measured = answers(capabilities.measure(os.uname().release))
    promised = answers(capabilities.by_release(os.uname().release))
    assert measured.keys() == promised.keys()
    assert [name for name in promised if promised[name] and not measured[name]] == []


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_that_lies_changes_nothing(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    """A backport under an old number or its lack under a new one: the measure is the same."""
    truth = answers(capabilities.measure(os.uname().release))
    pretended = os.uname_result(("Linux", "host", release, "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: pretended)
    monkeypatch.setattr(capabilities, "_known", {})
    found = nlct.probe()
    assert found.release == release
    assert answers(found) == truth
    assert set(found.evidence.values()) == {"measured"}


# Kernels with zones ----------------------------------------------------------------------------


@pytest.mark.usefixtures("zoned")
@pytest.mark.parametrize("zone", [0, 5, 65535])
def test_every_strategy_leaves_the_very_same_table(zone: int) -> None:
    """Entry by entry, in the directions too; the kernel's own flush where it may be used."""
    found = nlct.probe()
    strategies = ["scan", "auto"] + ["kernel"] * (found.zone_flush and found.zone0_flush)
    left = []
    for strategy in strategies:
        with nlct.Netns.scratch() as netns, nlct.Conntrack(netns) as ct:
            flows.populate(ct)
            ct.flush_zone(zone, strategy=strategy)
            table = oracle.dump(netns)
        left.append(
            {
                key: {kind: data for kind, data in entry.items() if kind != oracle.ID}
                for key, entry in table.items()
            }
        )
    assert left[0]
    assert not oracle.inside(left[0], {zone})
    assert all(table == left[0] for table in left)


@pytest.mark.usefixtures("disobedient")
@pytest.mark.parametrize("zones", [{0}, {7}, {0, 5, 7}, {99}], ids=str)
def test_a_disobedient_kernel_is_never_asked(
    ct: nlct.Conntrack, netns: nlct.Netns, zones: set[int]
) -> None:
    """strategy="kernel" is refused and nothing is deleted; the others delete what is meant."""
    flows.populate(ct)
    before = oracle.dump(netns)
    with pytest.raises(UnsupportedError) as caught:
        ct.flush_zones(zones, strategy="kernel")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert oracle.dump(netns) == before
    result = ct.flush_zones(zones)
    assert (result.strategy, result.complete) == ("scan", True)
    assert oracle.dump(netns) == oracle.outside(before, zones)


@pytest.mark.usefixtures("disobedient")
def test_a_disobedient_kernel_empties_the_table(netns: nlct.Netns) -> None:
    """Why it is never asked: told to flush an absent zone, it deletes all and reports success."""
    with nlct.Conntrack(netns) as ct:
        flows.populate(ct)
    with netlink.connect(netns) as sock:
        zone = netlink.attr(oracle.ZONE, (99).to_bytes(2, "big"))
        sock.send(netlink.request(netlink.CT_DELETE, netlink.NLM_F_ACK, 0, zone))
        ((kind, verdict),) = netlink.answer(sock)
    assert (kind, netlink.error(verdict)) == (netlink.NLMSG_ERROR, 0)
    assert oracle.dump(netns) == {}


# What the code relies on, and what it avoids, because every kernel does it so -----------------


FEW = [flows.udp(number) for number in range(5)]


def ask(netns: nlct.Netns, *requests: bytes) -> list[int]:
    """Send requests in one go and return the errno of each answer."""
    with netlink.connect(netns) as sock:
        sock.send(b"".join(requests))
        sock.setblocking(False)
        errnos = []
        # By the time send() returns all is done and said: nothing is waited for.
        with contextlib.suppress(BlockingIOError):
            while True:
                ((_, verdict),) = netlink.answer(sock)
                errnos.append(netlink.error(verdict))
        return errnos


@pytest.mark.parametrize("kind", [oracle.ID, 40], ids=["id alone", "unknown attribute alone"])
def test_a_delete_without_a_tuple_empties_the_table(
    ct: nlct.Conntrack, netns: nlct.Netns, kind: int
) -> None:
    """Why each delete is read back before it is sent: this one succeeds."""
    ct.load(FEW)
    request = netlink.request(
        netlink.CT_DELETE, netlink.NLM_F_ACK, 0, netlink.attr(kind, b"\0\0\0\7")
    )
    assert ask(netns, request) == [0]
    assert oracle.dump(netns) == {}


def test_a_delete_with_another_id_finds_nothing(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """What guards a new flow that took over the tuple: the id must fit, or it is ENOENT."""
    ct.load(FEW)
    before = oracle.dump(netns)
    for key, entry in before.items():
        other = {**entry, oracle.ID: bytes(byte ^ 0xFF for byte in entry[oracle.ID])}
        assert ask(netns, oracle.deletion(key, other, netlink.NLM_F_ACK)) == [errno.ENOENT]
    assert oracle.dump(netns) == before


def test_a_batch_answers_each_failure_and_its_last_request(
    ct: nlct.Conntrack, netns: nlct.Netns
) -> None:
    """A failure does not stop a batch; successes are silent but for the last, which asks for it."""
    ct.load(FEW)
    entries = list(oracle.dump(netns).items())
    wrong = [(key, {**entry, oracle.ID: b"\1\2\3\4"}) for key, entry in entries]
    batch = [oracle.deletion(*item) for pair in zip(wrong, entries) for item in pair]
    batch[-1] = oracle.deletion(*entries[-1], netlink.NLM_F_ACK)
    assert ask(netns, *batch) == [errno.ENOENT] * len(wrong) + [0]
    assert oracle.dump(netns) == {}


# A kernel without zones ------------------------------------------------------------------------

COUNT = 3000
PAIR = Tuple("fd00::1", "fd00::2", "tcp", 1, 2)


@pytest.fixture
def plain(ct: nlct.Conntrack) -> nlct.Conntrack:
    """A table of both families without zones."""
    assert ct.load(flows.udp(number) for number in range(COUNT)).created == COUNT
    ct.create(Flow(PAIR, timeout=60))
    return ct


ZONED: dict[str, Callable[[nlct.Conntrack], object]] = {
    "flush_zone": lambda ct: ct.flush_zone(7),
    "flush_zone-scan": lambda ct: ct.flush_zone(7, strategy="scan"),
    "flush_zone-kernel": lambda ct: ct.flush_zone(7, strategy="kernel"),
    "flush_zone-dry": lambda ct: ct.flush_zone(7, dry_run=True),
    "flush_zones": lambda ct: ct.flush_zones({0, 7}),
    "flush_zones-all": lambda ct: ct.flush_zones(range(65536)),
    "dump": lambda ct: ct.dump(zone=7),
    "count": lambda ct: ct.count(zone=7),
    "count_by": lambda ct: ct.count_by("zone", zone={0, 7}),
    "get": lambda ct: ct.get(PAIR, zone=7),
    "create": lambda ct: ct.create(Flow(PAIR, zone=7, timeout=60)),
}


@pytest.mark.usefixtures("zoneless")
@pytest.mark.parametrize("call", ZONED.values(), ids=ZONED)
def test_without_zones_a_zone_is_unsupported(
    plain: nlct.Conntrack, netns: nlct.Netns, call: Callable[[nlct.Conntrack], object]
) -> None:
    """UnsupportedError for any zone but 0, and nothing is touched."""
    before = oracle.dump(netns)
    with pytest.raises(UnsupportedError) as caught:
        call(plain)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert oracle.dump(netns) == before


@pytest.mark.usefixtures("zoneless")
def test_without_zones_the_kernel_is_not_trusted_with_zone_0(
    plain: nlct.Conntrack, netns: nlct.Netns
) -> None:
    """Its own flush of zone 0 is not used, as nothing can be measured."""
    before = oracle.dump(netns)
    with pytest.raises(UnsupportedError):
        plain.flush_zone(0, strategy="kernel")
    assert oracle.dump(netns) == before


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("strategy", ["scan", "auto"])
def test_zone_0_is_there_on_every_kernel(
    plain: nlct.Conntrack, netns: nlct.Netns, strategy: str
) -> None:
    """Dump, counts, look-up, load and flush of zone 0 work with zones or without."""
    table = oracle.dump(netns)
    assert len(table) == COUNT + 1
    assert plain.count() == plain.count(zone=0) == len(table)
    assert plain.count_by("zone") == {0: len(table)}
    assert {flow.zone for flow in plain.dump(zone=0)} == {0}
    assert [flow.orig for flow in plain.dump(Filter(family="ipv6"))] == [PAIR]
    assert plain.get(PAIR).id == plain.get(PAIR, zone=0).id
    result = plain.flush_zone(0, strategy=strategy)
    assert result.complete
    assert oracle.dump(netns) == {}


@pytest.mark.parametrize("strategy", ["scan", "auto", "kernel"])
def test_everything_can_be_flushed_on_every_kernel(
    plain: nlct.Conntrack, netns: nlct.Netns, strategy: str
) -> None:
    """flush_all needs no zones, and its kernel strategy no probe."""
    assert plain.flush_all(strategy=strategy).complete
    assert oracle.dump(netns) == {}
