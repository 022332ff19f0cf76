"""Many flows as columns."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, overload

from nlct._ffi import ffi, lib, new_sink, slot
from nlct._fields import CODES, FIELDS, NumberField, SpanField
from nlct.column import Column
from nlct.flow import Flow, flows_from, pointers

if TYPE_CHECKING:
    import pandas
    import polars
    from typing_extensions import Buffer

    from nlct.arrow import Addresses, ArrowTable, Enums

COLUMNS = tuple(FIELDS)
_ALWAYS = ("family", "zone", "orig_zone", "reply_zone")
# Formats of the buffer protocol; of what size they are here, their itemsize says.
_UNSIGNED = tuple("BHILQ")
_ROWS = 1024


class ArrowStream(Protocol):
    """A table of any library that speaks Arrow."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule of the Arrow C stream interface."""


class FlowTable:
    """Flows as columns: one buffer a field, one value a row.

    ``columns`` maps names (nlct.table.COLUMNS: "family", "zone", "src", "dst", "proto", "sport",
    ..., "reply_src", ..., "status", ...) to buffers: unsigned integers of the field's size in the
    machine's byte order; 16 bytes an address, IPv4 in the first four; 16 bytes for labels and for
    the helper's name; 8 bytes, position and size in ``heap``, for a value of no fixed size. Every
    table has "family" (``socket.AF_INET`` or ``AF_INET6``). A missing column is absent in every
    row. ``valid`` maps a name to one byte a row, 0 if the row has no value.

    The table uses the buffers as they are, without a copy.

    Raises TypeError for anything but a buffer, ValueError for an unknown name, a wrong item size,
    columns of different length, or bytes outside the heap.
    """

    def __init__(
        self,
        columns: Mapping[str, Buffer],
        valid: Mapping[str, Buffer] | None = None,
        heap: Buffer = b"",
    ) -> None:
        self._hold(columns, valid or {}, heap)
        for name, column in self._columns.items():
            if column.nbytes != self._length * FIELDS[name].size:
                raise ValueError(f"column {name!r} must have {self._length} rows")
            if isinstance(FIELDS[name], SpanField):
                self._check_spans(name, column)
        for name, flags in self._valid.items():
            if name not in self._columns or len(flags) != self._length:
                raise ValueError(f"valid[{name!r}] must belong to a column and be as long")

    def _hold(
        self, columns: Mapping[str, Buffer], valid: Mapping[str, Buffer], heap: Buffer
    ) -> None:
        if "family" not in columns:
            raise ValueError("columns must have 'family'")
        self._columns = {name: _column(name, data) for name, data in columns.items()}
        self._valid = {name: memoryview(data).cast("B") for name, data in valid.items()}
        self.heap = memoryview(heap).cast("B")
        self._kept_heap: bytes | None = None
        # The columns that were asked for, None for all: any other one is unknown, not absent.
        self._wanted: frozenset[str] | None = None
        self._length = len(self._columns["family"])

    @classmethod
    def of_core(
        cls,
        columns: Mapping[str, Buffer],
        valid: Mapping[str, Buffer],
        heap: Buffer,
        wanted: frozenset[str] | None = None,
    ) -> FlowTable:
        """Make a table of what the core made, which takes no checks."""
        table = cls.__new__(cls)
        table._hold(columns, valid, heap)
        table._wanted = wanted
        return table

    def _check_spans(self, name: str, column: memoryview) -> None:
        numbers = column.cast("I")
        if any(at + size > len(self.heap) for at, size in zip(numbers[::2], numbers[1::2])):
            raise ValueError(f"column {name!r} must point into the heap")

    @classmethod
    def from_flows(cls, flows: Iterable[Flow]) -> FlowTable:
        """Build a table from flows. Raises TypeError for anything else."""
        collector = Columns(None, sys.maxsize)
        for flow in flows:
            if not isinstance(flow, Flow):
                raise TypeError(f"flows must be Flow objects, not {flow!r}")
            if lib.nlct_columns_add(collector.sink[0], *pointers(flow)) < 0:
                raise MemoryError
        return collector.take()

    @classmethod
    def from_arrow(cls, table: ArrowStream) -> FlowTable:
        """Build a table from one of pyarrow, polars, pandas, DuckDB or whatever speaks Arrow.

        Its columns have names of COLUMNS, in any order, and the types that arrow() makes by any
        of its choices; integers may be of any width, and floats where they are exact whole
        numbers. A null or NaN is absent. The index of a DataFrame of pandas is left out unless it
        is a column of flows. Without "family" the addresses say which it is.

        Raises TypeError for what has no ``__arrow_c_stream__``, ValueError, which names the
        column, for a wrong name, type or value, and ImportError without pyarrow (extra "parquet").
        """
        from nlct import _from_arrow  # noqa: PLC0415 - few programs need it

        return cls(*_from_arrow.read(table))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        import pickle  # noqa: PLC0415 - few programs need it

        # From protocol 5 on the memory goes by itself, if the caller wishes.
        packed = pickle.PickleBuffer if protocol >= 5 else bytes
        parts = [
            {name: packed(column.cast("B")) for name, column in found.items()}
            for found in (self._columns, self._valid)
        ]
        return _made, (*parts, packed(self.heap), self._wanted)

    def __len__(self) -> int:
        """Return the number of flows."""
        return self._length

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __repr__(self) -> str:
        return f"<nlct.FlowTable: {self._length:,} flows, {len(self._columns)} columns>"

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that the table has."""
        return tuple(name for name in COLUMNS if name in self._columns)

    @property
    def schema(self) -> dict[str, str]:
        """The types of the columns in Arrow by default, as pyarrow prints them ("uint16")."""
        from nlct.arrow import type_name  # noqa: PLC0415

        return {name: type_name(name) for name in self.names}

    @property
    def nbytes(self) -> int:
        """Bytes in all columns together."""
        buffers = (*self._columns.values(), *self._valid.values(), self.heap)
        return sum(buffer.nbytes for buffer in buffers)

    def column(self, name: str) -> memoryview:
        """Return a column's values, without a copy. Raises KeyError if no row has one.

        ``numpy.asarray()`` takes it; addresses need ``.reshape(-1, 16)``.
        """
        if not self._length and name in FIELDS:
            return _column(name, b"")
        # A view of its own: who releases it does not take ours away.
        return memoryview(self._columns[name])

    def valid(self, name: str) -> memoryview | None:
        """Return one byte a row, 0 if the value is absent; None if every row has one.

        Raises KeyError if no row has the column.
        """
        self.column(name)
        flags = self._valid.get(name)
        return None if flags is None else memoryview(flags)

    @overload
    def __getitem__(self, row: int) -> Flow: ...

    @overload
    def __getitem__(self, row: slice) -> FlowTable: ...

    @overload
    def __getitem__(self, row: str) -> Column: ...

    def __getitem__(self, row: int | slice | str) -> Flow | FlowTable | Column:
        """Return one flow, a slice in steps of one as a table, or a column by its name.

        Nothing is copied. A column that no flow has is absent in every row.

        Raises IndexError for a row that is not there, ValueError for a slice in other steps, and
        KeyError for a name that is not in COLUMNS or was not among ``columns`` of the dump.
        """
        if isinstance(row, str):
            return self._by_name(row)
        if isinstance(row, slice):
            return self._slice(row)
        number = operator.index(row)
        if not -self._length <= number < self._length:
            raise IndexError(f"row {number} is not in a table of {self._length}")
        number %= self._length
        return next(self._rows(number, number + 1))

    def _by_name(self, name: str) -> Column:
        if name not in FIELDS:
            raise KeyError(f"column must be one of {', '.join(FIELDS)}, not {name!r}")
        if self._wanted is not None and name not in self._wanted:
            raise KeyError(f"the table was made without {name!r}")
        kept = {one: self._columns[one] for one in ("family", name) if one in self._columns}
        valid = {one: self._valid[one] for one in kept if one in self._valid}
        if name == "zone":
            # No flow is without one, and absent is 0.
            kept.setdefault(name, memoryview(bytes(FIELDS[name].size * self._length)))
            valid.pop(name, None)
        return Column(name, FlowTable.of_core(kept, valid, self.heap))

    def _slice(self, rows: slice) -> FlowTable:
        first, last, step = rows.indices(self._length)
        if step != 1:
            raise ValueError(f"rows must be in steps of one, not {step}")
        last = max(first, last)
        columns = {
            name: column.cast("B")[first * FIELDS[name].size : last * FIELDS[name].size]
            for name, column in self._columns.items()
        }
        valid = {name: flags[first:last] for name, flags in self._valid.items()}
        return _made(columns, valid, self.heap, self._wanted)

    def __iter__(self) -> Iterator[Flow]:
        for first in range(0, self._length, _ROWS):
            yield from self._rows(first, min(first + _ROWS, self._length))

    def _rows(self, first: int, last: int) -> Iterator[Flow]:
        columns, _data = self.to_c()
        rows = ffi.new("struct nlct_flow[]", last - first)
        for number in range(last - first):
            lib.nlct_columns_row(
                columns, len(columns), len(self.heap), first + number, rows + number
            )
        yield from flows_from(ffi.buffer(rows)[:], self._heap_bytes())

    def _heap_bytes(self) -> bytes:
        """Return the heap as flows keep it, one for all."""
        if self._kept_heap is None:
            self._kept_heap = bytes(self.heap)
        return self._kept_heap

    def to_c(self) -> tuple[ffi.CData, ffi.CData]:
        """Make the array of ``struct nlct_column``, and the heap, good while the table lives."""
        array = ffi.new("struct nlct_column[]", len(self._columns))
        for item, (name, column) in zip(array, self._columns.items()):
            item.field = FIELDS[name].number
            item.values = ffi.cast("void *", ffi.from_buffer(column))
            if name in self._valid:
                item.valid = ffi.cast("uint8_t *", ffi.from_buffer(self._valid[name]))
        return array, ffi.cast("uint8_t *", ffi.from_buffer(self.heap))

    # Arrow -----------------------------------------------------------------------------------

    def arrow(
        self,
        *,
        columns: Iterable[str] | None = None,
        addresses: Addresses = "text",
        enums: Enums = "text",
    ) -> ArrowTable:
        """Return the table for Arrow's libraries, with types of your choice.

        nlct.arrow.ArrowTable describes the arguments. Raises ValueError for wrong ones, and
        ImportError without the extra "arrow".
        """
        # Few programs need it, and the import of the package is to be quick.
        from nlct.arrow import ArrowTable  # noqa: PLC0415

        return ArrowTable(self, columns=columns, addresses=addresses, enums=enums)

    def to_pandas(
        self,
        *,
        columns: Iterable[str] | None = None,
        addresses: Addresses = "text",
        enums: Enums = "text",
    ) -> pandas.DataFrame:
        """Return a DataFrame of pandas, with Arrow's types: an absent value is NA.

        The arguments are those of arrow(). Raises ImportError without the extra "pandas".
        """
        from nlct._from_arrow import library  # noqa: PLC0415

        library("nanoarrow", "to_pandas()", "pandas")
        types = library("pandas", "to_pandas()", "pandas").ArrowDtype
        pyarrow = library("pyarrow", "to_pandas()", "pandas")
        stream = self.arrow(columns=columns, addresses=addresses, enums=enums)
        found: pandas.DataFrame = pyarrow.table(stream).to_pandas(types_mapper=types)
        return found

    def to_polars(
        self,
        *,
        columns: Iterable[str] | None = None,
        addresses: Addresses = "text",
        enums: Enums = "text",
    ) -> polars.DataFrame:
        """Return a DataFrame of polars, see to_pandas(); its extra is "polars"."""
        from nlct._from_arrow import library  # noqa: PLC0415

        library("nanoarrow", "to_polars()", "polars")
        frame = library("polars", "to_polars()", "polars").DataFrame
        found: polars.DataFrame = frame(
            self.arrow(columns=columns, addresses=addresses, enums=enums)
        )
        return found

    def __arrow_c_schema__(self) -> object:
        """Return the schema as a capsule of the Arrow C data interface."""
        return self.arrow().__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the flows as a capsule of the Arrow C stream interface."""
        return self.arrow().__arrow_c_stream__(requested_schema)


