"""recipes/flush-on-delete.py: an agent that is told which zones go, over its socket."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import nlct
from tests.support import flows, oracle
from tests.support.recipes import LONG, command, place, running


class Client:
    """A client of the agent."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(LONG)
        self._sock.connect(str(path))
        self._lines = self._sock.makefile("r")

    def say(self, *lines: str) -> None:
        """Send lines."""
        self._sock.sendall("".join(f"{line}\n" for line in lines).encode())

    def hear(self) -> dict[str, Any]:
        """Return the next answer."""
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line and return its answer."""
        self.say(line)
        return self.hear()

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._sock.close()


@contextmanager
def agent(
    path: Path, netns: nlct.Netns, *options: str
) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
    """Start the agent, and a client of it; in the end it has taken its socket away."""
    words = command("flush-on-delete", path, place(netns), *options)
    with running(b"listening", words) as program, closing(Client(path)) as client:
        yield client, program
    assert not path.exists()


def test_an_agent_flushes_the_zones_it_is_told(
    tmp_path: Path, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """Each and nothing else, also flows made a moment ago; out of memory once it is in step."""
    for flow in flows.menagerie():
        ct.create(flow)
    with agent(tmp_path / "socket", netns) as (client, _):
        before = oracle.dump(netns)
        first = client.ask("flush 256")
        assert (first["zone"], first["deleted"], first["failed"]) == (256, 7, {})
        assert oracle.dump(netns) == oracle.outside(before, {256})
        while not client.ask("state")["in_step"]:
            pass
        for flow in flows.menagerie([9]):
            ct.create(flow)
        after = oracle.dump(netns)
        for zone in (9, 5, 65535):
            before = after
            answer = client.ask(f"flush {zone}")
            assert (answer["strategy"], answer["passes"]) == ("mirror", 0)
            assert answer["deleted"] == len(oracle.inside(before, {zone})) > 0
            after = oracle.dump(netns)
            assert after == oracle.outside(before, {zone})
        assert client.ask("flush 4")["deleted"] == 0


def test_an_agent_refuses_what_it_may_not_flush(
    tmp_path: Path, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """Zone 0 is the host's, unless it is told otherwise; nonsense is answered, and nothing goes."""
    flows.populate(ct)
    before = oracle.dump(netns)
    path = tmp_path / "socket"
    with agent(path, netns, "--zones=1-100") as (client, _):
        assert path.stat().st_mode & 0o777 == 0o600
        for wrong in ("flush 0", "flush 101", "flush -1", "flush 65536"):
            assert client.ask(wrong)["error"].startswith("zone must be from 1 to 100"), wrong
        for wrong in (
            *("flush", "flush seven", "flush 7 8", "", "flood 7", "state of affairs"),
            *("flush 1_0", "flush \u0667", "flush +7"),
        ):
            answer = client.ask(wrong)
            assert answer["error"], wrong
            assert answer["asked"] == wrong
        with closing(Client(path)) as other:
            other._sock.sendall(b"\xff\n")
            assert other._lines.readline() == ""
        # It died in the middle of "flush 70", say.
        with closing(Client(path)) as other:
            other._sock.sendall(b"flush 7")
            other._sock.shutdown(socket.SHUT_WR)
            assert other._lines.readline() == ""
        assert oracle.dump(netns) == before
        assert client.ask("flush 7")["deleted"] == 7
    assert oracle.dump(netns) == oracle.outside(before, {7})
    with agent(path, netns, "--zones=0-0") as (client, _):
        assert client.ask("flush 0")["deleted"] == 7
    assert oracle.dump(netns) == oracle.outside(before, {0, 7})


def test_an_agent_serves_many_deletions_at_once(
    tmp_path: Path, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """Of several clients, each with an answer of its own; one hangs up before it has it."""
    zones, each = 100, 3
    ct.load(flows.udp(number, zone=1 + number % (2 * zones)) for number in range(2 * zones * each))
    before = oracle.dump(netns)
    path = tmp_path / "socket"
    with agent(path, netns) as (client, _), ExitStack() as stack:
        clients = [client, *(stack.enter_context(closing(Client(path))) for _ in range(3))]
        hasty = Client(path)
        hasty.say("flush 1")
        hasty.close()
        turns = list(zip(range(2, zones + 1), itertools.cycle(clients)))
        for zone, one in turns:
            one.say(f"flush {zone}")
        answers = [one.hear() for _, one in turns]
        assert sorted(answer["zone"] for answer in answers) == list(range(2, zones + 1))
        assert {answer["deleted"] for answer in answers} == {each}
        while oracle.inside(oracle.dump(netns), {1}):
            pass
        assert oracle.dump(netns) == oracle.outside(before, range(1, zones + 1))


def test_an_agent_answers_a_client_that_sends_faster_than_it_reads(
    tmp_path: Path, netns: nlct.Netns
) -> None:
    """Every line, and without another task for each of them."""
    lines = 5000
    with agent(tmp_path / "socket", netns, "--zones=1-9") as (client, _):
        sender = threading.Thread(target=client.say, args=["flush 0"] * lines)
        sender.start()
        assert all(client.hear()["error"] for _ in range(lines))
        sender.join()


def test_an_agent_that_has_lost_events_flushes_all_the_same(
    tmp_path: Path, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """It was stopped while more flows came than fit into its queue, and is asked at once."""
    with agent(tmp_path / "socket", netns, "--buffer=4096") as (client, program):
        while not client.ask("state")["in_step"]:
            pass
        program.send_signal(signal.SIGSTOP)
        os.waitpid(program.pid, os.WUNTRACED)
        ct.load(flows.udp(number, zone=1 + number % 10) for number in range(500))
        before = oracle.dump(netns)
        client.say("flush 7")
        program.send_signal(signal.SIGCONT)
        answer = client.hear()
        assert (answer["deleted"], answer["failed"]) == (50, {})
        assert oracle.dump(netns) == oracle.outside(before, {7})
        state = client.ask("state")
        assert state["overruns"] >= 1
        assert state["lost"] > 0
        assert client.ask("flush 8")["deleted"] == 50
        assert oracle.dump(netns) == oracle.outside(before, {7, 8})


def test_an_agent_dumps_where_the_kernel_tells_nothing(
    tmp_path: Path, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """The sysctl nf_conntrack_events is 0."""
    fd = netns.open_file("/proc/sys/net/netfilter/nf_conntrack_events", os.O_WRONLY)
    os.write(fd, b"0")
    os.close(fd)
    flows.populate(ct)
    before = oracle.dump(netns)
    with agent(tmp_path / "socket", netns) as (client, _):
        client.say("flush 7", "flush 256")
        assert {client.hear()["deleted"] for _ in range(2)} == {7}
        assert client.ask("state") == {"asked": "state"}
    assert oracle.dump(netns) == oracle.outside(before, {7, 256})


def test_an_agent_ends_while_clients_wait_and_begins_where_another_was_killed(
    tmp_path: Path, netns: nlct.Netns, ct: nlct.Conntrack
) -> None:
    """What it was flushing is gone, and a socket that was left behind is no hindrance."""
    path = tmp_path / "socket"
    ct.load(flows.udp(number, zone=7) for number in range(100))
    with closing(socket.socket(socket.AF_UNIX)) as left_behind:
        left_behind.bind(str(path))
    with ExitStack() as stack:
        with running(b"listening", command("flush-on-delete", path, place(netns))):
            idle, asked = (stack.enter_context(closing(Client(path))) for _ in range(2))
            assert asked.ask("flush 7")["deleted"] == 100
        assert idle._lines.readline() == asked._lines.readline() == ""
        assert not path.exists()
