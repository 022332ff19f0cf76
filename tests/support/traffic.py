"""Real traffic: namespaces joined by veth, zones set by nftables, and packets that flow."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

import nlct

PORT = 7777
# Longer than any echo takes that comes at all.
PATIENCE = 20.0
# Shorter than the time after which TCP repeats its first packet.
BRIEF = 0.1
# What becomes of a connection without its entry: conntrack does not pick it up again, and what is
# not of a known connection is dropped. So whoever still talks still has his entry.
STRICT = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose"


def run(*command: str, given: str = "") -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _required() -> None:
    """Skip without what joins namespaces."""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root, to join namespaces")
    for tool in ("ip", "nft"):
        if not shutil.which(tool):
            pytest.skip(f"MISSING: {tool}")


class Site:
    """A server, and a client in each zone, every one in a namespace of its own.

    The server sees zone z on the interface to client z alone.
    """

    def __init__(self, zones: tuple[int, ...], stack: ExitStack) -> None:
        prefix = f"nlct{os.getpid()}"
        self.zones = zones
        self.server = self._namespace(f"{prefix}s", stack)
        self.clients: dict[int, nlct.Netns] = {}
        for number, zone in enumerate(zones):
            name = f"{prefix}c{number}"
            self.clients[zone] = self._namespace(name, stack)
            self._join(f"{prefix}s", name, number)
        self._rules(f"{prefix}s")
        fd = self.server.open_file(STRICT, os.O_WRONLY)
        os.write(fd, b"0")
        os.close(fd)

    @staticmethod
    def _namespace(name: str, stack: ExitStack) -> nlct.Netns:
        run("ip", "netns", "add", name)
        stack.callback(run, "ip", "netns", "delete", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return stack.enter_context(nlct.Netns.open(name))

    @staticmethod
    def _join(server: str, client: str, number: int) -> None:
        ours, theirs = f"to{number}", "uplink"
        run(
            *("ip", "-n", server, "link", "add", ours, "type", "veth"),
            *("peer", "name", theirs, "netns", client),
        )
        for namespace, link, end in ((server, ours, 1), (client, theirs, 2)):
            for address in (f"10.77.{number}.{end}/24", f"fd77:{number + 1}::{end}/64"):
                nodad = ("nodad",) if ":" in address else ()
                run("ip", "-n", namespace, "address", "add", address, "dev", link, *nodad)
            run("ip", "-n", namespace, "link", "set", "dev", link, "up")

    def _rules(self, server: str) -> None:
        def zones(direction: str) -> str:
            rules = [f'{direction} "to{n}" ct zone set {z}' for n, z in enumerate(self.zones)]
            return "\n".join(rules)

        run(
            *("ip", "netns", "exec", server, "nft", "-f", "-"),
            given=f"""
table inet zones {{
    chain prerouting {{
        type filter hook prerouting priority raw
        {zones("iifname")}
    }}
    chain output {{
        type filter hook output priority raw
        {zones("oifname")}
    }}
    chain input {{
        type filter hook input priority filter
        meta l4proto tcp ct state invalid drop
        tcp flags & (syn | ack) == ack ct state new drop
    }}
}}
""",
        )

    def address(self, zone: int, family: int = socket.AF_INET) -> str:
        """The server's address as the client of a zone sees it."""
        number = self.zones.index(zone)
        return f"10.77.{number}.1" if family == socket.AF_INET else f"fd77:{number + 1}::1"


@contextmanager
def site(*zones: int) -> Iterator[Site]:
    """Make it all, and take it away again."""
    _required()
    with ExitStack() as stack:
        try:
            made = Site(zones, stack)
        except AssertionError as exc:
            pytest.skip(f"MISSING: veth or nftables with conntrack zones: {exc}")
        stack.enter_context(_echo(made.server))
        yield made


