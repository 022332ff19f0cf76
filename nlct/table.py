"""Many flows as columns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from nlct._ffi import ffi, lib, text
from nlct.flow import Flow, Tuple, address_from

_FORMATS: dict[int, Literal["B", "H", "I"]] = {1: "B", 2: "H", 4: "I", 16: "B"}
# Formats of the buffer protocol; of what size they are here, their itemsize says.
_UNSIGNED = tuple("BHILQ")
ADDRESS_SIZE = 16


def _fields() -> dict[str, tuple[int, int]]:
    field = ffi.new("struct nlct_field *")
    found: dict[str, tuple[int, int]] = {}
    while lib.nlct_field_get(len(found), field) == 0:
        found[text(field.name)] = (len(found), field.size)
    return found


_FIELDS = _fields()
COLUMNS = tuple(_FIELDS)
_TUPLE_FIELDS = ("src", "dst", "proto", "sport", "dport", "icmp_id", "icmp_type", "icmp_code")


class FlowTable:
    """Flows as columns: one buffer a field, one value a row.

    ``columns`` maps names (nlct.table.COLUMNS: "family", "zone", "src", "dst", "proto", "sport",
    ..., "reply_src", ...) to buffers: unsigned integers of the field's size in the machine's
    byte order, or 16 bytes an address, IPv4 in the first four. Every table has "family"
    (``socket.AF_INET`` or ``AF_INET6``). A column that is not given is absent in every row;
    ``valid`` maps a name to one byte a row, 0 where that row has no value.

    Raises ValueError for an unknown name, a wrong item size or columns of different length.
    """

    def __init__(self, columns: Mapping[str, Any], valid: Mapping[str, Any] | None = None) -> None:
        self._columns = {name: self._column(name, data) for name, data in columns.items()}
        self._valid = {name: memoryview(data).cast("B") for name, data in (valid or {}).items()}
        if "family" not in self._columns:
            raise ValueError("columns must have 'family'")
        self._length = len(self._columns["family"])
        for name, column in self._columns.items():
            if column.nbytes != self._length * _FIELDS[name][1]:
                raise ValueError(f"column {name!r} must have {self._length} rows")
        for name, flags in self._valid.items():
            if name not in self._columns or len(flags) != self._length:
                raise ValueError(f"valid[{name!r}] must belong to a column and be as long")

    @staticmethod
    def _column(name: str, data: Any) -> memoryview:
        if name not in _FIELDS:
            raise ValueError(f"column must be one of {', '.join(_FIELDS)}, not {name!r}")
        size = _FIELDS[name][1]
        raw = memoryview(data)
        native = raw.format.lstrip("@=")
        if native not in _UNSIGNED or raw.itemsize not in (1, size) or raw.nbytes % size:
            raise ValueError(f"column {name!r} must be unsigned integers of {size} bytes, or bytes")
        return raw.cast("B").cast(_FORMATS[size])

    @classmethod
    def from_flows(cls, flows: Iterable[Flow]) -> FlowTable:
        """Build a table from flows."""
        rows = list(flows)
        for flow in rows:
            if not isinstance(flow, Flow):
                raise TypeError(f"flows must be Flow objects, not {flow!r}")
        columns: dict[str, bytearray] = {}
        valid: dict[str, bytearray] = {}
        for name, (_, size) in _FIELDS.items():
            values = [_value(flow, name) for flow in rows]
            if name != "family" and all(value is None for value in values):
                continue
            columns[name] = bytearray(b"".join(_pack(value, size) for value in values))
            valid[name] = bytearray(value is not None for value in values)
        return cls(columns, valid)

    def __len__(self) -> int:
        """Return the number of flows."""
        return self._length

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def column(self, name: str) -> memoryview:
        """Return a column's values, without a copy; KeyError when the table does not have it."""
        return self._columns[name]

    def __getitem__(self, row: int) -> Flow:
        """Return one flow."""
        if not -self._length <= row < self._length:
            raise IndexError(f"row must be from 0 to {self._length - 1}, not {row}")
        row %= self._length
        reply = self._tuple(row, "reply_", self._at(row, "reply_zone"))
        return Flow(
            orig=self._tuple(row, "", self._at(row, "orig_zone")) or Tuple(),
            reply=reply,
            **{
                name: self._at(row, name)
                for name in ("zone", "status", "timeout", "mark", "id", "use")
            },
        )

    def __iter__(self) -> Iterator[Flow]:
        return (self[row] for row in range(self._length))

    def _at(self, row: int, name: str) -> Any:
        column = self._columns.get(name)
        if column is None or (name in self._valid and not self._valid[name][row]):
            return None
        if _FIELDS[name][1] == ADDRESS_SIZE:
            packed = bytes(column[row * ADDRESS_SIZE : (row + 1) * ADDRESS_SIZE])
            return address_from(packed, self._columns["family"][row])
        return column[row]

    def _tuple(self, row: int, prefix: str, zone: int | None) -> Tuple | None:
        values = {name: self._at(row, prefix + name) for name in _TUPLE_FIELDS}
        if zone is None and all(value is None for value in values.values()):
            return None
        return Tuple(**values, zone=zone)

    def to_c(self) -> tuple[ffi.CData, list[Any]]:
        """Make the array of ``struct nlct_column`` and what it points to, to be kept alive."""
        array = ffi.new("struct nlct_column[]", len(self._columns))
        keep: list[Any] = []
        for item, (name, column) in zip(array, self._columns.items()):
            item.field = _FIELDS[name][0]
            keep.append(ffi.from_buffer(column))
            item.values = keep[-1]
            if name in self._valid:
                keep.append(ffi.from_buffer("uint8_t[]", self._valid[name]))
                item.valid = keep[-1]
        return array, keep


def _value(flow: Flow, name: str) -> Any:
    if name in ("orig_zone", "reply_zone"):
        direction = getattr(flow, name[: -len("_zone")])
        return None if direction is None else direction.zone
    if name == "zone":
        directional = _value(flow, "orig_zone"), _value(flow, "reply_zone")
        return flow.zone or None if directional == (None, None) else None
    if name.startswith("reply_"):
        return None if flow.reply is None else getattr(flow.reply, name[len("reply_") :])
    return getattr(flow.orig if name in _TUPLE_FIELDS else flow, name)


def _pack(value: Any, size: int) -> bytes:
    if value is None:
        return bytes(size)
    if size == ADDRESS_SIZE:
        return bytes(value.packed.ljust(size, b"\0"))
    return int(value).to_bytes(size, sys.byteorder)
