"""Arrow arrays as the columns of a table: the inverse of arrow.py, on pyarrow."""

from __future__ import annotations

import functools
import importlib
import json
import re
import socket
from typing import Any, Callable, NamedTuple

from nlct._fields import (
    FIELDS,
    IPV4,
    IPV6,
    AddressField,
    Field,
    LabelsField,
    NumberField,
    SpanField,
)

_U32 = 2**32 - 1
_NUMBERS = 256
# The index of a DataFrame has this name if it has none.
_UNNAMED = re.compile("__index_level_[0-9]+__")
# Up to these a float of so many bits is one whole number and no rounded one.
_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}


class Parts(NamedTuple):
    """What a FlowTable is made of."""

    columns: dict[str, Any]
    valid: dict[str, Any]
    heap: bytes


def read(stream: Any) -> Parts:
    """Read whatever has ``__arrow_c_stream__``; see FlowTable.from_arrow()."""
    if not hasattr(stream, "__arrow_c_stream__"):
        raise TypeError(f"an Arrow table must have __arrow_c_stream__, not be {stream!r}")
    return _Reader(library("pyarrow", "reading Arrow", "parquet")).read(stream)


def library(name: str, purpose: str, extra: str) -> Any:
    """Import what an extra brings; the error says which."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise ImportError(f"{purpose} needs {name}: pip install 'nlct[{extra}]'") from exc


class _Reader:
    """Reads one table, column by column."""

    def __init__(self, pa: Any) -> None:
        self._pa = pa
        self._columns: dict[str, Any] = {}
        self._valid: dict[str, Any] = {}
        self._heap = bytearray()
        # One a row; 0 as long as nothing says which.
        self._families = bytearray()

    def read(self, stream: Any) -> Parts:
        table = _without_index(self._pa.table(stream))
        for name in table.column_names:
            if name not in FIELDS:
                raise ValueError(f"column {name!r} must be one of {', '.join(FIELDS)}")
        if len(set(table.column_names)) < table.num_columns:
            raise ValueError("columns must not name one twice")
        # A file may say anything, and pyarrow trusts it: a wrong offset leads out of the memory.
        table.validate(full=True)
        self._families = bytearray(len(table))
        # In our order, in which the family comes before the addresses.
        for name, field in FIELDS.items():
            if name in table.column_names and table[name].null_count < len(table):
                try:
                    self._read(field, table[name])
                except self._pa.ArrowException as exc:
                    raise ValueError(f"column {name!r}: {exc}") from exc
        # The addresses may have told more of them.
        self._columns["family"] = self._families
        if not all(self._families):
            self._valid["family"] = self._families
        return Parts(self._columns, self._valid, bytes(self._heap))

    def _read(self, field: Field, given: Any) -> None:
        column = self._array(field, given)
        if field.name == "family":
            self._families[:] = self._values(field, column)
            if not set(self._families) <= {0, IPV4, IPV6}:
                raise ValueError(f"column 'family' must be ipv4 or ipv6: {IPV4} or {IPV6}")
            return
        self._columns[field.name] = self._values(field, column)
        if column.null_count:
            self._valid[field.name] = _numbers(column.is_valid().cast(self._pa.uint8()), 1)

    def _values(self, field: Field, column: Any) -> Any:
        if isinstance(field, NumberField):
            if self._is_text(column.type):
                return _joined(column, functools.partial(_number, _words(field), field), field.size)
            return _numbers(column, field.size)
        if isinstance(field, AddressField):
            return self._addresses(field, column)
        if isinstance(field, LabelsField):
            return _labels(field, column)
        pack = functools.partial(self._span, field) if isinstance(field, SpanField) else field.pack
        return _joined(column, pack, field.size)

    def _span(self, field: SpanField, value: str | bytes) -> bytes:
        packed = value.encode() if isinstance(value, str) else value
        at = len(self._heap)
        if at + len(packed) > _U32:
            raise ValueError(f"column {field.name!r} must leave the heap below 4 GiB")
        self._heap += packed
        return field.place(at, len(packed))

    # Types -----------------------------------------------------------------------------------

    def _array(self, field: Field, column: Any) -> Any:
        """Return a column as one array of a type that its field is read from."""
        pa = self._pa
        coded = pa.types.is_dictionary(column.type)
        if isinstance(field, NumberField) and pa.types.is_floating(column.type):
            column = self._whole(field, column)
        kind = column.type.value_type if coded else column.type
        wanted, said = self._type(field, kind)
        if wanted is None:
            raise ValueError(f"column {field.name!r} must be {said}, not {column.type}")
        if coded:
            chunks = [one.dictionary.cast(wanted).take(one.indices) for one in column.chunks]
            column = pa.chunked_array(chunks, wanted)
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
        found = column.cast(wanted).combine_chunks()
        # Of some types and versions it stays in chunks.
        return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found

    def _type(self, field: Field, kind: Any) -> tuple[Any, str]:
        """Return the type that a field is read from, None if not from ``kind``; and what may be."""
        pa = self._pa
        is_text, is_integer = self._is_text(kind), pa.types.is_integer(kind)
        text = pa.large_string() if is_text else None
        if isinstance(field, NumberField):
            number = {1: pa.uint8(), 2: pa.uint16(), 4: pa.uint32(), 8: pa.uint64()}[field.size]
            if field.words:
                return (number if is_integer else text), "text or integers"
            if field.name.startswith("timestamp_"):
                is_integer = is_integer or pa.types.is_timestamp(kind)
                return (number if is_integer else None), "timestamps or integers"
            return (number if is_integer else None), "integers"
        if isinstance(field, LabelsField):
            is_list = self._is(kind, "list", "large_list") and pa.types.is_integer(kind.value_type)
            return (pa.large_list(pa.uint8()) if is_list else None), "lists of integers"
        if isinstance(field, AddressField):
            packed = pa.binary(field.size)
            return (packed if kind == packed else text), f"text or {field.size} bytes each"
        if isinstance(field, SpanField) and field.name != "secctx":
            is_bytes = self._is(kind, "binary", "large_binary", "binary_view")
            return (pa.large_binary() if is_bytes else None), "bytes"
        return text, "text"

    def _whole(self, field: Field, column: Any) -> Any:
        """Return floats as the whole numbers that they are; NaN is absent."""
        pa = self._pa
        compute = importlib.import_module("pyarrow.compute")
        bound = _EXACT[column.type.bit_width]
        column = column.cast(pa.float64())
        column = compute.if_else(compute.is_nan(column), pa.scalar(None, column.type), column)
        ends = compute.min_max(column).as_py()
        if ends["min"] is not None and not -bound < ends["min"] <= ends["max"] < bound:
            raise ValueError(
                f"column {field.name!r} must be integers: as floats they are exact below {bound} "
                'only (pandas reads integers with dtype_backend="pyarrow")'
            )
        # What has a fraction is refused.
        return column.cast(pa.int64())

    def _is_text(self, kind: Any) -> bool:
        return self._is(kind, "string", "large_string", "string_view")

    def _is(self, kind: Any, *names: str) -> bool:
        """Tell whether it is one of these types. An old pyarrow does not know the views."""
        tests = (getattr(self._pa.types, f"is_{name}", None) for name in names)
        return any(is_it(kind) for is_it in tests if is_it)

    # Addresses -------------------------------------------------------------------------------

    def _addresses(self, field: Field, column: Any) -> bytes:
        codes, values = _coded(column)
        if self._is_text(column.type):
            read = [_address(field.name, value) for value in values]
            # A row without a value has the code -1.
            families = [*(family for family, _ in read), 0]
            self._agree(field.name, bytes([families[code] for code in codes]))
            values = [packed for _, packed in read]
        else:
            self._check_bytes(field.name, codes, values)
        values.append(bytes(field.size))
        return b"".join([values[code] for code in codes])

    def _agree(self, name: str, found: bytes) -> None:
        """Check that addresses are of their flows' families, or learn these from them."""
        known = self._families
        if known == found:
            return
        for row, family in enumerate(found):
            if family and known[row] not in (0, family):
                raise ValueError(f"column {name!r} must be of the flow's family, in row {row} too")
            known[row] = known[row] or family

    def _check_bytes(self, name: str, codes: list[int], values: list[bytes]) -> None:
        """Check addresses of 16 bytes: IPv4 is in the first four."""
        short = [not any(value[4:]) for value in values]
        for row, (code, family) in enumerate(zip(codes, self._families)):
            if code >= 0 and family != IPV6 and not (family == IPV4 and short[code]):
                raise ValueError(
                    f"column {name!r} must have bytes of an address of the flow's family, "
                    f"in row {row} too"
                )


