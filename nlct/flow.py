"""A flow and its tuples: immutable, typed, absent is None."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, Union

from nlct import _check
from nlct._ffi import ffi, lib
from nlct.enums import Proto, Status

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
AddressLike = Union[Address, str]
ProtoLike = Union[int, str]


def _address(name: str, value: AddressLike | None) -> Address | None:
    if value is None or isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be an IPv4 or IPv6 address, not {value!r}")
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{name} must be an IPv4 or IPv6 address, not {value!r}") from None


def _proto(value: ProtoLike | None) -> int | None:
    if not isinstance(value, str):
        return _check.optional("proto", value, 0, _check.U8)
    try:
        return Proto[value.upper()]
    except KeyError:
        names = ", ".join(proto.name.lower() for proto in Proto)
        raise ValueError(f"proto must be from 0 to 255 or one of {names}, not {value!r}") from None


class _TupleFields(NamedTuple):
    src: Address | None
    dst: Address | None
    proto: int | None
    sport: int | None
    dport: int | None
    icmp_id: int | None
    icmp_type: int | None
    icmp_code: int | None
    zone: int | None


class Tuple(_TupleFields):
    """One direction of a flow (``CTA_TUPLE_ORIG``, ``CTA_TUPLE_REPLY``).

    ``src``, ``dst``: addresses, given as ``ipaddress`` objects or text, of one family.
    ``proto``: layer-4 protocol, 0 to 255 or its name ("tcp", "udp", "icmp", ...).
    ``sport``, ``dport``: ports, 0 to 65535. ``icmp_id`` (0 to 65535), ``icmp_type`` and
    ``icmp_code`` (0 to 255) stand in their place for ICMP and ICMPv6.
    ``zone``: 0 to 65535, only where the zone applies to this direction alone (``--orig-zone``,
    ``--reply-zone``).
    """

    __slots__ = ()

    def __new__(
        cls,
        src: AddressLike | None = None,
        dst: AddressLike | None = None,
        proto: ProtoLike | None = None,
        sport: int | None = None,
        dport: int | None = None,
        icmp_id: int | None = None,
        icmp_type: int | None = None,
        icmp_code: int | None = None,
        zone: int | None = None,
    ) -> Tuple:
        """Check the fields. Raises TypeError or ValueError, naming the field and its range."""
        self = super().__new__(
            cls,
            src=_address("src", src),
            dst=_address("dst", dst),
            proto=_proto(proto),
            sport=_check.optional("sport", sport, 0, _check.U16),
            dport=_check.optional("dport", dport, 0, _check.U16),
            icmp_id=_check.optional("icmp_id", icmp_id, 0, _check.U16),
            icmp_type=_check.optional("icmp_type", icmp_type, 0, _check.U8),
            icmp_code=_check.optional("icmp_code", icmp_code, 0, _check.U8),
            zone=_check.optional("zone", zone, 0, _check.U16),
        )
        if self.src is not None and self.dst is not None and self.src.version != self.dst.version:
            raise ValueError(f"src and dst must be of one family, not {self.src} and {self.dst}")
        return self

    @property
    def family(self) -> int | None:
        """``socket.AF_INET`` or ``AF_INET6``; None without an address."""
        address = self.src if self.src is not None else self.dst
        if address is None:
            return None
        return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


class _FlowFields(NamedTuple):
    orig: Tuple
    reply: Tuple | None
    zone: int
    status: Status | None
    timeout: int | None
    mark: int | None
    id: int | None
    use: int | None


class Flow(_FlowFields):
    """One conntrack entry.

    ``orig``, ``reply``: its two directions; to the kernel a missing reply is the reverse.
    ``zone``: its zone's id, 0 to 65535, in whichever direction it applies (``CTA_ZONE``, ``-w``);
    0 is the default zone.
    ``status``: see Status (``CTA_STATUS``). ``timeout``: seconds left, None on offloaded flows
    (``CTA_TIMEOUT``, ``-t``). ``mark``: 0 to 2**32 - 1 (``CTA_MARK``, ``-m``).
    ``id``: the kernel's id of this very entry (``CTA_ID``); ``use``: its reference count
    (``CTA_USE``); both are the kernel's to give.
    """

    __slots__ = ()

    def __new__(
        cls,
        orig: Tuple,
        reply: Tuple | None = None,
        zone: int | None = None,
        status: int | None = None,
        timeout: int | None = None,
        mark: int | None = None,
        id: int | None = None,
        use: int | None = None,
    ) -> Flow:
        """Check the fields. Raises TypeError or ValueError, naming the field and its range."""
        for name, direction in (("orig", orig), ("reply", reply)):
            if not isinstance(direction, Tuple) and (direction is not None or name == "orig"):
                raise TypeError(f"{name} must be a Tuple, not {direction!r}")
        families = {t.family for t in (orig, reply) if t is not None} - {None}
        if len(families) > 1:
            raise ValueError("orig and reply must be of one family")
        bits = _check.optional("status", status, 0, _check.U32)
        return super().__new__(
            cls,
            orig=orig,
            reply=reply,
            zone=_flow_zone(zone, orig, reply),
            status=None if bits is None else Status(bits),
            timeout=_check.optional("timeout", timeout, 0, _check.U32),
            mark=_check.optional("mark", mark, 0, _check.U32),
            id=_check.optional("id", id, 0, _check.U32),
            use=_check.optional("use", use, 0, _check.U32),
        )

    @property
    def family(self) -> int | None:
        """``socket.AF_INET`` or ``AF_INET6``."""
        return self.orig.family

    def replace(self, **changes: Any) -> Flow:
        """Return a copy with some fields changed."""
        return Flow(**{**self._asdict(), **changes})


def _flow_zone(zone: int | None, orig: Tuple, reply: Tuple | None) -> int:
    given = _check.optional("zone", zone, 0, _check.U16)
    of_direction = [t.zone for t in (orig, reply) if t is not None and t.zone is not None]
    if len(of_direction) > 1:
        raise ValueError("a zone applies to one direction or to both, not to each by itself")
    if not of_direction:
        return given or 0
    if given not in (None, of_direction[0]):
        raise ValueError(f"zone {given} contradicts the tuple's own zone {of_direction[0]}")
    return of_direction[0]


# Rows of the core -------------------------------------------------------------------------------

_TUPLE_BITS = {
    "src": lib.NLCT_TUPLE_SRC,
    "dst": lib.NLCT_TUPLE_DST,
    "proto": lib.NLCT_TUPLE_PROTO,
    "sport": lib.NLCT_TUPLE_SPORT,
    "dport": lib.NLCT_TUPLE_DPORT,
    "icmp_id": lib.NLCT_TUPLE_ICMP_ID,
    "icmp_type": lib.NLCT_TUPLE_ICMP_TYPE,
    "icmp_code": lib.NLCT_TUPLE_ICMP_CODE,
    "zone": lib.NLCT_TUPLE_ZONE,
}
_FLOW_BITS = {
    "status": lib.NLCT_FLOW_STATUS,
    "timeout": lib.NLCT_FLOW_TIMEOUT,
    "mark": lib.NLCT_FLOW_MARK,
    "id": lib.NLCT_FLOW_ID,
    "use": lib.NLCT_FLOW_USE,
}
_CODES = {"uint8_t": "B", "uint16_t": "H", "uint32_t": "I", "uint8_t[16]": "16s"}


def _layout(ctype: ffi.CType, prefix: str = "") -> tuple[list[str], str]:
    """The field names and the struct format of a C struct, padding included."""
    names: list[str] = []
    codes = ""
    at = 0
    for name, field in ctype.fields:
        codes += "x" * (field.offset - at)
        if field.type.kind == "struct":
            inner_names, inner_codes = _layout(field.type, f"{prefix}{name}.")
            names += inner_names
            codes += inner_codes
        else:
            names.append(prefix + name)
            codes += _CODES[field.type.cname]
        at = field.offset + ffi.sizeof(field.type)
    return names, codes + "x" * (ffi.sizeof(ctype) - at)


_NAMES, _FORMAT = _layout(ffi.typeof("struct nlct_flow"))
_ROW = struct.Struct("=" + _FORMAT)
_FLOW_AT = {name: _NAMES.index(name) for name in ("present", "zone", "family", *_FLOW_BITS)}
_TUPLE_AT = {
    direction: {name: _NAMES.index(f"{direction}.{name}") for name in ("present", *_TUPLE_BITS)}
    for direction in ("orig", "reply")
}


def address_from(packed: bytes, family: int) -> Address:
    """Make an address of the 16 bytes in which the core keeps it."""
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(packed[:4])
    return ipaddress.IPv6Address(packed)


def _tuple_from(row: tuple[Any, ...], direction: str, family: int) -> Tuple:
    at = _TUPLE_AT[direction]
    present = row[at["present"]]
    values = {name: row[at[name]] for name, bit in _TUPLE_BITS.items() if present & bit}
    for name in ("src", "dst"):
        if name in values:
            values[name] = address_from(values[name], family)
    return Tuple(**values)


def flows_from(buffer: bytes | memoryview) -> Iterator[Flow]:
    """Read rows of ``struct nlct_flow``."""
    for row in _ROW.iter_unpack(buffer):
        present = row[_FLOW_AT["present"]]
        family = row[_FLOW_AT["family"]]
        yield Flow(
            orig=_tuple_from(row, "orig", family),
            reply=_tuple_from(row, "reply", family) if present & lib.NLCT_FLOW_REPLY else None,
            zone=row[_FLOW_AT["zone"]] if present & lib.NLCT_FLOW_ZONE else None,
            **{name: row[_FLOW_AT[name]] for name, bit in _FLOW_BITS.items() if present & bit},
        )


def _fill_tuple(to: ffi.CData, values: Tuple) -> None:
    for name, bit in _TUPLE_BITS.items():
        value = getattr(values, name)
        if value is None:
            continue
        if name in ("src", "dst"):
            ffi.memmove(getattr(to, name), value.packed, len(value.packed))
        else:
            setattr(to, name, value)
        to.present |= bit


def to_c(flow: Flow) -> ffi.CData:
    """Make the ``struct nlct_flow *`` of a flow."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow must be a Flow, not {flow!r}")
    if flow.family is None:
        raise ValueError("orig must have a src or a dst address")
    row = ffi.new("struct nlct_flow *")
    row.family = flow.family
    directional = flow.orig.zone is not None or (
        flow.reply is not None and flow.reply.zone is not None
    )
    # Kernels without zones refuse the attribute; without it a flow is in zone 0 everywhere.
    if flow.zone and not directional:
        row.zone = flow.zone
        row.present |= lib.NLCT_FLOW_ZONE
    for name, bit in _FLOW_BITS.items():
        value = getattr(flow, name)
        if value is not None:
            setattr(row, name, value)
            row.present |= bit
    row.present |= lib.NLCT_FLOW_ORIG
    _fill_tuple(row.orig, flow.orig)
    if flow.reply is not None:
        row.present |= lib.NLCT_FLOW_REPLY
        _fill_tuple(row.reply, flow.reply)
    return row
