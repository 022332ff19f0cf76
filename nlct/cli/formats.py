"""The formats of ``nlct dump``: each writes the flows that match to a binary file."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Protocol

from nlct._fields import FIELDS, column_reader
from nlct.cli.app import Failure
from nlct.cli.output import word
from nlct.cli.progress import Bar
from nlct.conntrack import Conntrack
from nlct.filter import Filter
from nlct.table import COLUMNS, FlowTable


class Output(Protocol):
    """What is written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""


class Job(NamedTuple):
    """What to write, and where; ``bar`` shows how far it is.

    ``netns``: the namespace's name, if it is to be written with each flow.
    """

    ct: Conntrack
    wanted: Filter
    columns: tuple[str, ...] | None
    out: Output
    bar: Bar
    netns: str | None = None


# Lines -------------------------------------------------------------------------------------------


def text(job: Job) -> None:
    """Write the lines of ``conntrack -L`` or, of columns, the values with tabs between."""
    if job.columns is None:
        done = 0
        for lines in job.ct.dump_text(job.wanted):
            job.out.write(lines if job.netns is None else _named(lines, f"{job.netns}: "))
            # Counting lines takes time.
            if job.bar.active:
                done += lines.count(b"\n")
                job.bar.at(done)
        return
    first = () if job.netns is None else (job.netns,)
    _write_lines(job, ("\t".join((*first, *map(word, row))) for row in _rows(job, job.columns)))


def save(job: Job) -> None:
    """Write the lines of ``conntrack -L -o save``."""
    done = 0
    for lines in job.ct.dump_save(job.wanted):
        job.out.write(lines)
        if job.bar.active:
            done += lines.count(b"\n")
            job.bar.at(done)


def _named(lines: bytes, name: str) -> bytes:
    """Begin each line with a name."""
    return b"".join(name.encode() + line for line in lines.splitlines(keepends=True))


def ndjson(job: Job) -> None:
    """Write an object for each flow; of columns, a flat one."""
    import json  # noqa: PLC0415 - text does without

    columns = job.columns
    first = {} if job.netns is None else {"netns": job.netns}
    objects: Iterator[dict[str, Any]]
    if columns is None:
        objects = (flow.to_dict() for flow in job.ct.dump(job.wanted))
    else:
        objects = (dict(zip(columns, row)) for row in _rows(job, columns))
    _write_lines(job, (json.dumps({**first, **found} if first else found) for found in objects))


def _write_lines(job: Job, lines: Iterable[str]) -> None:
    for done, line in enumerate(lines, 1):
        job.out.write(line.encode() + b"\n")
        if done % 1000 == 0:
            job.bar.at(done)


def _rows(job: Job, columns: Iterable[str]) -> Iterator[list[Any]]:
    """Yield the values of each flow as JSON has them; absent is None."""
    readers = [(column_reader(name), FIELDS[name].plain) for name in columns]
    return ([plain(read(flow)) for read, plain in readers] for flow in job.ct.dump(job.wanted))


# Arrow -------------------------------------------------------------------------------------------


def arrow_stream(job: Job) -> None:
    """Write Arrow's IPC stream, which a pipe can carry."""
    ipc = importlib.import_module("pyarrow.ipc")
    _write_batches(job, lambda schema: ipc.new_stream(job.out, schema))


def arrow_file(job: Job) -> None:
    """Write Arrow's IPC file, which readers can map into memory."""
    ipc = importlib.import_module("pyarrow.ipc")
    _write_batches(job, lambda schema: ipc.new_file(job.out, schema))


def parquet(job: Job) -> None:
    """Write a Parquet file."""
    files = importlib.import_module("pyarrow.parquet")
    _write_batches(job, lambda schema: files.ParquetWriter(job.out, schema))


def _write_batches(job: Job, open_writer: Callable[[Any], Any]) -> None:
    """Write batch by batch, a record batch or row group each: no more is ever in memory."""
    pyarrow = importlib.import_module("pyarrow")
    # Every batch has all columns, so that all are of one schema.
    columns = COLUMNS if job.columns is None else job.columns
    nothing = FlowTable.from_flows(())
    done = 0
    with open_writer(pyarrow.schema(nothing.arrow(columns=columns))) as writer:
        for batch in job.ct.batches(job.wanted, columns=columns):
            writer.write_table(pyarrow.table(batch.arrow(columns=columns)).combine_chunks())
            done += len(batch)
            job.bar.at(done)


def require_arrow() -> None:
    """Fail if a module that Arrow and Parquet need is missing."""
    for name in ("pyarrow", "nanoarrow"):
        try:
            importlib.import_module(name)
        except ImportError as exc:
            raise Failure(
                f"no module {name!r}; Arrow and Parquet need: pip install 'nlct[parquet]'"
            ) from exc
