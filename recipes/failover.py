"""Carry the connections of a router over to the one that takes its place.

    python failover.py save FILE
    python failover.py restore FILE

Save on the router that works, before a planned switch or by a timer. Restore on the other when it
takes over, with its rules loaded.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import subprocess
from pathlib import Path

import nlct


def own_addresses() -> set[str]:
    """Return the addresses of this node."""
    said = subprocess.run(["ip", "--json", "address"], stdout=subprocess.PIPE, check=True).stdout
    return {one["local"] for link in json.loads(said) for one in link.get("addr_info", ())}


def save(file: Path) -> int:
    """Save what is routed, all or nothing; return how many flows."""
    own = own_addresses()
    # What begins or ends at this very node, such as a login, cannot go on at another.
    routed = ~nlct.Filter(src=own) & ~nlct.Filter(reply_src=own)
    new = file.with_name(file.name + ".new")
    lines = 0
    with nlct.Conntrack() as ct, new.open("wb") as out:
        for part in ct.dump_json(routed):
            lines += part.count(b"\n")
            out.write(part)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
    return lines


def restore(file: Path) -> nlct.LoadResult:
    """Create the flows that were saved, with NAT, helpers and sequence adjustment."""
    with nlct.Conntrack() as ct:
        return ct.load(flow for flow in nlct.read_flows(file) if flow.timeout)


def main() -> None:
    """Save or restore."""
    parser = argparse.ArgumentParser(description="Carry connections over to another router.")
    parser.add_argument("what", choices=["save", "restore"])
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    if args.what == "save":
        print(f"{save(args.file)} flows saved")
        return
    result = restore(args.file)
    # Whoever spoke before this was run has a flow by now.
    there = result.failed.get(errno.EEXIST, 0)
    print(f"{result.created} flows restored, {there} there already")
    if sum(result.failed.values()) > there or result.dropped:
        raise SystemExit(f"not all could be restored: {result}")


if __name__ == "__main__":
    main()
