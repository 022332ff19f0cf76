"""A table with everything that ctnetlink can say about a flow, in a scratch namespace.

Entries come from packets put on the loopback interface, from FTP sessions over a veth pair, and
from ctnetlink where packets would not do. They hold still: timeouts are long and nobody talks any
more, so that two readers see the same but for the timeouts, which go down.

A reader tells a flow as a dict of what it knows, by the names in ``FIELDS``; see ``differences``.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Callable

import pytest

import nlct
from tests.support import encoder, netlink, tool

Flow = dict[str, Any]

TUPLES = ("orig", "reply", "master")
TUPLE_FIELDS = (
    *("src", "dst", "proto", "sport", "dport"),
    *("icmp_id", "icmp_type", "icmp_code", "zone"),
)
# Numbers, but for the tuples (dicts of TUPLE_FIELDS, addresses as text), "helper" and "secctx"
# (text). Bit n of "labels" is label n; times are nanoseconds. "zone" is that of both directions;
# the zone of one direction is in its tuple. What a source does not say is not in its dict.
FIELDS = (
    *("family", "zone", *TUPLES, "status", "timeout", "mark", "id", "use"),
    *("tcp_state", "tcp_wscale_orig", "tcp_wscale_reply", "tcp_flags_orig", "tcp_flags_reply"),
    *("sctp_state", "sctp_vtag_orig", "sctp_vtag_reply"),
    *("dccp_state", "dccp_role", "dccp_handshake_seq"),
    *("packets_orig", "bytes_orig", "packets_reply", "bytes_reply"),
    *("timestamp_start", "timestamp_stop", "labels", "helper", "secctx"),
    *("synproxy_isn", "synproxy_its", "synproxy_tsoff"),
    *("seqadj_orig_pos", "seqadj_orig_before", "seqadj_orig_after"),
    *("seqadj_reply_pos", "seqadj_reply_before", "seqadj_reply_after"),
)

ICMP, IGMP, TCP, UDP, DCCP, GRE, ESP = 1, 2, 6, 17, 33, 47, 50
ICMPV6, UNKNOWN, SCTP, UDPLITE = 58, 99, 132, 136
WITH_PORTS = (TCP, UDP, DCCP, GRE, SCTP, UDPLITE)
V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)
FAMILIES = (V4, V6)

# Bits of the status.
SEEN_REPLY, ASSURED, CONFIRMED, FIXED_TIMEOUT, OFFLOAD = 0x2, 0x4, 0x8, 0x400, 0x4000

# Timeouts made by ctnetlink are a step apart. Two readers may see a timeout go down, but not by a
# step: a test takes less.
STEP = 1000


# The networks ------------------------------------------------------------------------------------

# Packets run between addresses of one subnet, and its name tells what befalls them.
SUBNETS = {
    name: number
    for number, name in enumerate(
        (
            *("plain", "zone", "orig_zone", "reply_zone", "label", "mark"),
            *("dnat", "snat", "dnat_port", "snat_port", "both_nat"),
        )
    )
}
# Hosts that only translation leads to.
HERE, THERE = 0xFE01, 0xFE02

# By chain: what it is, and its rules; each family has a table of its own.
CHAINS = {
    "raw_output": (
        "type filter hook output priority raw",
        "{ip} saddr {zone} ct zone set 7",
        "{ip} saddr {orig_zone} ct original zone set 8",
        "{ip} saddr {reply_zone} ct reply zone set 9",
        # Whatever IPv6 says by itself.
        'oifname "peer" meta l4proto != {{ tcp, udp }} notrack',
    ),
    "raw_prerouting": (
        "type filter hook prerouting priority raw",
        'iifname "lo" drop',
        'iifname "peer" meta l4proto != {{ tcp, udp }} notrack',
    ),
    "output": (
        "type filter hook output priority filter",
        "{ip} saddr {label} ct label set 5",
        "{ip} saddr {label} ct label set 127",
        "{ip} saddr {mark} ct mark set 0x80000001",
        'tcp dport 21 ct helper set "ftp"',
    ),
    "nat_output": (
        "type nat hook output priority -100",
        "{ip} daddr {dnat} dnat to {there_dnat}",
        "{ip} daddr {both_nat} dnat to {there_both_nat}",
        "{ip} daddr {dnat_port} udp dport 80 dnat to :8080",
    ),
    "nat_postrouting": (
        "type nat hook postrouting priority 100",
        "{ip} saddr {snat} snat to {here_snat}",
        "{ip} saddr {both_nat} snat to {here_both_nat}",
        "{ip} saddr {snat_port} udp sport 5000 snat to :4000",
        "{ip} saddr {ftp_client} snat to {ftp_other}",
    ),
}
NFT_FAMILY = {V4: "ip", V6: "ip6"}

# The FTP sessions run over a veth pair: a plain client, one whose address is translated to a
# longer one, which moves the sequence numbers, and a server beyond.
FTP = {
    V4: {"ftp_plain": "10.92.0.1", "ftp_client": "10.92.0.10", "ftp_other": "10.92.0.123"},
    V6: {"ftp_plain": "fd92::1", "ftp_client": "fd92::10", "ftp_other": "fd92::1234:5678"},
}
SERVER = {V4: "10.92.0.2", V6: "fd92::2"}
LENGTH = {V4: 24, V6: 64}


def address(family: int, subnet: str, host: int) -> str:
    """The address of a host in a subnet of packets."""
    number = SUBNETS[subnet]
    if family == V4:
        return f"10.{128 + number}.{host >> 8}.{host & 255}"
    return f"fd90:0:0:{number:x}::{host:x}"


def _network(family: int, subnet: str) -> str:
    return f"{address(family, subnet, 0)}/{16 if family == V4 else 64}"


def _ruleset() -> str:
    text = ""
    for family, ip in NFT_FAMILY.items():
        words = {"ip": ip, **FTP[family]}
        for subnet in SUBNETS:
            words[subnet] = _network(family, subnet)
            words[f"here_{subnet}"] = address(family, subnet, HERE)
            words[f"there_{subnet}"] = address(family, subnet, THERE)
        text += f'table {ip} everything {{\nct helper ftp {{ type "ftp" protocol tcp; }}\n'
        for chain, lines in CHAINS.items():
            body = "\n".join(line.format(**words) for line in lines)
            text += f"chain {chain} {{\n{body}\n}}\n"
        text += "}\n"
    return text


# The table ---------------------------------------------------------------------------------------


class MissingError(Exception):
    """This kernel cannot do it."""


class Everything:
    """The table: its namespace, and what this kernel could not be made to put in it."""

    def __init__(self, stack: ExitStack) -> None:
        self.netns = stack.enter_context(nlct.Netns.scratch())
        self.missing: dict[str, str] = {}  # by the name of the part: the reason
        self._peer = stack.enter_context(nlct.Netns.scratch())
        self._stack = stack
        self._hosts = 0
        self._netlink = stack.enter_context(netlink.connect(self.netns))
        self._netlink.settimeout(20)
        self._raw = {
            family: stack.enter_context(
                self.netns.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            )
            for family in FAMILIES
        }

    def prepare(self, acct: bool, timestamp: bool) -> None:
        """Make links, rules and settings."""
        tool.run(self.netns, "ip", "link", "set", "lo", "up")
        tool.run(self.netns, "ip", "route", "add", "local", "10.128.0.0/9", "dev", "lo")
        tool.run(self.netns, "ip", "-6", "route", "add", "local", "fd90::/48", "dev", "lo")
        peer = f"/proc/self/fd/{self._peer.fileno()}"
        tool.run(
            self.netns,
            *("ip", "link", "add", "peer", "type", "veth", "peer", "name", "peer", "netns", peer),
            fds=(self._peer.fileno(),),
        )
        for family in FAMILIES:
            for netns, addresses in (
                (self.netns, FTP[family].values()),
                (self._peer, (SERVER[family],)),
            ):
                for text in addresses:
                    prefix = f"{text}/{LENGTH[family]}"
                    nodad = ("nodad",) if family == V6 else ()
                    tool.run(netns, "ip", "address", "add", prefix, "dev", "peer", *nodad)
        tool.run(self.netns, "nft", "-f", "-", given=_ruleset())
        for netns in (self.netns, self._peer):
            tool.run(netns, "ip", "link", "set", "peer", "up")
        self._settings(acct, timestamp)

    def _settings(self, acct: bool, timestamp: bool) -> None:
        values = {"nf_conntrack_acct": int(acct), "nf_conntrack_timestamp": int(timestamp)}
        for number, path in enumerate(sorted(SETTINGS.glob("nf_conntrack_*_timeout*"))):
            if path.name != "nf_conntrack_frag6_timeout":
                values[path.name] = 500_000 + STEP * number
        for name, value in values.items():
            self.write(f"{SETTINGS}/{name}", value)

    def write(self, path: str, value: int) -> None:
        """Change a setting of the namespace."""
        fd = self.netns.open_file(path, os.O_WRONLY)
        os.write(fd, str(value).encode())
        os.close(fd)

    def host(self) -> int:
        """A number that no other host has."""
        self._hosts += 1
        return self._hosts

    # By ctnetlink

    def ask(self, family: int, *attributes: bytes) -> int:
        """Ask for an entry of these attributes. Returns 0 or the errno."""
        flags = netlink.NLM_F_ACK | netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
        self._netlink.send(netlink.request(netlink.CT_NEW, flags, family, *attributes))
        return netlink.error(self._netlink.recv(65536))

    def attributes(self, family: int, orig: Flow) -> dict[int, bytes]:
        """What the kernel tells of an entry."""
        named = encoder.tuple_attr(1, family, orig)
        self._netlink.send(netlink.request(netlink.CT_GET, 0, family, named))
        return dict(netlink.attributes(self._netlink.recv(65536)[netlink.BODY :]))

    def create(
        self,
        family: int,
        proto: int,
        *attributes: bytes,
        orig: Flow | None = None,
        reply: Flow | None = None,
    ) -> Flow:
        """Make an entry, of its own addresses and keys but for those given. Returns its tuple."""
        host = self.host()
        there = {"src": _host(family, host), "dst": _host(family, 0xFFFF), "proto": proto}
        there = {**there, **_keys(proto, host), **(orig or {})}
        back = {**encoder.reverse(there), **(reply or {})}
        error = self.ask(
            family,
            encoder.tuple_attr(1, family, there),
            encoder.tuple_attr(2, family, back),
            _number(7, 10_000 + STEP * host),
            *attributes,
        )
        if error:
            raise MissingError(
                f"an entry of protocol {proto}, family {family}: {os.strerror(error)}"
            )
        return there

    # By packets

    def send(self, family: int, proto: int, src: str, dst: str, payload: bytes) -> None:
        """Put a packet on the loopback interface: it is dropped when conntrack has seen it."""
        self._raw[family].sendto(_packet(family, proto, src, dst, payload), (dst, 0))

    def talk(
        self, family: int, proto: int, *packets: tuple[bool, bytes], subnet: str = "plain"
    ) -> None:
        """Send packets between two hosts, forth (True) and back."""
        src, dst = (address(family, subnet, self.host()) for _ in range(2))
        # Answers come from where translation led to, and go to where it said it came from.
        there = address(family, subnet, THERE) if subnet in ("dnat", "both_nat") else dst
        here = address(family, subnet, HERE) if subnet in ("snat", "both_nat") else src
        for forth, payload in packets:
            self.send(family, proto, *((src, dst) if forth else (there, here)), payload)

    def send_through(
        self, family: int, network: str, src: str, dst: str, *packets: tuple[bool, bytes]
    ) -> None:
        """Have the peer send datagrams to and fro, all of them to us, who send them back to it."""
        version = "-4" if family == V4 else "-6"
        for netns, gateway in (
            (self.netns, SERVER[family]),
            (self._peer, FTP[family]["ftp_plain"]),
        ):
            tool.run(netns, "ip", version, "route", "add", network, "via", gateway)
        with self._peer.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            # The first packet makes an entry; only a known flow is taken over.
            for forth, payload in packets * 2:
                ends = (src, dst) if forth else (dst, src)
                raw.sendto(_packet(family, UDP, *ends, payload), (ends[1], 0))

    # By sockets

    def listen(self, theirs: bool, family: int, text: str, port: int = 0) -> socket.socket:
        """Listen at our end of the veth pair, or at theirs."""
        sock = self._bound(theirs, family, text, port)
        sock.listen(1)
        return sock

    def connect(
        self, theirs: bool, family: int, source: str, text: str, port: int
    ) -> socket.socket:
        """Connect from our end of the veth pair, or from theirs."""
        sock = self._bound(theirs, family, source, 0)
        sock.connect((text, port))
        return sock

    def accept(self, listening: socket.socket) -> socket.socket:
        """The next connection."""
        return self._keep(listening.accept()[0])

    def _bound(self, theirs: bool, family: int, text: str, port: int) -> socket.socket:
        netns = self._peer if theirs else self.netns
        sock = self._keep(netns.socket(family, socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((text, port))
        return sock

    def _keep(self, sock: socket.socket) -> socket.socket:
        """Keep a socket open as long as the table: what it sends at its end would change it."""
        sock.settimeout(20)
        return self._stack.enter_context(sock)

    def settle(self, *connections: socket.socket) -> None:
        """Wait until all that was sent is acknowledged, so that nothing moves any more."""
        while any(
            struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
            for sock in connections
        ):
            time.sleep(0.01)


SETTINGS = Path("/proc/sys/net/netfilter")


# Attributes --------------------------------------------------------------------------------------


def _number(kind: int, value: int, size: int = 4) -> bytes:
    return netlink.attr(kind, (value % (1 << 8 * size)).to_bytes(size, "big"))


def _nest(kind: int, *attributes: bytes) -> bytes:
    return netlink.attr(kind | netlink.NESTED, b"".join(attributes))


def _host(family: int, host: int) -> bytes:
    if family == V4:
        return bytes((10, 91, host >> 8, host & 255))
    return socket.inet_pton(V6, f"fd91::{host:x}")


def _keys(proto: int, host: int) -> Flow:
    if proto in (ICMP, ICMPV6):
        return {"icmp_id": host, "icmp_type": 8 if proto == ICMP else 128, "icmp_code": 0}
    if proto in WITH_PORTS:
        return {"sport": 1000 + host, "dport": 40_000 + host}
    return {}


def _status(status: int) -> bytes:
    return _number(3, status | CONFIRMED)


def _tcp(state: int, scales: Sequence[int] = (), flags: Sequence[int] = ()) -> bytes:
    parts = [_number(1, state, 1)]
    parts += [_number(2 + way, scale, 1) for way, scale in enumerate(scales)]
    # Flags and a mask that says which of them are meant.
    parts += [netlink.attr(4 + way, bytes((flag, 0xFF))) for way, flag in enumerate(flags)]
    return _nest(4, _nest(1, *parts))


def _sctp(state: int, vtag_orig: int, vtag_reply: int) -> bytes:
    parts = (_number(1, state, 1), _number(2, vtag_orig), _number(3, vtag_reply))
    return _nest(4, _nest(3, *parts))


def _dccp(state: int, role: int, sequence: int) -> bytes:
    parts = (_number(1, state, 1), _number(2, role, 1), _number(3, sequence, 8))
    return _nest(4, _nest(2, *parts))


def _nat(kind: int, family: int, to: bytes, port: int | None = None) -> bytes:
    """Translate to an address and perhaps a port: each is a range of one."""
    lowest, highest = (1, 2) if family == V4 else (4, 5)
    parts = [netlink.attr(lowest, to), netlink.attr(highest, to)]
    if port is not None:
        parts.append(_nest(3, _number(1, port, 2), _number(2, port, 2)))
    return _nest(kind, *parts)


def _labels(labels: int) -> bytes:
    """Encode labels as the kernel has them: a bit map of the machine's words."""
    return netlink.attr(22, struct.pack("=QQ", labels & (1 << 64) - 1, labels >> 64))


