"""The recipes for whoever runs a router, with real traffic; see also test_recipes_lines.py."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest

import nlct
from nlct.fill import fill
from tests.support import recipes, tool, traffic

Forwarding = traffic.Forwarding


def run(netns: nlct.Netns, name: str, *arguments: str, given: str = "") -> str:
    """Run a recipe inside a namespace; it must succeed."""
    return tool.run(netns, sys.executable, str(recipes.path(name)), *arguments, given=given)


@pytest.fixture
def there() -> Iterator[Forwarding]:
    """A client, a router that translates and drops what it does not know, and a server."""
    with traffic.forwarding() as made:
        yield made


def ids(netns: nlct.Netns, filter: nlct.Filter) -> set[int | None]:
    """The ids of flows, which tell the same flow from one like it."""
    with nlct.Conntrack(netns) as ct:
        return {flow.id for flow in ct.dump(filter)}


# DNAT change -------------------------------------------------------------------------------------

PUBLISHED, OTHER = 5300, 5301
OLD, NEW = "10.78.1.2", "10.78.1.3"
MAP = f"""
table ip nat {{
    map backends {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = {{
            {Forwarding.ADDRESS} . udp . {PUBLISHED} : {OLD} . {PUBLISHED},
            {Forwarding.ADDRESS} . udp . {OTHER} : {OLD} . {PUBLISHED}
        }}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat
        dnat ip to ip daddr . meta l4proto . th dport map @backends
    }}
}}
"""


class Sender:
    """A client that never stops sending, and knows who answered which datagram."""

    def __init__(self, where: nlct.Netns, address: str, port: int) -> None:
        self._sock = where.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.settimeout(traffic.PATIENCE)
        self._sock.connect((address, port))
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sock.close()

    def _send(self) -> None:
        while not self._stop.wait(0.005):
            self._number += 1
            self._sock.send(b"%d" % self._number)

    def answers(self) -> set[str]:
        """Who answers the next ten datagrams that have an answer."""
        now, found = self._number, []
        while len(found) < 10:
            number, who = self._sock.recv(2048).decode().split()
            if int(number) > now:
                found.append(who)
        return set(found)


@contextmanager
def backends(there: Forwarding) -> Iterator[None]:
    """Two addresses that answer each datagram with it and their own name."""
    stop = threading.Event()

    def answer(sock: socket.socket, address: str) -> None:
        while not stop.is_set():
            try:
                said, peer = sock.recvfrom(2048)
                sock.sendto(said + b" " + address.encode(), peer)
            except socket.timeout:
                continue

    with ExitStack() as stack:
        tool.run(there.server, "ip", "address", "add", f"{NEW}/24", "dev", "uplink")
        for address in (OLD, NEW):
            sock = stack.enter_context(there.server.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.settimeout(0.1)
            sock.bind((address, PUBLISHED))
            thread = threading.Thread(target=answer, args=(sock, address))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield


def test_dnat_change(there: Forwarding) -> None:
    """A flow that never rests stays with the old backend until it is deleted; all others stay."""
    published = f"{there.ADDRESS}:{PUBLISHED}"
    tool.run(there.router, "nft", "-f", "-", given=MAP)
    with (
        backends(there),
        Sender(there.client, there.ADDRESS, PUBLISHED) as moved,
        Sender(there.client, there.ADDRESS, OTHER) as other,
        Sender(there.client, OLD, PUBLISHED) as direct,
    ):
        senders = (moved, other, direct)
        assert [sender.answers() for sender in senders] == [{OLD}] * 3
        kept = nlct.Filter(dport=OTHER) | nlct.Filter(dst=OLD)
        before = ids(there.router, kept)
        assert len(before) == 2
        # The rule alone changes nothing for whoever is there already.
        key = f"{there.ADDRESS} . udp . {PUBLISHED}"
        commands = [
            f"{verb} element ip nat backends {{ {key} : {to} . {PUBLISHED} }}\n"
            for verb, to in (("delete", OLD), ("add", NEW))
        ]
        tool.run(there.router, "nft", "-f", "-", given="".join(commands))
        assert moved.answers() == {OLD}
        # Also where the rule is changed already; and back.
        for backend in (NEW, OLD):
            said = run(there.router, "dnat-change", "udp", published, f"{backend}:{PUBLISHED}")
            assert re.fullmatch(r"[1-9]\d* flows of the old backend deleted\n", said)
            assert moved.answers() == {backend}
            assert other.answers() == direct.answers() == {OLD}
        assert ids(there.router, kept) == before
        # A port that had no backend gets one.
        said = run(
            there.router, "dnat-change", "udp", f"{there.ADDRESS}:5302", f"{NEW}:{PUBLISHED}"
        )
        assert said == "0 flows of the old backend deleted\n"
        with Sender(there.client, there.ADDRESS, 5302) as late:
            assert late.answers() == {NEW}


# Failover ----------------------------------------------------------------------------------------

# Longer than the server's own address, so that the helper changes the length of what it says.
VIRTUAL = "10.78.0.100"
HELPING = f"""
table ip forwarding {{
    chain prerouting {{
        ip daddr {VIRTUAL} tcp dport {traffic.PORT} dnat to {OLD}
    }}
}}
table ip helping {{
    ct helper ftp {{ type "ftp" protocol tcp; }}
    chain prerouting {{
        type filter hook prerouting priority -150
        tcp dport {traffic.PORT} ct helper set "ftp"
    }}
}}
"""


class Connection(NamedTuple):
    """Both ends of a TCP connection through the router."""

    client: socket.socket
    server: socket.socket

    def works(self) -> bool:
        """Whether what either says arrives at the other."""
        for sayer, hearer in (self, reversed(self)):
            words = b"a line\r\n"
            sayer.sendall(words)
            heard = b""
            while len(heard) < len(words):
                heard += hearer.recv(len(words) - len(heard))
            if heard != words:
                return False
        return True

    def reset(self) -> None:
        """Hang up at the server with an RST; the client must hear it."""
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.close()
        with pytest.raises(ConnectionResetError):
            self.client.recv(1)


class Routers:
    """A second router beside the one of Forwarding, which can take its links over."""

    def __init__(self, there: Forwarding, stack: ExitStack) -> None:
        self.there = there
        self._stack = stack
        self._names = [f"nlct{os.getpid()}{end}" for end in ("router", "standby")]
        working, standby = self._names
        traffic.run("ip", "netns", "add", standby)
        stack.callback(traffic.run, "ip", "netns", "delete", standby)
        self.standby = stack.enter_context(nlct.Netns.open(standby))
        traffic.run("ip", "-n", working, "address", "add", f"{VIRTUAL}/24", "dev", "to0")
        try:
            tool.run(there.router, "nft", "-f", "-", given=HELPING)
        except AssertionError as exc:
            pytest.skip(f"MISSING: an FTP helper: {exc}")
        rules = tool.run(there.router, "nft", "list", "ruleset")
        tool.run(self.standby, "nft", "-f", "-", given=rules)
        for path, value in ((traffic.STRICT, b"0"), ("/proc/sys/net/ipv4/ip_forward", b"1")):
            fd = self.standby.open_file(path, os.O_WRONLY)
            os.write(fd, value)
            os.close(fd)
        self._listening = self._socket(there.server)
        self._listening.bind(("", traffic.PORT))
        self._listening.listen(8)

    def _socket(self, where: nlct.Netns) -> socket.socket:
        sock = self._stack.enter_context(where.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.settimeout(traffic.PATIENCE)
        return sock

    def connect(self, address: str) -> Connection:
        """Open a connection through the working router."""
        client = self._socket(self.there.client)
        client.connect((address, traffic.PORT))
        server = self._stack.enter_context(self._listening.accept()[0])
        server.settimeout(traffic.PATIENCE)
        return Connection(client, server)

    def switch(self) -> None:
        """Have the standby take over, links, addresses and all, as if by a virtual MAC address."""
        working, standby = self._names
        for link, addresses in (("to0", (there_address(0), VIRTUAL)), ("to1", (there_address(1),))):
            traffic.run("ip", "-n", working, "link", "set", link, "netns", standby)
            for address in addresses:
                traffic.run("ip", "-n", standby, "address", "add", f"{address}/24", "dev", link)
            traffic.run("ip", "-n", standby, "link", "set", link, "up")


def there_address(link: int) -> str:
    """The router's address on a link of Forwarding."""
    return f"10.78.{link}.1"


