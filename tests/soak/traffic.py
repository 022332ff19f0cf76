"""Live traffic: connections that must go on talking, and strangers that come and go."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product

import nlct
from tests.soak.content import STRANGERS, TALKING
from tests.soak.tally import Tally
from tests.support.traffic import Site

FAMILIES = (socket.AF_INET, socket.AF_INET6)
KEPT_PORT, STRANGERS_PORT = 7777, 7778
# What is lost is sent again, later and later; a connection without its entry never gets through.
PATIENCE = 60
HASTE = 0.2
# Hanging up sends a reset at once and leaves nothing to the kernel.
ABRUPTLY = struct.pack("ii", 1, 0)


class Echo(threading.Thread):
    """Echoes over TCP and UDP, both families, until stopped."""

    def __init__(self, netns: nlct.Netns, port: int) -> None:
        super().__init__(name=f"echo {port}", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._enough = threading.Event()
        for family, kind in product(FAMILIES, (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            sock = netns.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("", port))
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.listen(16)
            serve = self._accept if kind == socket.SOCK_STREAM else self._datagram
            self._selector.register(sock, selectors.EVENT_READ, serve)

    def run(self) -> None:
        """Serve."""
        while not self._enough.is_set():
            for key, _ in self._selector.select(0.1):
                try:
                    key.data(key.fileobj)
                except OSError:
                    # The table is full, or the client is gone: its end will notice.
                    continue

    def _accept(self, listening: socket.socket) -> None:
        sock, _ = listening.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPTLY)
        self._selector.register(sock, selectors.EVENT_READ, self._stream)

    def _stream(self, sock: socket.socket) -> None:
        data = b""
        try:
            data = sock.recv(2048)
            sock.sendall(data)
        finally:
            if not data:
                self._selector.unregister(sock)
                sock.close()

    @staticmethod
    def _datagram(sock: socket.socket) -> None:
        sock.sendto(*sock.recvfrom(2048))

    def stop(self) -> None:
        """Stop and hang up."""
        self._enough.set()
        if self.is_alive():
            self.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


def talk(sock: socket.socket, word: bytes) -> bool:
    """Say something, and tell if the very same came back. Raises OSError if nothing did."""
    sock.send(word)
    heard = b""
    while len(heard) < len(word):
        more = sock.recv(2048)
        if not more:
            raise ConnectionResetError("the server hung up")
        heard += more
    return heard == word


def connect(
    site: Site, zone: int, port: int, timeout: float, family: int, kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """Connect to the server from the client of a zone."""
    sock = site.clients[zone].socket(family, kind)
    try:
        sock.settimeout(timeout)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPTLY)
        sock.connect((site.address(zone, family), port))
    except OSError:
        sock.close()
        raise
    return sock


class Talker(threading.Thread):
    """Connections in the kept zones, which must never fall silent."""

    def __init__(self, site: Site, tally: Tally) -> None:
        super().__init__(name="talker", daemon=True)
        self._tally = tally
        self._enough = threading.Event()
        self._socks = {
            (zone, family): connect(site, zone, KEPT_PORT, PATIENCE, family)
            for zone, family in product(TALKING, FAMILIES)
        }
        for sock in self._socks.values():
            # From now on the entries are assured.
            assert talk(sock, b"hello")

    def run(self) -> None:
        """Talk."""
        turn = 0
        while not self._enough.wait(0.1):
            turn += 1
            for (zone, family), sock in self._socks.items():
                self._speak(zone, family, sock, turn)

    def _speak(self, zone: int, family: int, sock: socket.socket, turn: int) -> None:
        try:
            if not talk(sock, b"zone %d, turn %d" % (zone, turn)):
                raise ConnectionError("something else was heard")
        except OSError as exc:
            if not self._enough.is_set():
                self._tally.violation(f"a connection in zone {zone}, family {family}: {exc!r}")
            self._enough.set()
        self._tally.count("events", "turns of kept connections")

    def stop(self) -> None:
        """Hang up, which also ends the wait for an answer."""
        self._enough.set()
        for sock in self._socks.values():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.join()
        for sock in self._socks.values():
            sock.close()


class Stranger(threading.Thread):
    """Short conversations, one after another, which anybody may interrupt."""

    def __init__(self, site: Site, seed: str, tally: Tally, stop: threading.Event) -> None:
        super().__init__(name="stranger", daemon=True)
        self._site, self._tally, self.enough = site, tally, stop
        self._dice = random.Random(seed)

    def run(self) -> None:
        """Talk."""
        while not self.enough.wait(self._dice.random() * 0.05):
            try:
                self._converse()
            except Exception as exc:
                self._tally.error("talk", exc)
            self._tally.count("operations", "talk")

    def _converse(self) -> None:
        kind = self._dice.choice((socket.SOCK_STREAM, socket.SOCK_DGRAM))
        zone, family = self._dice.choice(STRANGERS), self._dice.choice(FAMILIES)
        with connect(self._site, zone, STRANGERS_PORT, HASTE, family, kind) as sock:
            for turn in range(3):
                assert talk(sock, b"turn %d" % turn), "something else was heard"


@contextmanager
def strangers(site: Site, seed: str, tally: Tally) -> Iterator[None]:
    """Strangers until the end of the block; then nothing of them is left but their entries."""
    stop = threading.Event()
    echo = Echo(site.server, STRANGERS_PORT)
    talking = [Stranger(site, f"{seed} stranger {n}", tally, stop) for n in range(2)]
    try:
        for thread in (echo, *talking):
            thread.start()
        yield
    finally:
        stop.set()
        for thread in filter(threading.Thread.is_alive, talking):
            thread.join()
        echo.stop()