# Packets -----------------------------------------------------------------------------------------
# Checksums are left out: conntrack looks at those of arriving packets alone.

FIN, SYN, RST, ACK = 1, 2, 4, 16


def _packet(family: int, proto: int, src: str, dst: str, payload: bytes) -> bytes:
    ends = socket.inet_pton(family, src) + socket.inet_pton(family, dst)
    # The kernel puts in IPv4's length and checksum.
    if family == V4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 0, 1, 0x4000, 64, proto, 0) + ends + payload
    return struct.pack("!IHBB", 6 << 28, len(payload), proto, 64) + ends + payload


def _ports(forth: bool, ports: tuple[int, int] = (5000, 80)) -> bytes:
    return struct.pack("!HH", *(ports if forth else reversed(ports)))


def _segment(
    forth: bool, flags: int, seq: int, ack: int, options: bytes = b""
) -> tuple[bool, bytes]:
    size = (20 + len(options)) // 4 << 4
    rest = struct.pack("!IIBBHHH", seq, ack, size, flags, 8192, 0, 0)
    return forth, _ports(forth) + rest + options


def _chunk(forth: bool, vtag: int, kind: int, body: bytes = b"") -> tuple[bool, bytes]:
    head = struct.pack("!IIBBH", vtag, 0, kind, 0, 4 + len(body))
    return forth, _ports(forth) + head + body


