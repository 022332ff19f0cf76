"""Flows as Arrow arrays, through the PyCapsule interface that data libraries share."""

from __future__ import annotations

import functools
import importlib
import socket
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Any, Callable, Literal, NamedTuple, Protocol, get_args

from nlct._ffi import ffi, lib
from nlct._fields import FIELDS, AddressField, LabelsField, NumberField, SpanField, TextField

Addresses = Literal["text", "bytes"]
Enums = Literal["text", "dictionary", "numbers"]
ROWS: int = lib.NLCT_ARROW_ROWS
_VALUES = 256

_new = ffi.new_allocator(should_clear_after_alloc=False)


class _Table(Protocol):
    """What is needed of a FlowTable, which itself offers this module to its users."""

    heap: memoryview

    @property
    def names(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def column(self, name: str) -> memoryview: ...
    def valid(self, name: str) -> memoryview | None: ...


class _Rows(NamedTuple):
    """Some rows of a column: bytes, and a byte a row that is 0 where the value is absent."""

    length: int
    values: memoryview
    valid: memoryview | None
    families: memoryview
    heap: Any

    @property
    def pointers(self) -> tuple[Any, Any]:
        return ffi.from_buffer(self.values), _pointer(self.valid)


class _Shape(NamedTuple):
    """The Arrow type of a column, and what makes an array of it."""

    type: Any
    array: Callable[[Any, _Rows], Any]


class ArrowTable:
    """A FlowTable with Arrow types of your choice, for every library that takes PyCapsules.

    ``columns``: names, in this order; a column that the table does not have is null in every row.
    None means every column of the table.
    ``addresses``: "text", or "bytes": 16 bytes, IPv4 in the first four, not copied.
    ``enums`` (the family, protocols, and states of TCP, SCTP and DCCP): "text", "dictionary" (each
    text once) or "numbers", not copied. A number without a name becomes its digits.

    Raises ValueError for other values, and ImportError without nanoarrow.
    """

    def __init__(
        self,
        table: _Table,
        *,
        columns: Iterable[str] | None = None,
        addresses: Addresses = "text",
        enums: Enums = "text",
    ) -> None:
        self._table = table
        self.names = table.names if columns is None else tuple(columns)
        for name in self.names:
            _choice("columns", name, tuple(FIELDS))
        if len(set(self.names)) < len(self.names):
            raise ValueError("columns must not name one twice")
        self._bytes = _choice("addresses", addresses, get_args(Addresses)) == "bytes"
        self._enums = _choice("enums", enums, get_args(Enums))
        self._shapes = {name: self._shape(name) for name in self.names}

    def __arrow_c_schema__(self) -> object:
        """Return the types as a PyCapsule."""
        return self._schema().__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the rows as a PyCapsule, which keeps alive what it did not copy.

        ``requested_schema`` is ignored, as the protocol allows.
        """
        streams = _nanoarrow("c_array_stream").CArrayStream
        batches = list(self._batches())
        # The stream takes the schema along with the arrays.
        stream = streams.from_c_arrays(batches, self._schema(), move=True, validate=False)
        return stream.__arrow_c_stream__()

    def _schema(self) -> Any:
        na = _nanoarrow()
        return na.c_schema(na.struct({name: shape.type for name, shape in self._shapes.items()}))

    def _batches(self) -> Iterator[Any]:
        schema = self._schema()
        for first in range(0, len(self._table), ROWS):
            last = min(first + ROWS, len(self._table))
            columns = [
                shape.array(shape.type, self._rows(name, first, last))
                for name, shape in self._shapes.items()
            ]
            yield _array(schema, last - first, [None], children=columns)

    def _rows(self, name: str, first: int, last: int) -> _Rows:
        size = FIELDS[name].size
        families = self._table.column("family")[first:last]
        if name not in self._table.names:
            count = last - first
            nothing = memoryview(bytes(size * count))
            return _Rows(count, nothing, memoryview(bytes(count)), families, b"")
        values = self._table.column(name).cast("B")[first * size : last * size]
        valid = self._table.valid(name)
        if valid is not None:
            valid = valid[first:last]
        return _Rows(last - first, values, valid, families, self._table.heap)

    def _shape(self, name: str) -> _Shape:
        na = _nanoarrow()
        field = FIELDS[name]
        if isinstance(field, NumberField) and field.words and self._enums == "text":
            return _Shape(na.string(), functools.partial(_words, _words_of(field)))
        if isinstance(field, NumberField) and field.words and self._enums == "dictionary":
            coded = functools.partial(_coded, _words_of(field), self._seen(name))
            return _Shape(na.dictionary(na.uint8(), na.string()), coded)
        if isinstance(field, AddressField) and self._bytes:
            return _Shape(na.fixed_size_binary(field.size), _fixed)
        if isinstance(field, AddressField):
            return _Shape(na.string(), _addresses)
        if isinstance(field, LabelsField):
            return _Shape(na.list_(na.uint8()), _labels)
        if isinstance(field, TextField):
            return _Shape(na.string(), _texts)
        if isinstance(field, SpanField):
            return _Shape(na.large_string() if name == "secctx" else na.large_binary(), _spans)
        if name.startswith("timestamp_"):
            return _Shape(na.timestamp("ns", "UTC"), _fixed)
        return _Shape({1: na.uint8, 2: na.uint16, 4: na.uint32, 8: na.uint64}[field.size](), _fixed)

    def _seen(self, name: str) -> list[int]:
        """The values in the whole column: batches share one dictionary."""
        rows = self._rows(name, 0, len(self._table))
        left = bytes(rows.values if rows.valid is None else compress(rows.values, rows.valid))
        seen = []
        # Few values occur, so this is many times as fast as a set.
        while left:
            seen.append(left[0])
            left = left.translate(None, left[:1])
        return sorted(seen)


def type_name(name: str) -> str:
    """Return the type that a column has by default, as pyarrow prints it."""
    field = FIELDS[name]
    if isinstance(field, LabelsField):
        return "list<item: uint8>"
    if isinstance(field, SpanField):
        return "large_string" if name == "secctx" else "large_binary"
    if not isinstance(field, NumberField) or field.words:
        return "string"
    return "timestamp[ns, tz=UTC]" if name.startswith("timestamp_") else f"uint{8 * field.size}"


def _nanoarrow(module: str = "") -> Any:
    try:
        return importlib.import_module(f"nanoarrow.{module}".rstrip("."))
    except ImportError as exc:
        raise ImportError("Arrow needs nanoarrow: pip install 'nlct[arrow]'") from exc


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be of {', '.join(choices)}, not {value!r}")
    return value


def _pointer(buffer: Any) -> Any:
    return ffi.NULL if buffer is None else ffi.from_buffer(buffer)


def _array(
    type: Any, count: int, buffers: list[Any], nulls: int = 0, children: Iterable[Any] = ()
) -> Any:
    return _nanoarrow().c_array_from_buffers(
        type, count, buffers, null_count=nulls, children=children, move=True
    )


def _with_nulls(type: Any, rows: _Rows, buffers: list[Any], children: Iterable[Any] = ()) -> Any:
    """Put the bits before the buffers that say which values are there."""
    bits = None
    nulls = 0
    if rows.valid is not None:
        bits = _new("uint8_t[]", (rows.length + 7) // 8)
        nulls = lib.nlct_arrow_bits(ffi.from_buffer(rows.valid), rows.length, bits)
    found = None if nulls == 0 else ffi.buffer(bits)
    return _array(type, rows.length, [found, *buffers], nulls, children)


def _frozen(rows: _Rows) -> _Rows:
    """Copy rows that are read twice: the owner of the table's memory may write to it in between."""
    valid = None if rows.valid is None else memoryview(bytes(rows.valid))
    return rows._replace(values=memoryview(bytes(rows.values)), valid=valid)


def _fixed(type: Any, rows: _Rows) -> Any:
    return _with_nulls(type, rows, [rows.values])


def _text(type: Any, rows: _Rows, offsets: Any, data: Any) -> Any:
    """Make an array of texts. What is not UTF-8 becomes U+FFFD, since consumers trust it."""
    text = ffi.buffer(data, offsets[rows.length])
    if not text[:].isascii():
        starts = ffi.unpack(offsets, rows.length + 1)
        texts = [
            text[first:last].decode(errors="replace").encode()
            for first, last in zip(starts, starts[1:])
        ]
        for row, one in enumerate(texts):
            offsets[row + 1] = offsets[row] + len(one)
        text = b"".join(texts)
    return _with_nulls(type, rows, [ffi.buffer(offsets), text])


def _addresses(type: Any, rows: _Rows) -> Any:
    # Few tables have both families; where memory is not touched it is not taken either.
    copied = bytes(rows.families)
    ipv6 = copied.count(socket.AF_INET) < rows.length
    size = lib.NLCT_ARROW_IPV6 if ipv6 else lib.NLCT_ARROW_IPV4
    offsets = _new("int32_t[]", rows.length + 1)
    data = _new("char[]", size * rows.length + lib.NLCT_ARROW_MORE)
    families = ffi.from_buffer(copied)
    lib.nlct_arrow_addresses(*rows.pointers, families, rows.length, offsets, data)
    return _with_nulls(type, rows, [ffi.buffer(offsets), ffi.buffer(data, offsets[rows.length])])


def _words_of(field: NumberField) -> list[str]:
    return [str(field.plain(value)) for value in range(_VALUES)]


def _words(words: list[str], type: Any, rows: _Rows) -> Any:
    offsets = _new("int32_t[]", rows.length + 1)
    data = _new("char[]", max(map(len, words)) * rows.length + lib.NLCT_ARROW_MORE)
    table = ffi.new("struct nlct_word[]", [(word.encode(), len(word)) for word in words])
    lib.nlct_arrow_words(*rows.pointers, rows.length, table, offsets, data)
    return _with_nulls(type, rows, [ffi.buffer(offsets), ffi.buffer(data, offsets[rows.length])])


def _coded(words: list[str], seen: list[int], type: Any, rows: _Rows) -> Any:
    codes = bytearray(_VALUES)
    for code, value in enumerate(seen):
        codes[value] = code
    array = _with_nulls(type, rows, [bytes(rows.values).translate(codes)])
    _set_dictionary(array, [words[value] for value in seen])
    return array


def _set_dictionary(array: Any, words: list[str]) -> None:
    # c_array_from_buffers() makes the place for it and leaves it empty.
    builder = _nanoarrow("c_array").CArrayBuilder(array.dictionary, _nanoarrow("device").cpu())
    builder.start_appending()
    builder.append_strings(words)
    builder.finish()


def _labels(type: Any, rows: _Rows) -> Any:
    rows = _frozen(rows)
    offsets = _new("int32_t[]", rows.length + 1)
    lib.nlct_arrow_labels(*rows.pointers, rows.length, offsets, ffi.NULL)
    count = offsets[rows.length]
    numbers = _new("uint8_t[]", count)
    lib.nlct_arrow_labels(*rows.pointers, rows.length, offsets, numbers)
    child = _array(_nanoarrow().uint8(), count, [None, ffi.buffer(numbers)])
    return _with_nulls(type, rows, [ffi.buffer(offsets)], [child])


def _texts(type: Any, rows: _Rows) -> Any:
    offsets = _new("int32_t[]", rows.length + 1)
    data = _new("char[]", len(rows.values))
    lib.nlct_arrow_texts(*rows.pointers, rows.length, offsets, data)
    return _text(type, rows, offsets, data)


def _spans(type: Any, rows: _Rows) -> Any:
    rows = _frozen(rows)
    offsets = _new("int64_t[]", rows.length + 1)
    heap = ffi.from_buffer(rows.heap)
    arguments = (*rows.pointers, rows.length, heap, len(heap), offsets)
    if lib.nlct_arrow_spans(*arguments, ffi.NULL) < 0:
        raise ValueError("a row's bytes must be within the heap")
    data = _new("uint8_t[]", offsets[rows.length])
    lib.nlct_arrow_spans(*arguments, data)
    if type.type == _nanoarrow().Type.LARGE_STRING:
        return _text(type, rows, offsets, data)
    return _with_nulls(type, rows, [ffi.buffer(offsets), ffi.buffer(data)])