def test_failover(there: Forwarding, tmp_path: object) -> None:
    """Connections go on at the other router, with their sequence numbers adjusted; RST works."""
    file = f"{tmp_path}/flows.json"
    with ExitStack() as stack:
        routers = Routers(there, stack)
        plain, adjusted, silent, lost = (
            routers.connect(address)
            for address in (there.ADDRESS, VIRTUAL, there.ADDRESS, there.ADDRESS)
        )
        # The helper reads lines from the second on, and writes the router's address into this one.
        adjusted.server.sendall(b"220 hello\r\n")
        adjusted.client.recv(2048)
        adjusted.server.sendall(f"227 ({OLD.replace('.', ',')},4,5)\r\n".encode())
        assert adjusted.client.recv(2048) == f"227 ({VIRTUAL.replace('.', ',')},4,5)\r\n".encode()
        assert plain.works()
        assert adjusted.works()
        # One that begins after the flows are saved, and a login to the router itself.
        with nlct.Conntrack(there.router) as ct:
            ct.delete_flow(next(ct.dump(nlct.Filter(sport=lost.client.getsockname()[1]))))
            login = nlct.Tuple("10.78.0.2", there.ADDRESS, "tcp", 9, 22)
            ct.create(nlct.Flow(login, timeout=600, tcp_state="established"))
            assert [flow.seqadj_reply_after for flow in ct.dump(nlct.Filter(dst=VIRTUAL))] == [2]
            assert ct.count() == 4
        assert run(there.router, "failover", "save", file) == "3 flows saved\n"
        # What is said afterwards is no matter.
        assert plain.works()
        assert adjusted.works()
        routers.switch()
        assert run(routers.standby, "failover", "restore", file) == (
            "3 flows restored, 0 there already\n"
        )
        assert [one.works() for one in (plain, adjusted)] == [True] * 2
        for one in (plain, adjusted, silent):
            one.reset()
        # So it was the restored flow that let these through.
        lost.client.settimeout(0.3)
        lost.client.sendall(b"hello")
        lost.server.settimeout(0.3)
        with pytest.raises(socket.timeout):
            lost.server.recv(1)
        said = run(routers.standby, "failover", "restore", file)
        assert said == "0 flows restored, 3 there already\n"