class Forwarding:
    """A client whose connections a router translates to a server behind it (destination NAT).

    The router drops what belongs to no connection, and picks up none that it does not know.
    """

    ADDRESS = "10.78.0.1"
    _SERVER = "10.78.1.2"

    def __init__(self, stack: ExitStack) -> None:
        names = [f"nlct{os.getpid()}{end}" for end in ("client", "router", "server")]
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "delete", name)
        client, router, server = names
        for number, end in ((0, client), (1, server)):
            ours = f"to{number}"
            run(
                *("ip", "-n", router, "link", "add", ours, "type", "veth"),
                *("peer", "name", "uplink", "netns", end),
            )
            for namespace, link, last in ((router, ours, 1), (end, "uplink", 2)):
                address = f"10.78.{number}.{last}/24"
                run("ip", "-n", namespace, "address", "add", address, "dev", link)
                run("ip", "-n", namespace, "link", "set", "dev", link, "up")
            run("ip", "-n", end, "route", "add", "default", "via", f"10.78.{number}.1")
        run(
            *("ip", "netns", "exec", router, "nft", "-f", "-"),
            given=f"""
table ip forwarding {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {self.ADDRESS} tcp dport {PORT} dnat to {self._SERVER}
    }}
    chain input {{
        type filter hook input priority filter
        meta l4proto tcp ct state invalid drop
    }}
    chain forward {{
        type filter hook forward priority filter
        meta l4proto tcp ct state invalid drop
    }}
}}
""",
        )
        self.client, self.router, self.server = (
            stack.enter_context(nlct.Netns.open(name)) for name in names
        )
        for path, value in ((STRICT, b"0"), ("/proc/sys/net/ipv4/ip_forward", b"1")):
            fd = self.router.open_file(path, os.O_WRONLY)
            os.write(fd, value)
            os.close(fd)


@contextmanager
def forwarding() -> Iterator[Forwarding]:
    """Make it all, and take it away again."""
    _required()
    with ExitStack() as stack:
        try:
            made = Forwarding(stack)
        except AssertionError as exc:
            pytest.skip(f"MISSING: veth or nftables with NAT: {exc}")
        yield made


@contextmanager
def _echo(server: nlct.Netns) -> Iterator[None]:
    """Echo over TCP and UDP, both families, until the end of the block."""
    stop = threading.Event()
    threads = []

    def serve_udp(sock: socket.socket) -> None:
        with sock:
            while not stop.is_set():
                try:
                    data, peer = sock.recvfrom(2048)
                    sock.sendto(data, peer)
                except socket.timeout:
                    continue

    def serve_tcp(sock: socket.socket) -> None:
        with sock:
            while not stop.is_set():
                try:
                    connection, _ = sock.accept()
                except socket.timeout:
                    continue
                start(serve_connection, connection)

    def serve_connection(sock: socket.socket) -> None:
        sock.settimeout(0.1)
        with sock:
            while not stop.is_set():
                try:
                    data = sock.recv(2048)
                    if not data:
                        return
                    sock.sendall(data)
                except socket.timeout:
                    continue
                except OSError:
                    return

    def start(serve: object, sock: socket.socket) -> None:
        thread = threading.Thread(target=serve, args=(sock,))  # type: ignore[arg-type]
        thread.start()
        threads.append(thread)

    for family in (socket.AF_INET, socket.AF_INET6):
        for kind, serve in ((socket.SOCK_DGRAM, serve_udp), (socket.SOCK_STREAM, serve_tcp)):
            sock = server.socket(family, kind)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.settimeout(0.1)
            sock.bind(("", PORT))
            if kind == socket.SOCK_STREAM:
                sock.listen(16)
            start(serve, sock)
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class Talk:
    """One conversation with the server from the client of a zone."""

    def __init__(self, where: Site, zone: int, kind: int, family: int = socket.AF_INET) -> None:
        self.zone = zone
        self._turn = 0
        self._sock = where.clients[zone].socket(family, kind)
        self._sock.settimeout(PATIENCE)
        self._sock.connect((where.address(zone, family), PORT))

    def echoes(self, timeout: float = PATIENCE) -> bool:
        """Say something, and tell if the very same came back in time."""
        self._turn += 1
        word = f"zone {self.zone}, turn {self._turn};".encode()
        self._sock.settimeout(timeout)
        try:
            self._sock.send(word)
            return self._sock.recv(2048) == word
        except socket.timeout:
            return False

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


