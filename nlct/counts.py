"""Counting flows by the values of their fields."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from typing import Any

from nlct._ffi import ffi, lib, new_sink
from nlct._fields import FIELDS, Field, NumberField, SpanField

_ALIASES = {"state": "tcp_state"}


class Counts:
    """Counts by one or two fields, in the core."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        if len(fields) not in (1, 2):
            raise TypeError(f"fields must be one or two, not {len(fields)}")
        for given in fields:
            if isinstance(FIELDS.get(_ALIASES.get(given, given)), (SpanField, type(None))):
                raise ValueError(
                    "fields must be 'zone', 'proto', 'state', 'mark', 'src', 'dst', 'status' or "
                    f"another column of fixed size, not {given!r}"
                )
        self._fields = [FIELDS[_ALIASES.get(given, given)] for given in fields]

    def make_sink(self) -> ffi.CData:
        """Make a sink that counts, from nothing."""
        numbers = [field.number for field in self._fields]
        self._sink = new_sink(lib.nlct_counts_new, numbers, len(numbers))
        return self._sink

    def counts(self) -> dict[Any, int]:
        """Return what it counted, by value or by pair of values, in their order."""
        size = ffi.new("size_t *")
        counts = lib.nlct_counts_get(self._sink[0], size)
        if not size[0]:
            return {}
        return by_value(self._fields, ffi.buffer(counts, size[0] * COUNT_SIZE))


def by_value(fields: list[Field], counts: Any) -> dict[Any, int]:
    """Read ``struct nlct_count``s: counts by value or by pair of values, in their order."""

    def packed(row: _Row) -> Iterator[tuple[Field, bytes | None]]:
        _, one, other, has_one, has_other, _ = row
        return zip(fields, (one if has_one else None, other if has_other else None))

    def order(row: _Row) -> tuple[object, ...]:
        """What is absent comes first, IPv4 before IPv6."""
        return (row[5], *(_key(*one) for one in packed(row)))

    def values(row: _Row) -> tuple[Any, ...]:
        return tuple(
            None if value is None else field.value(value, row[5]) for field, value in packed(row)
        )

    rows = sorted(_COUNT.iter_unpack(counts), key=order)
    if len(fields) == 1:
        return {values(row)[0]: row[0] for row in rows}
    return {values(row): row[0] for row in rows}


def _key(field: Field, packed: bytes | None) -> tuple[bool, int | bytes]:
    if packed is None:
        return False, 0
    if isinstance(field, NumberField):
        return True, int.from_bytes(packed[: field.size], sys.byteorder)
    return True, packed


# A struct nlct_count: count, two values, whether they are there, family.
_Row = tuple[int, bytes, bytes, int, int, int]
COUNT_SIZE = ffi.sizeof("struct nlct_count")
_PADDING = COUNT_SIZE - struct.calcsize("=Q16s16sBBB")
_COUNT = struct.Struct(f"=Q16s16sBBB{_PADDING}x")