# Top talkers -------------------------------------------------------------------------------------


def test_top_talkers(there: Forwarding) -> None:
    """The bytes of each host, as the kernel has counted them; without the router's addresses."""
    pytest.importorskip("duckdb", reason="MISSING: duckdb")
    pytest.importorskip("nanoarrow", reason="MISSING: nanoarrow")
    with pytest.raises(AssertionError, match=r"sysctl -w net.netfilter.nf_conntrack_acct=1"):
        run(there.router, "top-talkers")
    with nlct.Conntrack(there.router) as ct:
        early = nlct.Tuple("10.9.9.9", "10.9.9.8", "udp", 1, 2)
        ct.create(nlct.Flow(early, timeout=600))
        tool.run(there.router, "sh", "-c", "echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
        with (
            there.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
            there.router.socket(socket.AF_INET, socket.SOCK_DGRAM) as router,
        ):
            for number in range(10):
                client.sendto(bytes(1000), ("10.78.1.2", 7000 + number))
            router.sendto(bytes(100), ("10.78.1.2", 7000))
        expected: Counter[str] = Counter()
        for flow in ct.dump():
            if flow.bytes_orig is not None:
                assert flow.reply is not None
                for host in {str(flow.orig.src), str(flow.reply.src)}:
                    expected[host] += flow.bytes_orig + (flow.bytes_reply or 0)
        assert expected.pop(there_address(1)) >= 128
        said = run(there.router, "top-talkers", "5").splitlines()
    assert said[0] == "1 flows began before nf_conntrack_acct was on, and are left out"
    rows = [line.replace(",", "").split() for line in said[2:]]
    found = {host: int(sent) + int(received) for host, _, sent, received in rows}
    assert found == expected
    assert [row[0] for row in rows] == [host for host, _ in expected.most_common()]
    assert set(found) == {"10.78.0.2", "10.78.1.2"}
    assert found["10.78.0.2"] >= 10 * 1028


# Which flows -------------------------------------------------------------------------------------


def test_which_flows(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """It counts, shows a sample, and deletes nothing; nor does a "no"."""
    fill(ct, 1000, 10)
    web = nlct.Flow(nlct.Tuple("10.1.0.1", "10.2.0.1", "tcp", 1, 80), zone=3, timeout=600)
    ct.create(web.replace(tcp_state="established", mark=7))
    before = ids(netns, nlct.ALL)
    for given in ([], ["--delete"]):
        said = run(netns, "which-flows", *given, "zone=3,4", "dst=192.0.2.0/24,10.2.0.1", given="n")
        lines = dict(re.findall(r"^ *(\w+)  (\S.*)$", said, re.MULTILINE))
        assert said.startswith("201 of 1,001 flows match\n")
        assert lines["zone"] == "3 (101), 4 (100)"
        assert lines["proto"] == "udp (200), tcp (1)"
        assert lines["tcp_state"] == "- (200), established (1)"
        assert lines["mark"] == "0 (200), 7 (1)"
        assert lines["src"].endswith(", and 196 more")
        assert len(re.findall(r"^  \w+ +\d+ .* src=", said, re.MULTILINE)) == 5
        assert ids(netns, nlct.ALL) == before
    assert run(netns, "which-flows", "--delete", "zone=99") == "0 of 1,001 flows match\n"


@pytest.mark.usefixtures("root")
def test_which_flows_deletes_what_it_has_shown(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """And no flow that was born meanwhile, though the filter hits it."""
    fill(ct, 100, 10)
    words = [sys.executable, str(recipes.path("which-flows")), "--delete", "zone=3"]
    where = ["nsenter", f"--net=/proc/self/fd/{netns.fileno()}", "--"]
    with subprocess.Popen(
        [*where, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(netns.fileno(),),
    ) as asking:
        assert asking.stdin is not None
        assert asking.stdout is not None
        said = b""
        while not said.endswith(b"[y/N] "):
            part = os.read(asking.stdout.fileno(), 65536)
            assert part, said
            said += part
        shown = list(ct.dump(zone=3))
        assert len(shown) == 10
        ct.delete_flow(shown[0])
        born = shown[1].orig.replace(sport=7)
        ct.create(nlct.Flow(born, zone=3, timeout=600))
        out, _ = asking.communicate(b"y\n", timeout=60)
    assert out == b"9 deleted, 1 were gone already\n"
    assert [flow.orig for flow in ct.dump(zone=3)] == [born]
    assert ct.count() == 91


@pytest.mark.parametrize(
    ("word", "says"),
    [("nonsense=7", "nonsense"), ("zone=x", "zone"), ("zone=65536", "65535"), ("zone", "zone")],
)
def test_which_flows_refuses(
    word: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no filter, by its name, before it looks at any table."""
    monkeypatch.setattr(sys, "argv", ["which-flows.py", word])
    with pytest.raises(SystemExit):
        recipes.load("which-flows").main()
    assert re.search(f"error: .*{says}", capsys.readouterr().err)
