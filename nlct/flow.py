"""A flow and its tuples: immutable, typed, absent is None.

Both are bytes as the core lays them out, read where they are asked for: a dump of half a million
flows makes no object that is not used.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, get_args

from nlct import _check
from nlct._ffi import ffi, lib, new_sink
from nlct._fields import (
    ADDRESS_SIZE,
    FIELDS,
    FLOW_FAMILY,
    FLOW_FIELDS,
    FLOW_SIZE,
    IPV4,
    IPV6,
    MEMBERS,
    STATES,
    TUPLE_FAMILY,
    TUPLE_SIZE,
    TUPLES,
    Address,
    AddressField,
    AddressLike,
    SpanField,
    address,
    column_reader,
    place,
    plain,
    read_number,
    reader,
    store,
)
from nlct.enums import Status
from nlct.errors import check

if TYPE_CHECKING:
    from typing_extensions import Never, TypedDict, Unpack

    Absent = TypeVar("Absent")

    class Settable(TypedDict, Generic[Absent], total=False):
        """What a flow may be given by name and an update may change; see Flow."""

        tcp_state: int | str | Absent
        tcp_wscale_orig: int | Absent
        tcp_wscale_reply: int | Absent
        tcp_flags_orig: int | Absent
        tcp_flags_reply: int | Absent
        sctp_state: int | str | Absent
        sctp_vtag_orig: int | Absent
        sctp_vtag_reply: int | Absent
        dccp_state: int | str | Absent
        dccp_role: int | Absent
        dccp_handshake_seq: int | Absent
        labels: int | Absent
        helper: str | Absent
        helper_info: bytes | Absent
        seqadj_orig_pos: int | Absent
        seqadj_orig_before: int | Absent
        seqadj_orig_after: int | Absent
        seqadj_reply_pos: int | Absent
        seqadj_reply_before: int | Absent
        seqadj_reply_after: int | Absent
        synproxy_isn: int | Absent
        synproxy_its: int | Absent
        synproxy_tsoff: int | Absent

    class FlowFields(Settable[None], total=False):
        """What a Flow may be given by name; see there."""

        master: Tuple | None
        packets_orig: int | None
        bytes_orig: int | None
        packets_reply: int | None
        bytes_reply: int | None
        timestamp_start: int | None
        timestamp_stop: int | None
        timestamp_event: int | None
        secctx: str | None
        event: int | str | None
        unknown: Mapping[int, bytes] | None

    class FlowChanges(Settable[Never], total=False):
        """What Conntrack.update() may be given by name; see there."""

        timeout: int
        mark: int
        status: int


ProtoLike = Union[int, str]
_ADDRESSES = get_args(Address)


def _of_tuple(member: str) -> Any:
    return reader(MEMBERS[member])


def _of_flow(name: str) -> Any:
    return reader(FIELDS[name])


def _arguments(one: Any, names: Iterable[str]) -> str:
    values = ((name, getattr(one, name)) for name in names)
    return ", ".join(f"{name}={_shown(value)}" for name, value in values if value is not None)


def _shown(value: object) -> str:
    if isinstance(value, _ADDRESSES):
        return repr(str(value))
    if isinstance(value, enum.IntEnum):
        return f"{type(value).__name__}.{value.name}"
    return repr(value)


@functools.total_ordering
class Tuple:
    """One direction of a flow (``CTA_TUPLE_ORIG``, ``CTA_TUPLE_REPLY``).

    ``src``, ``dst``: addresses of one family, as ``ipaddress`` objects or text (``CTA_TUPLE_IP``).
    ``proto``: layer-4 protocol: 0 to 255, a number as text, or a name, of Proto ("tcp", "esp",
    "ipv6-icmp") or of /etc/protocols (``CTA_PROTO_NUM``, ``-p``). It reads as a Proto, as a number
    where there is none.
    ``sport``, ``dport``: ports, 0 to 65535; for GRE the keys (``CTA_PROTO_SRC_PORT``,
    ``CTA_PROTO_DST_PORT``). ICMP and ICMPv6 have ``icmp_id`` (0 to 65535), ``icmp_type`` and
    ``icmp_code`` (0 to 255) instead (``CTA_PROTO_ICMP_...``, ``CTA_PROTO_ICMPV6_...``).
    ``zone``: 0 to 65535, if the zone applies to this direction alone (``CTA_TUPLE_ZONE``,
    ``--orig-zone``, ``--reply-zone``), since Linux 4.3.

    Tuples are immutable. You can compare and sort them, and use them as keys.
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
        given: tuple[Any, ...] = (
            src,
            dst,
            proto,
            sport,
            dport,
            icmp_id,
            icmp_type,
            icmp_code,
            zone,
        )
        for (name, field), value in zip(MEMBERS.items(), given):
            if value is None:
                continue
            if isinstance(field, AddressField):
                one = address(name, value)
                _set_family(row, name, one)
                packed = field.pack(one)
            else:
                packed = field.pack(value, name)
            store(row, field.at, field.bit, packed)
        self._row = bytes(row)

    src: Address | None = _of_tuple("src")
    dst: Address | None = _of_tuple("dst")
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
        return self._row[TUPLE_FAMILY] or None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that have a value, for JSON."""
        values = ((name, getattr(self, name)) for name in MEMBERS)
        return {
            name: plain(value) if name in ("src", "dst") else int(value)
            for name, value in values
            if value is not None
        }

    def replace(self, **changes: Any) -> Tuple:
        """Return a copy with some fields changed; None takes a field away.

        Raises TypeError or ValueError as the class itself does.
        """
        values = {name: getattr(self, name) for name in MEMBERS}
        return Tuple(**{**values, **changes})

    def __repr__(self) -> str:
        return f"Tuple({_arguments(self, MEMBERS)})"

    def __reduce__(self) -> tuple[object, ...]:
        return Tuple, tuple(getattr(self, name) for name in MEMBERS)

    def __eq__(self, other: object) -> bool:
        return self._row == other._row if isinstance(other, Tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._row)

    def _key(self) -> tuple[Any, ...]:
        """What tuples sort by: family, addresses, protocol, ports; what is absent comes first."""
        row = self._row
        addresses = row[_SRC.at : _SRC.at + 2 * ADDRESS_SIZE]
        numbers = (read_number[field.size](row, field.at)[0] for field in _TUPLE_NUMBERS)
        return (row[TUPLE_FAMILY], addresses, *numbers, read_number[8](row)[0])

    def __lt__(self, other: Tuple) -> bool:
        return self._key() < other._key() if isinstance(other, Tuple) else NotImplemented


_SRC, _DST, *_TUPLE_NUMBERS = MEMBERS.values()


def _set_family(row: bytearray, name: str, value: Address) -> None:
    family = IPV4 if value.version == 4 else IPV6
    if row[TUPLE_FAMILY] not in (0, family):
        raise ValueError(f"src and dst must be of one family; {name} {value} is of another")
    row[TUPLE_FAMILY] = family


# Flows ------------------------------------------------------------------------------------------


def tuple_from(row: bytes) -> Tuple:
    """Make a tuple of a ``struct nlct_tuple``."""
    one: Tuple = object.__new__(Tuple)
    one._row = row
    return one


def _tuple_of_flow(name: str) -> Any:
    at = TUPLES[name]
    end = at + TUPLE_SIZE
    byte, mask = place(getattr(lib, f"NLCT_FLOW_{name.upper()}"))
    new, kind = object.__new__, Tuple

    def get(self: Flow) -> Tuple | None:
        row = self._row
        if not row[byte] & mask:
            return None
        one: Tuple = new(kind)
        one._row = row[at:end]
        return one

    return property(get)


@functools.total_ordering
class Flow:
    """One conntrack entry. A value that the kernel did not send is None.

    ``orig``, ``reply``: its two directions (``CTA_TUPLE_ORIG``, ``CTA_TUPLE_REPLY``). The kernel
    takes a missing reply for the reverse.
    ``zone``: the id of its zone, 0 to 65535, in whichever direction it applies (``CTA_ZONE``,
    ``-w``); 0 is the default zone.
    ``status``: see Status (``CTA_STATUS``, ``-u``). If you create a flow with SRC_NAT or DST_NAT,
    it translates to what ``reply`` says (``CTA_NAT_SRC``, ``-n``; ``CTA_NAT_DST``, ``-g``).
    ``timeout``: seconds left, 0 to 2**32 - 1, None for an offloaded flow (``CTA_TIMEOUT``, ``-t``);
    the kernel shortens more than 8,589,934 to that, in silence.
    ``mark``: 0 to 2**32 - 1 (``CTA_MARK``, ``-m``).
    ``id``: the kernel's id of this very entry (``CTA_ID``). ``use``: its reference count
    (``CTA_USE``); dumps of older kernels may add one. Only the kernel sets both.
    ``master``: the original tuple of the flow that it belongs to: for FTP data the control
    connection (``CTA_TUPLE_MASTER``).

    ``tcp_state``: see TcpState, a number from 0 to 255 or a name (``CTA_PROTOINFO_TCP_STATE``,
    ``--state``).
    ``tcp_wscale_orig``, ``tcp_wscale_reply``: window scales; ``tcp_flags_orig``,
    ``tcp_flags_reply``: bits of ``IP_CT_TCP_FLAG_...``; 0 to 255 (``CTA_PROTOINFO_TCP_...``). A
    request sends only scales up to 14 and only the flags 0x01, 0x02 and 0x08 (window scaling,
    selective acknowledgements, liberal tracking). In the others the kernel notes what it saw; a
    flow that is created with them may treat every RST as invalid.
    ``sctp_state``: see SctpState, in a request 0 to 8; ``sctp_vtag_orig``, ``sctp_vtag_reply``:
    verification tags, 0 to 2**32 - 1 (``CTA_PROTOINFO_SCTP_...``). ``dccp_state``: see DccpState;
    ``dccp_role``: 0 client, 1 server; ``dccp_handshake_seq``: 0 to 2**64 - 1
    (``CTA_PROTOINFO_DCCP_...``).

    ``packets_orig``, ``bytes_orig``, ``packets_reply``, ``bytes_reply``: counters, 0 to 2**64 - 1,
    if the sysctl nf_conntrack_acct is on (``CTA_COUNTERS_ORIG``, ``CTA_COUNTERS_REPLY``).
    ``timestamp_start``, ``timestamp_stop``, ``timestamp_event``: nanoseconds since 1970, if the
    sysctl nf_conntrack_timestamp is on (``CTA_TIMESTAMP``, ``CTA_TIMESTAMP_EVENT``,
    ``-o timestamp``). ``timestamp_event`` came with Linux 6.14, which sends it with events.

    ``labels``: a number whose bit n, from 0 to 127, is label n (``CTA_LABELS``, ``-l``).
    ``helper``: its name, up to 15 bytes (``CTA_HELP_NAME``); ``helper_info``: bytes for the helper
    (``CTA_HELP_INFO``), which an update sets together with the name.
    ``seqadj_orig_pos``, ``seqadj_orig_before``, ``seqadj_orig_after``, ``seqadj_reply_...``: how
    the kernel adjusts sequence numbers, 0 to 2**32 - 1 (``CTA_SEQ_ADJ_ORIG``,
    ``CTA_SEQ_ADJ_REPLY``).
    ``secctx``: security context (``CTA_SECCTX``). ``synproxy_isn``, ``synproxy_its``,
    ``synproxy_tsoff``: 0 to 2**32 - 1, since Linux 4.17 (``CTA_SYNPROXY``).
    ``event``: what happened to the flow, an EventKind, if an event tells of it (``-E``).
    ``unknown``: raw payloads, by type, of attributes that this version does not know.

    ``str()`` is the line that ``conntrack -L`` prints. Flows compare and sort by what names an
    entry: the original tuple, the zone, and whether the zone is the reply's alone. To compare
    everything, compare to_dict().
    """

    __slots__ = ("_data", "_row")
    _row: bytes
    # What spans in the row point into; perhaps of many flows.
    _data: bytes

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
        values: dict[str, Any] = dict(more)
        values.update(status=status, timeout=timeout, mark=mark, id=id, use=use)
        row = bytearray(FLOW_SIZE)
        _set_tuples(row, orig, reply, values.pop("master", None))
        _set_zone(row, zone, orig, reply)
        data = bytearray()
        for name, value in values.items():
            field = FLOW_FIELDS.get(name)
            if field is None:
                raise TypeError(f"Flow has no field {name!r}")
            if value is None:
                continue
            packed = field.pack(value)
            if isinstance(field, SpanField):
                data += packed
                packed = field.place(len(data) - len(packed), len(packed))
            store(row, field.at, field.bit, packed)
        self._row = bytes(row)
        self._data = bytes(data)

    orig: Tuple = _tuple_of_flow("orig")
    reply: Tuple | None = _tuple_of_flow("reply")
    master: Tuple | None = _tuple_of_flow("master")
    zone: int = _of_flow("zone")
    status: Status | None = _of_flow("status")
    timeout: int | None = _of_flow("timeout")
    mark: int | None = _of_flow("mark")
    id: int | None = _of_flow("id")
    use: int | None = _of_flow("use")
    tcp_state: int | None = _of_flow("tcp_state")
    tcp_wscale_orig: int | None = _of_flow("tcp_wscale_orig")
    tcp_wscale_reply: int | None = _of_flow("tcp_wscale_reply")
    tcp_flags_orig: int | None = _of_flow("tcp_flags_orig")
    tcp_flags_reply: int | None = _of_flow("tcp_flags_reply")
    sctp_state: int | None = _of_flow("sctp_state")
    sctp_vtag_orig: int | None = _of_flow("sctp_vtag_orig")
    sctp_vtag_reply: int | None = _of_flow("sctp_vtag_reply")
    dccp_state: int | None = _of_flow("dccp_state")
    dccp_role: int | None = _of_flow("dccp_role")
    dccp_handshake_seq: int | None = _of_flow("dccp_handshake_seq")
    packets_orig: int | None = _of_flow("packets_orig")
    bytes_orig: int | None = _of_flow("bytes_orig")
    packets_reply: int | None = _of_flow("packets_reply")
    bytes_reply: int | None = _of_flow("bytes_reply")
    timestamp_start: int | None = _of_flow("timestamp_start")
    timestamp_stop: int | None = _of_flow("timestamp_stop")
    timestamp_event: int | None = _of_flow("timestamp_event")
    labels: int | None = _of_flow("labels")
    helper: str | None = _of_flow("helper")
    helper_info: bytes | None = _of_flow("helper_info")
    seqadj_orig_pos: int | None = _of_flow("seqadj_orig_pos")
    seqadj_orig_before: int | None = _of_flow("seqadj_orig_before")
    seqadj_orig_after: int | None = _of_flow("seqadj_orig_after")
    seqadj_reply_pos: int | None = _of_flow("seqadj_reply_pos")
    seqadj_reply_before: int | None = _of_flow("seqadj_reply_before")
    seqadj_reply_after: int | None = _of_flow("seqadj_reply_after")
    secctx: str | None = _of_flow("secctx")
    synproxy_isn: int | None = _of_flow("synproxy_isn")
    synproxy_its: int | None = _of_flow("synproxy_its")
    synproxy_tsoff: int | None = _of_flow("synproxy_tsoff")
    event: int | None = _of_flow("event")
    unknown: Mapping[int, bytes] | None = _of_flow("unknown")

    @property
    def family(self) -> int | None:
        """``socket.AF_INET`` or ``AF_INET6``."""
        return self._row[FLOW_FAMILY] or None

    @property
    def state(self) -> int | None:
        """The state of the flow's TCP, SCTP or DCCP; None for other protocols."""
        for name in STATES:
            value: int | None = getattr(self, name)
            if value is not None:
                return value
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the flow for JSON.

        It always has "protocol", "orig", "reply", "zone", "status" (names), "timeout", "mark", "id"
        and "use", None if absent, and of the rest what the kernel sent. Labels are a list of
        numbers, bytes are hexadecimal text, states are names.
        """
        values: dict[str, Any] = {
            "protocol": _PROTO.plain(self.orig.proto),
            "orig": self.orig.to_dict(),
            "reply": None if self.reply is None else self.reply.to_dict(),
            "zone": self.zone,
        }
        for name, read, shown in _FOR_JSON:
            value = read(self)
            if value is not None:
                values[name] = shown(value)
            elif name in ALWAYS:
                values[name] = None
        if self.master is not None:
            values["master"] = self.master.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Flow:
        """Make a flow of what to_dict() returned, perhaps by way of JSON.

        Raises TypeError or ValueError, naming the field, for what no to_dict() returns.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"a flow must be an object with 'orig', not {values!r}")
        fields: dict[str, Any] = {}
        for name, value in values.items():
            # It says again what the original tuple says.
            if value is None or name == "protocol":
                continue
            if name in TUPLES:
                fields[name] = _tuple_from(name, value)
            elif name == "zone":
                fields[name] = value
            elif name in FLOW_FIELDS:
                fields[name] = FLOW_FIELDS[name].from_plain(value)
            else:
                raise ValueError(f"a flow has no field {name!r}")
        if "orig" not in fields:
            raise ValueError("a flow must have 'orig'")
        return cls(**fields)

    def replace(self, **changes: Any) -> Flow:
        """Return a copy with some fields changed; None takes a field away.

        Raises TypeError or ValueError as the class itself does.
        """
        fields = self._fields()
        # The zone of one direction comes and goes with its tuple.
        if ("orig" in changes or "reply" in changes) and _is_directional(self):
            del fields["zone"]
        return Flow(**{**fields, **changes})

    def _fields(self) -> dict[str, Any]:
        names = ("orig", "reply", "master", "zone", *FLOW_FIELDS)
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        size = lib.NLCT_TEXT_MAX + len((self.secctx or "").encode())
        buffer = ffi.new("char[]", size)
        size = check(lib.nlct_flow_text(*pointers(self), buffer, size), "write a flow")
        return bytes(ffi.buffer(buffer, size)).decode(errors="replace").rstrip()

    def __repr__(self) -> str:
        return f"Flow({_arguments(self, ('orig', 'reply', 'master', 'zone', *FLOW_FIELDS))})"

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