def _address(name: str, value: str) -> tuple[int, bytes]:
    """Read an address: its family, and its 16 bytes."""
    family = IPV6 if ":" in value else IPV4
    try:
        return family, socket.inet_pton(family, value).ljust(16, b"\0")
    except (OSError, ValueError):
        raise ValueError(
            f"column {name!r} must have IPv4 or IPv6 addresses, not {value!r}"
        ) from None


def _without_index(table: Any) -> Any:
    """Leave out the index of a DataFrame of pandas, unless it is a field."""
    index = _index((table.schema.metadata or {}).get(b"pandas", b"{}"))
    names = [
        name
        for name in table.column_names
        if name not in FIELDS and (name in index or _UNNAMED.fullmatch(name))
    ]
    return table.drop_columns(names) if names else table


def _index(metadata: bytes) -> list[Any]:
    """Return the names of the columns that pandas calls the index. A file may say anything."""
    try:
        said = json.loads(metadata)
    except (ValueError, RecursionError):
        return []
    index = said.get("index_columns") if isinstance(said, dict) else None
    return index if isinstance(index, list) else []


# Values -------------------------------------------------------------------------------------------


def _coded(column: Any) -> tuple[list[int], list[Any]]:
    """Return for each row which value it has, -1 for none, and the values, each once."""
    coded = column.dictionary_encode()
    return _numbers(coded.indices.fill_null(-1), 4).cast("i").tolist(), coded.dictionary.to_pylist()


