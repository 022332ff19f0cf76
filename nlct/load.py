"""Creating many flows, in batches."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Callable, NamedTuple, cast

from nlct import _check, _lookup, _reasons
from nlct._ffi import ffi, lib
from nlct._fields import FIELDS
from nlct._handle import Handle, refused
from nlct.errors import Error
from nlct.flow import Flow
from nlct.table import ArrowStream, FlowTable

# Rows given to the core at once: some 20 ms of creating.
ROWS = 4096
# Flows that are looked up after a load, where the first ones are gone already.
SAMPLES = 100
_NOT_ZERO = re.compile(b"[^\\0]")


class LoadResult(NamedTuple):
    """What a load did.

    ``created``: flows that are new. ``failed``: how many were refused, by errno (EEXIST: the flow
    was there, or its tuple is taken; ENOMEM: the table is full; EINVAL: create() would refuse the
    flow too, for example because its timeout is missing, or 0: it has ended; EOPNOTSUPP: a helper
    that the kernel does not have, or a GRE flow with a master; ERANGE: a window scale above 14, or
    an sctp_state above 8). ``seconds``: how long it took. ``dropped``: by field, how many created
    flows the kernel stored without it: labels that no rule uses, fields that this kernel was built
    without, and helper_info, which load() leaves out. nlct looks up one created flow of each kind
    to tell; None if no look-up was possible.
    """

    created: int
    failed: Mapping[int, int]
    seconds: float
    dropped: Mapping[str, int] | None


class _Load:
    """One load under way."""

    def __init__(self, handle: Handle, table: FlowTable) -> None:
        self._handle = handle
        self._table = table
        self._tally = ffi.new("struct nlct_tally *")
        self._created = bytearray(len(table))

    @property
    def created(self) -> int:
        """Flows that are new."""
        return int(self._tally.done)

    def failed(self) -> dict[int, int]:
        """Return how many were refused, by errno."""
        return refused(self._tally)

    def run(self) -> Iterator[int]:
        """Create them all, those with a master last; yield how many were answered so far."""
        has_children = any(name.startswith("master_") for name in self._table.names)
        for children in (False, True)[: 1 + has_children]:
            for first in range(0, len(self._table), ROWS):
                self._send(first, min(first + ROWS, len(self._table)), children)
                yield self.created + sum(self.failed().values())

    def _send(self, first: int, last: int, children: bool) -> None:
        columns, data = self._table.to_c()
        self._handle.run(
            "create flows",
            lib.nlct_load,
            *(columns, len(columns), data, len(self._table.heap)),
            *(first, last, children, self._tally, ffi.from_buffer(self._created)),
        )

    def dropped(self) -> dict[str, int] | None:
        """Return how many of the created flows lost a field, None where that cannot be told."""
        try:
            return self._lost() if self.created else {}
        except Error:
            # They are created all the same, and counted.
            return None

    def _lost(self) -> dict[str, int]:
        """Return how many of the created flows lost a field, as one of each kind shows."""
        lost: dict[str, int] = {}
        for name, proto in _reasons.AT_RISK:
            for row in itertools.islice(self._rows_with(name, proto), SAMPLES):
                flow = self._table[row]
                found = _lookup.find_new(self._handle, flow)
                if found is None:
                    continue
                if name in _reasons.dropped(flow, found):
                    count = sum(1 for _ in self._rows_with(name, proto))
                    lost[name] = lost.get(name, 0) + count
                break
        return lost

    def _rows_with(self, name: str, proto: int | None) -> Iterator[int]:
        """Yield the rows that were created with such a field, of a protocol or any.

        A zero does not count.
        """
        table = self._table
        if name not in table or not len(table):
            return
        values = table.column(name).cast("B")
        valid = table.valid(name)
        size = FIELDS[name].size
        searched, width, wanted = values, size, _NOT_ZERO
        if proto is not None:
            if "proto" not in table:
                return
            only = re.escape(bytes((proto,)))
            searched, width, wanted = table.column("proto"), 1, re.compile(only)
        at = 0
        while hit := wanted.search(searched, at):
            row = hit.start() // width
            at = (row + 1) * width
            is_there = self._created[row] and (valid is None or valid[row])
            if is_there and any(values[row * size : (row + 1) * size]):
                yield row


def _table_of(flows: FlowTable | ArrowStream | Iterable[Flow]) -> FlowTable:
    if isinstance(flows, FlowTable):
        return flows
    if isinstance(flows, (str, bytes, os.PathLike)):
        raise TypeError(
            f"flows must be Flow objects or a table, as read_flows({flows!r}) makes one"
        )
    if hasattr(flows, "__arrow_c_stream__"):
        return FlowTable.from_arrow(cast("ArrowStream", flows))
    return FlowTable.from_flows(flows)


def load(
    handle: Handle,
    flows: FlowTable | ArrowStream | Iterable[Flow],
    progress: Callable[[int], None] | None,
) -> LoadResult:
    """Create flows, see Conntrack.load()."""
    started = time.monotonic()
    _check.function("progress", progress)
    handle.pool.check_open()
    work = _Load(handle, _table_of(flows))
    done = 0
    for answered in work.run():
        if progress is not None and answered != done:
            done = answered
            progress(done)
    dropped = work.dropped()
    return LoadResult(work.created, work.failed(), time.monotonic() - started, dropped)
