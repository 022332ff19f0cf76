"""The fields of a flow, as the core lays them out: names, sizes, and where they lie."""

from __future__ import annotations

from typing import Literal, NamedTuple

from nlct._ffi import ffi, lib, text


class Field(NamedTuple):
    """One field of a flow.

    ``number``: the core's number. ``size``: of a value, in bytes. ``kind``: ``lib.NLCT_NUMBER``,
    ``NLCT_ADDRESS``, ``NLCT_LABELS``, ``NLCT_TEXT`` or ``NLCT_SPAN``. ``offset``: in ``struct
    nlct_flow``.
    """

    number: int
    size: int
    kind: int
    offset: int


def _fields() -> dict[str, Field]:
    field = ffi.new("struct nlct_field *")
    found: dict[str, Field] = {}
    while lib.nlct_field_get(len(found), field) == 0:
        found[text(field.name)] = Field(len(found), field.size, field.kind, field.offset)
    return found


FIELDS = _fields()

FLOW_SIZE = ffi.sizeof("struct nlct_flow")
TUPLE_SIZE = ffi.sizeof("struct nlct_tuple")
# Where the tuples lie in a flow.
TUPLES = {name: ffi.offsetof("struct nlct_flow", name) for name in ("orig", "reply", "master")}

TUPLE_FIELDS = ("src", "dst", "proto", "sport", "dport", "icmp_id", "icmp_type", "icmp_code")
CODES: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
ADDRESS_SIZE = 16
