"""What the probe says about this kernel is what the kernel does."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
from typing import Any

import pytest

import nlct
from nlct import Capabilities, Error, UnsupportedError, _handle, errors
from nlct import capabilities as probing
from nlct import netns as netns_module
from nlct._ffi import lib
from nlct._handle import Socket
from tests.support import flows, oracle
from tests.support.core import Lib
from tests.support.descriptors import descriptors
from tests.support.namespaces import where_am_i
from tests.support.processes import WALL

# Seconds; what takes so long never ends.
LONG = 60
FIELDS = ("zones", "zone_filter", "zone_dump", "zone_flush", "zone0_flush")


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not probed yet."""
    monkeypatch.setattr(probing, "_known", {})
    monkeypatch.setattr(probing, "_warned", set())


def flushes(netns: nlct.Netns, zone: int) -> bool:
    """Try the kernel's own flush where it can do no harm."""
    with nlct.Conntrack(netns) as ct:
        ct.flush_all()
        flows.populate(ct)
    before = oracle.dump(netns)
    sock = Socket(netns)
    assert lib.nlct_flush_zone(sock.handle, zone, probing.zone_request()) == 0
    return oracle.dump(netns) == oracle.outside(before, {zone})


@pytest.mark.usefixtures("forgotten")
def test_the_measure_is_what_the_kernel_does(netns: nlct.Netns) -> None:
    """Each answer, tried out on a table of every kind and judged by the oracle."""
    found = nlct.probe()
    assert found.release == os.uname().release
    assert found.zones
    assert found.zone_flush == all(flushes(netns, zone) for zone in (1, 5, 7, 65535))
    assert found.zone0_flush == flushes(netns, 0)
    assert found.evidence == dict.fromkeys(FIELDS, "measured")


@pytest.mark.usefixtures("forgotten", "netns")
def test_it_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later calls, from any thread, remember."""
    found: list[Capabilities] = []
    threads = [threading.Thread(target=lambda: found.append(nlct.probe())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(item is found[0] for item in found)
    assert probing.known() is found[0]
    monkeypatch.setattr(probing, "measure", None)
    assert nlct.probe() is found[0]


@pytest.mark.usefixtures("forgotten", "netns")
def test_the_calling_thread_stays_where_it_is() -> None:
    """No namespace changes, no process is left, no signal comes; in a thread as in the main one."""
    heard: list[int] = []
    places: list[tuple[str, str]] = []
    home = where_am_i()

    def measure() -> None:
        probing.measure("this one")
        places.append(where_am_i())

    before = signal.signal(signal.SIGCHLD, lambda number, _frame: heard.append(number))
    try:
        measure()
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert places == [home, home]
    assert heard == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG | WALL)


@pytest.mark.usefixtures("forgotten")
def test_it_touches_no_table_but_its_own(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """A table of the same tuples is the same before and after."""
    flows.populate(ct)
    for zone in (0, 1, 2):
        ct.load([probing.example(zone)])
    before = oracle.dump(netns)
    nlct.probe()
    assert oracle.dump(netns) == before


@pytest.mark.usefixtures("netns")
def test_it_leaves_no_descriptor() -> None:
    """The scratch namespace goes with the measuring."""
    before = descriptors()
    probing.measure("this one")
    assert descriptors() == before


def no_namespace() -> nlct.Netns:
    """What scratch() does where none is to be had."""
    raise errors.error(errno.EPERM, "make a scratch network namespace")


@pytest.mark.usefixtures("forgotten")
def test_without_a_namespace_it_is_conservative(monkeypatch: pytest.MonkeyPatch) -> None:
    """By release nothing is promised that could empty a table, not even on a new kernel."""
    monkeypatch.setattr(nlct.Netns, "scratch", no_namespace)
    found = nlct.probe()
    # One look-up in the caller's own table, where that is allowed.
    assert found.evidence.pop("zones") == ("measured" if found.zones else "release")
    assert set(found.evidence.values()) == {"release"}
    assert not found.zone_flush
    assert not found.zone0_flush


@pytest.mark.usefixtures("forgotten")
def test_without_a_namespace_it_asks_the_callers_table_for_no_more_than_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether flows may have a zone is asked by probe(), and not by who wants to flush one."""
    opened: list[nlct.Netns] = []
    current = nlct.Netns.current

    def opening() -> nlct.Netns:
        opened.append(current())
        return opened[-1]

    monkeypatch.setattr(nlct.Netns, "scratch", no_namespace)
    monkeypatch.setattr(nlct.Netns, "current", opening)
    assert not probing.may_flush(frozenset({0, 7}))
    assert opened == []
    nlct.probe()
    assert len(opened) == 1