def _made(
    columns: Mapping[str, Buffer],
    valid: Mapping[str, Buffer],
    heap: Buffer,
    wanted: frozenset[str] | None,
) -> FlowTable:
    """Make a table, of a pickle too, so with all checks."""
    table = FlowTable(columns, valid, heap)
    table._wanted = wanted
    return table


def _check_name(name: str) -> None:
    if name not in FIELDS:
        raise ValueError(f"column must be one of {', '.join(FIELDS)}, not {name!r}")


def _column(name: str, data: Buffer) -> memoryview:
    _check_name(name)
    size = FIELDS[name].size
    raw = memoryview(data)
    native = raw.format.lstrip("@=")
    if native not in _UNSIGNED or raw.itemsize not in (1, size) or raw.nbytes % size:
        raise ValueError(f"column {name!r} must be unsigned integers of {size} bytes, or bytes")
    number = isinstance(FIELDS[name], NumberField)
    return raw.cast("B").cast(CODES[size] if number else "B")


def column_set(names: Iterable[str] | None) -> frozenset[str] | None:
    """Read which columns are wanted; None is all of them."""
    named = column_names(names)
    return None if named is None else frozenset(named)


def column_names(names: Iterable[str] | None) -> tuple[str, ...] | None:
    """Read which columns are wanted, in order."""
    if names is None:
        return None
    if isinstance(names, str):
        raise TypeError(f"columns must be a list of names, not {names!r}")
    wanted = tuple(names)
    for name in wanted:
        _check_name(name)
    return wanted


