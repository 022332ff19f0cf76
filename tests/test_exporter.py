"""The exporter's collectors: a scrape says what the kernel says, and waits for nobody."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "prometheus_client", reason="MISSING: prometheus_client, which nlct[exporter] has"
)

import nlct
from nlct import Flow, Tuple
from nlct.exporter import Breakdown, FlushCollector, MirrorCollector, TableCollector
from nlct.exporter import places as exporter_places
from nlct.fill import fill
from tests.support import filters, hidden
from tests.support.metrics import CONTRIB, Samples, named, promtool, scrape
from tests.support.namespaces import scratch

LONG = 30.0
# To scrape costs something.
until = partial(hidden.until, pause=0.05)
STATES = ("established", "established", "time_wait")


def path_of(netns: nlct.Netns) -> str:
    """A path by which this process finds a namespace."""
    return f"/proc/self/fd/{netns.fileno()}"


def mixed() -> Iterator[Flow]:
    """Flows of several zones, marks, protocols and states."""
    for zone in range(1, 6):
        for port in range(1, 3 * zone + 1):
            udp = Tuple("192.0.2.1", "192.0.2.2", "udp", port, 53)
            yield Flow(udp, zone=zone, timeout=600, mark=port % 2 + 7)
        for port, state in enumerate(STATES, start=1):
            tcp = Tuple("192.0.2.1", "192.0.2.2", "tcp", port, 80)
            yield Flow(tcp, zone=zone, timeout=600, tcp_state=state)


@pytest.fixture
def tables(ct: nlct.Conntrack, netns: nlct.Netns) -> Iterator[TableCollector]:
    """Everything of a table that is not empty, counted once."""
    assert ct.load(mixed()).created == 60
    by = ["zone", "proto", "state", "zone,mark", "zone,proto,state"]
    with TableCollector(path_of(netns), by=by, interval=1, mirror=True) as made:
        until(lambda: named(scrape(made), "nlct_flows_counted_timestamp_seconds"))
        yield made


def test_a_scrape_says_what_the_kernel_says(ct: nlct.Conntrack, tables: TableCollector) -> None:
    """Entries, limit, buckets, each counter of each processor, and nothing else of these."""
    before = ct.stats()
    samples = scrape(tables)
    assert named(samples, "nlct_up") == {(): 1}
    assert named(samples, "nlct_entries") == {(): 60}
    assert named(samples, "nlct_entries_limit") == {(): ct.limit}
    assert named(samples, "nlct_buckets") == {(): ct.buckets}
    shown = {
        (prefix + field, cpu): value
        for prefix, cpus in (("", before.cpus), ("expect_", before.expectation_cpus))
        for cpu, counters in cpus.items()
        for field, value in counters.to_dict().items()
        if field != "unknown"
    }
    found = {
        (name[len("nlct_stat_") : -len("_total")], int(dict(labels)["cpu"])): value
        for (name, labels), value in samples.items()
        if name.startswith("nlct_stat_")
    }
    # Look-ups go on.
    growing = {key for key in shown if key[0] in ("found", "search_restart")}
    assert found.keys() == shown.keys()
    assert {key: found[key] for key in found if key not in growing} == {
        key: value for key, value in shown.items() if key not in growing
    }
    assert all(found[key] >= shown[key] for key in growing)
    assert sum(value for (name, _), value in found.items() if name == "insert") == 60


def test_breakdowns_are_what_count_by_counts(ct: nlct.Conntrack, tables: TableCollector) -> None:
    """Whichever dumps they share."""
    samples = scrape(tables)

    def word(value: Any) -> str:
        return "absent" if value is None else getattr(value, "name", str(value)).lower()

    for fields in (("zone",), ("proto",), ("state",), ("zone", "mark"), ("zone", "proto", "state")):
        counts = ct.count_by(*fields)
        rows = {key if len(fields) > 1 else (key,): flows for key, flows in counts.items()}
        expected = {
            # Labels come by their names.
            tuple(word(value) for _, value in sorted(zip(fields, key))): flows
            for key, flows in rows.items()
        }
        assert named(samples, "nlct_flows_by_" + "_".join(fields)) == expected
    assert named(samples, "nlct_flows_by_zone")[("5",)] == 18
    assert named(samples, "nlct_flows_by_state")[("established",)] == 10


def test_a_state_that_is_none_is_not_an_absent_one(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Of a flow that somebody has made without a state, and of one that is no TCP."""
    ct.create(Flow(Tuple("10.0.0.1", "10.0.0.2", "tcp", 1, 2), timeout=100))
    ct.create(Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2), timeout=100))
    with TableCollector(path_of(netns), by=["state"], interval=1) as tables:
        until(
            lambda: named(scrape(tables), "nlct_flows_by_state") == {("none",): 1, ("absent",): 1}
        )


