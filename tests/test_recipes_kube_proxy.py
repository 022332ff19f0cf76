"""recipes/kube-proxy.py: stale flows of services go, and nothing else, with real traffic."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address
from typing import Any

import pytest

import nlct
from nlct import Flow
from tests.support import oracle, recipes, tool, traffic
from tests.support.recipes import command, output, place

ENDPOINTS = {4: ("10.244.0.1", "10.244.0.2"), 6: ("fd00:244::1", "fd00:244::2")}
SERVICE = {4: "10.96.0.10", 6: "fd00:96::10"}
EXTERNAL, BALANCER, NODE, OTHER = "203.0.113.9", "203.0.113.10", "192.0.2.7", "198.51.100.1"
PORT, NODE_PORT, TARGET, ASSOCIATIONS = 53, 30053, 5353, 5060


def rules(number: int) -> str:
    """The rules of kube-proxy that send to one of the two endpoints."""
    v4, v6 = ENDPOINTS[4][number], ENDPOINTS[6][number]
    addresses = ", ".join((SERVICE[4], EXTERNAL, BALANCER))
    return f"""
table inet proxy
delete table inet proxy
table inet proxy {{
    chain output {{
        type nat hook output priority -100
        ip daddr {{ {addresses} }} udp dport {PORT} dnat ip to {v4}:{TARGET}
        ip6 daddr {SERVICE[6]} udp dport {PORT} dnat ip6 to [{v6}]:{TARGET}
        ip daddr {NODE} udp dport {NODE_PORT} dnat ip to {v4}:{TARGET}
        ip daddr {SERVICE[4]} sctp dport {ASSOCIATIONS} dnat ip to {v4}
    }}
}}
"""


class Cluster:
    """A node whose endpoints, services and clients are all at its own loopback."""

    def __init__(self, netns: nlct.Netns, stack: ExitStack) -> None:
        self._netns = netns
        self._stack = stack
        self._clients: dict[tuple[str, int], socket.socket] = {}
        tool.run(netns, "ip", "link", "set", "lo", "up")
        for address in (*ENDPOINTS[4], NODE):
            tool.run(netns, "ip", "address", "add", f"{address}/32", "dev", "lo")
        for address in ENDPOINTS[6]:
            tool.run(netns, "ip", "address", "add", f"{address}/128", "dev", "lo", "nodad")
        for network in ("10.96.0.0/16", "203.0.113.0/24", "198.51.100.0/24", "fd00:96::/112"):
            tool.run(netns, "ip", "route", "add", network, "dev", "lo")
        self._servers = {
            address: self._socket(family, (address, TARGET))
            for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6))
            for address in ENDPOINTS[version]
        }

    def _socket(self, family: int, address: tuple[str, int]) -> socket.socket:
        sock = self._stack.enter_context(self._netns.socket(family, socket.SOCK_DGRAM))
        sock.settimeout(traffic.PATIENCE)
        sock.bind(address)
        return sock

    def serve(self, number: int) -> None:
        """Have new flows go to one of the two endpoints."""
        tool.run(self._netns, "nft", "-f", "-", given=rules(number))

    def say(self, address: str, port: int) -> None:
        """Send from one and the same client, whoever hears it."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        source = ENDPOINTS[6 if ":" in address else 4][0]
        if (address, port) not in self._clients:
            self._clients[address, port] = self._socket(family, (source, 0))
        self._clients[address, port].sendto(f"{address} {port}".encode(), (address, port))

    def served_by(self, address: str, port: int) -> str:
        """Ask a service and tell which endpoint has heard it."""
        self.say(address, port)
        word = f"{address} {port}".encode()
        deadline = traffic.PATIENCE
        while True:
            for endpoint, sock in self._servers.items():
                sock.settimeout(0.01)
                try:
                    if sock.recv(2048) == word:
                        return endpoint
                except socket.timeout:
                    deadline -= 0.01
            assert deadline > 0, "nobody has heard it"

    def associate(self) -> None:
        """Send the first packet of an SCTP association to the service."""
        sock = self._netns.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
        with closing(sock):
            head = struct.pack("!HHI", 40000, ASSOCIATIONS, 0)
            chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1000, 65536, 1, 1, 1)
            check = struct.pack("<I", traffic.crc32c(head + bytes(4) + chunk))
            sock.sendto(head + check + chunk, (SERVICE[4], 0))


UDP = [(SERVICE[4], PORT), (EXTERNAL, PORT), (BALANCER, PORT), (SERVICE[6], PORT)]
ALL = [*UDP, (NODE, NODE_PORT)]


