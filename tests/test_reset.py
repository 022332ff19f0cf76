"""Connections that go on after their flows were dumped, deleted and made anew."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Callable

import pytest

import nlct
from nlct import Flow, Status, TcpState
from tests.support import traffic

CONNECTIONS = 40
# From linux/tcp.h; Python has no names for these.
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
SEND_QUEUE = 2
# With these before(sequence, 0) is true, and the kernel knows no acknowledgement of a new flow.
HIGH = 0x80000000


@pytest.fixture
def where() -> Iterator[traffic.Forwarding]:
    """A client, a router that translates, a server."""
    with traffic.forwarding() as made:
        yield made


def beginning_at(sequence: int, sock: socket.socket) -> socket.socket:
    """Choose the sequence number with which a socket will connect."""
    for option, value in (
        (TCP_REPAIR, 1),
        (TCP_REPAIR_QUEUE, SEND_QUEUE),
        (TCP_QUEUE_SEQ, sequence - (1 << 32)),
        (TCP_REPAIR, 0),
    ):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError as exc:
            pytest.skip(f"MISSING: TCP_REPAIR, to choose sequence numbers: {exc}")
    return sock


def connections(
    where: traffic.Forwarding, stack: ExitStack
) -> list[tuple[socket.socket, socket.socket]]:
    """Both ends of each, with data there and back."""
    listener = stack.enter_context(where.server.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.bind(("", traffic.PORT))
    listener.listen(CONNECTIONS)
    listener.settimeout(traffic.PATIENCE)
    made = []
    for number in range(CONNECTIONS):
        client = where.client.socket(socket.AF_INET, socket.SOCK_STREAM)
        stack.enter_context(client)
        # All over the upper half, but for its end: a connection must not leave it.
        beginning_at(HIGH + number * (HIGH // CONNECTIONS) + 1000, client)
        client.settimeout(traffic.PATIENCE)
        client.connect((where.ADDRESS, traffic.PORT))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(traffic.PATIENCE)
        for speaker, hearer in ((client, server), (server, client)):
            say(speaker, hearer)
        made.append((client, server))
    return made


def say(speaker: socket.socket, hearer: socket.socket) -> None:
    """Send a word, which must arrive."""
    speaker.sendall(b"word")
    assert hearer.recv(16) == b"word"


def load(ct: nlct.Conntrack, flows: list[Flow]) -> None:
    """Make flows, all at once."""
    result = ct.load(flows)
    assert (result.created, dict(result.failed)) == (CONNECTIONS, {})


def create(ct: nlct.Conntrack, flows: list[Flow]) -> None:
    """Make flows, one by one."""
    for flow in flows:
        ct.create(flow)


@pytest.mark.parametrize("restore", [load, create])
def test_a_restored_connection_can_be_reset(
    where: traffic.Forwarding, restore: Callable[[nlct.Conntrack, list[Flow]], None]
) -> None:
    """Dumped, deleted, made anew: a packet and a RST pass, and each flow is closed by it."""
    with ExitStack() as stack, nlct.Conntrack(where.router) as ct:
        ends = connections(where, stack)
        flows = list(ct.dump(nlct.Filter(dport=traffic.PORT)))
        assert len(flows) == CONNECTIONS
        for flow in flows:
            assert flow.tcp_state == TcpState.ESTABLISHED
            assert (flow.status or 0) & Status.DST_NAT
            # The dump says what the kernel says, also what no request may.
            assert (flow.tcp_flags_orig or 0) & 0x20
            assert (flow.tcp_flags_reply or 0) & 0x20
        ct.flush_all()
        restore(ct, flows)
        for client, server in ends:
            say(client, server)
            # Closing it without lingering sends a RST.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        assert resets([server for _, server in ends]) == CONNECTIONS
        left = list(ct.dump(nlct.Filter(dport=traffic.PORT)))
        assert [flow.tcp_state for flow in left] == [TcpState.CLOSE] * len(left)


def resets(servers: list[socket.socket]) -> int:
    """Count those that are told of a reset, until no other one is."""
    waiting = {server.fileno(): server for server in servers}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    seen = 0
    while waiting:
        ready = poll.poll(traffic.PATIENCE * 1000)
        if not ready:
            break
        for fd, _ in ready:
            poll.unregister(fd)
            with pytest.raises(ConnectionResetError):
                waiting.pop(fd).recv(1)
            seen += 1
    return seen
