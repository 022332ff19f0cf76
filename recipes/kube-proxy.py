"""kube-proxy's clean-up of conntrack: flows of services to endpoints that are gone, in one dump.

kubectl get services,endpointslices --all-namespaces --output json |
    kube-proxy.py --node-ip 192.0.2.7 [--dry-run]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Union

import nlct

# TCP needs none of this: its peers notice.
PROTOCOLS = {"UDP": nlct.Proto.UDP, "SCTP": nlct.Proto.SCTP}
Address = Union[IPv4Address, IPv6Address]
SERVICE_NAME = "kubernetes.io/service-name"


@dataclass
class ServicePort:
    """A port of a service, for one IP version: where clients send to, and who serves."""

    protocol: str
    port: int
    ips: set[Address]  # cluster IPs, external IPs, load balancers'
    node_port: int = 0
    endpoints: set[Address] = field(default_factory=set)


def stale_flows(
    ct: nlct.Conntrack, services: Iterable[ServicePort], node_ips: Iterable[Address], zone: int = 0
) -> list[nlct.Flow]:
    """Return the flows to these services that do not go to one of their endpoints.

    A service without endpoints keeps its flows, and a node port means the addresses of the node.
    """
    nodes = set(node_ips)
    serving: dict[tuple[int, Address, int], set[Address]] = {}
    for service in services:
        if service.protocol not in PROTOCOLS or not service.endpoints:
            continue
        proto = PROTOCOLS[service.protocol]
        version = next(iter(service.endpoints)).version
        serving.update({(proto, ip, service.port): service.endpoints for ip in service.ips})
        if service.node_port:
            ours = [ip for ip in nodes if ip.version == version]
            serving.update({(proto, ip, service.node_port): service.endpoints for ip in ours})
    wanted = nlct.Filter(
        zone=zone,
        proto=set(PROTOCOLS.values()),
        dst={ip for _, ip, _ in serving},
        dport={port for _, _, port in serving},
    )
    return [flow for flow in ct.dump(wanted) if _is_stale(flow, serving)]


def _is_stale(flow: nlct.Flow, serving: Mapping[tuple[int, Address, int], set[Address]]) -> bool:
    to = flow.orig
    endpoints = serving.get((to.proto, to.dst, to.dport))  # type: ignore[arg-type]
    return endpoints is not None and flow.reply is not None and flow.reply.src not in endpoints


# What kubectl tells -------------------------------------------------------------------------------


def read(listed: dict[str, Any]) -> list[ServicePort]:
    """Return the services of a list of services and endpoint slices."""
    endpoints = _endpoints(item for item in listed["items"] if item["kind"] == "EndpointSlice")
    found = []
    for item in listed["items"]:
        if item["kind"] != "Service":
            continue
        spec, meta = item["spec"], item["metadata"]
        balancers = item.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        texts = [*spec.get("clusterIPs", []), *spec.get("externalIPs", [])]
        texts += [one["ip"] for one in balancers if "ip" in one]
        ips = [ip_address(text) for text in texts if text != "None"]
        for port in spec.get("ports", []):
            name = (meta["namespace"], meta["name"], port.get("name", ""))
            found += [
                ServicePort(
                    protocol=port.get("protocol", "TCP"),
                    port=port["port"],
                    ips={ip for ip in ips if ip.version == version},
                    node_port=port.get("nodePort", 0),
                    endpoints={ip for ip in endpoints[name] if ip.version == version},
                )
                for version in (4, 6)
            ]
    return found


def _endpoints(slices: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], set[Address]]:
    """Return the addresses that serve, by namespace, service and name of the port."""
    found: dict[tuple[str, str, str], set[Address]] = defaultdict(set)
    for one in slices:
        meta = one["metadata"]
        service = meta.get("labels", {}).get(SERVICE_NAME)
        if service is None or one["addressType"] not in ("IPv4", "IPv6"):
            continue
        serving = {
            ip_address(address)
            for endpoint in one.get("endpoints") or ()
            if _serves(endpoint.get("conditions") or {})
            for address in endpoint["addresses"]
        }
        for port in one.get("ports") or ():
            found[meta["namespace"], service, port.get("name") or ""] |= serving
    return found


def _serves(conditions: dict[str, bool | None]) -> bool:
    """Return whether an endpoint serves; if nobody says, it does."""
    serving = conditions.get("serving")
    ready = conditions.get("ready")
    return serving if serving is not None else ready is not False


def main() -> None:
    """Read the services and endpoint slices, and clean up."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    node_ip = parser.add_argument("--node-ip", type=ip_address, action="append", default=[])
    node_ip.help = "an address of this node, for node ports"
    parser.add_argument("--zone", type=int, default=0, help="the zone of kube-proxy's flows")
    parser.add_argument("--dry-run", action="store_true", help="only count")
    parser.add_argument("--netns", help="a network namespace")
    args = parser.parse_args()
    services = read(json.load(sys.stdin))
    with nlct.Conntrack(args.netns) as ct:
        stale = stale_flows(ct, services, args.node_ip, args.zone)
        result = ct.delete_flows([] if args.dry_run else stale)
    print(f"{len(stale)} stale flows, {result.deleted} deleted")
    sys.exit(bool(result.failed))


if __name__ == "__main__":
    main()
