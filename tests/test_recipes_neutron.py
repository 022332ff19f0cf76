"""recipes/neutron.py: what neutron's netlink_lib and ip_conntrack do, beside conntrack itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import nlct
from nlct import Flow, Tuple
from tests.support import flows, oracle, recipes, tool
from tests.support.examples import telling
from tests.support.namespaces import scratch


def entries_of_tool(lines: list[str], zone: int) -> list[tuple[Any, ...]]:
    """What neutron's list_entries() should say, made of the lines of conntrack."""
    names = {1: "icmp", 58: "icmpv6", 6: "tcp", 17: "udp"}
    number = re.compile(r"([\w-]+)=(\S+)")
    found = []
    for line in lines:
        words = line.split()
        proto, pairs = int(words[3]), number.findall(line)
        zones = {int(value) for name, value in pairs if "zone" in name}
        if proto not in names or (zones or {0}) != {zone}:
            continue
        orig = dict(reversed(pairs))  # the first of each name
        keys = ["sport", "dport", "src", "dst"]
        if "icmp" in names[proto]:
            keys = ["type", "code", "src", "dst", "id"]
        values = [orig[key] if key in ("src", "dst") else int(orig[key]) for key in keys]
        version = 4 if words[0] == "ipv4" else 6
        found.append((version, names[proto], *values, zone))
    return sorted(found, key=repr)


