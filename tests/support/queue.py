"""Packets that wait for a verdict: nfnetlink_queue in plain Python."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

import nlct
from tests.support import netlink

PACKET, VERDICT, CONFIG = 0x300, 0x301, 0x302
BIND, COPY_META, ACCEPT = 1, 1, 1


class Queue:
    """Holds the packets that a rule hands to queue ``number``."""

    def __init__(self, netns: nlct.Netns, number: int) -> None:
        self._number = number
        self._sock = netlink.connect(netns)
        self._ask(CONFIG, netlink.attr(1, struct.pack("!BxH", BIND, socket.AF_INET)))
        self._ask(CONFIG, netlink.attr(2, struct.pack("!IB", 0, COPY_META)))

    def _send(self, kind: int, flags: int, *attributes: bytes) -> None:
        body = struct.pack("!BBH", 0, 0, self._number) + b"".join(attributes)
        self._sock.send(netlink.message(kind, netlink.NLM_F_REQUEST | flags, body, sequence=1))

    def _ask(self, kind: int, *attributes: bytes) -> None:
        self._send(kind, netlink.NLM_F_ACK, *attributes)
        ((_, verdict),) = netlink.answer(self._sock)
        assert netlink.error(verdict) == 0

    def packet(self) -> int:
        """Wait for the next packet; return its number."""
        (message,) = netlink.messages(self._sock.recv(65536))
        attributes = dict(netlink.attributes(message[netlink.BODY :]))
        (number,) = struct.unpack_from("!I", attributes[1])
        return int(number)

    def let_go(self, packet: int) -> None:
        """Let a packet go on."""
        self._send(VERDICT, 0, netlink.attr(2, struct.pack("!II", ACCEPT, packet)))

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._sock.close()
