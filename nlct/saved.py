"""Flows out of a file, whose content says how they were saved."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, Callable

from nlct import _check
from nlct._ffi import ffi, lib
from nlct.errors import check
from nlct.flow import Flow, pointers
from nlct.table import Columns, FlowTable

# Read at once: a millisecond of parsing.
BLOCK = 1 << 18
LONGEST_LINE = 1 << 20
# How much of a wrong word is shown.
SHOWN = 60

_PARQUET = b"PAR1"
_ARROW_FILE = b"ARROW1"
_ARROW_STREAM = b"\xff\xff\xff\xff"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_LIBRARIES = ("pyarrow", "pyarrow.ipc")
_SPACE = b" \t\r\n"


def read_flows(
    file: str | os.PathLike[str] | BinaryIO,
    *,
    progress: Callable[[int], None] | None = None,
) -> FlowTable:
    """Read flows that were saved, ready for Conntrack.load().

    ``file``: a path, or a binary file. Its content tells what it holds: lines of
    ``conntrack -L -o save``, as dump_save() and ``conntrack -R`` have them; a JSON object a line,
    as to_dict() returns it; an Arrow IPC stream or file, or Parquet, with columns as FlowTable
    exports them. The last three need ``pip install 'nlct[parquet]'``. An empty file has no flows.
    nlct calls ``progress`` now and then with the number of flows read so far.

    Raises ValueError for the first thing that cannot be read, with the number of its line: so
    nothing is created of a file that is cut off or was edited badly. Raises OSError if the file
    cannot be read, and ImportError without what Arrow needs.
    """
    _check.function("progress", progress)
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as opened:
            return _read(opened, progress)
    return _read(file, progress)


def _read(file: BinaryIO, progress: Callable[[int], None] | None) -> FlowTable:
    head = file.read(BLOCK)
    if head.startswith((_PARQUET, _ARROW_FILE, _ARROW_STREAM)):
        return _read_arrow(head, file)
    # As far as the block goes. A file of spaces has no flows.
    first = head.lstrip(_SPACE)[:1]
    if first == b"{":
        add: Callable[[Columns, bytes, int], int] = _add_objects
    elif first in (b"-", b"#", b""):
        add = _add_lines
    else:
        raise ValueError(
            "the file must have lines of conntrack -o save, JSON objects, Arrow or Parquet; it "
            f"begins with {_word(head[:16])}"
        )
    collector = Columns(None, sys.maxsize)
    line = 1
    for block in _blocks(head, file):
        line += add(collector, block, line)
        if progress is not None:
            progress(lib.nlct_columns_count(collector.sink[0]))
    return collector.take()


def _blocks(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines, many at a time; the last may lack its end."""
    left = b""
    while head:
        lines, end, rest = head.rpartition(b"\n")
        if end:
            yield left + lines + end
            left = rest
        else:
            left += rest
        if len(left) > LONGEST_LINE:
            raise ValueError(f"a line is longer than {LONGEST_LINE:,} bytes: {_word(left)}")
        head = file.read(BLOCK)
    if left:
        yield left


def _add_lines(collector: Columns, block: bytes, line: int) -> int:
    """Add the flows of saved lines; return how many lines there were."""
    count = block.count(b"\n")
    if not block.endswith(b"\n"):
        # Half of a port is a port.
        raise ValueError(f"line {line + count} has no end: the file is cut off")
    bad = ffi.new("struct nlct_bad_line *")
    rc = lib.nlct_save_read(collector.sink[0], ffi.from_buffer(block), len(block), bad)
    if bad.why != ffi.NULL:
        why = ffi.string(bad.why).decode()
        raise ValueError(
            f"line {line + bad.line}: {_word(block[bad.at : bad.at + bad.size])} {why}"
        )
    check(rc, "read flows")
    return count


def _add_objects(collector: Columns, block: bytes, line: int) -> int:
    """Add the flows of JSON objects; return how many lines there were."""
    import json  # noqa: PLC0415 - the import of the package is to be quick

    lines = block.splitlines()
    for number, text in enumerate(lines, line):
        if not text.strip(_SPACE):
            continue
        try:
            flow = Flow.from_dict(json.loads(text))
        except json.JSONDecodeError as exc:
            raise ValueError(
                f"line {number}: no JSON object: {exc.msg} at column {exc.colno}"
            ) from exc
        except (TypeError, ValueError, RecursionError) as exc:
            raise ValueError(f"line {number}: {exc}") from exc
        check(lib.nlct_columns_add(collector.sink[0], *pointers(flow)), "read flows")
    return len(lines)


def _word(word: bytes) -> str:
    """Show a word of a file that may hold anything."""
    text = word[:SHOWN].decode(errors="backslashreplace")
    return repr(text + "..." * (len(word) > SHOWN))


# Arrow -------------------------------------------------------------------------------------------


def _read_arrow(head: bytes, file: BinaryIO) -> FlowTable:
    from nlct._from_arrow import library  # noqa: PLC0415 - few programs need it

    pyarrow, ipc = (library(name, "reading Arrow", "parquet") for name in _LIBRARIES)
    # Parquet and Arrow's files are read from their end.
    data = head + file.read()
    source = pyarrow.BufferReader(data)
    try:
        if data.startswith(_PARQUET):
            table = library("pyarrow.parquet", "reading Parquet", "parquet").read_table(source)
        elif data.startswith(_ARROW_FILE):
            table = ipc.open_file(source).read_all()
        else:
            table = ipc.open_stream(source).read_all()
            # pyarrow does without.
            if not data.endswith(_END_OF_STREAM):
                raise ValueError("the stream has no end: the file is cut off")
    except (pyarrow.ArrowException, OSError) as exc:
        raise ValueError(str(exc)) from exc
    return FlowTable.from_arrow(table)
