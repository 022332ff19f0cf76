"""The HTTP server: the library's application, with bounds on what clients can hold.

The library's own server starts a thread for each connection, any number of them, and waits for what
a client sends for as long as that takes.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from io import BufferedIOBase
from socketserver import ThreadingMixIn
from typing import Any, Callable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, make_wsgi_app

Environment = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[Environment, Start], Iterable[bytes]]

# A connection ends after so many seconds, whatever it is doing.
MOST_SECONDS = 20.0
# When one more comes, the oldest ends.
MOST_CONNECTIONS = 64
# Bytes of a request that are read; the header of any scrape is much shorter.
MOST_READ = 65536
# What keeps a connection from being accepted, and how long until the next try.
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST = 0.01
METRICS = "/metrics"
_INDEX = b"<!doctype html><title>nlct</title><a href='/metrics'>metrics</a>\n"


class Server(ThreadingMixIn, WSGIServer):
    """Serves the metrics of a registry under /metrics.

    ``host``: an address or a name; "" is every address of this host. ``port``: 0 is any free one.

    It listens in the network namespace of the calling thread. A client that sends or reads slowly
    holds nobody up: there are 64 connections at most, the oldest of them ends when another one
    comes, each ends after 20 seconds, and 64 KiB of a request are read.

    Raises OSError, with the address as its ``filename``, if it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._connections: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        # All addresses: of both families, where the host has both.
        family, address = _address(host, port)
        self.address_family = family
        try:
            super().__init__(address, _Handler)
        except OSError as exc:
            exc.filename = shown(address[0], port)
            raise
        self.set_app(_only_metrics(make_wsgi_app(registry)))

    @property
    def url(self) -> str:
        """Where the metrics are."""
        return f"http://{shown(self.server_name, self.server_port)}{METRICS}"

    def server_bind(self) -> None:
        """Listen; without asking for the host's name, which may take long."""
        if self.address_family == socket.AF_INET6:
            both = self.server_address[0] != "::"
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, both)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    # Connections -----------------------------------------------------------------------------

    def get_request(self) -> Any:
        """Accept a connection. Where there is no descriptor for it, the oldest makes room."""
        try:
            return super().get_request()
        except OSError as exc:
            if exc.errno in _SHORTAGE:
                with self._lock:
                    if self._connections:
                        self._end(next(iter(self._connections)))
                # It still waits: without a rest the server would do nothing but try again.
                time.sleep(_REST)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own; the oldest makes room for it."""
        with self._lock:
            self._connections[request] = time.monotonic()
            if len(self._connections) > MOST_CONNECTIONS:
                self._end(next(iter(self._connections)))
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread can be started.
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """End the connections that take too long; called twice a second."""
        with self._lock:
            latest = time.monotonic() - MOST_SECONDS
            for connection in [each for each, at in self._connections.items() if at < latest]:
                self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        """End it for its thread, which closes it."""
        del self._connections[connection]
        # The client may have ended it.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        # With the lock: its number may be another's right after.
        with self._lock:
            self._connections.pop(request, None)
            super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a client that has gone is no news."""


class _Beginning:
    """The beginning of what a client sends."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._left = MOST_READ

    def readline(self, size: int) -> bytes:
        """Read a line, or what is left of it."""
        line = self._file.readline(min(size, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        """Read no more than the beginning."""
        super().setup()
        self.rfile = _Beginning(self.rfile)  # type: ignore[assignment]

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def address_string(self) -> str:
        """Ask no name server."""
        return str(self.client_address[0])


def _only_metrics(metrics: Application) -> Application:
    """Serve a page at /, and nothing elsewhere; answer HEAD as GET, but without a body."""

    def find(environ: Environment, start_response: Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        # Some versions of the library answer everything.
        if environ["REQUEST_METHOD"] != "GET":
            said = [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")]
            start_response("405 Method Not Allowed", said)
            return [b"There is only GET and HEAD.\n"]
        if path == METRICS:
            return metrics(_readable(environ), start_response)
        if path in ("", "/"):
            start_response("200 OK", [("Content-Type", "text/html")])
            return [_INDEX]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [f"The metrics are at {METRICS}.\n".encode()]

    def application(environ: Environment, start_response: Start) -> Iterable[bytes]:
        head = environ["REQUEST_METHOD"] == "HEAD"
        said: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(
            find(
                {**environ, "REQUEST_METHOD": "GET"} if head else environ,
                lambda status, headers: said.append((status, headers)),
            )
        )
        status, headers = said[0]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if head else [body]

    return application


def _readable(environ: Environment) -> Environment:
    """Leave out a wish for a format that the library cannot read: it would raise."""
    try:
        choose_encoder(environ.get("HTTP_ACCEPT", ""))
    except Exception:
        return {name: value for name, value in environ.items() if name != "HTTP_ACCEPT"}
    return environ


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Find where to listen."""
    if not host:
        dual = socket.has_dualstack_ipv6()
        return (socket.AF_INET6, ("::", port)) if dual else (socket.AF_INET, ("0.0.0.0", port))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        exc.filename = host
        raise
    return found[0][0], found[0][4]


def shown(host: str, port: int) -> str:
    """Write an address and a port; IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