def test_what_is_known_is_told_while_another_thread_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scan that asks at each step does not wait for it."""
    monkeypatch.setattr(probing, "_known", saying(zone0_flush=False))
    told: list[bool] = []

    def ask() -> None:
        told.extend(probing.may_flush(frozenset(zones)) for zones in ({7}, {0}))

    with probing._lock.real:
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(LONG)
        assert told == [True, False]


@pytest.mark.parametrize(
    ("release", "zone_dump"),
    [
        ("5.10.0-32-cloud-amd64", False),
        ("6.7.12", False),
        ("6.8.0-31-generic", True),
        ("6.18.44", True),
        ("7.2.12+deb14-cloud-amd64", True),
        ("10.0", True),
        ("unheard-of", False),
        ("", False),
    ],
)
def test_a_release_promises_no_flush(release: str, zone_dump: bool) -> None:
    """A number decides at most whether to ask for less in a dump, never whether to flush."""
    found = probing.by_release(release)
    assert found.zone_dump == zone_dump
    assert (found.zone_flush, found.zone0_flush) == (False, False)


@pytest.mark.usefixtures("forgotten")
def test_it_warns_once_where_the_kernel_lacks_zone_flush(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One WARNING of the logger "nlct" that names the release; none where all is well."""
    monkeypatch.setattr(nlct.Netns, "scratch", no_namespace)
    with caplog.at_level(logging.WARNING, logger="nlct"):
        nlct.probe()
        nlct.probe()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("nlct", logging.WARNING)
    assert os.uname().release in record.getMessage()


@pytest.mark.usefixtures("forgotten", "kernel_flush")
def test_it_is_silent_where_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged for a kernel that honours the filter."""
    probing._known.clear()
    with caplog.at_level(logging.INFO, logger="nlct"):
        nlct.probe()
    assert caplog.records == []


# A kernel that lacks it, played by answers of the core -----------------------------------------


@pytest.mark.usefixtures("netns")
def test_a_flush_that_empties_the_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that ignores the zone, as before 6.8: it says 0, and all is gone."""
    fake = Lib(nlct_flush_zone=lambda sock, *_: lib.nlct_flush_all(sock))
    monkeypatch.setattr(_handle, "lib", fake)
    found = probing.measure("old")
    assert (found.zones, found.zone_flush, found.zone0_flush) == (True, False, False)
    assert found.evidence["zone_flush"] == "measured"


