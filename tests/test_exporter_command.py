"""``nlct exporter``: its server, which no client holds up, its file, and how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("prometheus_client", reason="MISSING: prometheus_client, of nlct[exporter]")

from prometheus_client import CollectorRegistry, Gauge

import nlct
from nlct.exporter import Server, server
from nlct.fill import fill
from tests.support.command import NLCT, nlct_, process, refused
from tests.support.examples import telling
from tests.support.metrics import named, read

LONG = 30.0


@contextlib.contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Server]:
    """Serve one metric."""
    registry = CollectorRegistry()
    Gauge("one", "One.", registry=registry).set(1)
    with Server(registry, host, 0) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def get(url: str, method: str = "GET") -> tuple[int, str]:
    """Ask, and return the status and the body."""
    try:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=LONG) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def connect(made: Server, sent: bytes = b"") -> socket.socket:
    """Open a connection, and send something."""
    connection = socket.create_connection(made.server_address[:2], timeout=LONG)
    # The server may have had enough before.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(sent)
    return connection


# The server ---------------------------------------------------------------------------------------


def test_what_is_served() -> None:
    """The metrics at their path; nothing elsewhere; HEAD says as much as GET, without a body."""
    with serving() as made:
        root = made.url[: -len("/metrics")]
        assert get(made.url) == (200, "# HELP one One.\n# TYPE one gauge\none 1.0\n")
        assert get(made.url + "?name[]=two") == (200, "")
        assert get(made.url, "HEAD") == (200, "")
        assert get(root) == get(root + "/") == (200, server._INDEX.decode())
        assert get(root + "/other")[0] == get(root + "/metrics/..")[0] == 404
        assert get(made.url, "POST")[0] == 405
        with connect(made, b"HEAD /metrics HTTP/1.1\r\n\r\n") as connection:
            said = connection.makefile("rb").read()
        assert b"\r\nContent-Length: 41\r\n" in said
        assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /metrics HTTP/1.1\r\nHost: ",
        b"GET /metrics HTTP/1.1\r\n" + b"X: %s\r\n" % (b"y" * 60000) * 20,
        b"GET /" + b"x" * 65000,
    ],
    ids=["nothing", "half a header", "long headers", "a long path"],
)
def test_slow_clients_hold_up_nobody(sent: bytes) -> None:
    """More of them than there may be: the oldest are sent away, and no thread stays."""
    with serving() as made, contextlib.ExitStack() as stack:
        threads = threading.active_count()
        slow = [stack.enter_context(connect(made, sent)) for _ in range(100)]
        for _ in range(3):
            assert get(made.url)[0] == 200
        assert len(made._connections) <= server.MOST_CONNECTIONS
        # It ends, perhaps with an answer to what was read.
        with contextlib.suppress(ConnectionResetError):
            slow[0].makefile("rb").read()
        stack.close()
        deadline = time.monotonic() + LONG
        while threading.active_count() > threads:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_connection_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that goes on sending."""
    monkeypatch.setattr(server, "MOST_SECONDS", 0.2)
    with serving() as made, connect(made, b"GET /metrics HTTP/1.1\r\n") as connection:
        ended = False
        deadline = time.monotonic() + LONG
        while not ended:
            assert time.monotonic() < deadline
            try:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.02)
            except (BrokenPipeError, ConnectionResetError):
                ended = True
        assert get(made.url)[0] == 200


def test_a_format_that_nobody_knows_is_none() -> None:
    """The library's own reading of the header raises."""
    with serving() as made:
        for wish in ("application/openmetrics-text; version=abc", "\xff;q=,;;==", ""):
            request = urllib.request.Request(made.url, headers={"Accept": wish})
            with urllib.request.urlopen(request, timeout=LONG) as answer:
                assert answer.status == 200, wish


def test_without_descriptors_the_oldest_connections_make_room() -> None:
    """A scrape is answered, however many hold what there is."""
    with serving() as made, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.socket()) for _ in range(40)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with socket.socket() as scrape:
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + 12, hard))
            for each in (*slow, scrape):
                each.settimeout(LONG)
                each.connect(made.server_address[:2])
            scrape.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert scrape.recv(64).startswith(b"HTTP/1.0 200 ")


def test_garbage_is_refused() -> None:
    """In one answer, and the next client has its own."""
    with serving() as made:
        for sent in (b"\x16\x03\x01\0\0\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\n\n"):
            with connect(made, sent) as connection:
                connection.shutdown(socket.SHUT_WR)
                connection.makefile("rb").read()
        assert get(made.url)[0] == 200


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", r"http://127\.0\.0\.1:"), ("::1", r"http://\[::1\]:"), ("", r"http://\[::\]:")],
)
def test_where_it_listens(host: str, url: str) -> None:
    """IPv6 in brackets; without an address, on all of both families."""
    if ":" in host + url and not socket.has_dualstack_ipv6():
        pytest.skip("MISSING: IPv6")
    with serving(host) as made:
        assert re.match(url, made.url)
        for each in (
            ["127.0.0.1", "[::1]"] if not host else [made.url.split("/")[2].rpartition(":")[0]]
        ):
            assert get(f"http://{each}:{made.server_port}/metrics")[0] == 200


