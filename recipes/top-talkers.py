"""Show which hosts have moved the most bytes, without this one.

    python top-talkers.py 20

Flows have counters if the sysctl nf_conntrack_acct was on when they began.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from typing import Any

import duckdb

import nlct

QUERY = """
    select
        host,
        count(*) as flows,
        sum(sent)::uint64 as sent,
        sum(received)::uint64 as received
    from (
        select src as host, bytes_orig as sent, bytes_reply as received from flows
        union all
        select reply_src, bytes_reply, bytes_orig from flows  -- behind a NAT, whoever answers
    )
    where not list_contains($own, host) and sent is not null
    group by host
    order by sum(sent) + sum(received) desc, host
    limit $top
"""


def own_addresses() -> list[str]:
    """Return the addresses of this host."""
    said = subprocess.run(["ip", "--json", "address"], stdout=subprocess.PIPE, check=True).stdout
    return [one["local"] for link in json.loads(said) for one in link.get("addr_info", ())]


def top(flows: nlct.FlowTable, own: list[str], number: int) -> list[tuple[Any, ...]]:
    """Return the hosts: address, flows, bytes sent and received."""
    with duckdb.connect() as database:
        columns = ["src", "reply_src", "bytes_orig", "bytes_reply"]
        database.register("flows", flows.arrow(columns=columns))
        return database.execute(QUERY, {"own": own, "top": number}).fetchall()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Show which hosts have moved the most bytes.")
    parser.add_argument("number", type=int, nargs="?", default=10)
    args = parser.parse_args()
    with nlct.Conntrack() as ct:
        for reason in ct.missing(["bytes_orig"]).values():
            raise SystemExit(reason)
        flows = ct.table()
    if uncounted := flows["bytes_orig"].count(None):
        print(f"{uncounted:,} flows began before nf_conntrack_acct was on, and are left out")
    print(f"{'host':40} {'flows':>8} {'sent':>16} {'received':>16}")
    for host, count, sent, received in top(flows, own_addresses(), args.number):
        print(f"{host:40} {count:8,} {sent:16,} {received:16,}")


if __name__ == "__main__":
    main()