@pytest.mark.usefixtures("netns", "kernel_flush")
def test_a_flush_that_is_wrong_for_zone_0_alone_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Zone 0 has its own answer."""

    def flush(sock: object, zone: int, ask: int) -> int:
        return int(lib.nlct_flush_zone(sock, zone, ask) if zone else lib.nlct_flush_all(sock))

    monkeypatch.setattr(_handle, "lib", Lib(nlct_flush_zone=flush))
    found = probing.measure("early")
    assert (found.zone_flush, found.zone0_flush) == (True, False)


def test_a_dump_that_sends_far_too_much_ends(ct: nlct.Conntrack) -> None:
    """As where the kernel ignores the zone and a resize repeats flows."""
    flows.populate(ct)
    assert not probing._dumps_one_zone(ct._handle, 1, lib.NLCT_ZONE_UNASKED)
    # Nor is one of the zone's flows enough: here are more of them.
    assert not probing._dumps_one_zone(ct._handle, 1, lib.NLCT_ZONE_PLAIN)


def test_the_explicit_filter_is_honoured_or_refused(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """No kernel takes CTA_FILTER_ZONE for anything else: a dump or a flush with it never widens."""
    flows.populate(ct)
    before = oracle.dump(netns)
    sock = Socket(netns)
    rc = lib.nlct_flush_zone(sock.handle, 7, lib.NLCT_ZONE_EXPLICIT)
    left = oracle.dump(netns)
    if nlct.probe().zone_filter:
        assert rc == 0
        assert left == oracle.outside(before, {7})
    else:
        assert rc in (-errno.EINVAL, -errno.EOPNOTSUPP)
        assert left == before


@pytest.mark.usefixtures("kernel_flush")
def test_a_kernel_with_the_explicit_filter_is_asked_by_it(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no kernel here has: one that ignores CTA_ZONE alone and obeys CTA_FILTER_ZONE."""
    plain, explicit, unasked = lib.NLCT_ZONE_PLAIN, lib.NLCT_ZONE_EXPLICIT, lib.NLCT_ZONE_UNASKED
    asked = set()

    def start(dump: object, sock: object, wanted: object, ask: Any, buckets: int) -> int:
        asked.add(("dump", ask.zone_request))
        ask.zone_request = plain if ask.zone_request == explicit else unasked
        return int(lib.nlct_dump_start(dump, sock, wanted, ask, buckets))

    def flush_zone(sock: object, zone: int, ask: int) -> int:
        asked.add(("flush", ask))
        if ask == explicit:
            return int(lib.nlct_flush_zone(sock, zone, plain))
        return int(lib.nlct_flush_all(sock))

    backport = Lib(nlct_dump_start=start, nlct_flush_zone=flush_zone)
    monkeypatch.setattr(_handle, "lib", backport)
    monkeypatch.setattr(probing, "_known", {})
    found = nlct.probe()
    assert (found.zone_filter, found.zone_dump, found.zone_flush, found.zone0_flush) == (True,) * 4
    with nlct.Conntrack(netns) as ct:
        for strategy in ("scan", "kernel"):
            flows.populate(ct)
            before = oracle.dump(netns)
            assert ct.flush_zone(7, strategy=strategy).complete
            assert oracle.dump(netns) == oracle.outside(before, {7})
            ct.flush_all()
    assert asked == {("dump", explicit), ("flush", explicit)}


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("answer", [0, -errno.EINVAL, -errno.EOPNOTSUPP])
def test_a_flush_that_does_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """Neither a refusal nor an idle yes is support."""
    monkeypatch.setattr(_handle, "lib", Lib(nlct_flush_zone=lambda *_: answer))
    found = probing.measure("odd")
    assert (found.zone_flush, found.zone0_flush) == (False, False)


@pytest.mark.usefixtures("netns")
def test_a_kernel_without_zones_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no flow can have a zone, the kernel's zone flush is not to be trusted either."""

    def refuse(_sock: object, flow: object, _heap: object) -> int:
        return -errno.EOPNOTSUPP if flow.zone else 0  # type: ignore[attr-defined]

    monkeypatch.setattr(_handle, "lib", Lib(nlct_create=refuse, nlct_get=lambda *_: -errno.ENOENT))
    found = probing.measure("zoneless")
    assert not any(getattr(found, name) for name in FIELDS)
    assert found.evidence == dict.fromkeys(FIELDS, "measured")


# Strategies and what the probe says ------------------------------------------------------------


def saying(**answers: bool) -> dict[str, Capabilities]:
    """What probe() will say in this process."""
    release = os.uname().release
    values = {**dict.fromkeys(FIELDS, True), "zone_filter": False, **answers}
    evidence = dict.fromkeys(FIELDS, "measured")
    return {release: Capabilities(release, **values, evidence=evidence)}