# The command --------------------------------------------------------------------------------------


def begin(*args: str, **options: object) -> tuple[subprocess.Popen[bytes], str]:
    """Start the command; return it and where it serves."""
    started = process("exporter", "--listen", "127.0.0.1:0", *args, **options)
    assert started.stderr is not None
    lines = []
    while not (lines and (found := re.match(r"nlct: serving (http:\S+)\n", lines[-1]))):
        line = started.stderr.readline().decode()
        assert line, lines
        lines.append(line)
    return started, found[1]


def end(started: subprocess.Popen[bytes], number: int) -> tuple[int, bytes]:
    """Send a signal; return the exit code and what else was printed."""
    started.send_signal(number)
    output, errors = started.communicate(timeout=LONG)
    return started.returncode, output + errors


def test_it_serves_the_tables_of_other_namespaces(ct: nlct.Conntrack, where: str) -> None:
    """It listens where it was started, and ends at once and cleanly, whoever is connected."""
    fill(ct, flows=100, zones=10)
    started, url = begin(where, "--by", "zone", "--by", "proto", "--top", "3", "--mirror")
    try:
        deadline = time.monotonic() + LONG
        while not named(samples := read(get(url)[1]), "nlct_flows_by_zone"):
            assert time.monotonic() < deadline
        assert named(samples, "nlct_entries") == {(): 100}
        assert named(samples, "nlct_flows_by_zone") == {("1",): 10, ("10",): 10, ("2",): 10} | {
            ("other",): 70
        }
        assert named(samples, "nlct_flows_by_proto") == {("udp",): 100}
        address = url.split("/")[2].rpartition(":")
        with socket.create_connection((address[0], int(address[2]))):
            assert end(started, signal.SIGTERM) == (0, b"")
    finally:
        started.kill()


# `make test` tries SIGINT, and other tests SIGTERM.
@pytest.mark.parametrize("number", telling([signal.SIGINT, signal.SIGHUP], [signal.SIGINT]))
def test_it_ends_at_a_signal(where: str, number: int) -> None:
    """With nothing on the screen but the end of the line."""
    started, _ = begin(where)
    code = 130 if number == signal.SIGINT else 0
    assert end(started, number) in ((code, b""), (code, b"\n"))


def test_it_takes_the_descriptors_it_may_have(where: str) -> None:
    """Many namespaces need more than a shell or a service begins with."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 2048))

    started, _ = begin(where, preexec_fn=few)
    try:
        assert resource.prlimit(started.pid, resource.RLIMIT_NOFILE) == (2048, 2048)
        assert end(started, signal.SIGTERM) == (0, b"")
    finally:
        started.kill()


def test_a_port_in_use_is_one_line(where: str) -> None:
    """And exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        said = refused(nlct_("exporter", where, "--listen", address), 1)
    assert said == f"nlct: {address}: Address already in use\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--listen", "9989"], "ADDRESS:PORT"),
        (["--listen", "127.0.0.1:65536"], "the port from 0 to 65535"),
        (["--listen", "::1:9989"], "IPv6 address in brackets"),
        (["--listen", ":1", "--textfile", "x.prom"], "not both"),
        (["--by", "dport"], "zone, mark, proto, state"),
        (["--interval", "0.5"], "from 1 to 86400 seconds"),
        (["--interval", "nan"], "from 1 to 86400 seconds"),
        (["--top", "0"], "0 is not in the range"),
        (["--netns", ""], "the name is empty"),
        (["--textfile", ""], "name of the file is empty"),
        (["--textfile", "nlct.txt"], "must end in .prom"),
    ],
    ids=" ".join,
)
def test_wrong_usage(args: list[str], says: str) -> None:
    """One line, and exit code 2."""
    assert says in refused(nlct_("exporter", *args), 2)


def test_an_address_that_is_not_ours(where: str) -> None:
    """One line that names it."""
    said = refused(nlct_("exporter", where, "--listen", "192.0.2.1:9989"), 1)
    assert said == "nlct: 192.0.2.1:9989: Cannot assign requested address\n"


