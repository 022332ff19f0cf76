"""nlct in a process of its own. It needs nothing of bench/, so any checkout may be imported.

--old-kernel    ask the kernel for no filter
--one-cpu       use one processor, so that nothing is received ahead
--cold          neither probe nor count first
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Callable

import listening
from listening import all_at_once, zones
from serve import serve

import nlct
from nlct.fill import FIRST_SOURCE, tables

Work = Callable[[], Any]


def storm(ct: nlct.Conntrack, first: str, count: str) -> Work:
    """So many zones, each asked for by a thread of its own, all at once."""
    flusher = nlct.Flusher(ct)
    ask_all = all_at_once(flusher.flush_zone, zones(first, count))

    def work() -> None:
        ask_all()
        flusher.close()

    return work


def delete(ct: nlct.Conntrack, first: str, step: str, count: str) -> Work:
    """The flows of so many sources."""
    addresses = [IPv4Address(FIRST_SOURCE + int(first) + int(step) * n) for n in range(int(count))]
    return lambda: ct.delete(nlct.Filter(src=addresses))


def delete_flows(ct: nlct.Conntrack, zone: str) -> Work:
    """The flows of a zone, which were dumped before."""
    kept = list(ct.dump(zone=int(zone)))
    return lambda: ct.delete_flows(kept)


def delete_each(ct: nlct.Conntrack, zone: str) -> Work:
    """The same, one by one."""
    kept = list(ct.dump(zone=int(zone)))
    return lambda: [ct.delete_flow(flow) for flow in kept]


def create(ct: nlct.Conntrack, flows: str, count: str) -> Work:
    """What nlct.fill makes."""
    made = list(tables(int(flows), int(count)))
    return lambda: [ct.load(table) for table in made]


def loop(ct: nlct.Conntrack) -> None:
    """Every flow as an object, of which some things are read."""
    for flow in ct.dump():
        _ = flow.orig.src, flow.orig.dport, flow.zone


def arrow(ct: nlct.Conntrack) -> Work:
    """The columns to pyarrow, beyond table()."""
    import pyarrow  # noqa: PLC0415

    columns = ct.table()
    # What is loaded and made ready with the first use is not a table's.
    pyarrow.table(columns[:1])
    return lambda: pyarrow.table(columns)


def text(ct: nlct.Conntrack, path: str) -> None:
    """The lines of conntrack -L into a file."""
    with Path(path).open("wb") as file:
        for lines in ct.dump_text():
            file.write(lines)


def each(items: Iterable[object]) -> None:
    for _ in items:
        pass


OPERATIONS: dict[str, Callable[..., Work]] = {
    "flush_zone": lambda ct, zone, strategy="auto": (
        lambda: ct.flush_zone(int(zone), strategy=strategy)
    ),
    "flush_zones": lambda ct, first, count, strategy: (
        lambda: ct.flush_zones(zones(first, count), strategy=strategy)
    ),
    "storm": storm,
    "delete": delete,
    "delete_flows": delete_flows,
    "delete_each": delete_each,
    "update": lambda ct, mark: lambda: ct.update_all(nlct.ALL, mark=int(mark)),
    "create": create,
    "loop": lambda ct: partial(loop, ct),
    "dump": lambda ct: lambda: each(ct.dump()),
    "zone_loop": lambda ct, zone: lambda: each(ct.dump(zone=int(zone))),
    "batches": lambda ct: lambda: each(ct.batches()),
    "table": lambda ct: ct.table,
    "zone_table": lambda ct, zone: partial(ct.table, zone=int(zone)),
    "arrow": arrow,
    "count_by": lambda ct, *fields: partial(ct.count_by, *fields),
    "sum_by": lambda ct, of, *fields: partial(ct.sum_by, *fields, of=of),
    "text": lambda ct, path: partial(text, ct, path),
    "listen": listening.listen,
    "audit": listening.audit,
    "events": listening.events,
}


def notes(result: object) -> dict[str, Any]:
    if isinstance(result, dict) and all(isinstance(key, str) for key in result):
        return result
    if isinstance(result, nlct.FlushResult):
        if not result.complete:
            raise RuntimeError(str(result))
        return {"strategy": result.strategy, "deleted": result.deleted}
    if isinstance(result, nlct.UpdateResult):
        if not result.complete:
            raise RuntimeError(str(result))
        return {"updated": result.updated}
    if isinstance(result, nlct.FlowTable):
        return {"flows": len(result), "bytes_per_flow": round(result.nbytes / len(result), 1)}
    return {}


if "--one-cpu" in sys.argv:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
with nlct.Conntrack(kernel_filter="--old-kernel" not in sys.argv) as conntrack:
    if "--cold" not in sys.argv:
        nlct.probe()
        conntrack.count()
    operations = {name: partial(make, conntrack) for name, make in OPERATIONS.items()}
    serve({**operations, **listening.OPERATIONS}, nlct.__file__, notes)