def test_any_name_of_a_namespace_can_be_scraped(netns: nlct.Netns, tmp_path: Path) -> None:
    """Also one that is no text."""
    path = bytes(tmp_path) + b'/\xc3\xa4\xff\n"'
    os.symlink(path_of(netns), path)
    with TableCollector(os.fsdecode(path)) as tables:
        (labels,) = [labels for name, labels in scrape(tables) if name == "nlct_up"]
    assert labels == (("netns", f'{tmp_path}/\xe4\\xff\n"'),)


def test_top_leaves_the_rest_to_other(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """The largest, and together as many as there are."""
    ct.load(mixed())
    with TableCollector(path_of(netns), by=["zone", "zone,proto"], top=2) as tables:
        until(lambda: named(scrape(tables), "nlct_flows_by_zone"))
        samples = scrape(tables)
    assert named(samples, "nlct_flows_by_zone") == {("5",): 18, ("4",): 15, ("other",): 27}
    assert named(samples, "nlct_flows_by_zone_proto") == {
        ("udp", "5"): 15,
        ("udp", "4"): 12,
        ("other", "other"): 33,
    }


def test_the_mirror_s_state(tables: TableCollector, netns: nlct.Netns) -> None:
    """Of the exporter's own mirrors, and of one's own."""
    until(lambda: named(scrape(tables), "nlct_mirror_in_step") == {(): 1})
    samples = scrape(tables)
    assert named(samples, "nlct_mirror_flows") == {(): 60}
    with nlct.Mirror(netns) as mirror:
        assert mirror.wait(LONG)
        ours = MirrorCollector({"x": mirror})
        samples = scrape(ours)
        assert named(samples, "nlct_mirror_in_step") == {(): 1}
        assert named(samples, "nlct_mirror_buffer_bytes") == {(): mirror.state.buffer}
        assert {dict(labels)["netns"] for _, labels in samples} == {"x"}
    assert scrape(ours) == {}


def test_a_zone_is_counted_by_a_mirror_without_a_dump(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is in step."""
    fill(ct, flows=100, zones=10)
    with TableCollector(path_of(netns), by=["zone"], mirror=True, interval=1) as tables:
        until(lambda: named(scrape(tables), "nlct_mirror_in_step") == {(): 1})
        monkeypatch.delattr(nlct.Conntrack, "count_by")
        ct.flush_zone(3)
        until(lambda: ("3",) not in named(scrape(tables), "nlct_flows_by_zone"))
        assert sum(named(scrape(tables), "nlct_flows_by_zone").values()) == 90


def test_where_no_mirror_can_be_dumps_count(
    ct: nlct.Conntrack, netns: nlct.Netns, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and the mirror is shown as out of step."""
    filters.write(netns, "events", 0)
    fill(ct, flows=100, zones=10)
    with TableCollector(path_of(netns), by=["zone"], mirror=True, interval=1) as tables:
        until(lambda: named(scrape(tables), "nlct_flows_by_zone"))
        ct.flush_zone(3)
        until(lambda: ("3",) not in named(scrape(tables), "nlct_flows_by_zone"))
        assert named(scrape(tables), "nlct_mirror_in_step") == {(): 0}
    (said,) = caplog.messages
    assert "nf_conntrack_events is 0" in said


def test_a_scrape_waits_for_no_dump(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows what was counted last, while a dump goes on and on."""
    fill(ct, flows=100, zones=10)
    with TableCollector(path_of(netns), by=["zone"], interval=1) as tables:
        until(lambda: named(scrape(tables), "nlct_flows_by_zone"))
        dumping, done = threading.Event(), threading.Event()

        def endless(*_: object, **__: object) -> dict[int, int]:
            dumping.set()
            assert done.wait(LONG)
            return {}

        monkeypatch.setattr(nlct.Conntrack, "count_by", endless)
        assert dumping.wait(LONG)
        ct.flush_zone(3)
        samples = scrape(tables)
        assert not done.is_set()
        assert named(samples, "nlct_entries") == {(): 90}
        assert sum(named(samples, "nlct_flows_by_zone").values()) == 100
        done.set()


def test_scrapes_beside_a_flood(ct: nlct.Conntrack, tables: TableCollector) -> None:
    """Every one is whole, and counters never go back."""
    ended = threading.Event()

    def flood() -> None:
        while not ended.is_set():
            fill(ct, flows=2000, zones=20)
            ct.flush_zones(range(6, 21))

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        last: Counter[Any] = Counter()
        for _ in range(15):
            samples = scrape(tables)
            assert named(samples, "nlct_up") == {(): 1}
            counters = Counter({k: int(v) for k, v in samples.items() if k[0].endswith("_total")})
            assert not last - counters
            last = counters
    finally:
        ended.set()
        flooding.join()


def test_flushes_are_counted(ct: nlct.Conntrack) -> None:
    """By operation, strategy and outcome; seconds, deleted, and errors by errno."""
    fill(ct, flows=100, zones=10)
    with FlushCollector() as flushes:
        gone = list(ct.dump(zone=1))
        for zone in (1, 2):
            ct.flush_zone(zone, strategy="scan")
        ct.delete_flows(gone)
        ct.flush_all()
        with pytest.raises(nlct.UnsupportedError):
            ct.delete(nlct.Filter(mark=1), strategy="kernel")
        samples = scrape(flushes)
    ct.flush_zone(5)
    assert scrape(flushes) == samples
    assert named(samples, "nlct_flushes_total") == {
        ("flush", "complete", "scan"): 2,
        ("delete_flows", "complete", "flows"): 1,
        ("flush", "complete", "kernel"): 1,
        ("delete", "error", "none"): 1,
        # These have begun, so that the first error is an increase.
        ("flush", "error", "none"): 0,
        ("delete_flows", "error", "none"): 0,
    }
    # Not of the kernel's own, which it does not count.
    assert named(samples, "nlct_flush_deleted_flows_total") == {
        ("flush", "scan"): 20,
        ("delete_flows", "flows"): 0,
    }
    assert named(samples, "nlct_flush_already_gone_flows_total")["delete_flows", "flows"] == 10
    assert named(samples, "nlct_flush_errors_total") == {("ENOTSUP", "delete"): 1}
    assert named(samples, "nlct_flush_duration_seconds_count") == {
        ("flush",): 3,
        ("delete_flows",): 1,
        ("delete",): 1,
    }


# Namespaces ---------------------------------------------------------------------------------------


def netns_of(samples: Samples, name: str) -> dict[str, float]:
    """Values by namespace."""
    return {
        dict(labels)["netns"]: value for (each, labels), value in samples.items() if each == name
    }


def test_namespaces_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their series, as ``ip netns`` shows them; the rest stays."""
    for module in (exporter_places, nlct.netns):
        monkeypatch.setattr(module, "NAMED", str(tmp_path))
    with (
        scratch() as own,
        scratch() as first,
        scratch() as second,
        # Its own namespace is that of this thread, which may lack the privilege.
        monkeypatch.context() as patched,
    ):
        patched.setattr(exporter_places, "Conntrack", lambda netns=own: nlct.Conntrack(netns))
        with nlct.Conntrack(second) as ct:
            fill(ct, flows=10, zones=1)
        with TableCollector(all_netns=True) as tables:
            assert netns_of(scrape(tables), "nlct_up") == {"": 1}
            (tmp_path / "a").symlink_to(path_of(first))
            # As a name that was made, and whose namespace was never mounted.
            (tmp_path / "b").touch()
            assert netns_of(scrape(tables), "nlct_up") == {"": 1, "a": 1, "b": 0}
            assert tables.absent == ("b",)
            assert netns_of(scrape(tables), "nlct_entries") == {"": 0, "a": 0}
            # Another one by the same name.
            (tmp_path / "a").unlink()
            (tmp_path / "a").symlink_to(path_of(second))
            assert netns_of(scrape(tables), "nlct_entries") == {"": 0, "a": 10}
            (tmp_path / "a").unlink()
            (tmp_path / "b").unlink()
            samples = scrape(tables)
            assert netns_of(samples, "nlct_up") == {"": 1}
            assert {dict(labels).get("netns", "") for _, labels in samples} == {""}


def test_a_named_namespace_that_goes_is_let_go(tmp_path: Path) -> None:
    """It is shown as down, and nobody holds it: not even if nobody scrapes."""
    name = tmp_path / "a"
    with TableCollector([str(name)], by=["zone"], interval=1) as tables:
        assert netns_of(scrape(tables), "nlct_up") == {str(name): 0}
        with scratch() as made:
            name.symlink_to(path_of(made))
            until(lambda: netns_of(scrape(tables), "nlct_flows_counted_timestamp_seconds"))
            (place,) = tables._places._places.values()
        until(lambda: place.closed)
        samples = scrape(tables)
    assert netns_of(samples, "nlct_up") == {str(name): 0}
    assert set(dict(samples)) == {("nlct_up", (("netns", str(name)),))}


def test_a_closed_collector_collects_nothing(netns: nlct.Netns) -> None:
    """And may be closed again."""
    tables = TableCollector(path_of(netns))
    tables.close()
    tables.close()
    assert scrape(tables) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"by": ["dport"]}, "by must be up to 3 different ones of zone, mark, proto, state"),
        ({"by": ["zone,zone"]}, "by must be"),
        ({"by": "zone"}, "by must be a list"),
        ({"by": [7]}, "by must be fields"),
        ({"netns": [""]}, "netns must not be empty"),
        ({"netns": [7]}, "netns must be names or paths, not 7"),
        ({"top": 0}, "top must be from 1 to 1000000"),
        ({"interval": 0}, "interval must be 1 or more seconds"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], says: str) -> None:
    """They say which, and what it may be."""
    with pytest.raises((TypeError, ValueError), match=says):
        TableCollector(**arguments)