def test_no_privilege_is_exit_code_3() -> None:
    """Before it listens."""
    code = (
        "import os, nlct.cli.commands.exporter, nlct.cli.commands as c, nlct.exporter\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([])\n"
        "    os.setresgid(65534, 65534, 65534)\n"
        "    os.setresuid(65534, 65534, 65534)\n"
        "c.cli.main(['exporter', '--listen', '127.0.0.1:0'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"nlct: [^\n]*CAP_NET_ADMIN[^\n]*\n", done.stderr), done.stderr


@pytest.mark.usefixtures("root")
def test_one_capability_is_enough() -> None:
    """As the unit for systemd gives it; for the own namespace, with a mirror."""
    # Not in pytest's directory, which is for one user.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        _write_with_one_capability(Path(directory, "nlct.prom"))


def _write_with_one_capability(file: Path) -> None:
    caps = "-all,+net_admin"
    only = [f"--inh-caps={caps}", "--ambient-caps=+net_admin", f"--bounding-set={caps}"]
    drop = ["unshare", "--net", "setpriv", "--reuid=65534", "--clear-groups", *only]
    words = [*drop, *NLCT, "exporter", "--textfile", str(file), "--by", "zone", "--mirror"]
    with subprocess.Popen([*words, "--interval", "1"], stderr=subprocess.PIPE) as started:
        try:
            deadline = time.monotonic() + LONG
            while not (file.exists() and named(read(file.read_text()), "nlct_mirror_flows")):
                if started.poll() is not None:
                    _require_interpreter(drop)
                    pytest.fail("it has ended")
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            started.terminate()
        # The signal may come between the first file and the note.
        errors = started.communicate(timeout=LONG)[1].decode()
        assert errors in ("", f"nlct: writing {file} every 1 s\n")
    assert named(read(file.read_text()), "nlct_up") == {(): 1}


def _require_interpreter(drop: list[str]) -> None:
    """Skip where other users cannot run it, as from the home of root."""
    words = [*drop, sys.executable, "-c", "import nlct, click, prometheus_client"]
    if subprocess.run(words, capture_output=True, check=False, timeout=LONG).returncode:
        pytest.skip("MISSING: an interpreter for other users")


def test_the_file_is_whole_whenever_it_is_read(
    ct: nlct.Conntrack, where: str, tmp_path: Path
) -> None:
    """It is replaced by another one that anybody may read; nothing else is left there."""
    file = tmp_path / "nlct.prom"
    fill(ct, flows=100, zones=10)
    before = os.umask(0o077)
    try:
        started = process("exporter", where, "--textfile", str(file), "--interval", "1")
    finally:
        os.umask(before)
    try:
        seen: dict[int, float] = {}
        deadline = time.monotonic() + LONG
        while len(seen) < 2:
            assert time.monotonic() < deadline
            with contextlib.suppress(FileNotFoundError), file.open() as found:
                status = os.fstat(found.fileno())
                seen[status.st_mtime_ns] = named(read(found.read()), "nlct_entries")[()]
                assert stat.S_IMODE(status.st_mode) == 0o644
            time.sleep(0.002)
        # Once, and not each time.
        assert end(started, signal.SIGTERM) == (0, f"nlct: writing {file} every 1 s\n".encode())
    finally:
        started.kill()
    assert os.listdir(tmp_path) == ["nlct.prom"]
    assert set(seen.values()) == {100}


def test_a_file_that_is_there_keeps_its_mode(where: str, tmp_path: Path) -> None:
    """Who made it has decided who may read it."""
    file = tmp_path / "nlct.prom"
    file.touch(0o600)
    started = process("exporter", where, "--textfile", str(file))
    try:
        deadline = time.monotonic() + LONG
        while not file.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert end(started, signal.SIGTERM)[0] == 0
    finally:
        started.kill()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_one_line(where: str, tmp_path: Path) -> None:
    """And exit code 1."""
    path = tmp_path / "none" / "nlct.prom"
    said = refused(nlct_("exporter", where, "--textfile", str(path)), 1)
    assert said == f"nlct: {path}: No such file or directory\n"


def test_a_file_that_cannot_be_written_for_a_while(where: str, tmp_path: Path) -> None:
    """It is told once, and written again when that can be."""
    folder, away = tmp_path / "folder", tmp_path / "away"
    folder.mkdir()
    path = folder / "nlct.prom"
    with process("exporter", "--textfile", str(path), where, "--interval", "1") as started:
        deadline = time.monotonic() + LONG
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert started.stderr is not None
        assert started.stderr.readline() == f"nlct: writing {path} every 1 s\n".encode()
        folder.rename(away)
        assert started.stderr.readline() == f"nlct: {path}: No such file or directory\n".encode()
        before = (away / "nlct.prom").stat().st_ino
        away.rename(folder)
        while path.stat().st_ino == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert end(started, signal.SIGTERM) == (0, b"")


def test_a_namespace_that_is_not_there_yet_is_told() -> None:
    """It is no error: it may come."""
    started, url = begin("--netns", "/nlct/none")
    assert named(read(get(url)[1]), "nlct_up") == {(): 0}
    assert end(started, signal.SIGTERM) == (0, b"")


def test_without_its_library_it_says_what_is_missing(where: str) -> None:
    """One line, with the extra that brings it."""
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import nlct.cli; sys.argv[0] = 'nlct'; nlct.cli.main()"
    )
    done = subprocess.run(
        [NLCT[0], "-c", code, "exporter", where],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert done.returncode == 1
    assert "pip install 'nlct[exporter]'" in done.stderr
    assert done.stderr.count("\n") == 1