_PROTO = FIELDS["proto"]
# Shown even where absent.
# What JSON has even where it is absent.
ALWAYS = ("status", "timeout", "mark", "id", "use")
_FOR_JSON = [(name, column_reader(name), field.plain) for name, field in FLOW_FIELDS.items()]


def _is_directional(flow: Flow) -> bool:
    reply = flow.reply
    return flow.orig.zone is not None or (reply is not None and reply.zone is not None)


def _tuple_from(name: str, values: Any) -> Tuple:
    """Make a tuple of what its to_dict() returned."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} must be an object, not {values!r}")
    for member in values:
        if member not in MEMBERS:
            raise ValueError(f"{name} has no field {member!r}")
    return Tuple(**values)


def _flow_of(fields: dict[str, Any]) -> Flow:
    return Flow(**fields)


def _set_tuples(row: bytearray, orig: Tuple, reply: Tuple | None, master: Tuple | None) -> None:
    for name, one in (("orig", orig), ("reply", reply), ("master", master)):
        if one is None and name != "orig":
            continue
        if not isinstance(one, Tuple):
            raise TypeError(f"{name} must be a Tuple, not {one!r}")
        family = one.family or row[FLOW_FAMILY]
        if row[FLOW_FAMILY] not in (0, family):
            raise ValueError("orig, reply and master must be of one family")
        row[FLOW_FAMILY] = family
        store(row, TUPLES[name], getattr(lib, f"NLCT_FLOW_{name.upper()}"), one._row)


def _set_zone(row: bytearray, zone: int | None, orig: Tuple, reply: Tuple | None) -> None:
    given = _check.optional("zone", zone, 0, _check.U16)
    of_direction = [t.zone for t in (orig, reply) if t is not None and t.zone is not None]
    if len(of_direction) > 1:
        raise ValueError("a zone applies to one direction or to both, not to each by itself")
    if of_direction and given not in (None, of_direction[0]):
        raise ValueError(f"zone {given} contradicts the tuple's own zone {of_direction[0]}")
    field = FIELDS["zone"]
    store(row, field.at, field.bit, field.pack(of_direction[0] if of_direction else given or 0))


# Between Python and the core ---------------------------------------------------------------------

_ROWS = struct.Struct(f"{FLOW_SIZE}s")


def flows_from(rows: bytes | memoryview, data: bytes) -> Iterator[Flow]:
    """Make flows of an array of ``struct nlct_flow``."""
    new = object.__new__
    kind = Flow
    for (row,) in _ROWS.iter_unpack(rows):
        flow: Flow = new(kind)
        flow._row = row
        flow._data = data
        yield flow


class Lines:
    """Collects flows as lines of text, in the core.

    ``size``: bytes that fit, at least twice ``NLCT_TEXT_MAX``. ``form``: an ``NLCT_FORM_...``.
    """

    def __init__(self, size: int, form: int) -> None:
        self._buffer = ffi.new("char[]", size)
        self.sink = new_sink(lib.nlct_text_new, form, self._buffer, size)

    def take(self) -> bytes:
        """Return what was collected, and start anew."""
        return bytes(ffi.buffer(self._buffer, lib.nlct_text_take(self.sink[0])))


def pointers(flow: Flow) -> tuple[ffi.CData, ffi.CData]:
    """Return the ``struct nlct_flow *`` of a flow, and its bytes."""
    return ffi.from_buffer("struct nlct_flow *", flow._row), ffi.from_buffer(flow._data)


def to_c(flow: Flow) -> tuple[ffi.CData, ffi.CData]:
    """Return the same of a flow that may be sent to the kernel."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow must be a Flow, not {flow!r}")
    if flow.family is None:
        raise ValueError("orig must have a src or a dst address")
    return pointers(flow)


def reverse(orig: Tuple) -> Tuple:
    """Return the reply that the kernel expects to an original tuple, without its zone."""
    row, _ = to_c(Flow(orig))
    request, found = ffi.new("uint8_t[]", lib.NLCT_TEXT_MAX), ffi.new("struct nlct_flow *")
    size = lib.nlct_flow_build(row, ffi.NULL, request, len(request))
    lib.nlct_flow_parse(request, size, found, ffi.new("struct nlct_bytes *"))
    (flow,) = flows_from(ffi.buffer(found)[:], b"")
    assert flow.reply is not None
    return flow.reply


_ID_BYTE, _ID_MASK = place(lib.NLCT_FLOW_ID)


def row_to_delete(flow: Flow) -> bytes:
    """Return the ``struct nlct_flow`` of one of several flows that are to be deleted by name."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flows must be Flow objects, not {flow!r}")
    row = flow._row
    if not row[_ID_BYTE] & _ID_MASK:
        raise ValueError(f"flows must have an id, as the kernel gave it, not {flow!r}")
    if not row[FLOW_FAMILY]:
        raise ValueError(f"flows must have a src or a dst address in orig, not {flow!r}")
    return row