def _datagram(proto: int, forth: bool, ports: tuple[int, int] = (5000, 80)) -> tuple[bool, bytes]:
    # UDP says its length here, UDPLITE how much of it the checksum covers.
    return forth, _ports(forth, ports) + struct.pack("!HH", 12 if proto == UDP else 8, 0) + b"word"


def _message(forth: bool, kind: int, word: int) -> tuple[bool, bytes]:
    return forth, struct.pack("!BBHHH", kind, 0, 0, word, 1) + bytes(12)


MSS_SACK_SCALE_7 = bytes((2, 4, 5, 0xB4, 4, 2, 1, 1, 1, 3, 3, 7))
SCALE_9 = bytes((1, 3, 3, 9))
# Each packet takes the connection one state further: SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT,
# CLOSE_WAIT, LAST_ACK, TIME_WAIT.
TCP_LIFE = (
    _segment(True, SYN, 1000, 0, MSS_SACK_SCALE_7),
    _segment(False, SYN | ACK, 5000, 1001, SCALE_9),
    _segment(True, ACK, 1001, 5001),
    _segment(True, FIN | ACK, 1001, 5001),
    _segment(False, ACK, 5001, 1002),
    _segment(False, FIN | ACK, 5001, 1002),
    _segment(True, ACK, 1002, 5002),
)
HANDSHAKE = TCP_LIFE[:3]
TCP_RESET = (*HANDSHAKE, _segment(False, RST | ACK, 5001, 1001))
TCP_SIMULTANEOUS = (TCP_LIFE[0], _segment(False, SYN, 5000, 0, SCALE_9))

