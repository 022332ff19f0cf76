"""Counting flows by the values of their fields."""

from __future__ import annotations

import struct
import sys
from typing import Any, Callable

from nlct._ffi import ffi, lib, new_sink
from nlct._fields import FIELDS
from nlct.enums import DccpState, Proto, SctpState, Status, TcpState
from nlct.flow import address_from, labels_from, member_or_number, text_from

_ALIASES = {"state": "tcp_state"}
_NAMES: dict[str, Callable[[int], Any]] = {
    "proto": Proto,
    "reply_proto": Proto,
    "master_proto": Proto,
    "status": Status,
    "tcp_state": TcpState,
    "sctp_state": SctpState,
    "dccp_state": DccpState,
}


class Counts:
    """Counts by one or two fields, in the core."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        if len(fields) not in (1, 2):
            raise TypeError(f"fields must be one or two, not {len(fields)}")
        self._fields = tuple(_ALIASES.get(name, name) for name in fields)
        for given, name in zip(fields, self._fields):
            if name not in FIELDS or FIELDS[name].kind == lib.NLCT_SPAN:
                raise ValueError(
                    "fields must be 'zone', 'proto', 'state', 'mark', 'src', 'dst', 'status' or "
                    f"another column of fixed size, not {given!r}"
                )

    def make_sink(self) -> ffi.CData:
        """Make a sink that counts, from nothing."""
        numbers = [FIELDS[name].number for name in self._fields]
        self._sink = new_sink(lib.nlct_counts_new, numbers, len(numbers))
        return self._sink

    def counts(self) -> dict[Any, int]:
        """Return what it counted, by value or by pair of values, in their order."""
        size = ffi.new("size_t *")
        groups = lib.nlct_counts_get(self._sink[0], size)
        if not size[0]:
            return {}
        packed = ffi.buffer(groups, size[0] * ffi.sizeof("struct nlct_count"))
        rows = sorted(_GROUP.iter_unpack(packed), key=self._order)
        if len(self._fields) == 1:
            return {self._value(0, row): row[0] for row in rows}
        return {(self._value(0, row), self._value(1, row)): row[0] for row in rows}

    def _order(self, row: _Row) -> tuple[object, ...]:
        """What is absent comes first, IPv4 before IPv6."""
        return (row[5], *(self._raw(which, row) for which in range(len(self._fields))))

    def _raw(self, which: int, row: _Row) -> tuple[bool, int | bytes]:
        packed = row[1] if which == 0 else row[2]
        if not row[3 + which]:
            return False, 0
        field = FIELDS[self._fields[which]]
        if field.kind == lib.NLCT_NUMBER:
            return True, int.from_bytes(packed[: field.size], sys.byteorder)
        return True, packed

    def _value(self, which: int, row: _Row) -> Any:
        present, raw = self._raw(which, row)
        if not present:
            return None
        name = self._fields[which]
        if isinstance(raw, int):
            return member_or_number(_NAMES[name], raw) if name in _NAMES else raw
        if FIELDS[name].kind == lib.NLCT_ADDRESS:
            return address_from(raw, row[5])
        return labels_from(raw) if FIELDS[name].kind == lib.NLCT_LABELS else text_from(raw)


# Of struct nlct_count: count, two values, whether they are there, family.
_Row = tuple[int, bytes, bytes, int, int, int]
_PADDING = ffi.sizeof("struct nlct_count") - struct.calcsize("=Q16s16sBBB")
_GROUP = struct.Struct(f"=Q16s16sBBB{_PADDING}x")