class Ping:
    """Echo requests with one id from the client of a zone."""

    def __init__(self, where: Site, zone: int, id: int | None = None) -> None:
        self._id = 0x1000 + zone % 0x1000 if id is None else id
        self._turn = 0
        self._address = where.address(zone)
        self._sock = where.clients[zone].socket(
            socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
        )

    def echoes(self, timeout: float = PATIENCE) -> bool:
        """Ping once, and tell if the answer came in time."""
        self._turn += 1
        body = struct.pack("!HH", self._id, self._turn) + b"nlct"
        words = struct.unpack(f"!{len(body) // 2}H", body)
        total = 0x0800 + sum(words)
        total = (total & 0xFFFF) + (total >> 16)
        self._sock.settimeout(timeout)
        self._sock.sendto(struct.pack("!BBH", 8, 0, ~total & 0xFFFF) + body, (self._address, 0))
        try:
            while True:
                answer = self._sock.recv(2048)
                if answer[20] == 0 and answer[24:] == body:
                    return True
        except socket.timeout:
            return False

    def close(self) -> None:
        """Stop pinging."""
        self._sock.close()


@contextmanager
def newcomers(where: Site, *zones: int) -> Iterator[list[int]]:
    """Have the clients of these zones begin one conversation after another, until the block ends.

    Each has a port or an id of its own and sends but one packet that could make an entry, so an
    entry that is gone does not come back. How many have heard their echo stands in the list.
    """
    stop = threading.Event()
    heard = [0]

    def once(zone: int, number: int) -> bool:
        # Of TCP but a few: the server waits on for each whose entry was flushed.
        kind = socket.SOCK_DGRAM if number % 20 else socket.SOCK_STREAM
        if number % 2:
            with closing(Ping(where, zone, 0x4000 + number)) as ping:
                return ping.echoes(BRIEF)
        with where.clients[zone].socket(socket.AF_INET, kind) as sock:
            sock.settimeout(BRIEF)
            sock.bind(("", 16_384 + number))
            sock.connect((where.address(zone), PORT))
            sock.send(b"here I am")
            return sock.recv(2048) == b"here I am"

    def come(zone: int) -> None:
        number = 0
        while not stop.is_set():
            # Whoever is flushed in between hears nothing.
            with suppress(OSError):
                heard[0] += once(zone, number)
            number = (number + 1) % 0x4000
            # Not as fast as the machine can: the table stays small.
            stop.wait(0.001)

    threads = [threading.Thread(target=come, args=(zone,)) for zone in zones]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# SCTP --------------------------------------------------------------------------------------------

PEER = 5000
# The tag that each end wants to be addressed by.
TAGS = {"there": 0x1000, "back": 0x2000}
# Chunks, by what they are called.
CHUNKS = {
    "init": 1,
    "init_ack": 2,
    "heartbeat": 4,
    "abort": 6,
    "shutdown": 7,
    "shutdown_ack": 8,
    "cookie_echo": 10,
    "cookie_ack": 11,
}


def crc32c(data: bytes) -> int:
    """The checksum of SCTP."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ 0x82F63B78 * (rest & 1)
    return rest ^ 0xFFFFFFFF


class Association:
    """An SCTP association of a client of a zone with the server, packet by packet.

    Whoever receives is a raw socket, so the kernels at both ends need not know SCTP.
    """

    def __init__(self, where: Site, zone: int, port: int) -> None:
        self.port = port
        sctp = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
        self._ends = {
            "there": where.clients[zone].socket(*sctp),
            "back": where.server.socket(*sctp),
        }
        self._ends["there"].connect((where.address(zone), 0))
        client = self._ends["there"].getsockname()[0]
        self._ends["back"].connect((client, 0))
        for end in self._ends.values():
            end.settimeout(PATIENCE)

    def say(self, way: str, chunk: str) -> None:
        """Send a chunk "there" or "back", and wait until it has come through."""
        other = "back" if way == "there" else "there"
        body = b""
        if chunk in ("init", "init_ack"):
            body = struct.pack("!IIHHI", TAGS[way], 65536, 1, 1, 1)
        elif chunk == "shutdown":
            body = bytes(4)
        elif chunk in ("cookie_echo", "heartbeat"):
            body = struct.pack("!HHI", 1, 8, 7)
        ports = (self.port, PEER) if way == "there" else (PEER, self.port)
        # A packet bears the tag of the one it goes to.
        tag = 0 if chunk == "init" else TAGS[other]
        head = struct.pack("!HHI", *ports, tag)
        rest = struct.pack("!BBH", CHUNKS[chunk], 0, 4 + len(body)) + body
        packet = head + struct.pack("<I", crc32c(head + bytes(4) + rest)) + rest
        self._ends[way].send(packet)
        while self._ends[other].recv(2048)[20:] != packet:
            pass

    def close(self) -> None:
        """Forget about it."""
        for end in self._ends.values():
            end.close()