def test_a_breakdown_has_a_name() -> None:
    """By which its family is found."""
    assert Breakdown.read("zone,mark").name == "flows_by_zone_mark"


# Prometheus' own judgement ------------------------------------------------------------------------


def test_the_names_are_prometheus_own(tables: TableCollector, ct: nlct.Conntrack) -> None:
    """Promtool has nothing to say against any metric."""
    from prometheus_client import generate_latest  # noqa: PLC0415

    with FlushCollector() as flushes:
        ct.flush_zone(5)
        text = "".join(generate_latest(each).decode() for each in (tables, flushes))  # type: ignore[arg-type]
    promtool("check", "metrics", given=text)
    assert "node_" not in text


def test_the_rules_alert_when_they_should() -> None:
    """And not when they should not."""
    promtool("check", "config", str(CONTRIB / "prometheus/prometheus.yml"))
    promtool("test", "rules", str(CONTRIB / "prometheus/nlct.rules.test.yml"))


def test_the_page_has_every_series(tables: TableCollector, ct: nlct.Conntrack) -> None:
    """And no other."""
    page = (CONTRIB.parent / "docs/metrics.md").read_text()
    written = set(re.findall(r"^\| (`nlct_.*?) \|", page, re.MULTILINE))
    said = {name for row in written for name in re.findall(r"`(nlct_\w+)`", row)}
    with FlushCollector() as flushes:
        ct.flush_zone(5)
        families = [family.name for each in (tables, flushes) for family in each.collect()]
    found = {_on_the_page(name) for name in families}
    assert {re.sub("_total$", "", name) for name in said} == found


def _on_the_page(name: str) -> str:
    """Which row a family is in."""
    name = re.sub("nlct_flows_by_.*", "nlct_flows_by_FIELDS", name)
    return re.sub("nlct_stat_(expect_)?.*", r"nlct_stat_\1NAME", name)