class Columns:
    """Collects flows as columns, in the core.

    ``wanted``: the columns to keep, None for all; those without which a row would be mistaken for
    another flow, family and zones, are always among them.
    ``limit``: rows that fit.
    """

    def __init__(self, wanted: frozenset[str] | None, limit: int) -> None:
        self._wanted = None if wanted is None else wanted.union(_ALWAYS)
        kept = bytes(self._wanted is None or name in self._wanted for name in FIELDS)
        self.sink = new_sink(lib.nlct_columns_new, kept, limit)
        self._limit = limit

    @property
    def full(self) -> bool:
        """True if there is no room for another row."""
        return bool(lib.nlct_columns_count(self.sink[0]) == self._limit)

    def take(self) -> FlowTable:
        """Return what was collected, without a copy, and start anew."""
        array = slot("struct nlct_column[]", lib.nlct_columns_free, len(FIELDS))
        data = slot("struct nlct_bytes *", lib.nlct_bytes_free)
        rows = lib.nlct_columns_take(self.sink[0], array, data)
        columns: dict[str, Buffer] = {"family": b""}
        valid: dict[str, Buffer] = {}
        for name, field in FIELDS.items():
            # Each column goes with its own last user.
            column = slot("struct nlct_column *", lib.nlct_column_free)
            lib.nlct_column_move(column, array + field.number)
            if column.values != ffi.NULL:
                columns[name] = _buffer(column.values, rows * field.size, column)
            if column.valid != ffi.NULL:
                valid[name] = _buffer(column.valid, rows, column)
        return FlowTable.of_core(columns, valid, _buffer(data.data, data.size, data), self._wanted)


def _buffer(memory: ffi.CData, size: int, owner: ffi.CData) -> Buffer:
    """Memory of the core as a buffer, which keeps its owner."""
    if memory == ffi.NULL:
        return b""

    def keep(_memory: ffi.CData, _owner: ffi.CData = owner) -> None:
        """Let go of the owner with the buffer's last user."""

    found: Buffer = ffi.buffer(ffi.gc(memory, keep), size)
    return found