@pytest.mark.parametrize(
    ("answers", "zones"),
    [
        ({"zone_flush": False}, {7}),
        ({"zone_flush": False}, {0, 7}),
        ({"zone0_flush": False}, {0}),
        ({"zone0_flush": False}, {0, 7}),
    ],
)
def test_the_kernel_is_refused_where_it_was_not_seen_to_obey(
    ct: nlct.Conntrack,
    netns: nlct.Netns,
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, bool],
    zones: set[int],
) -> None:
    """strategy="kernel" raises and sends nothing; auto and scan do without the kernel's flush."""
    monkeypatch.setattr(probing, "_known", saying(**answers))
    flows.populate(ct)
    before = oracle.dump(netns)
    with pytest.raises(UnsupportedError, match="zone") as caught:
        ct.flush_zones(zones, strategy="kernel")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert isinstance(caught.value, Error)
    assert oracle.dump(netns) == before
    for way in ("auto", "scan"):
        ct.load(flows.menagerie())
        table = oracle.dump(netns)
        assert ct.flush_zones(zones, strategy=way).strategy == "scan"
        assert oracle.dump(netns) == oracle.outside(table, zones)


def test_a_release_is_no_evidence_for_a_flush(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a True is not believed where it was not measured, and cannot be."""
    monkeypatch.setattr(nlct.Netns, "scratch", no_namespace)
    claims = {**dict.fromkeys(FIELDS, True), "zone_filter": False}
    release = os.uname().release
    known = {release: Capabilities(release, **claims, evidence=dict.fromkeys(FIELDS, "release"))}
    monkeypatch.setattr(probing, "_known", known)
    flows.populate(ct)
    before = oracle.dump(netns)
    with pytest.raises(UnsupportedError):
        ct.flush_zone(7, strategy="kernel")
    assert oracle.dump(netns) == before
    assert ct.flush_zone(7).strategy == "scan"
    assert ct.flush_all(strategy="kernel").complete


class Counting:
    """The core's calls that take a dump, of a table that is probed, by name."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("nlct_dump_start", "nlct_flush_zone", "nlct_netns_new"):
            self.calls.append(name.replace("nlct_", ""))
        return getattr(lib, name)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Count what is sent, to any table."""
    counting = Counting()
    monkeypatch.setattr(_handle, "lib", counting)
    monkeypatch.setattr(netns_module, "lib", counting)
    return counting


@pytest.mark.usefixtures("forgotten")
def test_a_flush_of_a_small_table_sends_no_probe(ct: nlct.Conntrack, counting: Counting) -> None:
    """Nor do several; nothing is measured that nobody needs."""
    flows.populate(ct)
    counting.calls.clear()
    for zone in (0, 5, 7):
        assert ct.flush_zone(zone).strategy == "scan"
    assert ct.delete(nlct.Filter(zone=1)).strategy == "scan"
    assert counting.calls == ["dump_start"] * 4
    assert set(probing.known().evidence.values()) == {"release"}


@pytest.mark.usefixtures("forgotten", "kernel_flush")
def test_one_question_is_one_dump(ct: nlct.Conntrack, counting: Counting) -> None:
    """Each is asked when it is needed, in a namespace of its own, and remembered."""
    flows.populate(ct)
    probing._known.clear()
    counting.calls.clear()
    ct.flush_zone(7, strategy="kernel")
    # That of CTA_FILTER_ZONE first: a kernel that does not know it refuses, and makes no dump.
    probe, own = ["netns_new", "dump_start", "flush_zone"], ["flush_zone"]
    assert counting.calls == [*probe, *own]
    assert {k for k, v in probing.known().evidence.items() if v == "measured"} == {
        *("zones", "zone_filter", "zone_flush")
    }
    counting.calls.clear()
    ct.flush_zones({5, 7}, strategy="kernel")
    assert counting.calls == own * 2
    counting.calls.clear()
    ct.flush_zones({0, 5}, strategy="kernel")
    assert counting.calls == ["netns_new", "flush_zone", *own * 2]
    counting.calls.clear()
    found = nlct.probe()
    assert counting.calls == ["netns_new"] + ["dump_start"] * (not found.zone_filter)
    assert found.evidence == dict.fromkeys(FIELDS, "measured")
    assert nlct.probe() is found
