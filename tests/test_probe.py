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
from nlct import Capabilities, Error, UnsupportedError, _dump, errors, flush, strategy
from nlct import capabilities as probing
from nlct._ffi import lib
from nlct._socket import Socket
from tests.support import flows, oracle
from tests.support.core import Lib
from tests.support.namespaces import where_am_i
from tests.support.processes import WALL

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
    before = len(os.listdir("/proc/self/fd"))
    probing.measure("this one")
    assert len(os.listdir("/proc/self/fd")) == before


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
    monkeypatch.setattr(probing, "lib", fake)
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

    monkeypatch.setattr(probing, "lib", Lib(nlct_flush_zone=flush))
    found = probing.measure("early")
    assert (found.zone_flush, found.zone0_flush) == (True, False)


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
    for module in (probing, _dump, flush):
        monkeypatch.setattr(module, "lib", backport)
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
    monkeypatch.setattr(probing, "lib", Lib(nlct_flush_zone=lambda *_: answer))
    found = probing.measure("odd")
    assert (found.zone_flush, found.zone0_flush) == (False, False)


@pytest.mark.usefixtures("netns")
def test_a_kernel_without_zones_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no flow can have a zone, the kernel's zone flush is not to be trusted either."""

    def refuse(_sock: object, flow: object, _heap: object) -> int:
        return -errno.EOPNOTSUPP if flow.zone else 0  # type: ignore[attr-defined]

    monkeypatch.setattr(probing, "lib", Lib(nlct_create=refuse, nlct_get=lambda *_: -errno.ENOENT))
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
    """Even a True is not believed where it was not measured."""
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


@pytest.mark.usefixtures("forgotten", "kernel_flush")
def test_auto_does_not_probe_for_the_sake_of_one_flush(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It scans at first, and measures the kernel once its scans have cost more than that would."""
    monkeypatch.setattr(probing, "_known", {})
    monkeypatch.setattr(strategy, "_lost", 0.0)
    monkeypatch.setattr(strategy, "COUNTED", 0)
    monkeypatch.setattr(strategy, "_scan_cost", lambda *_: 5.0)
    monkeypatch.setattr(strategy, "_kernel_cost", lambda *_: 3.0)
    monkeypatch.setattr(strategy.experience, "learn", lambda *_: None)
    monkeypatch.setattr(strategy.experience, "_factors", {})
    assert [ct.flush_zone(7).strategy for _ in range(6)] == ["scan"] * 4 + ["kernel"] * 2


@pytest.mark.usefixtures("kernel_flush")
def test_auto_learns_which_way_is_the_faster(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a way took counts for more than what it was estimated to take; each is tried twice."""
    nlct.probe()
    monkeypatch.setattr(strategy, "COUNTED", 0)
    monkeypatch.setattr(strategy, "_scan_cost", lambda *_: 1e6)
    # One that is hopeless is not tried, one that may be the better is.
    for cost, way in ((4e6, "scan"), (2e6, "kernel")):
        monkeypatch.setattr(strategy.experience, "_factors", {})
        monkeypatch.setattr(strategy, "_kernel_cost", lambda *_, cost=cost: cost)
        assert ct.flush_zone(7).strategy == way
    experience = strategy.Experience()
    size = (1, 1000, 65536)
    assert experience.is_new("scan", *size)
    before = experience.cost("scan", *size)
    for took, told in ((3, 3), (2, 2), (4, 2), (5, 2), (6, 4)):
        experience.learn("scan", *size, took * before)
        assert experience.cost("scan", *size) == pytest.approx(told * before)
        assert experience.is_new("scan", *size) == (took == 3)
    assert experience.cost("scan", 1, 500_000, 65536) == strategy.Experience().cost(
        "scan", 1, 500_000, 65536
    )


@pytest.mark.parametrize("zones", [1, 9])
def test_a_scan_teaches_what_most_of_it_was(zones: int) -> None:
    """Few deletes leave what walking costs, many what they cost themselves; never beyond reason."""
    experience = strategy.Experience()
    size = (zones, 10_000, 16384)
    walking = experience.cost("scan", *size)
    few, many = strategy.Scan(*size, 10, 10, 0), strategy.Scan(*size, 10_000, 10_000_000, 0)
    of_few, of_many = experience.deleting(few), experience.deleting(many)
    assert of_few < walking < of_many
    experience.learn_scan(few._replace(nanoseconds=2 * walking + of_few))
    assert experience.cost("scan", *size) == pytest.approx(2 * walking)
    experience.learn_scan(many._replace(nanoseconds=2 * walking + 2 * of_many))
    assert experience.cost("scan", *size) == pytest.approx(2 * walking)
    assert experience.deleting(many) == pytest.approx(1.5 * of_many)
    for _ in range(100):
        experience.learn_scan(many._replace(nanoseconds=0))
    assert experience.deleting(many) == pytest.approx(of_many / 4)


def test_a_kernel_flush_that_deleted_much_teaches_nothing_more() -> None:
    """What deleting took is guessed: twice that is better than nothing, then it is only noise."""
    experience = strategy.Experience()
    size = (1, 10_000, 16384)
    walking = experience.cost("kernel", *size)
    for _ in range(strategy.Experience.ENOUGH):
        experience.learn_flush(*size, 5000, 2 * walking + 5000 * strategy.FLUSHED)
    assert not experience.is_new("kernel", *size)
    assert experience.cost("kernel", *size) == pytest.approx(2 * walking)
    for _ in range(strategy.Experience.LAST):
        experience.learn_flush(*size, 5000, 0.5 * walking + 5000 * strategy.FLUSHED)
        assert experience.cost("kernel", *size) == pytest.approx(2 * walking)
    experience.learn_flush(*size, 5, 0.5 * walking + 5 * strategy.FLUSHED)
    assert experience.cost("kernel", *size) == pytest.approx(0.5 * walking)


@pytest.mark.parametrize(
    ("scan", "kernel", "preferred"),
    [(10, 9, True), (10, 11.9, True), (10, 12.1, False), (100, 104.9, True), (100, 105.1, False)],
)
def test_the_kernel_is_preferred_where_both_take_about_as_long(
    scan: float, kernel: float, preferred: bool
) -> None:
    """Milliseconds: by a fifth, by a step of a walk at most."""
    experience = strategy.Experience()
    size = (1, 100_000, 65536)
    for _ in range(strategy.Experience.ENOUGH):
        experience.learn("scan", *size, scan * 1e6)
        experience.learn("kernel", *size, kernel * 1e6)
    assert experience.prefers_kernel(*size) is preferred