def test_neutron_lists_what_conntrack_lists(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Zone by zone, zone 0 too, both families."""
    neutron = recipes.load("neutron")
    flows.populate(ct)
    lines = tool.lines(netns, "-o", "extended")
    for zone in flows.ZONES:
        found = neutron.list_entries(zone, netns)
        assert sorted(found, key=repr) == entries_of_tool(lines, zone)
        assert [entry[3] for entry in found] == sorted(entry[3] for entry in found)
        assert len(found) >= 6
    assert neutron.list_entries(9, netns) == []


def test_neutron_lists_what_conntrack_made(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """The entries of neutron's own functional test; ICMP's are beyond some versions of the tool."""
    made = ("-s", "1.1.1.1", "-d", "2.2.2.2", "--timeout", "1234", "-w", "10")
    for options in (
        ("-p", "tcp", "--sport", "1", "--dport", "2", "--state", "ESTABLISHED"),
        ("-p", "udp", "--sport", "4", "--dport", "5"),
    ):
        tool.run(netns, "conntrack", "-I", *options, *made)
    ping = Tuple("1.1.1.1", "2.2.2.2", "icmp", icmp_id=3333, icmp_type=8, icmp_code=0)
    ct.create(Flow(ping, zone=10, timeout=1234))
    assert recipes.load("neutron").list_entries(10, netns) == [
        (4, "icmp", 8, 0, "1.1.1.1", "2.2.2.2", 3333, 10),
        (4, "tcp", 1, 2, "1.1.1.1", "2.2.2.2", 10),
        (4, "udp", 4, 5, "1.1.1.1", "2.2.2.2", 10),
    ]


# `make test` tries zone 0, and a zone that has entries of one direction.
@pytest.mark.parametrize("zone", telling([0, 5, 7], [0, 5]))
def test_neutron_deletes_entries(zone: int, netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """One, then all; the same tuples in other zones stay, and what is gone is no error."""
    neutron = recipes.load("neutron")
    flows.populate(ct)
    before = oracle.dump(netns)
    entries = neutron.list_entries(zone, netns)
    neutron.delete_entries(entries[:1], netns)
    assert neutron.list_entries(zone, netns) == entries[1:]
    for _ in range(2):
        neutron.delete_entries(entries, netns)
        after = oracle.dump(netns)
        assert neutron.list_entries(zone, netns) == []
        assert oracle.outside(after, {zone}) == oracle.outside(before, {zone})
        assert len(after) == len(before) - len(entries)


def test_neutron_deletes_entries_of_several_zones(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Numbers may be text, as in netlink_lib's examples."""
    neutron = recipes.load("neutron")
    flows.populate(ct)
    before = oracle.dump(netns)
    entries = [*neutron.list_entries(1, netns), *neutron.list_entries(256, netns)]
    as_text = [(*map(str, entry[:-1]), entry[-1]) for entry in entries]
    neutron.delete_entries(as_text, netns)
    after = oracle.dump(netns)
    assert neutron.list_entries(1, netns) == neutron.list_entries(256, netns) == []
    assert oracle.outside(after, {1, 256}) == oracle.outside(before, {1, 256})
    assert len(after) == len(before) - len(entries)


def test_neutron_refuses_what_names_no_entry(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """With netlink_lib's exceptions, before anything is deleted."""
    neutron = recipes.load("neutron")
    flows.populate(ct)
    before = oracle.dump(netns)
    good = neutron.list_entries(7, netns)[0]
    for wrong in (
        (4, "tcp", 70000, 80, "10.0.0.1", "10.0.0.2", 7),
        (4, "tcp", 1, 80, "10.0.0.1", "fd00::1", 7),
        (4, "tcp", 1, 80, "10.0.0.1", "10.0.0.2", 70000),
    ):
        with pytest.raises(neutron.CTZoneExhaustedError):
            neutron.delete_entries([good, wrong], netns)
    with pytest.raises(KeyError):
        neutron.delete_entries([good, (4, "gre", 0, 0, "10.0.0.1", "10.0.0.2", 7)], netns)
    with pytest.raises(neutron.CTZoneExhaustedError):
        neutron.delete_entries([good], "no-such-namespace")
    assert oracle.dump(netns) == before


def test_neutron_flushes_zones(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """These and no other."""
    flows.populate(ct)
    before = oracle.dump(netns)
    assert recipes.load("neutron").flush_zones([7, 65535], netns).complete
    assert oracle.dump(netns) == oracle.outside(before, {7, 65535})


# Devices with an address of each family; the zone of a device is its VLAN tag.
DEVICES = [
    {
        "device": f"tap{tag}",
        "of_port": SimpleNamespace(vlan_tag=tag),
        "fixed_ips": ["10.0.0.1", "fd00::1"],
        "allowed_address_pairs": [{"ip_address": "10.9.0.0/24", "mac_address": "x"}],
    }
    for tag in (5, 7)
]
WITHOUT_ZONE = [
    {**DEVICES[0], "of_port": None},
    {**DEVICES[0], "of_port": SimpleNamespace(vlan_tag=0)},
]
# One after the other on one table, so a wide one comes last.
RULES = [
    [
        {"ethertype": "IPv6", "direction": "egress", "protocol": "tcp"},
        {"ethertype": "IPv4", "direction": "ingress"},
    ],
    [
        {"ethertype": "IPv4", "direction": "ingress", "protocol": "udp"},
        {"ethertype": "IPv6", "direction": "ingress", "protocol": "ipv6-icmp"},
        {"ethertype": "IPv4", "direction": "egress", "protocol": 1},
        {"ethertype": "IPv4", "direction": "egress"},
    ],
]
PEERS: list[list[tuple[str, list[str], str | None]]] = [
    [("IPv6", ["fd00:1::1"], None), ("IPv4", [], "0x1")],
    [
        ("IPv4", ["10.0.1.1", "10.0.1.3/32"], "0x1"),
        ("IPv4", ["10.0.1.1", "10.0.1.3/32"], None),
        ("IPv4", [], None),
    ],
]


def both_ways(zone: int) -> Iterator[Flow]:
    """Flows of a device with three peers, and of somebody else, in both directions."""
    pairs = [("10.0.0.1", f"10.0.1.{n}") for n in (1, 2, 3)] + [("fd00::1", "fd00:1::1")]
    pairs += [("10.9.0.77", "10.0.1.1"), ("10.0.0.99", "10.0.1.1")]
    for (ours, theirs), proto in itertools.product(pairs, ("tcp", "udp", "icmp")):
        for mark, (src, dst) in enumerate(((ours, theirs), (theirs, ours))):
            if proto != "icmp":
                orig = Tuple(src, dst, proto, 1000, 80)
            elif ":" in src:
                orig = Tuple(src, dst, "icmpv6", icmp_id=7, icmp_type=128, icmp_code=0)
            else:
                orig = Tuple(src, dst, "icmp", icmp_id=7, icmp_type=8, icmp_code=0)
            yield Flow(orig, zone=zone, timeout=3600, mark=mark)


def fill(netns: nlct.Netns) -> None:
    """Make them in zones 0, 5, 7 and 9."""
    with nlct.Conntrack(netns) as ct:
        assert not ct.load([flow for zone in (0, 5, 7, 9) for flow in both_ways(zone)]).failed


@pytest.fixture
def twins(netns: nlct.Netns) -> Iterator[tuple[nlct.Netns, nlct.Netns]]:
    """Two namespaces with the same flows."""
    with scratch() as other:
        for one in (netns, other):
            fill(one)
        yield netns, other


def manager(netns: nlct.Netns) -> Any:
    """The recipe's manager for the Open vSwitch firewall, in a namespace."""
    made = recipes.load("neutron").OvsIpConntrackManager()
    made.namespace = netns
    return made


def left(netns: nlct.Netns) -> set[oracle.Key]:
    """What names the entries of a table."""
    return set(oracle.dump(netns))


def conntrack_deletes(netns: nlct.Netns, rule: dict[str, Any], peers: list[str]) -> None:
    """The commands that neutron runs for DEVICES, one for each device, address and peer."""
    family = rule["ethertype"].lower()
    near, far = ("-d", "-s") if rule["direction"] == "ingress" else ("-s", "-d")
    options = ["-f", family]
    options += ["-p", str(rule["protocol"])] if "protocol" in rule else []
    options += ["-m", rule["mark"]] if rule.get("mark") else []
    addresses = ["10.0.0.1", "10.9.0.0/24"] if family == "ipv4" else ["fd00::1"]
    for zone, address, peer in itertools.product(("5", "7"), addresses, peers or [""]):
        more = [far, peer] if peer else []
        words = ["conntrack", "-D", *options, near, address, "-w", zone, *more]
        # It fails where it finds nothing.
        tool.run(netns, "sh", "-c", '"$@" || true', "sh", *words)


# `make test` tries rules and peers of each direction and family, with a mark and without.
@pytest.mark.parametrize("rules", telling(RULES, RULES[:1]), ids=len)
def test_neutron_deletes_by_rule_what_its_commands_delete(
    rules: list[dict[str, Any]], twins: tuple[nlct.Netns, nlct.Netns]
) -> None:
    """Held against a table in which conntrack itself has run."""
    ours, theirs = twins
    after = left(ours)
    for rule in rules:
        before = after
        conntrack_deletes(theirs, rule, [])
        manager(ours).delete_conntrack_state_by_rule(DEVICES + WITHOUT_ZONE, rule)
        after = left(ours)
        assert after == left(theirs) < before


@pytest.mark.parametrize("all_meant", telling(PEERS, PEERS[:1]), ids=len)
def test_neutron_deletes_by_peers_what_its_commands_delete(
    all_meant: list[tuple[str, list[str], str | None]], twins: tuple[nlct.Netns, nlct.Netns]
) -> None:
    """Both directions; without peers all of a device's."""
    ours, theirs = twins
    after = left(ours)
    for ethertype, peers, mark in all_meant:
        before = after
        for direction in ("ingress", "egress"):
            rule = {"ethertype": ethertype, "direction": direction, "mark": mark}
            conntrack_deletes(theirs, rule, peers)
        manager(ours).delete_conntrack_state_by_remote_ips(DEVICES, ethertype, peers, mark)
        after = left(ours)
        assert after == left(theirs) < before


def test_neutron_deletes_nothing_where_nothing_is_meant(netns: nlct.Netns) -> None:
    """No device, a device without a zone, and peers of the other family alone."""
    fill(netns)
    before = oracle.dump(netns)
    one = manager(netns)
    one.delete_conntrack_state_by_rule([], RULES[0][1])
    one.delete_conntrack_state_by_rule(WITHOUT_ZONE, RULES[0][1])
    one.delete_conntrack_state_by_rule([{**DEVICES[0], "fixed_ips": []}], RULES[0][0])
    one.delete_conntrack_state_by_remote_ips(DEVICES, "IPv4", ["fd00:1::1"])
    assert oracle.dump(netns) == before


def test_neutron_keeps_its_own_map_of_zones(netns: nlct.Netns) -> None:
    """ConntrackDeletes in front of a class that has get_device_zone() and the like."""
    neutron = recipes.load("neutron")
    fill(netns)

    class Theirs:
        namespace = netns

        def get_device_zone(self, port: dict[str, Any], create: bool = True) -> int | None:
            assert not create
            return {"tap5": 5}.get(port["device"])

        def delete_conntrack_state_by_rule(self, *args: object) -> None:
            raise AssertionError(args)

    class Manager(neutron.ConntrackDeletes, Theirs):  # type: ignore[misc, name-defined]
        pass

    before = oracle.dump(netns)
    Manager().delete_conntrack_state_by_rule(DEVICES, {"ethertype": "IPv4", "direction": "egress"})
    after = oracle.dump(netns)
    assert oracle.outside(after, {5}) == oracle.outside(before, {5})
    assert len(before) - len(after) == 12