def _joined(column: Any, pack: Callable[[Any], bytes], size: int) -> bytes:
    """Return the values of all rows, each packed once; zeros where there is none."""
    codes, values = _coded(column)
    packed = [*map(pack, values), bytes(size)]
    return b"".join([packed[code] for code in codes])


def _numbers(array: Any, size: int) -> memoryview:
    """Return the numbers of an array, without a copy where each row has one."""
    if array.null_count:
        array = array.fill_null(0)
    first = array.offset * size
    memory = memoryview(array.buffers()[1] or b"").cast("B")
    return memory[first : first + len(array) * size]


def _words(field: NumberField) -> dict[str, int]:
    """Return the number of each word that arrow.py writes, and of digits."""
    digits = {str(number): number for number in range(_NUMBERS)}
    return {**digits, **{str(field.plain(number)): number for number in range(_NUMBERS)}}


def _number(words: dict[str, int], field: NumberField, word: str) -> bytes:
    try:
        return field.pack(words[word])
    except KeyError:
        raise ValueError(f"column {field.name!r} must not have {word!r}") from None


def _labels(field: LabelsField, column: Any) -> bytes:
    """Return a number for each row, of which bit n is label n."""
    if column.values.null_count:
        raise ValueError(f"column {field.name!r} must not have a null in a list")
    ends = _numbers(column.offsets, 8).cast("q").tolist()
    labels = bytes(_numbers(column.values, 1))
    there = column.is_valid().to_pylist()
    sets = [
        labels[first:last] if is_there else b""
        for first, last, is_there in zip(ends, ends[1:], there)
    ]
    # Few of them differ.
    packed = {some: _label_bits(field, some) for some in set(sets)}
    return b"".join([packed[some] for some in sets])


def _label_bits(field: LabelsField, labels: bytes) -> bytes:
    if max(labels, default=0) >= 8 * field.size:
        raise ValueError(
            f"column {field.name!r} must have labels from 0 to {8 * field.size - 1}, "
            f"not {max(labels)}"
        )
    return field.pack(sum(1 << label for label in set(labels)))
