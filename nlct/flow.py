"""A flow and its tuples: immutable, typed, absent is None.

Both are bytes as the core lays them out, read where they are asked for: a dump of half a million
flows makes no object that nobody looks at.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Union

from nlct import _check
from nlct._ffi import ffi, lib
from nlct._fields import ADDRESS_SIZE, CODES, FIELDS, FLOW_SIZE, TUPLE_FIELDS, TUPLE_SIZE, TUPLES
from nlct.enums import DccpState, Proto, SctpState, Status, TcpState
from nlct.errors import check

if TYPE_CHECKING:
    from typing import TypedDict

    from typing_extensions import Unpack

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
AddressLike = Union[Address, str]
ProtoLike = Union[int, str]

if TYPE_CHECKING:

    class FlowFields(TypedDict, total=False):
        """What a Flow may be given by name; see there."""

        master: Tuple | None
        tcp_state: int | str | None
        tcp_wscale_orig: int | None
        tcp_wscale_reply: int | None
        tcp_flags_orig: int | None
        tcp_flags_reply: int | None
        sctp_state: int | str | None
        sctp_vtag_orig: int | None
        sctp_vtag_reply: int | None
        dccp_state: int | str | None
        dccp_role: int | None
        dccp_handshake_seq: int | None
        packets_orig: int | None
        bytes_orig: int | None
        packets_reply: int | None
        bytes_reply: int | None
        timestamp_start: int | None
        timestamp_stop: int | None
        timestamp_event: int | None
        labels: int | None
        helper: str | None
        helper_info: bytes | None
        seqadj_orig_pos: int | None
        seqadj_orig_before: int | None
        seqadj_orig_after: int | None
        seqadj_reply_pos: int | None
        seqadj_reply_before: int | None
        seqadj_reply_after: int | None
        secctx: str | None
        synproxy_isn: int | None
        synproxy_its: int | None
        synproxy_tsoff: int | None
        unknown: Mapping[int, bytes] | None

    class FlowChanges(TypedDict, total=False):
        """What Conntrack.update() may be given by name; see there."""

        timeout: int
        mark: int
        status: int
        tcp_state: int | str
        tcp_wscale_orig: int
        tcp_wscale_reply: int
        tcp_flags_orig: int
        tcp_flags_reply: int
        sctp_state: int | str
        sctp_vtag_orig: int
        sctp_vtag_reply: int
        dccp_state: int | str
        dccp_role: int
        dccp_handshake_seq: int
        labels: int
        helper: str
        helper_info: bytes
        seqadj_orig_pos: int
        seqadj_orig_before: int
        seqadj_orig_after: int
        seqadj_reply_pos: int
        seqadj_reply_before: int
        seqadj_reply_after: int
        synproxy_isn: int
        synproxy_its: int
        synproxy_tsoff: int


_read_number = {size: struct.Struct(f"={code}").unpack_from for size, code in CODES.items()}
_read_present = _read_number[8]
_read_ipv4 = struct.Struct("!I").unpack_from
_read_span = struct.Struct("=II").unpack_from

_IPV4 = int(socket.AF_INET)
_IPV6 = int(socket.AF_INET6)


# Values -----------------------------------------------------------------------------------------


def address(name: str, value: AddressLike) -> Address:
    """Read an address."""
    # To the kernel that interface would be lost, and the flow another one.
    if "%" in str(value):
        raise ValueError(f"{name} must be an address without an interface, not {str(value)!r}")
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be an IPv4 or IPv6 address, not {value!r}")
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{name} must be an IPv4 or IPv6 address, not {value!r}") from None


def number_or_name(name: str, value: int | str, names: type[enum.IntEnum], high: int) -> int:
    """Read a number that may be given by its name."""
    if not isinstance(value, str):
        return _check.integer(name, value, 0, high)
    try:
        return names[value.upper()]
    except KeyError:
        known = ", ".join(member.name.lower() for member in names)
        raise ValueError(
            f"{name} must be from 0 to {high} or one of {known}, not {value!r}"
        ) from None


def address_from(packed: bytes, family: int) -> Address:
    """Make an address of the bytes in which the core keeps it."""
    if family == _IPV4:
        return ipaddress.IPv4Address(packed[:4])
    return ipaddress.IPv6Address(packed)


def member_or_number(names: Callable[[int], Any], value: int) -> int:
    """Return the member of an enumeration; just the number where it has none."""
    try:
        member: int = names(value)
    except ValueError:
        return value
    return member


def labels_from(packed: bytes) -> int:
    """Make a number of which bit n is label n."""
    low, high = struct.unpack("=QQ", packed)
    return int(low | high << 64)


def labels_to(value: int) -> bytes:
    """Lay labels out as the core does."""
    return struct.pack("=QQ", value & 2**64 - 1, value >> 64)


# Reading a row ----------------------------------------------------------------------------------


def _place(bit: int) -> tuple[int, int]:
    """Where a bit of "present" lies: the byte, and its mask in there. A byte is read quickly."""
    byte = bit // 8
    return byte if sys.byteorder == "little" else 7 - byte, 1 << bit % 8


def _number(bit: int, offset: int, size: int, make: Callable[[int], Any] | None = None) -> property:
    read = _read_number[size]
    byte, mask = _place(bit)

    def get(self: Any) -> Any:
        row = self._row
        if row[byte] & mask:
            return read(row, offset)[0]
        return None

    def get_made(self: Any) -> Any:
        value = get(self)
        return None if value is None else member_or_number(make, value)  # type: ignore[arg-type]

    return property(get if make is None else get_made)


def _of_tuple(name: str, make: Callable[[int], Any] | None = None) -> Any:
    field = FIELDS["orig_zone" if name == "zone" else name]
    bit = getattr(lib, f"NLCT_TUPLE_{name.upper()}")
    return _number(bit, field.offset - TUPLES["orig"], field.size, make)


def _of_flow(name: str, make: Callable[[int], Any] | None = None) -> Any:
    field = FIELDS[name]
    return _number(getattr(lib, f"NLCT_FLOW_{name.upper()}"), field.offset, field.size, make)


def _address_of_tuple(name: str) -> Any:
    at = FIELDS[name].offset - TUPLES["orig"]
    byte, mask = _place(getattr(lib, f"NLCT_TUPLE_{name.upper()}"))
    ipv4, ipv6 = ipaddress.IPv4Address, ipaddress.IPv6Address

    def get(self: Tuple) -> Address | None:
        row = self._row
        if not row[byte] & mask:
            return None
        if row[_TUPLE_FAMILY] == _IPV4:
            return ipv4(_read_ipv4(row, at)[0])
        return ipv6(row[at : at + ADDRESS_SIZE])

    return property(get)


_TUPLE_FAMILY = ffi.offsetof("struct nlct_tuple", "family")
_TUPLE_BITS = {name: getattr(lib, f"NLCT_TUPLE_{name.upper()}") for name in (*TUPLE_FIELDS, "zone")}


def _arguments(one: Any, names: Iterable[str]) -> str:
    values = ((name, getattr(one, name)) for name in names)
    return ", ".join(f"{name}={_shown(value)}" for name, value in values if value is not None)


def _shown(value: object) -> str:
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return repr(str(value))
    if isinstance(value, enum.IntEnum):
        return f"{type(value).__name__}.{value.name}"
    return repr(value)


def _set(row: bytearray, offset: int, bit: int, value: bytes) -> None:
    row[offset : offset + len(value)] = value
    present = _read_present(row)[0] | 1 << bit
    row[:8] = present.to_bytes(8, sys.byteorder)


@functools.total_ordering
class Tuple:
    """One direction of a flow (``CTA_TUPLE_ORIG``, ``CTA_TUPLE_REPLY``).

    ``src``, ``dst``: addresses, given as ``ipaddress`` objects or text, of one family.
    ``proto``: layer-4 protocol, 0 to 255 or its name ("tcp", "udp", "icmp", ...).
    ``sport``, ``dport``: ports, 0 to 65535, for GRE its keys. ``icmp_id`` (0 to 65535),
    ``icmp_type`` and ``icmp_code`` (0 to 255) stand in their place for ICMP and ICMPv6.
    ``zone``: 0 to 65535, only where the zone applies to this direction alone (``--orig-zone``,
    ``--reply-zone``).

    Tuples are immutable, can be compared, sorted and used as keys.
    """

    __slots__ = ("_row",)
    _row: bytes

    def __init__(
        self,
        src: AddressLike | None = None,
        dst: AddressLike | None = None,
        proto: ProtoLike | None = None,
        sport: int | None = None,
        dport: int | None = None,
        icmp_id: int | None = None,
        icmp_type: int | None = None,
        icmp_code: int | None = None,
        zone: int | None = None,
    ) -> None:
        """Check the fields. Raises TypeError or ValueError, naming the field and its range."""
        row = bytearray(TUPLE_SIZE)
        for name, given in (("src", src), ("dst", dst)):
            if given is not None:
                self._set_address(row, name, address(name, given))
        number = None if proto is None else number_or_name("proto", proto, Proto, _check.U8)
        for name, value, high in (
            ("proto", number, _check.U8),
            ("sport", sport, _check.U16),
            ("dport", dport, _check.U16),
            ("icmp_id", icmp_id, _check.U16),
            ("icmp_type", icmp_type, _check.U8),
            ("icmp_code", icmp_code, _check.U8),
            ("zone", zone, _check.U16),
        ):
            if value is None:
                continue
            field = FIELDS["orig_zone" if name == "zone" else name]
            packed = _check.integer(name, value, 0, high).to_bytes(field.size, sys.byteorder)
            _set(row, field.offset - TUPLES["orig"], _TUPLE_BITS[name], packed)
        self._row = bytes(row)

    @staticmethod
    def _set_address(row: bytearray, name: str, value: Address) -> None:
        family = _IPV4 if value.version == 4 else _IPV6
        if row[_TUPLE_FAMILY] not in (0, family):
            raise ValueError(f"src and dst must be of one family; {name} {value} is of another")
        row[_TUPLE_FAMILY] = family
        _set(row, FIELDS[name].offset - TUPLES["orig"], _TUPLE_BITS[name], value.packed)

    src: Address | None = _address_of_tuple("src")
    dst: Address | None = _address_of_tuple("dst")
    proto: int | None = _of_tuple("proto")
    sport: int | None = _of_tuple("sport")
    dport: int | None = _of_tuple("dport")
    icmp_id: int | None = _of_tuple("icmp_id")
    icmp_type: int | None = _of_tuple("icmp_type")
    icmp_code: int | None = _of_tuple("icmp_code")
    zone: int | None = _of_tuple("zone")

    @property
    def family(self) -> int | None:
        """``socket.AF_INET`` or ``AF_INET6``; None without an address."""
        return self._row[_TUPLE_FAMILY] or None

    def to_dict(self) -> dict[str, Any]:
        """Return what is there, for JSON."""
        values = ((name, getattr(self, name)) for name in _TUPLE_BITS)
        return {
            name: str(value) if name in ("src", "dst") else int(value)
            for name, value in values
            if value is not None
        }

    def replace(self, **changes: Any) -> Tuple:
        """Return a copy with some fields changed; None takes a field away."""
        values = {name: getattr(self, name) for name in _TUPLE_BITS}
        return Tuple(**{**values, **changes})

    def __repr__(self) -> str:
        return f"Tuple({_arguments(self, _TUPLE_BITS)})"

    def __reduce__(self) -> tuple[object, ...]:
        return Tuple, tuple(getattr(self, name) for name in _TUPLE_BITS)

    def __eq__(self, other: object) -> bool:
        return self._row == other._row if isinstance(other, Tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._row)

    def _key(self) -> tuple[Any, ...]:
        """What tuples sort by: family, addresses, protocol, ports; what is absent comes first."""
        row = self._row
        addresses = row[_TUPLE_AT["src"] : _TUPLE_AT["src"] + 2 * ADDRESS_SIZE]
        numbers = (_read_number[size](row, at)[0] for at, size in _TUPLE_ORDER)
        return (row[_TUPLE_FAMILY], addresses, *numbers, _read_present(row)[0])

    def __lt__(self, other: Tuple) -> bool:
        return self._key() < other._key() if isinstance(other, Tuple) else NotImplemented


_TUPLE_AT = {name: FIELDS[name].offset - TUPLES["orig"] for name in TUPLE_FIELDS}
_TUPLE_ORDER = [
    *((_TUPLE_AT[name], FIELDS[name].size) for name in TUPLE_FIELDS[2:]),
    (FIELDS["orig_zone"].offset - TUPLES["orig"], FIELDS["orig_zone"].size),
]


# Flows ------------------------------------------------------------------------------------------


def _tuple_of_flow(name: str) -> Any:
    at = TUPLES[name]
    end = at + TUPLE_SIZE
    byte, mask = _place(getattr(lib, f"NLCT_FLOW_{name.upper()}"))
    new, kind = object.__new__, Tuple

    def get(self: Flow) -> Tuple | None:
        row = self._row
        if not row[byte] & mask:
            return None
        one: Tuple = new(kind)
        one._row = row[at:end]
        return one

    return property(get)


def _bytes_of_flow(name: str, make: Callable[[bytes], Any]) -> Any:
    field = FIELDS[name]
    byte, mask = _place(getattr(lib, f"NLCT_FLOW_{name.upper()}"))

    def get(self: Flow) -> Any:
        row = self._row
        if not row[byte] & mask:
            return None
        if field.kind != lib.NLCT_SPAN:
            return make(row[field.offset : field.offset + field.size])
        at, size = _read_span(row, field.offset)
        return make(self._heap[at : at + size])

    return property(get)


def text_from(packed: bytes) -> str:
    """Make text of what ends with null bytes."""
    return packed.rstrip(b"\0").decode(errors="replace")


def _attributes_from(packed: bytes) -> dict[int, bytes]:
    """Payloads by type, without the flags of the type."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(packed):
        size, kind = struct.unpack_from("=HH", packed, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = packed[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


_ATTRIBUTE_MAX = _check.U16 - 4


def _attributes_to(attributes: Mapping[int, bytes]) -> bytes:
    packed = b""
    for kind, payload in attributes.items():
        if len(payload) > _ATTRIBUTE_MAX:
            raise ValueError(f"unknown[{kind}] must be of up to {_ATTRIBUTE_MAX} bytes")
        header = struct.pack("=HH", 4 + len(payload), _check.integer("unknown", kind, 0, 0x3FFF))
        packed += header + payload + bytes(-len(payload) % 4)
    return packed


_STATES: dict[str, type[enum.IntEnum]] = {
    "tcp_state": TcpState,
    "sctp_state": SctpState,
    "dccp_state": DccpState,
}


@functools.total_ordering
class Flow:
    """One conntrack entry. What the kernel did not say is None.

    ``orig``, ``reply``: its two directions; to the kernel a missing reply is the reverse.
    ``zone``: its zone's id, 0 to 65535, in whichever direction it applies (``CTA_ZONE``, ``-w``);
    0 is the default zone.
    ``status``: see Status (``CTA_STATUS``, ``-u``). A flow that is created with SRC_NAT or DST_NAT
    is translated to what ``reply`` says (``CTA_NAT_SRC``, ``-n``; ``CTA_NAT_DST``, ``-g``).
    ``timeout``: seconds left, 0 to 2**32 - 1, None on offloaded flows (``CTA_TIMEOUT``, ``-t``);
    the kernel makes 8,589,934 of what is more, in silence.
    ``mark``: 0 to 2**32 - 1 (``CTA_MARK``, ``-m``). ``id``: the kernel's id of this very entry
    (``CTA_ID``); ``use``: its reference count (``CTA_USE``), to which the dumps of older kernels
    add one here and there; both are the kernel's to give.
    ``master``: the original tuple of the flow that it belongs to, as FTP's data do to its control
    connection (``CTA_TUPLE_MASTER``).

    ``tcp_state``: see TcpState, a number from 0 to 255 or a name (``--state``).
    ``tcp_wscale_orig``, ``tcp_wscale_reply``: window scales; ``tcp_flags_orig``,
    ``tcp_flags_reply``: bits of ``IP_CT_TCP_FLAG_...``; 0 to 255 (``CTA_PROTOINFO_TCP_...``). A
    request says only the flags 0x01, 0x02 and 0x08 (window scaling, selective acknowledgements,
    liberal tracking): the others are what the kernel remembers of packets, and a flow that is given
    them may take every RST for invalid.
    ``sctp_state``: see SctpState; ``sctp_vtag_orig``, ``sctp_vtag_reply``: verification tags, 0 to
    2**32 - 1 (``CTA_PROTOINFO_SCTP_...``). ``dccp_state``: see DccpState; ``dccp_role``: 0 client,
    1 server; ``dccp_handshake_seq``: 0 to 2**64 - 1 (``CTA_PROTOINFO_DCCP_...``).

    ``packets_orig``, ``bytes_orig``, ``packets_reply``, ``bytes_reply``: counters, 0 to 2**64 - 1,
    where the sysctl nf_conntrack_acct is on (``CTA_COUNTERS_ORIG``, ``_REPLY``).
    ``timestamp_start``, ``timestamp_stop``, ``timestamp_event``: nanoseconds since 1970, where
    nf_conntrack_timestamp is on (``CTA_TIMESTAMP``, ``CTA_TIMESTAMP_EVENT``, ``-o timestamp``).

    ``labels``: a number of which bit n, from 0 to 127, is label n (``CTA_LABELS``, ``-l``).
    ``helper``: its name, up to 15 bytes (``CTA_HELP_NAME``); ``helper_info``: bytes of its own.
    ``seqadj_orig_pos``, ``_before``, ``_after``, ``seqadj_reply_...``: how sequence numbers
    are adjusted, 0 to 2**32 - 1 (``CTA_SEQ_ADJ_ORIG``, ``_REPLY``).
    ``secctx``: security context (``CTA_SECCTX``). ``synproxy_isn``, ``synproxy_its``,
    ``synproxy_tsoff``: 0 to 2**32 - 1 (``CTA_SYNPROXY``).
    ``unknown``: raw payloads by type, of attributes that nothing of this speaks for.

    ``str()`` is the line that ``conntrack -L`` prints. Flows are equal, and sort, by what names an
    entry: the original tuple and the zone, and whether that is the reply's alone. To compare all of
    it, compare to_dict().
    """

    __slots__ = ("_heap", "_row")
    _row: bytes
    # What spans in the row point into; perhaps of many flows.
    _heap: bytes

    def __init__(
        self,
        orig: Tuple,
        reply: Tuple | None = None,
        zone: int | None = None,
        status: int | None = None,
        timeout: int | None = None,
        mark: int | None = None,
        id: int | None = None,
        use: int | None = None,
        **more: Unpack[FlowFields],
    ) -> None:
        """Check the fields. Raises TypeError or ValueError, naming the field and its range."""
        for name in more:
            if name not in _MORE:
                raise TypeError(f"Flow has no field {name!r}")
        values: dict[str, Any] = dict(more)
        values.update(status=status, timeout=timeout, mark=mark, id=id, use=use)
        row = bytearray(FLOW_SIZE)
        _set_tuples(row, orig, reply, values.pop("master", None))
        _set(row, FIELDS["zone"].offset, lib.NLCT_FLOW_ZONE, _zone_bytes(zone, orig, reply))
        heap = bytearray()
        for name, value in values.items():
            if value is not None:
                packed = _pack(name, value, heap)
                _set(row, FIELDS[name].offset, _FLOW_BITS[name], packed)
        self._row = bytes(row)
        self._heap = bytes(heap)

    orig: Tuple = _tuple_of_flow("orig")
    reply: Tuple | None = _tuple_of_flow("reply")
    master: Tuple | None = _tuple_of_flow("master")
    zone: int = _of_flow("zone")
    status: Status | None = _of_flow("status", Status)
    timeout: int | None = _of_flow("timeout")
    mark: int | None = _of_flow("mark")
    id: int | None = _of_flow("id")
    use: int | None = _of_flow("use")
    tcp_state: int | None = _of_flow("tcp_state", TcpState)
    tcp_wscale_orig: int | None = _of_flow("tcp_wscale_orig")
    tcp_wscale_reply: int | None = _of_flow("tcp_wscale_reply")
    tcp_flags_orig: int | None = _of_flow("tcp_flags_orig")
    tcp_flags_reply: int | None = _of_flow("tcp_flags_reply")
    sctp_state: int | None = _of_flow("sctp_state", SctpState)
    sctp_vtag_orig: int | None = _of_flow("sctp_vtag_orig")
    sctp_vtag_reply: int | None = _of_flow("sctp_vtag_reply")
    dccp_state: int | None = _of_flow("dccp_state", DccpState)
    dccp_role: int | None = _of_flow("dccp_role")
    dccp_handshake_seq: int | None = _of_flow("dccp_handshake_seq")
    packets_orig: int | None = _of_flow("packets_orig")
    bytes_orig: int | None = _of_flow("bytes_orig")
    packets_reply: int | None = _of_flow("packets_reply")
    bytes_reply: int | None = _of_flow("bytes_reply")
    timestamp_start: int | None = _of_flow("timestamp_start")
    timestamp_stop: int | None = _of_flow("timestamp_stop")
    timestamp_event: int | None = _of_flow("timestamp_event")
    labels: int | None = _bytes_of_flow("labels", labels_from)
    helper: str | None = _bytes_of_flow("helper", text_from)
    helper_info: bytes | None = _bytes_of_flow("helper_info", bytes)
    seqadj_orig_pos: int | None = _of_flow("seqadj_orig_pos")
    seqadj_orig_before: int | None = _of_flow("seqadj_orig_before")
    seqadj_orig_after: int | None = _of_flow("seqadj_orig_after")
    seqadj_reply_pos: int | None = _of_flow("seqadj_reply_pos")
    seqadj_reply_before: int | None = _of_flow("seqadj_reply_before")
    seqadj_reply_after: int | None = _of_flow("seqadj_reply_after")
    secctx: str | None = _bytes_of_flow("secctx", text_from)
    synproxy_isn: int | None = _of_flow("synproxy_isn")
    synproxy_its: int | None = _of_flow("synproxy_its")
    synproxy_tsoff: int | None = _of_flow("synproxy_tsoff")
    unknown: Mapping[int, bytes] | None = _bytes_of_flow("unknown", _attributes_from)

    @property
    def family(self) -> int | None:
        """``socket.AF_INET`` or ``AF_INET6``."""
        return self._row[_FLOW_FAMILY] or None

    @property
    def state(self) -> int | None:
        """The state of its protocol: TCP, SCTP or DCCP; None where it has none."""
        for name in _STATES:
            value: int | None = getattr(self, name)
            if value is not None:
                return value
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the flow for JSON.

        "protocol", "orig", "reply", "zone", "status" (names), "timeout", "mark", "id" and "use" are
        always there, None where absent; the rest only where the kernel said it. Labels are a
        list of numbers, bytes are hexadecimal text, states are names.
        """
        values: dict[str, Any] = {
            "protocol": _name_of(Proto, self.orig.proto),
            "orig": self.orig.to_dict(),
            "reply": None if self.reply is None else self.reply.to_dict(),
            "zone": self.zone,
        }
        for name in _FLOW_BITS:
            value = getattr(self, name)
            if value is not None or name in _ALWAYS:
                values[name] = _for_json(name, value)
        if self.master is not None:
            values["master"] = self.master.to_dict()
        return values

    def replace(self, **changes: Any) -> Flow:
        """Return a copy with some fields changed; None takes a field away."""
        fields = self._fields()
        # The zone of one direction comes and goes with its tuple.
        if ("orig" in changes or "reply" in changes) and _is_directional(self):
            del fields["zone"]
        return Flow(**{**fields, **changes})

    def _fields(self) -> dict[str, Any]:
        names = ("orig", "reply", "master", "zone", *_FLOW_BITS)
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        size = lib.NLCT_TEXT_MAX + len((self.secctx or "").encode())
        buffer = ffi.new("char[]", size)
        size = check(lib.nlct_flow_text(*pointers(self), buffer, size), "write a flow")
        return bytes(ffi.buffer(buffer, size)).decode(errors="replace").rstrip()

    def __repr__(self) -> str:
        return f"Flow({_arguments(self, ('orig', 'reply', 'master', 'zone', *_FLOW_BITS))})"

    def __reduce__(self) -> tuple[object, ...]:
        return _flow_of, (self._fields(),)

    def _key(self) -> tuple[Any, ...]:
        reply = self.reply
        only_there = None if reply is None else reply.zone
        return self.orig, self.zone, only_there is not None

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Flow) else NotImplemented

    def __lt__(self, other: Flow) -> bool:
        return self._key() < other._key() if isinstance(other, Flow) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


_FLOW_FAMILY = FIELDS["family"].offset
_FLOW_BITS = {
    name: getattr(lib, f"NLCT_FLOW_{name.upper()}")
    for name in FIELDS
    if name != "zone" and hasattr(lib, f"NLCT_FLOW_{name.upper()}")
}
_ALWAYS = ("status", "timeout", "mark", "id", "use")
_MORE = {"master", *_FLOW_BITS} - set(_ALWAYS)


def _is_directional(flow: Flow) -> bool:
    reply = flow.reply
    return flow.orig.zone is not None or (reply is not None and reply.zone is not None)


def _flow_of(fields: dict[str, Any]) -> Flow:
    return Flow(**fields)


def _set_tuples(row: bytearray, orig: Tuple, reply: Tuple | None, master: Tuple | None) -> None:
    for name, one in (("orig", orig), ("reply", reply), ("master", master)):
        if one is None and name != "orig":
            continue
        if not isinstance(one, Tuple):
            raise TypeError(f"{name} must be a Tuple, not {one!r}")
        family = one.family or row[_FLOW_FAMILY]
        if row[_FLOW_FAMILY] not in (0, family):
            raise ValueError("orig, reply and master must be of one family")
        row[_FLOW_FAMILY] = family
        _set(row, TUPLES[name], getattr(lib, f"NLCT_FLOW_{name.upper()}"), one._row)


def _zone_bytes(zone: int | None, orig: Tuple, reply: Tuple | None) -> bytes:
    given = _check.optional("zone", zone, 0, _check.U16)
    of_direction = [t.zone for t in (orig, reply) if t is not None and t.zone is not None]
    if len(of_direction) > 1:
        raise ValueError("a zone applies to one direction or to both, not to each by itself")
    if of_direction and given not in (None, of_direction[0]):
        raise ValueError(f"zone {given} contradicts the tuple's own zone {of_direction[0]}")
    return int(of_direction[0] if of_direction else given or 0).to_bytes(2, sys.byteorder)


def _pack(name: str, value: Any, heap: bytearray) -> bytes:
    """Lay a value out as the core does; what has no fixed size goes to the end of the heap."""
    field = FIELDS[name]
    if field.kind == lib.NLCT_LABELS:
        return labels_to(_check.integer(name, value, 0, 2**128 - 1))
    if field.kind == lib.NLCT_TEXT:
        return pack_text(name, value)
    if field.kind == lib.NLCT_SPAN:
        data = _span_bytes(name, value)
        at = len(heap)
        heap += data
        return struct.pack("=II", at, len(data))
    high = 2 ** (8 * field.size) - 1
    if name in _STATES:
        value = number_or_name(name, value, _STATES[name], high)
    return _check.integer(name, value, 0, high).to_bytes(field.size, sys.byteorder)


def pack_text(name: str, value: Any) -> bytes:
    """Lay out a text of up to 15 bytes, a helper's name."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {value!r}")
    packed = value.encode()
    if len(packed) >= FIELDS["helper"].size or b"\0" in packed:
        raise ValueError(f"{name} must be of up to 15 bytes, without null bytes, not {value!r}")
    return packed.ljust(FIELDS["helper"].size, b"\0")


def _span_bytes(name: str, value: Any) -> bytes:
    if name == "unknown" and isinstance(value, Mapping):
        return _attributes_to(value)
    if name == "secctx" and isinstance(value, str):
        return value.encode()
    if name == "helper_info" and isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{name} must not be {value!r}")


def _name_of(names: Callable[[int], Any], value: int | None) -> str | None:
    """The name of a member in small letters; its number where it has none."""
    if value is None:
        return None
    member = member_or_number(names, value)
    return member.name.lower() if isinstance(member, enum.IntEnum) else str(value)


# A table has a dozen of them, and enumerations are slow.
@functools.lru_cache(maxsize=256)
def status_names(status: int) -> tuple[str, ...]:
    """Return the names of the bits that are set; a bit without a name as a number."""
    bits = (1 << number for number in range(32) if status >> number & 1)
    return tuple((Status(bit).name or hex(bit)).lower() for bit in bits)


def _for_json(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "status":
        return list(status_names(int(value)))
    if name in _STATES:
        return _name_of(_STATES[name], value)
    if name == "labels":
        return [number for number in range(128) if value >> number & 1]
    if name == "unknown":
        return {str(kind): payload.hex() for kind, payload in value.items()}
    return value.hex() if isinstance(value, bytes) else value


# Between Python and the core ---------------------------------------------------------------------

_ROWS = struct.Struct(f"{FLOW_SIZE}s")


def flows_from(rows: bytes | memoryview, heap: bytes) -> Iterator[Flow]:
    """Make flows of an array of ``struct nlct_flow``."""
    new = object.__new__
    kind = Flow
    for (row,) in _ROWS.iter_unpack(rows):
        flow: Flow = new(kind)
        flow._row = row
        flow._heap = heap
        yield flow


def pointers(flow: Flow) -> tuple[ffi.CData, ffi.CData]:
    """Return the ``struct nlct_flow *`` of a flow, and its heap."""
    return ffi.from_buffer("struct nlct_flow *", flow._row), ffi.from_buffer(flow._heap)


def to_c(flow: Flow) -> tuple[ffi.CData, ffi.CData]:
    """Return the same of a flow that may be sent to the kernel."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow must be a Flow, not {flow!r}")
    if flow.family is None:
        raise ValueError("orig must have a src or a dst address")
    return pointers(flow)
