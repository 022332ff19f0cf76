"""FTP through a router that translates, where an nft rule gives it the kernel's helper."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import nlct
from tests.support import tool, traffic

HELPER = """
table ip helping {{
    ct helper ftp {{ type "ftp" protocol tcp; }}
    chain prerouting {{
        type filter hook prerouting priority -150
        tcp dport {port} ct helper set "ftp"
    }}
}}
"""


@contextmanager
def forwarding() -> Iterator[traffic.Forwarding]:
    """A client, a router with the helper, and a server."""
    with traffic.forwarding() as there:
        try:
            tool.run(there.router, "nft", "-f", "-", given=HELPER.format(port=traffic.PORT))
        except AssertionError as exc:
            pytest.skip(f"MISSING: an FTP helper: {exc}")
        yield there


class Session:
    """An FTP session through a router that translates, up to the command for a data connection."""

    def __init__(self, there: traffic.Forwarding, passive: bool, stack: ExitStack) -> None:
        self._stack = stack
        listening, control = self.listen(there.server, traffic.PORT), self.open(there.client)
        control.connect((there.ADDRESS, traffic.PORT))
        server = stack.enter_context(listening.accept()[0])
        self.data = self.listen(there.server if passive else there.client)
        self.port = self.data.getsockname()[1]
        speaker, hearer = (server, control) if passive else (control, server)
        # The helper reads lines from the second on.
        speaker.sendall(b"220 hello\r\n" if passive else b"USER nobody\r\n")
        hearer.recv(2048)
        address = f"{speaker.getsockname()[0]}.{self.port >> 8}.{self.port & 255}"
        said = "227 Entering Passive Mode ({})\r\n" if passive else "PORT {}\r\n"
        speaker.sendall(said.format(address.replace(".", ",")).encode())
        *octets, high, low = re.findall(r"\d+", hearer.recv(2048).decode())[-6:]
        self._target = ".".join(octets), int(high) << 8 | int(low)
        self._caller = there.client if passive else there.server

    def open(self, where: nlct.Netns) -> socket.socket:
        """Open a socket until the end."""
        sock = self._stack.enter_context(where.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.settimeout(traffic.PATIENCE)
        return sock

    def listen(self, where: nlct.Netns, port: int = 0) -> socket.socket:
        """Listen there."""
        sock = self.open(where)
        sock.bind(("", port))
        sock.listen(1)
        return sock

    def transfer(self) -> None:
        """Make the data connection, to where the command said when it was heard."""
        self.open(self._caller).connect(self._target)
        self._stack.enter_context(self.data.accept()[0])