# The tag that each side wants to see in what it gets; the client's first packet has none.
CLIENT_TAG, SERVER_TAG = 0xDEADBEEF, 0x01020304
# COOKIE_WAIT twice, COOKIE_ECHOED, ESTABLISHED, SHUTDOWN_SENT, SHUTDOWN_ACK_SENT, CLOSED.
SCTP_LIFE = (
    _chunk(True, 0, 1, struct.pack("!IIHHI", CLIENT_TAG, 65536, 1, 1, 1)),
    _chunk(False, CLIENT_TAG, 2, struct.pack("!IIHHI", SERVER_TAG, 65536, 1, 1, 1)),
    _chunk(True, SERVER_TAG, 10, b"cook"),
    _chunk(False, CLIENT_TAG, 11),
    _chunk(True, SERVER_TAG, 7, bytes(4)),
    _chunk(False, CLIENT_TAG, 8),
    _chunk(True, SERVER_TAG, 14),
)
SCTP_SHUT_BY_SERVER = (*SCTP_LIFE[:4], _chunk(False, CLIENT_TAG, 7, bytes(4)))
SCTP_HEARTBEAT = (_chunk(True, SERVER_TAG, 4, b"beat"),)


# The parts ---------------------------------------------------------------------------------------


def tcp_by_packets(to: Everything) -> None:
    """Each state that packets lead to."""
    for family in FAMILIES:
        for end in range(len(TCP_LIFE)):
            to.talk(family, TCP, *TCP_LIFE[: end + 1])
        to.talk(family, TCP, *TCP_RESET)
        to.talk(family, TCP, *TCP_SIMULTANEOUS)


