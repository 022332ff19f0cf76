"""recipes/vyos.py: the table says what conntrack says, and the log what happened."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import nlct
from nlct import Flow, Tuple
from tests.support import flows, recipes, tool, traffic
from tests.support.recipes import command, output, place, running

SIDES = (("src", "sport"), ("dst", "dport"))
HEADERS = "Id|Original src|Original dst|Reply src|Reply dst|Protocol|State|Timeout|Mark|Zone"


def cells(text: str) -> list[list[str]]:
    """The rows of a table, cut where its ruler says."""
    header, ruler, *lines = text.splitlines()
    places = [found.span() for found in re.finditer("-+", ruler)]
    return [[line[start:stop].strip() for start, stop in places] for line in (header, *lines)]


def end(family: int, host: str, port: int | None) -> str:
    """An address and perhaps a port, as the table has them."""
    if not port:
        return host
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def rows_of_tool(netns: nlct.Netns) -> dict[int, list[list[str]]]:
    """What the table of each family should say, out of the XML that VyOS reads."""
    names = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 58: "icmpv6"}
    rows: dict[int, list[list[str]]] = {socket.AF_INET: [], socket.AF_INET6: []}
    for flow in tool.xml(netns):
        family, orig, reply = flow["family"], flow["orig"], flow["reply"]
        sides = [(way[side], way.get(port)) for way in (orig, reply) for side, port in SIDES]
        state = tool.STATES[flow["tcp_state"]] if "tcp_state" in flow else ""
        row = [flow["id"], *(end(family, *side) for side in sides), names[orig["proto"]], state]
        rows[family].append([str(cell) for cell in (*row, flow["mark"], flow.get("zone", ""))])
    return rows


def test_vyos_shows_what_conntrack_lists(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Flows of every kind, in both families; the timeout goes by itself."""
    vyos = recipes.load("vyos")
    for flow in flows.menagerie((0, 7, 65535)):
        ct.create(flow)
    for family, expected in rows_of_tool(netns).items():
        name = "inet" if family == socket.AF_INET else "inet6"
        header, *rows = cells(vyos.show(ct, name, False))
        assert "|".join(header) == HEADERS
        assert all(3000 < int(row[7]) <= 3600 for row in rows)
        assert sorted(row[:7] + row[8:] for row in rows) == sorted(expected)
        raw = json.loads(vyos.show(ct, name, True))
        assert sorted(str(flow["id"]) for flow in raw) == sorted(row[0] for row in rows)


def test_vyos_shows_an_empty_table_and_the_counters(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """The counters of each processor."""
    assert output(command("vyos", "show", "--family=inet6", place(netns))) == "Entries not found\n"
    ct.create(flows.udp(1))
    header, *rows = cells(output(command("vyos", "show_statistics", place(netns))))
    assert header[:4] == ["CPU", "Found", "Invalid", "Insert"]
    assert {int(row[0]) for row in rows} == set(ct.stats().cpus)
    raw = json.loads(recipes.load("vyos").show_statistics(ct, True))
    assert sum(cpu["insert"] for cpu in raw) == sum(int(row[3]) for row in rows) == 1


def test_vyos_says_offloaded_flows_have_no_timeout() -> None:
    """The kernel does not send it."""
    vyos = recipes.load("vyos")
    flow = Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2), id=7)

    class Table:
        def dump(self, _: nlct.Filter) -> Iterator[Flow]:
            return iter([flow])

    assert cells(vyos.show(Table(), "inet", False))[1][:8] == [
        *("7", "10.0.0.1:1", "10.0.0.2:2", "", "", "udp", "", "n/a")
    ]


def test_vyos_logs_connections(tmp_path: Path) -> None:
    """Real ones, of two zones and both families: each event that was asked for, and no other."""
    config = tmp_path / "log.json"
    wanted = {"new": {"tcp": {}, "other": {}}, "update": {"tcp": {}}, "destroy": {}}
    config.write_text(json.dumps({"event": wanted}))
    with traffic.site(5, 7) as where:
        for name in ("nf_conntrack_acct", "nf_conntrack_timestamp"):
            fd = where.server.open_file(f"/proc/sys/net/netfilter/{name}", os.O_WRONLY)
            os.write(fd, b"1")
            os.close(fd)
        words = command("vyos", "log", "--config", config, place(where.server))
        with running(b"Listening", words) as program, nlct.Conntrack(where.server) as ct:
            assert program.stdout is not None
            for zone, kind, family in (
                (5, socket.SOCK_STREAM, socket.AF_INET),
                (7, socket.SOCK_STREAM, socket.AF_INET6),
                (7, socket.SOCK_DGRAM, socket.AF_INET),
            ):
                with closing(traffic.Talk(where, zone, kind, family)) as talk:
                    assert talk.echoes()
            there = list(ct.dump())
            ct.flush_all(strategy="scan")
            ends = itertools.count(1)
            said = []
            for raw in program.stdout:
                said.append(raw.decode().rstrip())
                if said[-1].startswith("[DESTROY]") and next(ends) == len(there):
                    break
    kinds = {(line.split()[0], line.split()[2]) for line in said}
    assert kinds >= {("[NEW]", "tcp"), ("[UPDATE]", "tcp"), ("[DESTROY]", "tcp")}
    assert ("[DESTROY]", "udp") in kinds
    assert not kinds & {("[NEW]", "udp"), ("[UPDATE]", "udp")}
    (new,) = [line for line in said if line.startswith("[NEW]") and " zone=5" in line]
    assert re.fullmatch(
        r"\[NEW\]     \d+ tcp      6 \d+ SYN_SENT "
        rf"src=10\.77\.0\.2 dst=10\.77\.0\.1 sport=\d+ dport={traffic.PORT}( packets=.*)? "
        rf"\[UNREPLIED\] src=10\.77\.0\.1 dst=10\.77\.0\.2 sport={traffic.PORT} dport=\d+.*"
        r"( mark=0)? zone=5",
        new,
    ), new
    (gone,) = [line for line in said if line.startswith("[DESTROY]") and " udp " in line]
    assert re.search(r"packets=1 bytes=\d+ src=.* packets=1 bytes=\d+( mark=0)? zone=7", gone), gone
    assert re.search(r"start=\d{19} stop=\d{19} delta=\d+\.\d{6}$", gone), gone
    six = [line for line in said if "src=fd77:2::2" in line]
    assert six
    assert all(" zone=7" in line for line in six)


def test_vyos_logs_what_the_kernel_dropped() -> None:
    """A line of its own, so that nobody takes the log for whole."""
    vyos = recipes.load("vyos")

    class Table:
        @contextmanager
        def events(self, *kinds: str) -> Iterator[list[nlct.Overrun]]:
            assert kinds == ("new",)
            yield [nlct.Overrun(5), nlct.Overrun(None)]

    lines = list(vyos.log(Table(), vyos.filters({"event": {"new": {}}})))
    assert lines == ["[LOST]    5 events", "[LOST]    some events"]
