"""Move a published port to another backend, and delete the flows that still go to the old one.

    python dnat-change.py udp 203.0.113.7:53 10.0.0.12:53

The rules find the backend in a map, so that one transaction changes it:

    table ip nat {
        map backends {
            type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
            elements = { 203.0.113.7 . udp . 53 : 10.0.0.11 . 53 }
        }
        chain prerouting {
            type nat hook prerouting priority dstnat
            dnat ip to ip daddr . meta l4proto . th dport map @backends
        }
    }
"""

from __future__ import annotations

import argparse
import json
import subprocess
from ipaddress import IPv4Address
from typing import NamedTuple

import nlct

MAP = "ip nat backends"


class Endpoint(NamedTuple):
    """An address and a port."""

    address: str
    port: int


def endpoint(text: str) -> Endpoint:
    """Read ADDRESS:PORT."""
    address, _, port = text.rpartition(":")
    return Endpoint(str(IPv4Address(address)), int(port))


def backend(proto: str, published: Endpoint) -> Endpoint | None:
    """Look a published port up in the map."""
    words = ["nft", "--json", "list", "map", *MAP.split()]
    said = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    # What nft says of itself comes first.
    found = json.loads(said)["nftables"][-1]["map"]
    for key, value in found.get("elem", []):
        if key["concat"] == [published.address, proto, published.port]:
            return Endpoint(*value["concat"])
    return None


def change_rule(proto: str, published: Endpoint, new: Endpoint) -> None:
    """Let new flows go to another backend; all at once, or not at all."""

    def element(to: Endpoint) -> str:
        key = f"{published.address} . {proto} . {published.port}"
        return f"element {MAP} {{ {key} : {to.address} . {to.port} }}"

    old = backend(proto, published)
    commands = [f"delete {element(old)}"] if old else []
    commands.append(f"add {element(new)}")
    subprocess.run(["nft", "--file", "-"], input="\n".join(commands), text=True, check=True)


def delete_flows(proto: str, published: Endpoint, new: Endpoint) -> nlct.FlushResult:
    """Delete what was sent to the published port and goes to another backend than the new one."""
    translated = nlct.Filter(proto=proto, dst=published.address, dport=published.port, dnat=True)
    with nlct.Conntrack() as ct:
        return ct.delete(translated & ~nlct.Filter(dnat=(new.address, new.port)), passes=2)


def main() -> None:
    """Change the rule, then delete: the other way round the next packet revives the old flow."""
    parser = argparse.ArgumentParser(description="Move a published port to another backend.")
    parser.add_argument("proto", choices=["tcp", "udp", "sctp"])
    parser.add_argument("published", type=endpoint, metavar="ADDRESS:PORT")
    parser.add_argument("new", type=endpoint, metavar="BACKEND:PORT")
    args = parser.parse_args()
    change_rule(args.proto, args.published, args.new)
    result = delete_flows(args.proto, args.published, args.new)
    print(f"{result.deleted} flows of the old backend deleted")
    if not result.complete:
        raise SystemExit(f"some flows are left: {result}")


if __name__ == "__main__":
    main()