def tcp_by_netlink(to: Everything) -> None:
    """Each state that there is, with window scales and flags."""
    for family in FAMILIES:
        for state in range(10):
            info = _tcp(state, (state, 14 - state), (state, 0x2F ^ state))
            to.create(family, TCP, info, _status(SEEN_REPLY | ASSURED))


def udp(to: Everything) -> None:
    """Unreplied and replied; those that are assured, which takes seconds of talk, by ctnetlink."""
    _datagrams(to, UDP)


def udplite(to: Everything) -> None:
    """As UDP."""
    _needs_ports(to, UDPLITE)
    _datagrams(to, UDPLITE)


def _datagrams(to: Everything, proto: int) -> None:
    for family in FAMILIES:
        to.talk(family, proto, _datagram(proto, True))
        to.talk(family, proto, _datagram(proto, True), _datagram(proto, False))
        for status in (0, SEEN_REPLY, SEEN_REPLY | ASSURED):
            to.create(family, proto, _status(status))


def _needs_ports(to: Everything, proto: int) -> None:
    """Make two flows that differ in a port: one and the same to a kernel that knows no ports."""
    known = to.create(V4, proto, orig={"sport": 1})
    try:
        to.create(V4, proto, orig={**known, "sport": 2})
    except MissingError:
        raise MissingError(f"this kernel knows no ports of protocol {proto}") from None


def icmp(to: Everything) -> None:
    """Requests with and without their answers, and several between the same two."""
    for family, proto, pairs in (
        (V4, ICMP, ((8, 0), (13, 14), (15, 16), (17, 18))),
        (V6, ICMPV6, ((128, 129),)),
    ):
        for asked, answered in pairs:
            to.talk(family, proto, _message(True, asked, 0x1234))
            to.talk(
                *(family, proto, _message(True, asked, 0xFFFF)),
                _message(False, answered, 0xFFFF),
            )
            to.create(family, proto, orig={"icmp_type": asked, "icmp_id": 0})
        known = to.create(family, proto)
        for change in ({"icmp_id": 7}, {"icmp_code": 9}):
            to.create(family, proto, orig={**known, **change})


