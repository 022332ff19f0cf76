"""An expression as the core takes it: its values packed, its tests in a row."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import chain
from typing import Any

from nlct._expression import And, Node, Not, Or, Test
from nlct._ffi import ffi, lib, slot
from nlct._fields import FIELDS, AddressField, NumberField
from nlct.errors import check

_MASK = struct.Struct("=QQQQ")
_PREFIX = struct.Struct("=16sBB")
_64_BITS = 2**64 - 1
_EVERY_BIT = 2**32 - 1


def compile_filter(node: Node) -> ffi.CData:
    """Compile the filter, which lives as long as the ``struct nlct_filter **`` does."""
    return _Program(node).compile()


class _Program:
    """The tests of an expression in a row. Each leads to a later one or to the end."""

    def __init__(self, node: Node) -> None:
        # From the last test to the first: a test must know where it leads.
        self._backwards: list[tuple[Test, int, int]] = []
        start = self._add(node, lib.NLCT_MATCH, lib.NLCT_DROP)
        # Tests added after the start are unreachable, but the core would begin with the last of
        # them.
        del self._backwards[max(start, -1) + 1 :]
        if start == lib.NLCT_DROP:
            self._backwards = [(Test("family", ()), lib.NLCT_DROP, lib.NLCT_DROP)]

    def _add(self, node: Node, yes: int, no: int) -> int:
        """Add a node's tests, which lead to 'yes' if it is true; return where to begin."""
        if isinstance(node, Not):
            return self._add(node.part, no, yes)
        if isinstance(node, And):
            for part in reversed(node.parts):
                yes = self._add(part, yes, no)
            return yes
        if isinstance(node, Or):
            for part in reversed(node.parts):
                no = self._add(part, yes, no)
            return no
        self._backwards.append((node, yes, no))
        return len(self._backwards) - 1

    def compile(self) -> ffi.CData:
        count = len(self._backwards)
        tests = ffi.new("struct nlct_test[]", count)
        keep: list[Any] = []
        before: Test | None = None
        for test, (node, yes, no) in zip(tests, reversed(self._backwards)):
            # The core compiles values once for tests in a row that share them.
            if before is None or not _shares(node, before):
                kind, values = _pack(node)
                keep.append(ffi.from_buffer(values))
            before = node
            test.kind = kind
            test.field = FIELDS[node.field].number
            test.yes, test.no = (to if to < 0 else count - 1 - to for to in (yes, no))
            test.count = len(node.values)
            test.values = keep[-1]
        made = slot("struct nlct_filter **", lib.nlct_filter_free)
        check(lib.nlct_filter_new(made, tests, count), "compile a filter")
        return made


def _shares(test: Test, other: Test) -> bool:
    return (
        test.values is other.values
        and FIELDS[test.field].kind == FIELDS[other.field].kind == lib.NLCT_ADDRESS
    )


def _pack(test: Test) -> tuple[int, bytes]:
    """Return the kind of a test, and its values as the core wants them."""
    field = FIELDS[test.field]
    if test.masked:
        words = (
            _MASK.pack(value & _64_BITS, value >> 64, mask & _64_BITS, mask >> 64)
            for value, mask in test.values
        )
        return lib.NLCT_TEST_MASKS, b"".join(words)
    if isinstance(field, NumberField):
        ends = chain.from_iterable(test.values)
        return lib.NLCT_TEST_RANGES, struct.pack(f"={2 * len(test.values)}Q", *ends)
    if isinstance(field, AddressField):
        prefix, pack = field.prefix, _PREFIX.pack
        return lib.NLCT_TEST_PREFIXES, b"".join([pack(*prefix(*one)) for one in test.values])
    texts = (_PREFIX.pack(low.to_bytes(16, "big"), 0, 128) for low, _ in test.values)
    return lib.NLCT_TEST_PREFIXES, b"".join(texts)


# What the kernel may leave out --------------------------------------------------------------------


def kernel_filter(tests: Iterable[Test], zone_request: int) -> ffi.CData:
    """Make the ``struct nlct_kernel_filter *``: what the kernel may leave out, for speed alone.

    ``tests``: those that every match must pass. ``zone_request``: how to ask for a zone.
    """
    made = ffi.new("struct nlct_kernel_filter *")
    for test in tests:
        if len(test.values) == 1:
            _set(made, test, zone_request)
    return made


def _set(made: ffi.CData, test: Test, zone_request: int) -> None:
    """Ask for the value of a test that has only one."""
    field = FIELDS[test.field]
    ((low, high),) = test.values
    if test.masked and test.field in ("mark", "status"):
        # The kernel refuses a status of 0.
        if low or test.field == "mark":
            setattr(made, test.field, low)
            setattr(made, f"{test.field}_mask", high)
    elif test.masked or low != high:
        return
    elif test.field == "zone":
        made.zone_request = zone_request
        made.zone = low
    elif test.field == "family":
        made.family = made.orig.family = low
    elif test.field == "mark":
        made.mark = low
        made.mark_mask = _EVERY_BIT
    elif test.field in ("proto", "sport", "dport"):
        setattr(made.orig, test.field, low)
        made.orig.present |= 1 << field.bit
    elif test.field in ("src", "dst") and isinstance(field, AddressField):
        # Of an IPv6 address, a dump is asked for the family alone.
        packed, family, _ = field.prefix(low, high)
        ffi.memmove(getattr(made.orig, test.field), packed, len(packed))
        made.family = made.orig.family = family
        made.orig.present |= 1 << field.bit
