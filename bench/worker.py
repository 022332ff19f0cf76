"""nlct in a process of its own: answers each line with the seconds that it took.

After them stands what else there is to say, as the strategy of a flush. What an operation is
given is made before the clock starts. "peak OPERATION ..." answers with the KiB that the
operation adds to the most memory that the process ever had.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Callable

import nlct
from nlct.fill import FIRST_SOURCE, tables

Work = Callable[[], Any]


def flush_zone(ct: nlct.Conntrack, zone: str, strategy: str = "auto") -> Work:
    """One zone."""
    return lambda: ct.flush_zone(int(zone), strategy=strategy)


def storm(ct: nlct.Conntrack, first: str, zones: str) -> Work:
    """So many zones, each asked for by a thread of its own, all at once."""
    together = threading.Barrier(int(zones) + 1)
    flusher = nlct.Flusher(ct)

    def ask(zone: int) -> None:
        together.wait()
        flusher.flush_zone(zone)

    threads = [
        threading.Thread(target=ask, args=(zone,))
        for zone in range(int(first), int(first) + int(zones))
    ]
    for thread in threads:
        thread.start()

    def work() -> None:
        together.wait()
        for thread in threads:
            thread.join()
        flusher.close()

    return work


def flush_zones(ct: nlct.Conntrack, first: str, zones: str, strategy: str) -> Work:
    """So many zones at once."""
    asked = range(int(first), int(first) + int(zones))
    return lambda: ct.flush_zones(asked, strategy=strategy)


def delete(ct: nlct.Conntrack, first: str, step: str, count: str) -> Work:
    """The flows of so many sources."""
    addresses = [IPv4Address(FIRST_SOURCE + int(first) + int(step) * n) for n in range(int(count))]
    return lambda: ct.delete(nlct.Filter(src=addresses))


def create(ct: nlct.Conntrack, flows: str, zones: str) -> Work:
    """What nlct.fill makes."""
    made = list(tables(int(flows), int(zones)))
    return lambda: [ct.load(table) for table in made]


def loop(ct: nlct.Conntrack) -> Work:
    """Every flow as an object, of which some things are read."""

    def work() -> None:
        for flow in ct.dump():
            _ = flow.orig.src, flow.orig.dport, flow.zone

    return work


def dump(ct: nlct.Conntrack) -> Work:
    """Every flow as an object."""
    return lambda: _each(ct.dump())


def zone_loop(ct: nlct.Conntrack, zone: str) -> Work:
    """The flows of a zone as objects."""
    return lambda: _each(ct.dump(zone=int(zone)))


def batches(ct: nlct.Conntrack) -> Work:
    """Columns, a batch at a time."""
    return lambda: _each(ct.batches())


def table(ct: nlct.Conntrack) -> Work:
    """All columns."""
    return ct.table


def zone_table(ct: nlct.Conntrack, zone: str) -> Work:
    """All columns of a zone."""
    return lambda: ct.table(zone=int(zone))


def arrow(ct: nlct.Conntrack) -> Work:
    """The columns to pyarrow, beyond table()."""
    import pyarrow  # noqa: PLC0415

    columns = ct.table()
    # What is loaded and made ready with the first use is not a table's.
    pyarrow.table(columns[:1])
    return lambda: pyarrow.table(columns)


def count_by(ct: nlct.Conntrack, field: str) -> Work:
    """How many flows there are of each."""
    return lambda: ct.count_by(field)


def text(ct: nlct.Conntrack, path: str) -> Work:
    """The lines of conntrack -L into a file."""

    def work() -> None:
        with Path(path).open("wb") as file:
            for lines in ct.dump_text():
                file.write(lines)

    return work


def _each(items: Iterable[object]) -> None:
    for _ in items:
        pass


OPERATIONS: dict[str, Callable[..., Work]] = {
    operation.__name__: operation
    for operation in (
        *(flush_zone, flush_zones, storm, delete, create, loop, dump, zone_loop, batches, table),
        *(zone_table, arrow, count_by, text),
    )
}


def _seconds(ct: nlct.Conntrack, operation: str, *arguments: str) -> str:
    work = OPERATIONS[operation](ct, *arguments)
    started = time.perf_counter()
    # Kept, so that what it takes to free it is not counted.
    result = work()
    seconds = time.perf_counter() - started
    return f"{seconds:.9f} {result.strategy if isinstance(result, nlct.FlushResult) else ''}"


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def _peak(ct: nlct.Conntrack, operation: str, *arguments: str) -> str:
    work = OPERATIONS[operation](ct, *arguments)
    before = _peak_kib()
    result = work()
    added = _peak_kib() - before
    return f"{added} {result.nbytes if isinstance(result, nlct.FlowTable) else ''}"


def main() -> None:
    """Answer until the input ends."""
    with nlct.Conntrack(kernel_filter="--old" not in sys.argv) as ct:
        nlct.probe()
        ct.count()
        print("ready", flush=True)
        for line in sys.stdin:
            operation, *arguments = line.split()
            try:
                if operation == "peak":
                    print(_peak(ct, *arguments), flush=True)
                else:
                    print(_seconds(ct, operation, *arguments), flush=True)
            except Exception as exc:
                print(f"error: {line.strip()}: {exc!r}", flush=True)


if __name__ == "__main__":
    main()
