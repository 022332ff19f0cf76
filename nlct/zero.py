"""Setting counters to zero, and handing over what they were."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

from nlct import _check, _threads
from nlct._closing import Closing
from nlct._dump import Progress, dump
from nlct._ffi import ffi, lib, new_sink
from nlct._forks import process
from nlct._handle import STEP_MILLISECONDS, Bytes, Dump, Handle, refused
from nlct.filter import Filter
from nlct.table import Columns, FlowTable, column_set

ROWS = 1024


class Zeroing(Closing):
    """Sets the counters of flows to zero, and hands over each flow as it was before.

    Conntrack.zero_counters() makes it. Nothing is sent before run() or the first batch. What was
    zeroed and not handed over yet stays here, also if an exception or Ctrl-C comes in between: then
    take() returns it, and run() or the loop may go on where it was. Nothing is ever zeroed again
    because of a failure. Any number of threads may read it; each table goes to one of them. It does
    not outlive a fork.

    ``scanned``: flows that the kernel sent to be looked at. ``zeroed``: flows that were set to
    zero. ``already_gone``: flows that vanished before. ``replaced``: of ``zeroed``, flows that made
    way for another with the same tuple between look-up and zeroing, less than a millisecond: the
    other was zeroed instead, and is what was handed over. ``failed``: how many were refused, by
    errno. ``lost``: flows that were perhaps zeroed, and whose answer is lost. ``disturbed``: the
    table was resized meanwhile, so flows may have been left out. ``complete``: every flow that
    matched was zeroed.
    """

    def __init__(
        self, handle: Handle, wanted: Filter, columns: frozenset[str] | None, rows: int
    ) -> None:
        self._handle = handle
        self._wanted = wanted
        self._most = rows
        self._columns = columns
        self._collector = Columns(columns, sys.maxsize)
        # What the dump found, of which nlct_zero() has settled the first ones.
        self._found = ffi.new("struct nlct_flow[]", ROWS)
        self._data = Bytes()
        self._sink = new_sink(lib.nlct_rows_new, self._found, ROWS, self._data.c)
        self._state = ffi.new("struct nlct_zeroing *")
        self._open = ExitStack()
        self._dump: Dump | None = None
        self._steps: Iterator[None] = iter(())
        self._process = process()
        self._lock = _threads.Lock()

    def close(self) -> None:
        """End it where it is. What was zeroed can still be taken."""
        with self._lock.real if self._process == process() else nullcontext():
            self._open.close()

    def run(self, progress: Progress | None = None) -> FlowTable:
        """Go on to the end, and return all that was zeroed since the last time.

        ``progress``: called now and then with the number of flows scanned so far.
        """
        _check.function("progress", progress)
        self._most = sys.maxsize
        while self._step():
            if progress is not None:
                progress(self.scanned)
        return self.take()

    def take(self) -> FlowTable:
        """Return what was zeroed since the last time, and go no further."""
        with self._held():
            return self._collector.take()

    def __iter__(self) -> Iterator[FlowTable]:
        return self

    def __next__(self) -> FlowTable:
        more = True
        while True:
            with self._held():
                count = lib.nlct_columns_count(self._collector.sink[0])
                if count and (count >= self._most or not more):
                    return self.take()
            if not more:
                raise StopIteration
            more = self._step()

    def _held(self) -> Any:
        """Return the lock, which in the child of a fork somebody may hold for ever."""
        if self._process != process():
            raise RuntimeError("what sets counters to zero does not outlive a fork: begin anew")
        return self._lock.real

    def _step(self) -> bool:
        """Go on for some milliseconds; tell if there is more to do.

        Wherever an exception comes, the next call goes on from what the core has written.
        """
        with self._held():
            return self._go_on()

    def _go_on(self) -> bool:
        state, found = self._state, lib.nlct_rows_count(self._sink[0])
        if state.next < found:
            with self._handle.pool.lend() as sock:
                into = self._collector.sink[0]
                # No more than fit into a batch.
                last = min(found, state.next + self._most - lib.nlct_columns_count(into))
                rc = lib.nlct_zero(sock.handle, self._found, last, into, STEP_MILLISECONDS, state)
                sock.check(rc, "set counters to zero")
            return True
        lib.nlct_rows_take(self._sink[0])
        self._data.c.size = 0
        state.next = 0
        if self._dump is None:
            self._dump = self._open.enter_context(dump(self._handle, self._wanted))
        if self._dump.ended:
            self._open.close()
            return False
        # A generator in which an exception was raised has ended.
        if next(self._steps, self) is self:
            self._steps = self._dump.steps(self._sink)
        return True

    @property
    def scanned(self) -> int:
        """Flows that the kernel sent to be looked at."""
        return 0 if self._dump is None else self._dump.scanned

    @property
    def zeroed(self) -> int:
        """Flows that were set to zero."""
        return int(self._state.zeroed)

    @property
    def already_gone(self) -> int:
        """Flows that vanished before."""
        return int(self._state.already_gone)

    @property
    def replaced(self) -> int:
        """Of those zeroed, flows that had come in the place of another."""
        return int(self._state.replaced)

    @property
    def lost(self) -> int:
        """Flows that were perhaps zeroed, and whose answer is lost."""
        return int(self._state.lost)

    @property
    def failed(self) -> dict[int, int]:
        """How many were refused, by errno."""
        return refused(self._state)

    @property
    def disturbed(self) -> bool:
        """The table was resized meanwhile, so flows may have been left out."""
        return self._dump is not None and self._dump.disturbed

    @property
    def complete(self) -> bool:
        """Every flow that matched was set to zero."""
        ended = self._dump is not None and self._dump.ended
        settled = self._state.next == lib.nlct_rows_count(self._sink[0])
        return ended and settled and not (self.disturbed or self.failed or self.lost)


def zeroing(handle: Handle, wanted: Filter, columns: Iterable[str] | None, rows: int) -> Zeroing:
    """Prepare it, see Conntrack.zero_counters()."""
    kept = column_set(columns)
    return Zeroing(handle, wanted, kept, _check.integer("rows", rows, 1, _check.U32))