def sctp(to: Everything) -> None:
    """Each state, with the tags."""
    _needs_ports(to, SCTP)
    for family in FAMILIES:
        for end in range(len(SCTP_LIFE)):
            to.talk(family, SCTP, *SCTP_LIFE[: end + 1])
        to.talk(family, SCTP, *SCTP_SHUT_BY_SERVER)
        to.talk(family, SCTP, *SCTP_HEARTBEAT)
        for state in range(9):
            to.create(family, SCTP, _sctp(state, 0xFFFFFFFF - state, 0x01000000 + state))


def dccp(to: Everything) -> None:
    """Each state in each role."""
    _needs_ports(to, DCCP)
    for family in FAMILIES:
        for state in range(1, 8):
            to.create(family, DCCP, _dccp(state, state % 2, (1 << 47) + state))


def gre(to: Everything) -> None:
    """Without keys by packets, as all but PPTP's are; with keys by ctnetlink."""
    _needs_ports(to, GRE)
    for family in FAMILIES:
        packet = struct.pack("!HH", 0, 0x0800) + b"word"
        to.talk(family, GRE, (True, packet))
        to.talk(family, GRE, (True, packet), (False, packet))
        to.create(family, GRE, orig={"sport": 0xFFFF, "dport": 0})
        to.create(family, GRE, _status(SEEN_REPLY | ASSURED))


def unknown(to: Everything) -> None:
    """Protocols that conntrack knows by number only."""
    for family in FAMILIES:
        to.talk(family, UNKNOWN, (True, b"word"))
        to.talk(family, UNKNOWN, (True, b"word"), (False, b"answer"))
        for proto in (0, IGMP, ESP, UNKNOWN, 255):
            to.create(family, proto)


