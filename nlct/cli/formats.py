"""The formats of ``nlct dump``: each writes the flows that match to a binary file."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Protocol

from nlct._fields import FIELDS, NumberField
from nlct.cli.app import Failure
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
    first = b"" if job.netns is None else job.netns.encode()
    first += b"" if job.netns is None else b": " if job.columns is None else b"\t"
    for lines in _counted(job, job.ct.dump_text(job.wanted, columns=job.columns)):
        job.out.write(b"".join(first + line for line in lines.splitlines(True)) if first else lines)


def save(job: Job) -> None:
    """Write the lines of ``conntrack -L -o save``."""
    for lines in _counted(job, job.ct.dump_save(job.wanted)):
        job.out.write(lines)


def ndjson(job: Job) -> None:
    """Write an object for each flow; of columns, a flat one."""
    first = b""
    if job.netns is not None:
        import json  # noqa: PLC0415 - most dumps do without

        first = b'{"netns": ' + json.dumps(job.netns).encode() + b", "
    for lines in _counted(job, job.ct.dump_json(job.wanted, columns=job.columns)):
        # A line of JSON holds no other end of a line.
        named = lines.replace(b"\n{", b"\n" + first) if first else lines
        job.out.write(first + named[1:] if first and lines else named)


def _counted(job: Job, dump: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines, and show how many there are so far."""
    done = 0
    for lines in dump:
        yield lines
        # Counting them takes time.
        if job.bar.active:
            done += lines.count(b"\n")
            job.bar.at(done)


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
    # To look for repeated values in every column takes longer than to compress them.
    words = [
        name for name, field in FIELDS.items() if isinstance(field, NumberField) and field.words
    ]
    _write_batches(job, lambda schema: files.ParquetWriter(job.out, schema, use_dictionary=words))


def _write_batches(job: Job, open_writer: Callable[[Any], Any]) -> None:
    """Write batch by batch, a record batch or row group each: no more is ever in memory."""
    pyarrow = importlib.import_module("pyarrow")
    # Every batch has all columns, so that all are of one schema.
    columns = COLUMNS if job.columns is None else job.columns
    nothing = FlowTable.from_flows(())
    done = 0
    with open_writer(pyarrow.schema(nothing.arrow(columns=columns))) as writer:
        for batch in job.ct.batches(job.wanted, columns=columns):
            # pyarrow.table() would load pandas, which takes longer than many a dump.
            stream = pyarrow.RecordBatchReader.from_stream(batch.arrow(columns=columns))
            writer.write_table(stream.read_all().combine_chunks())
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