def kubernetes(number: int | None) -> str:
    """What kubectl tells of the services while one of the two endpoints serves, or neither."""
    meta = {"namespace": "kube-system", "name": "dns"}
    items: list[dict[str, Any]] = [
        {
            "kind": "Service",
            "metadata": meta,
            "spec": {
                "clusterIPs": list(SERVICE.values()),
                "externalIPs": [EXTERNAL],
                "ports": [
                    {"name": "dns", "port": PORT, "protocol": "UDP", "nodePort": NODE_PORT},
                    {"name": "sip", "port": ASSOCIATIONS, "protocol": "SCTP"},
                    {"name": "web", "port": 80},
                ],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": BALANCER}, {"hostname": "x"}]}},
        },
        {
            "kind": "Service",
            "metadata": {"namespace": "default", "name": "headless"},
            "spec": {"clusterIPs": ["None"], "ports": [{"port": PORT, "protocol": "UDP"}]},
        },
    ]
    for version, addresses in ENDPOINTS.items():
        items.append(
            {
                "kind": "EndpointSlice",
                "addressType": f"IPv{version}",
                "metadata": {**meta, "labels": {"kubernetes.io/service-name": "dns"}},
                "ports": [{"name": name} for name in ("dns", "sip", "web")],
                "endpoints": [
                    {"addresses": [address], "conditions": {"serving": turn == number}}
                    for turn, address in enumerate(addresses)
                ],
            }
        )
    return json.dumps({"kind": "List", "items": items})


@pytest.fixture
def cluster(netns: nlct.Netns) -> Iterator[Cluster]:
    """A node whose clients have talked to the first endpoint, with flows that are not stale."""
    with ExitStack() as stack:
        made = Cluster(netns, stack)
        made.serve(0)
        for address, port in ALL:
            assert made.served_by(address, port) == ENDPOINTS[6 if ":" in address else 4][0]
        made.associate()
        made.say(OTHER, PORT)
        made.say(OTHER, NODE_PORT)
        yield made


def test_kube_proxy_sends_clients_to_the_endpoint_that_is_there(
    cluster: Cluster, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """UDP by each of the service's addresses and its node port, SCTP; all of that in one call.

    What goes elsewhere stays, also to the same ports, and the same flows in another zone.
    """
    old = {(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip, port) for ip, port in ALL}
    old.add((socket.AF_INET, SERVICE[4], ASSOCIATIONS))
    assert old < {(f.family, str(f.orig.dst), f.orig.dport) for f in ct.dump()}
    ct.load([flow.replace(zone=7, id=None, use=None) for flow in ct.dump(zone=0)])
    before = oracle.dump(netns)
    cluster.serve(1)
    for address, port in ALL:
        assert cluster.served_by(address, port) in [pair[0] for pair in ENDPOINTS.values()]

    clean = command("kube-proxy", f"--node-ip={NODE}", place(netns))
    assert output([*clean, "--dry-run"], kubernetes(1)) == f"{len(old)} stale flows, 0 deleted\n"
    assert oracle.dump(netns).keys() == before.keys()
    said = output(clean, kubernetes(1))
    assert said == f"{len(old)} stale flows, {len(old)} deleted\n"
    after = oracle.dump(netns)
    assert after.keys() < before.keys()
    assert oracle.inside(after, {7}) == oracle.inside(before, {7})
    assert len(before) - len(after) == len(old)
    left = {(f.family, str(f.orig.dst), f.orig.dport) for f in ct.dump(zone=0)}
    assert left & old == set()
    assert {(socket.AF_INET, OTHER, PORT), (socket.AF_INET, OTHER, NODE_PORT)} <= left

    for address, port in ALL:
        assert cluster.served_by(address, port) in [pair[1] for pair in ENDPOINTS.values()]


def stale(ct: nlct.Conntrack, number: int | None, nodes: str = NODE, zone: int = 0) -> list[Flow]:
    """The flows that the recipe takes for stale while one of the two endpoints serves."""
    kube_proxy = recipes.load("kube-proxy")
    services = kube_proxy.read(json.loads(kubernetes(number)))
    found: list[Flow] = kube_proxy.stale_flows(ct, services, map(ip_address, nodes.split()), zone)
    return found


def test_kube_proxy_leaves_what_is_served(
    cluster: Cluster, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """Endpoints that are there, a service without endpoints, and no service at all."""
    cluster.serve(0)
    assert stale(ct, 0) == stale(ct, None) == []
    before = oracle.dump(netns).keys()
    said = output(command("kube-proxy", place(netns)), '{"items": []}')
    assert said == "0 stale flows, 0 deleted\n"
    assert oracle.dump(netns).keys() == before


def test_kube_proxy_knows_a_node_port_by_the_addresses_of_the_node(
    cluster: Cluster, ct: nlct.Conntrack
) -> None:
    """Without them it leaves flows to that port alone; a zone may be named."""
    cluster.serve(1)
    assert len(stale(ct, 1)) == len(ALL) + 1
    without = stale(ct, 1, nodes="")
    assert len(without) == len(UDP) + 1
    assert NODE_PORT not in {flow.orig.dport for flow in without}
    assert stale(ct, 1, zone=7) == []


def test_kube_proxy_clears_what_met_no_endpoint(
    cluster: Cluster, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """A flow from before the service had endpoints goes to the service's address, and nowhere."""
    # Some rule must ask for conntrack.
    tool.run(netns, "nft", "flush chain inet proxy output; add rule inet proxy output ct state new")
    ct.flush_all()
    cluster.say(SERVICE[4], PORT)
    (flow,) = ct.dump()
    assert flow.reply is not None
    assert str(flow.reply.src) == SERVICE[4]
    assert stale(ct, 0) == [flow]
    assert stale(ct, None) == []


@pytest.mark.parametrize(
    ("conditions", "serves"),
    [
        ({}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True}, True),
        ({"ready": True, "serving": None}, True),
        ({"serving": False}, False),
    ],
)
def test_kube_proxy_knows_who_serves(conditions: dict[str, Any], serves: bool) -> None:
    """Serving counts, also of an endpoint that is terminating; else ready."""
    listed = json.loads(kubernetes(0))
    listed["items"][2]["endpoints"] = [{"addresses": ["10.0.0.9"], "conditions": conditions}]
    first = recipes.load("kube-proxy").read(listed)[0]
    assert {str(ip) for ip in first.endpoints} == ({"10.0.0.9"} if serves else set())