def addresses(to: Everything) -> None:
    """Addresses that are written in more than one way, and the ends of the ranges."""
    for text in ("0.0.0.0", "255.255.255.255", "127.0.0.1", "1.20.103.4"):
        to.create(V4, UDP, orig={"src": socket.inet_pton(V4, text)})
    for text in (
        *("::", "::1", "::2:1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "1::"),
        *("1:0:2:3:4:5:6:7", "1:0:0:2:0:0:0:3", "1:0:0:2:3:0:0:4", "64:ff9b::1.2.3.4"),
        *("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::abcd:ef01:2345:6789"),
    ):
        to.create(V6, UDP, orig={"src": socket.inet_pton(V6, text)})
    for sport, dport in ((0, 65535), (65535, 0), (0, 0)):
        to.create(V4, TCP, _tcp(3), orig={"sport": sport, "dport": dport})


def marks(to: Everything) -> None:
    """Marks by a rule and by ctnetlink."""
    for family in FAMILIES:
        to.talk(family, UDP, _datagram(UDP, True), subnet="mark")
        for mark in (0, 1, 0x80000000, 0xFFFFFFFF):
            to.create(family, UDP, _number(8, mark))


def labels(to: Everything) -> None:
    """Labels by rules, which are what makes them usable at all, and by ctnetlink."""
    for family in FAMILIES:
        to.talk(family, UDP, _datagram(UDP, True), subnet="label")
        for bits in (1, 1 << 31, 1 << 32, 1 << 64, 1 << 127, (1 << 128) - 1, 0x123456789 << 60):
            to.create(family, UDP, _labels(bits))


def statuses(to: Everything) -> None:
    """What ctnetlink may set beside the usual."""
    for family in FAMILIES:
        to.create(family, UDP, _status(FIXED_TIMEOUT))
        to.create(family, TCP, _tcp(3), _status(SEEN_REPLY | FIXED_TIMEOUT))


def zones(to: Everything) -> None:
    """Zones of both directions by rules and by ctnetlink, with the same tuple in several."""
    for family in FAMILIES:
        to.talk(family, UDP, _datagram(UDP, True), _datagram(UDP, False), subnet="zone")
        to.talk(family, TCP, *HANDSHAKE, subnet="zone")
        known = to.create(family, UDP, _number(18, 0, 2))
        for zone in (1, 2, 256, 65535):
            to.create(family, UDP, _number(18, zone, 2), orig=known)


def directional_zones(to: Everything) -> None:
    """Zones of one direction, by rules and by ctnetlink."""
    for family in FAMILIES:
        for subnet in ("orig_zone", "reply_zone"):
            to.talk(family, UDP, _datagram(UDP, True), _datagram(UDP, False), subnet=subnet)
        to.create(family, UDP, orig={"zone": 5})
        to.create(family, UDP, reply={"zone": 65535})


def nat_by_packets(to: Everything) -> None:
    """Source, destination and both, of addresses and of ports alone."""
    for family in FAMILIES:
        for subnet in ("dnat", "snat", "both_nat"):
            to.talk(family, TCP, *HANDSHAKE, subnet=subnet)
            to.talk(family, UDP, _datagram(UDP, True), subnet=subnet)
        for subnet, ports in (("dnat_port", (5000, 8080)), ("snat_port", (4000, 80))):
            to.talk(
                *(family, UDP, _datagram(UDP, True), _datagram(UDP, False, ports)), subnet=subnet
            )


def nat_by_netlink(to: Everything) -> None:
    """The same, as asked of ctnetlink."""
    for family in FAMILIES:
        here, there = (_host(family, host) for host in (HERE, THERE))
        for attributes in (
            (_nat(6, family, here),),
            (_nat(6, family, here, 1234),),
            (_nat(13, family, there),),
            (_nat(13, family, there, 5678),),
            (_nat(6, family, here, 2345), _nat(13, family, there, 6789)),
        ):
            to.create(family, UDP, *attributes)


def synproxy(to: Everything) -> None:
    """What a SYN proxy keeps."""
    for family in FAMILIES:
        for isn, its, tsoff in ((1, 2, 3), (0xFFFFFFFF, 0, 0x80000000)):
            nested = _nest(24, _number(1, isn), _number(2, its), _number(3, tsoff))
            orig = to.create(family, TCP, _tcp(3), nested)
            if 24 not in to.attributes(family, orig):
                raise MissingError("this kernel drops it without a word")


def seqadj(to: Everything) -> None:
    """Adjusted sequence numbers in one direction and in both, up and down."""
    for family in FAMILIES:
        orig = _nest(15, _number(1, 0xFFFFFFFF), _number(2, 1), _number(3, -2))
        reply = _nest(16, _number(1, 4), _number(2, -5), _number(3, 6))
        for attributes in ((orig,), (reply,), (orig, reply)):
            to.create(family, TCP, _tcp(3), *attributes)


def helpers(to: Everything) -> None:
    """Helpers by ctnetlink."""
    for family in FAMILIES:
        for name, proto in (("ftp", TCP), ("tftp", UDP), ("sip", UDP)):
            info = (_tcp(3),) if proto == TCP else ()
            port = {"ftp": 21, "tftp": 69, "sip": 5060}[name]
            helper = _nest(5, netlink.attr(1, name.encode() + b"\0"))
            to.create(family, proto, *info, helper, orig={"dport": port})


def masters(to: Everything) -> None:
    """Flows that some other made to be expected, as ctnetlink has it, also in a zone."""
    for family in FAMILIES:
        for zone in ((), (_number(18, 3, 2),)):
            master = to.create(family, TCP, _tcp(3), *zone)
            to.create(family, UDP, encoder.tuple_attr(14, family, master), *zone)


def ftp(to: Everything) -> None:
    """Sessions whose data connection the helper expects."""
    for family in FAMILIES:
        _ftp_session(to, family, FTP[family]["ftp_plain"])


def ftp_translated(to: Everything) -> None:
    """The same from a translated address, where the helper also rewrites what is said."""
    # Rules do not make the kernel load it, where it is a module.
    with suppress(OSError):
        subprocess.run(["modprobe", "-q", "nf_nat_ftp"], check=False)
    for family in FAMILIES:
        where = _ftp_session(to, family, FTP[family]["ftp_client"])
        if where != FTP[family]["ftp_other"]:
            raise MissingError(f"nf_nat_ftp: nothing rewrote {where}")


def _ftp_session(to: Everything, family: int, client: str) -> str:
    """Have the server connect back to where the command says, and return that address."""
    listening = to.listen(True, family, SERVER[family], 21)
    control = to.connect(False, family, client, SERVER[family], 21)
    server = to.accept(listening)
    listening.close()
    data = to.listen(False, family, client)
    port = data.getsockname()[1]
    # The helper reads lines from the second on.
    control.sendall(b"USER nobody\r\n")
    server.recv(2048)
    control.sendall(
        f"PORT {client.replace('.', ',')},{port >> 8},{port & 255}\r\n".encode()
        if family == V4
        else f"EPRT |2|{client}|{port}|\r\n".encode()
    )
    where, port = _ftp_target(server.recv(2048).decode())
    to.connect(True, family, SERVER[family], where, port)
    to.accept(data)
    server.sendall(b"200 done\r\n")
    control.recv(2048)
    to.settle(control, server)
    return where


def _ftp_target(command: str) -> tuple[str, int]:
    if command.startswith("EPRT"):
        _, _, where, port, _ = command.split("|")
        # Some kernels write all its digits.
        return socket.inet_ntop(V6, socket.inet_pton(V6, where)), int(port)
    *octets, high, low = re.findall(r"\d+", command)
    return ".".join(octets), int(high) << 8 | int(low)


# What the other end sends through us comes back to it, by a fast path.
FAST = {V4: ("10.94.1.1", "10.94.2.1"), V6: ("fd94::1", "fd94::2")}
FAST_RULES = """
table inet everything {
    flowtable fast {
        hook ingress priority 0
        devices = { peer }
    }
    chain forward {
        type filter hook forward priority filter
        meta l4proto udp flow add @fast
    }
}
"""


def offload(to: Everything) -> None:
    """Flows that a flowtable has taken over; they have no timeout then."""
    try:
        tool.run(to.netns, "nft", "-f", "-", given=FAST_RULES)
    except AssertionError as exc:
        if "No such file" in str(exc) or "not supported" in str(exc):
            raise MissingError("this kernel has no flowtables") from None
        raise
    if not (SETTINGS / "nf_flowtable_udp_timeout").exists():
        raise MissingError("this kernel lets go of offloaded flows after 30 seconds")
    to.write("/proc/sys/net/netfilter/nf_flowtable_udp_timeout", 500_000)
    to.write("/proc/sys/net/ipv4/ip_forward", 1)
    to.write("/proc/sys/net/ipv6/conf/all/forwarding", 1)
    for family, network in ((V4, "10.94.0.0/16"), (V6, "fd94::/48")):
        to.send_through(family, network, *FAST[family], _datagram(UDP, True), _datagram(UDP, False))
    for family in FAMILIES:
        source = FAST[family][0]
        while not any("[OFFLOAD]" in line for line in tool.lines(to.netns, "-s", source)):
            time.sleep(0.1)


def secctx(to: Everything) -> None:  # noqa: ARG001
    """Security contexts: only a security module has them."""
    raise MissingError("no security module with contexts was at hand to write this with")


Part = Callable[[Everything], None]
PARTS: tuple[Part, ...] = (
    *(tcp_by_packets, tcp_by_netlink, udp, udplite, icmp, sctp, dccp, gre, unknown, addresses),
    *(marks, labels, statuses, zones, directional_zones, nat_by_packets, nat_by_netlink),
    *(synproxy, seqadj, helpers, masters, ftp, ftp_translated, offload, secctx),
)


@contextmanager
def prepared(*, acct: bool = True, timestamp: bool = True) -> Iterator[Everything]:
    """Make a scratch namespace ready for fill(), and take it away again. Skips without root."""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root")
    with ExitStack() as stack:
        made = Everything(stack)
        made.prepare(acct, timestamp)
        yield made


def fill(made: Everything, between: Callable[[], None] = lambda: None) -> None:
    """Make every flow. ``between``: what to do behind each kind of them."""
    for part in PARTS:
        try:
            part(made)
        except MissingError as exc:
            made.missing[part.__name__] = str(exc)
        between()


@contextmanager
def everything(*, acct: bool = True, timestamp: bool = True) -> Iterator[Everything]:
    """Fill a scratch namespace, and take all of it away again. Skips without root."""
    with prepared(acct=acct, timestamp=timestamp) as made:
        fill(made)
        yield made


# Comparing ---------------------------------------------------------------------------------------


def by_id(flows: Sequence[Flow]) -> dict[int, Flow]:
    """Flows by their id, the one key that every reader tells."""
    found = {flow["id"]: flow for flow in flows}
    assert len(found) == len(flows), "two flows have one id"
    return found


def flat(flow: Flow) -> Flow:
    """A flow with its tuples' fields beside its own, as "orig.src"."""
    values = {name: value for name, value in flow.items() if name not in TUPLES}
    for direction in TUPLES:
        for name, value in flow.get(direction, {}).items():
            values[f"{direction}.{name}"] = value
    return values


def differences(earlier: Flow, later: Flow) -> dict[str, tuple[Any, Any]]:
    """What two readers tell differently of one flow, by field; absent is None.

    A timeout may have gone down.
    """
    one, other = flat(earlier), flat(later)
    found = {
        name: (one.get(name), other.get(name))
        for name in {*one, *other}
        if one.get(name) != other.get(name)
    }
    before, after = found.get("timeout", (None, None))
    if before is not None and after is not None and 0 < before - after < STEP:
        del found["timeout"]
    return found
