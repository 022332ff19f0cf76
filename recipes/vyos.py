"""VyOS's `show conntrack table`, `show conntrack statistics` and log of connections, on nlct.

vyos.py show [--family inet6] [--raw]
vyos.py show_statistics [--raw]
vyos.py log --config FILE
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nlct

HEADERS = (
    *("Id", "Original src", "Original dst", "Reply src", "Reply dst"),
    *("Protocol", "State", "Timeout", "Mark", "Zone"),
)
COUNTERS = {
    "Found": "found",
    "Invalid": "invalid",
    "Insert": "insert",
    "Insert fail": "insert_failed",
    "Drop": "drop",
    "Early drop": "early_drop",
    "Errors": "error",
    "Search restart": "search_restart",
}

MEMBERS = ("src", "dst", "sport", "dport", "icmp_type", "icmp_code", "icmp_id")


# Tables -------------------------------------------------------------------------------------------


def table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return lines of columns with a ruler below the headers; what is absent is blank."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    cells.insert(1, ["-" * width for width in widths])
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join(lines)


def show(ct: nlct.Conntrack, family: str, raw: bool) -> str:
    """Return the flows of a family, as a table or as JSON."""
    flows = ct.dump(nlct.Filter(family="ipv6" if family == "inet6" else "ipv4"))
    if raw:
        return json.dumps([flow.to_dict() for flow in flows])
    rows = [_row(flow) for flow in flows]
    return table(HEADERS, rows) if rows else "Entries not found"


def _row(flow: nlct.Flow) -> list[object]:
    ends = []
    for way in (flow.orig, flow.reply or nlct.Tuple()):
        for address, port in ((way.src, way.sport), (way.dst, way.dport)):
            host = f"[{address}]" if port and flow.family == socket.AF_INET6 else address
            ends.append(f"{host}:{port}" if port else host)
    timeout = "n/a" if flow.timeout is None else flow.timeout  # offloaded flows have none
    return [flow.id, *ends, _name(flow), _state(flow), timeout, flow.mark, flow.zone or None]


def show_statistics(ct: nlct.Conntrack, raw: bool) -> str:
    """Return what the kernel counts on each processor, as a table or as JSON."""
    names = COUNTERS.values()
    rows = [[cpu, *(getattr(one, name) for name in names)] for cpu, one in ct.stats().cpus.items()]
    if raw:
        return json.dumps([dict(zip(("cpu", *names), row)) for row in rows])
    return table(("CPU", *COUNTERS), rows)


def _name(flow: nlct.Flow) -> str:
    proto = flow.orig.proto
    return proto.name.lower().replace("_", "-") if isinstance(proto, nlct.Proto) else str(proto)


def _state(flow: nlct.Flow) -> str | None:
    return None if flow.state is None else getattr(flow.state, "name", str(flow.state))


# Log ----------------------------------------------------------------------------------------------


def filters(config: dict[str, Any]) -> dict[str, nlct.Filter]:
    """Return which flows each kind of event is logged of: {"event": {"new": {"tcp": {}}}}.

    No protocol means all of them; "other" is all but ICMP, TCP and UDP.
    """
    named = nlct.Filter(proto={"icmp", "tcp", "udp"})
    wanted = {}
    for kind, protocols in config["event"].items():
        some = nlct.Filter(proto=set(protocols) - {"other"})
        other = ~named if "other" in protocols else nlct.Filter(proto=set())
        wanted[kind] = some | other if protocols else nlct.ALL
    return wanted


def log(ct: nlct.Conntrack, wanted: dict[str, nlct.Filter]) -> Iterator[str]:
    """Yield a line for each event, and one where the kernel dropped some; it never ends."""
    with ct.events(*wanted) as events:
        print("Listening to conntrack events.", file=sys.stderr, flush=True)
        for event in events:
            if isinstance(event, nlct.Overrun):
                yield f"[LOST]    {event.lost or 'some'} events"
            elif wanted[event.kind].matches(event.flow):
                yield line(event)


def line(event: nlct.Event) -> str:
    """Return an event as a line of the log."""
    flow, status = event.flow, event.flow.status or nlct.Status(0)
    number = int(flow.orig.proto or 0)
    words = [f"[{event.kind.upper()}]".ljust(9), flow.id, _name(flow).ljust(8), number]
    words += [flow.timeout, _state(flow), _end(flow, "orig")]
    words += [None if status & nlct.Status.SEEN_REPLY else "[UNREPLIED]", _end(flow, "reply")]
    words += [None if flow.mark is None else f"mark={flow.mark}"]
    words += [f"zone={flow.zone}" if flow.zone else None]
    if status & nlct.Status.OFFLOAD:
        words += ["[OFFLOAD]"]
    elif status & nlct.Status.ASSURED:
        words += ["[ASSURED]"]
    start, stop = flow.timestamp_start, flow.timestamp_stop
    if start is not None and stop is not None:
        words += [f"start={start} stop={stop} delta={(stop - start) / 1e9:.6f}"]
    return " ".join(str(word) for word in words if word is not None)


def _end(flow: nlct.Flow, way: str) -> str:
    """Return the addresses, ports and counters of one direction."""
    one = flow.orig if way == "orig" else flow.reply
    named = [(name.replace("icmp_", ""), getattr(one, name, None)) for name in MEMBERS]
    words = [f"{name}={value}" for name, value in named if value is not None]
    for counter in ("packets", "bytes"):
        value = getattr(flow, f"{counter}_{way}")
        words += [] if value is None else [f"{counter}={value}"]
    return " ".join(words)


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("show", "show_statistics", "log"))
    parser.add_argument("--family", choices=("inet", "inet6"), default="inet")
    parser.add_argument("--raw", action="store_true", help="JSON")
    parser.add_argument("--config", type=Path, help="which events to log, as JSON")
    parser.add_argument("--netns", help="a network namespace")
    args = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that "| head" ends it quietly
    with nlct.Conntrack(args.netns) as ct:
        if args.command == "show":
            print(show(ct, args.family, args.raw))
        elif args.command == "show_statistics":
            print(show_statistics(ct, args.raw))
        elif args.config is None:
            parser.error("log needs --config")
        else:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())
            for said in log(ct, filters(json.loads(args.config.read_text()))):
                print(said, flush=True)


if __name__ == "__main__":
    main()
