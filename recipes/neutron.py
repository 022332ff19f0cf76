"""What neutron's netlink_lib and ip_conntrack do with conntrack, under their names, on nlct.

``list_entries`` and ``delete_entries`` stand for those of neutron/privileged/agent/linux/
netlink_lib.py; ConntrackDeletes stands for the deletes of neutron/agent/linux/ip_conntrack.py.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import operator
import socket
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Union

import nlct

try:
    from neutron_lib.exceptions import (  # type: ignore[import-not-found]
        CTZoneExhaustedError,
    )
except ImportError:

    class CTZoneExhaustedError(Exception):  # type: ignore[no-redef]
        """What netlink_lib raises when a request fails."""


LOG = logging.getLogger(__name__)
# (4, "tcp", sport, dport, src, dst, zone), or (4, "icmp", type, code, src, dst, id, zone)
Entry = tuple[Any, ...]
Where = Union[str, nlct.Netns, None]  # a network namespace, None for that of the caller

_PORTS = ("sport", "dport", "src", "dst")
_ICMP = ("icmp_type", "icmp_code", "src", "dst", "icmp_id")
MEMBERS = {"icmp": _ICMP, "icmpv6": _ICMP, "tcp": _PORTS, "udp": _PORTS}


def list_entries(zone: int, netns: Where = None) -> list[Entry]:
    """Return the entries of a zone, sorted by destination port or ICMP code."""
    with nlct.Conntrack(netns) as ct:
        flows = ct.dump(nlct.Filter(zone=zone, proto=MEMBERS))
        entries = [_entry(flow, zone) for flow in flows]
    return sorted(entries, key=lambda entry: (entry[3], entry[0]))


def delete_entries(entries: Iterable[Entry], netns: Where = None) -> None:
    """Delete these entries; those that are gone already are no error."""
    try:
        names = [(_tuple(entry), entry[-1]) for entry in entries]
        with nlct.Conntrack(netns) as ct:
            result = ct.delete_flows(_find(ct, names))
    except (nlct.Error, ValueError, TypeError) as exc:
        LOG.critical("Failed to delete conntrack entries %s", exc)
        raise CTZoneExhaustedError from exc
    if result.failed:
        LOG.critical("Failed to delete conntrack entries %s", result)
        raise CTZoneExhaustedError


def flush_zones(zones: Iterable[int], netns: Where = None) -> nlct.FlushResult:
    """Delete every entry of these zones and nothing else."""
    with nlct.Conntrack(netns) as ct:
        return ct.flush_zones(zones)


def _entry(flow: nlct.Flow, zone: int) -> Entry:
    protocol = nlct.Proto(flow.orig.proto or 0).name.lower()
    values = [getattr(flow.orig, name) for name in MEMBERS[protocol]]
    plain = [value if isinstance(value, int) else str(value) for value in values]
    return (4 if flow.family == socket.AF_INET else 6, protocol, *plain, zone)


def _tuple(entry: Entry) -> nlct.Tuple:
    members: dict[str, Any] = dict(zip(MEMBERS[entry[1]], entry[2:-1]))
    for name in members.keys() - {"src", "dst"}:
        members[name] = int(members[name])
    return nlct.Tuple(proto=entry[1], **members)


def _find(ct: nlct.Conntrack, names: list[tuple[nlct.Tuple, int]]) -> list[nlct.Flow]:
    """Look the entries up: a delete names the id, so whoever takes a tuple over meanwhile stays."""
    found = []
    for orig, zone in names:
        try:
            found.append(ct.get(orig, zone=zone))
        except nlct.NotFoundError:
            LOG.debug("No conntrack entry %s in zone %s", orig, zone)
    return found


class ConntrackDeletes:
    """The deletes of IpConntrackManager; put it in front, and neutron's keeps the map of zones.

    class IpConntrackManager(ConntrackDeletes, ip_conntrack.IpConntrackManager): pass
    """

    namespace: str | None
    # get_device_zone(port, create=False): the zone of a device, None if it has none.
    get_device_zone: Callable[..., int | None]

    def delete_conntrack_state_by_rule(
        self, device_info_list: list[dict[str, Any]], rule: Mapping[str, Any]
    ) -> None:
        """Delete the entries of these devices that a rule let through."""
        self._delete(device_info_list, [rule], None)

    def delete_conntrack_state_by_remote_ips(
        self,
        device_info_list: list[dict[str, Any]],
        ethertype: str,
        remote_ips: Iterable[str] | None,
        mark: int | str | None = None,
    ) -> None:
        """Delete the entries of these devices with these peers; without peers, all of them."""
        both = ("ingress", "egress")
        rules = [{"ethertype": ethertype, "direction": way, "mark": mark or None} for way in both]
        self._delete(device_info_list, rules, list(remote_ips or ()) or None)

    def _delete(
        self,
        devices: list[dict[str, Any]],
        rules: Iterable[Mapping[str, Any]],
        remote_ips: list[str] | None,
    ) -> None:
        wanted = [self._filter(device, rule, remote_ips) for rule in rules for device in devices]
        with nlct.Conntrack(self.namespace) as ct:
            result = ct.delete(functools.reduce(operator.or_, wanted, nlct.Filter(zone=())))
        if result.failed:
            LOG.error("Failed to delete conntrack entries %s", result)

    def _filter(
        self, device: dict[str, Any], rule: Mapping[str, Any], remote_ips: list[str] | None
    ) -> nlct.Filter:
        zone = self.get_device_zone(device, create=False)
        version = int(str(rule["ethertype"])[-1])
        pairs = [pair["ip_address"] for pair in device.get("allowed_address_pairs", [])]
        ours = _networks(device.get("fixed_ips", []) + pairs, version)
        theirs = None if remote_ips is None else _networks(remote_ips, version)
        ingress = rule.get("direction") == "ingress"
        mark = rule.get("mark")
        return nlct.Filter(
            # Zone 0 is no device's: it is what the host has outside of all zones.
            zone=zone or (),
            family=f"ipv{version}",
            proto=rule.get("protocol"),
            mark=None if mark is None else int(str(mark), 0),
            src=theirs if ingress else ours,
            dst=ours if ingress else theirs,
        )


class OvsIpConntrackManager(ConntrackDeletes):
    """That of the Open vSwitch firewall: the zone of a device is its VLAN tag."""

    def __init__(self, execute: object = None) -> None:  # noqa: ARG002
        self.namespace = None

    def get_device_zone(self, port: dict[str, Any], create: bool = False) -> int | None:  # noqa: ARG002
        """Return the zone of a device."""
        of_port = port.get("of_port")
        return None if of_port is None else of_port.vlan_tag


def _networks(addresses: Iterable[str], version: int) -> list[Any]:
    """Return those of one IP version, as networks."""
    networks = [ipaddress.ip_interface(str(address)).network for address in addresses]
    return [network for network in networks if network.version == version]
