"""What each field of a flow is: where it lies, its values, and how they are checked and shown.

The core says which fields there are, of what kind, and where they lie. Whatever reads, sets,
filters or shows a field asks here.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import operator
import re
import struct
import sys
from collections.abc import Mapping
from typing import Any, Callable, ClassVar, Literal, Union

from nlct import _check, _protocols
from nlct._ffi import ffi, lib, text
from nlct.enums import DccpState, EventKind, Proto, SctpState, Status, TcpState

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
AddressLike = Union[Address, str]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

ADDRESS_SIZE = 16
FLOW_SIZE = ffi.sizeof("struct nlct_flow")
TUPLE_SIZE = ffi.sizeof("struct nlct_tuple")
FLOW_FAMILY = ffi.offsetof("struct nlct_flow", "family")
TUPLE_FAMILY = ffi.offsetof("struct nlct_tuple", "family")
# Where the tuples lie in a flow.
TUPLES = {name: ffi.offsetof("struct nlct_flow", name) for name in ("orig", "reply", "master")}

# AF_INET and AF_INET6.
IPV4, IPV6 = 2, 10
CODES: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
read_number = {size: struct.Struct(f"={code}").unpack_from for size, code in CODES.items()}
_LABELS = struct.Struct("=QQ")
_SPAN = struct.Struct("=II")

# Names of numbers, by field. A flow has at most one of the states.
STATES: dict[str, type[enum.IntEnum]] = {
    "tcp_state": TcpState,
    "sctp_state": SctpState,
    "dccp_state": DccpState,
}
_NAMES: dict[str, type[enum.IntEnum]] = {
    **dict.fromkeys(("proto", "reply_proto", "master_proto"), Proto),
    **STATES,
    "event": EventKind,
}


# Checking and reading values ----------------------------------------------------------------------


def address(name: str, value: AddressLike) -> Address:
    """Read an address."""
    # The request would lose the interface, and mean another flow.
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


def _member(make: Callable[[int], int], number: int) -> int:
    """Return the enumeration's member of a number; the number itself if there is none."""
    try:
        return make(number)
    except ValueError:
        return number


def _text(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode(errors="replace")


def _attributes(packed: bytes) -> dict[int, bytes]:
    """Return payloads by type, without the flags of the type."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(packed):
        size, kind = struct.unpack_from("=HH", packed, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = packed[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def _pack_attributes(attributes: Mapping[int, bytes]) -> bytes:
    packed = b""
    most = _check.U16 - 4
    for kind, payload in attributes.items():
        if len(payload) > most:
            raise ValueError(f"unknown[{kind}] must be of up to {most} bytes")
        header = struct.pack("=HH", 4 + len(payload), _check.integer("unknown", kind, 0, 0x3FFF))
        packed += header + payload + bytes(-len(payload) % 4)
    return packed


def _protocol(name: str, text: str) -> int:
    """Read a protocol: its number, its name in Proto, or a name in /etc/protocols."""
    known = Proto.__members__.get(text.upper().replace("-", "_"))
    if known is not None:
        return int(known)
    # Others read a leading zero as octal.
    if re.fullmatch("0|[1-9][0-9]{0,19}", text):
        return int(text)
    where = f"in {_protocols.FILE}"
    try:
        number = _protocols.numbered(text)
    except OSError as exc:
        number = None
        where += f" (which cannot be read: {exc.strerror})"
    if number is None:
        raise ValueError(
            f"{name} must be from 0 to 255, a name such as tcp, udp, icmp, icmpv6, gre, "
            f"esp or sctp, or a name {where}, not {text!r}"
        )
    return number


# Showing values -----------------------------------------------------------------------------------


# A table has about a dozen of them, and enumerations are slow.
@functools.lru_cache(maxsize=256)
def status_names(status: int) -> tuple[str, ...]:
    """Return the names of the bits that are set; a bit without a name as a number."""
    bits = (1 << number for number in range(32) if status >> number & 1)
    return tuple((Status(bit).name or hex(bit)).lower() for bit in bits)


def _status_of(names: Any) -> int:
    """Return the status of names as status_names() has them."""
    if not isinstance(names, list):
        raise TypeError(f"status must be a list of names, not {names!r}")
    found = 0
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"status must be a list of names, not {names!r}")
        try:
            found |= int(name, 16) if name.startswith("0x") else int(Status[name.upper()])
        except (KeyError, ValueError):
            raise ValueError(f"status must be of names such as 'assured', not {name!r}") from None
    return found


def _bytes_of(name: str, text: Any) -> bytes:
    """Return bytes of hexadecimal text."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be hexadecimal text, not {text!r}")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{name} must be hexadecimal text, not {text!r}") from None


def _number_of(kind: str) -> int:
    if not kind.isdecimal():
        raise ValueError(f"unknown must name attributes by their number, not {kind!r}")
    return int(kind)


def _word(one: enum.IntEnum) -> str:
    word = one.name.lower()
    return word.replace("_", "-") if isinstance(one, Proto) else word


# The types of enumerations are none of these.
_PLAIN = (int, str, list, dict, type(None))


def plain(value: Any) -> Any:
    """Return a value for JSON, as far as its type tells."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Status):
        return list(status_names(int(value)))
    if isinstance(value, enum.IntEnum):
        return _word(value)
    return _ipv6_text(value) if isinstance(value, ipaddress.IPv6Address) else str(value)


def _ipv6_text(value: ipaddress.IPv6Address) -> str:
    """Return an address as conntrack(8) prints it, which is not always how Python does."""
    offsets = ffi.new("int32_t[2]")
    data = ffi.new("char[]", lib.NLCT_ARROW_IPV6 + lib.NLCT_ARROW_MORE)
    lib.nlct_arrow_addresses(value.packed, ffi.NULL, bytes([IPV6]), 1, offsets, data)
    return bytes(ffi.buffer(data, offsets[1])).decode()


# Fields -------------------------------------------------------------------------------------------


class Field:
    """One field of a flow.

    ``name``: that of a column. ``part``: the tuple that it is in, "orig", "reply" or "master"; ""
    for the flow itself. ``member``: its name in there.
    ``number``, ``kind``: the core's. ``size``: of a value, in bytes.
    ``offset``: in ``struct nlct_flow``; ``at``: in the struct of its part. ``bit``: the bit there
    that says that the value is present.
    ``settable``: an update may change it. ``given``: only the kernel gives it. ``proto``: the
    protocol whose flows have it; None for any.
    ``highest``: a filter knows values as numbers; this is the highest.
    """

    kind: int
    highest = 2**128 - 1

    def __init__(self, number: int, found: ffi.CData) -> None:
        self.name = text(found.name)
        self.number = number
        self.size: int = found.size
        self.offset: int = found.offset
        tuples = (name for name, at in TUPLES.items() if at <= self.offset < at + TUPLE_SIZE)
        self.part = next(tuples, "")
        prefix = f"{self.part}_"
        self.member = self.name[len(prefix) :] if self.name.startswith(prefix) else self.name
        self.at = self.offset - TUPLES.get(self.part, 0)
        bit = f"NLCT_{'TUPLE' if self.part else 'FLOW'}_{self.member.upper()}"
        # The family comes with the original tuple.
        self.bit: int = getattr(lib, bit, lib.NLCT_FLOW_ORIG)
        self.settable: bool = found.settable
        proto = self.name.partition("_")[0].upper()
        self.proto = Proto[proto] if proto in ("TCP", "SCTP", "DCCP") else None
        self.given = not (self.part or self.settable or self.name in ("family", "zone", "id"))

    def value(self, packed: bytes, family: int = 0) -> Any:
        """Read a value from the core's bytes; for an address, with its family."""
        raise NotImplementedError

    def pack(self, value: Any, name: str = "") -> bytes:
        """Return a value as the core has it; for a span its bytes.

        Raises TypeError or ValueError, which call the field ``name``.
        """
        raise NotImplementedError

    def plain(self, value: Any) -> Any:
        """Return a value for JSON; None where it is absent."""
        return plain(value)

    def from_plain(self, value: Any) -> Any:
        """Return the value that ``plain`` shows so. Raises TypeError or ValueError."""
        return value


class NumberField(Field):
    """A number of ``size`` bytes.

    ``names``: the enumeration of numbers with a name. ``words``: what is shown for a number.
    ``make``: turns a number into its enumeration's member; the status has a name for each bit.
    """

    kind = lib.NLCT_NUMBER

    def __init__(self, number: int, found: ffi.CData) -> None:
        super().__init__(number, found)
        self.highest = 2 ** (8 * self.size) - 1
        self.names: type[enum.IntEnum] | None = _NAMES.get(self.name)
        self.make: Callable[[int], int] | None = Status if self.name == "status" else self.names
        self.words = {int(one): _word(one) for one in self.names or ()}
        if self.name == "family":
            self.words = {IPV4: "ipv4", IPV6: "ipv6"}

    def check(self, value: Any, name: str = "") -> int:
        """Return a number in range, which may be given by its name."""
        name = name or self.name
        if self.names is None or not isinstance(value, str):
            return _check.integer(name, value, 0, self.highest)
        if self.names is Proto:
            return _check.integer(name, _protocol(name, value), 0, self.highest)
        try:
            return int(self.names[value.upper()])
        except KeyError:
            known = ", ".join(self.words.values())
            raise ValueError(
                f"{name} must be from 0 to {self.highest} or one of {known}, not {value!r}"
            ) from None

    def value(self, packed: bytes, family: int = 0) -> int:  # noqa: ARG002
        number: int = read_number[self.size](packed)[0]
        return number if self.make is None else _member(self.make, number)

    def pack(self, value: Any, name: str = "") -> bytes:
        return self.check(value, name).to_bytes(self.size, sys.byteorder)

    def plain(self, value: Any) -> Any:
        if self.words and value is not None:
            return self.words.get(int(value), str(int(value)))
        return plain(value)

    def from_plain(self, value: Any) -> Any:
        if self.name == "status":
            return _status_of(value)
        # A number without a name is its digits.
        is_digits = self.words and isinstance(value, str) and value.isdecimal()
        return int(value) if is_digits else value


class AddressField(Field):
    """An address: 16 bytes, IPv4 in the first four. IPv6's numbers come after all of IPv4's."""

    kind = lib.NLCT_ADDRESS
    first_of_ipv6 = 2**32
    highest = first_of_ipv6 + 2**128 - 1
    # All numbers of a family.
    whole: ClassVar = {IPV4: (0, first_of_ipv6 - 1), IPV6: (first_of_ipv6, highest)}

    def value(self, packed: bytes, family: int = 0) -> Address:
        if family == IPV4:
            return ipaddress.IPv4Address(packed[:4])
        return ipaddress.IPv6Address(packed)

    def pack(self, value: Address, name: str = "") -> bytes:  # noqa: ARG002
        return value.packed.ljust(self.size, b"\0")

    def interval(self, value: Address | Network) -> tuple[int, int]:
        """Return the first and the last number of a network, or of an address alone."""
        free = 0
        if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
            free = value.max_prefixlen - value.prefixlen
            value = value.network_address
        low = int(value) if value.version == 4 else int(value) + self.first_of_ipv6
        return low, low + (1 << free) - 1

    def family(self, low: int) -> int:
        """Return the family of a network, by its first number."""
        return IPV4 if low < self.first_of_ipv6 else IPV6

    def prefix(self, low: int, high: int) -> tuple[bytes, int, int]:
        """Return a network as the core has it, with its family and the length of its prefix."""
        free = (high - low).bit_length()
        if low < self.first_of_ipv6:
            return low.to_bytes(4, "big"), IPV4, 32 - free
        return (low - self.first_of_ipv6).to_bytes(16, "big"), IPV6, 128 - free


class LabelsField(Field):
    """A number of which bit n is label n."""

    kind = lib.NLCT_LABELS

    def value(self, packed: bytes, family: int = 0) -> int:  # noqa: ARG002
        low, high = _LABELS.unpack(packed)
        return int(low | high << 64)

    def check(self, value: Any, name: str = "") -> int:
        """Return a number in range."""
        return _check.integer(name or self.name, value, 0, self.highest)

    def pack(self, value: Any, name: str = "") -> bytes:
        number = self.check(value, name)
        return _LABELS.pack(number & 2**64 - 1, number >> 64)

    def plain(self, value: int | None) -> list[int] | None:
        return None if value is None else [n for n in range(128) if value >> n & 1]

    def from_plain(self, value: Any) -> int:
        if not isinstance(value, list):
            raise TypeError(f"{self.name} must be a list of numbers, not {value!r}")
        labels = (_check.integer(self.name, label, 0, 127) for label in value)
        return functools.reduce(operator.or_, (1 << label for label in labels), 0)


class TextField(Field):
    """Text that ends with a null byte."""

    kind = lib.NLCT_TEXT

    def value(self, packed: bytes, family: int = 0) -> str:  # noqa: ARG002
        return _text(packed)

    def pack(self, value: Any, name: str = "") -> bytes:
        name, most = name or self.name, self.size - 1
        if not isinstance(value, str):
            raise TypeError(f"{name} must be text, not {value!r}")
        packed = value.encode()
        if len(packed) > most or b"\0" in packed:
            raise ValueError(
                f"{name} must be of up to {most} bytes, without null bytes, not {value!r}"
            )
        return packed.ljust(self.size, b"\0")


class SpanField(Field):
    """Bytes of any length. ``value`` and ``pack`` are about the bytes, ``place`` about the span."""

    kind = lib.NLCT_SPAN

    def value(self, packed: bytes, family: int = 0) -> Any:  # noqa: ARG002
        if self.name == "unknown":
            return _attributes(packed)
        return _text(packed) if self.name == "secctx" else bytes(packed)

    def place(self, at: int, size: int) -> bytes:
        """Return the span as the core has it: where its bytes begin, and how many there are."""
        return _SPAN.pack(at, size)

    def pack(self, value: Any, name: str = "") -> bytes:
        if self.name == "unknown" and isinstance(value, Mapping):
            return _pack_attributes(value)
        if self.name == "secctx" and isinstance(value, str):
            return value.encode()
        if self.name == "helper_info" and isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise TypeError(f"{name or self.name} must not be {value!r}")

    def plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {str(kind): payload.hex() for kind, payload in value.items()}
        return value.hex() if isinstance(value, bytes) else value

    def from_plain(self, value: Any) -> Any:
        if self.name == "helper_info":
            return _bytes_of(self.name, value)
        if self.name == "unknown" and isinstance(value, dict):
            return {_number_of(kind): _bytes_of(self.name, given) for kind, given in value.items()}
        return value


_KINDS = {one.kind: one for one in (NumberField, AddressField, LabelsField, TextField, SpanField)}


def _fields() -> dict[str, Field]:
    found = ffi.new("struct nlct_field *")
    fields: dict[str, Field] = {}
    while lib.nlct_field_get(len(fields), found) == 0:
        field = _KINDS[found.kind](len(fields), found)
        fields[field.name] = field
    return fields


FIELDS = _fields()
# The fields of a tuple, by their names in it.
MEMBERS = {field.member: field for field in FIELDS.values() if field.part == "orig"}
# Those that packets have themselves.
TUPLE_FIELDS = tuple(name for name in MEMBERS if name != "zone")
# The fields of the flow itself, without those that go with its tuples.
FLOW_FIELDS = {
    name: field
    for name, field in FIELDS.items()
    if not field.part and name not in ("family", "zone")
}
SETTABLE = tuple(name for name, field in FIELDS.items() if field.settable)
GIVEN = tuple(name for name, field in FIELDS.items() if field.given)


# Rows: a flow or a tuple as the core has it -------------------------------------------------------


def place(bit: int) -> tuple[int, int]:
    """Return where a bit of "present" lies: its byte, quick to read, and its mask there."""
    byte = bit // 8
    return byte if sys.byteorder == "little" else 7 - byte, 1 << bit % 8


def store(row: bytearray, at: int, bit: int, value: bytes) -> None:
    """Put a value into a row, and say that it is present."""
    row[at : at + len(value)] = value
    byte, mask = place(bit)
    row[byte] |= mask


def reader(field: Field, start: int = 0) -> Any:
    """Make the property that reads a field from a ``_row``; its struct begins there at ``start``.

    A number that has a name is a member of its enumeration.
    """
    at, end, family = start + field.at, start + field.at + field.size, start + TUPLE_FAMILY
    byte, mask = place(field.bit)
    byte += start
    value = field.value

    def get_address(self: Any) -> Any:
        row = self._row
        if not row[byte] & mask:
            return None
        if row[family] == IPV4:
            return ipv4(read_ipv4(row, at)[0])
        return ipaddress.IPv6Address(row[at:end])

    def get_number(self: Any) -> Any:
        row = self._row
        if row[byte] & mask:
            return read(row, at)[0]
        return None

    def get_named(self: Any) -> Any:
        row = self._row
        return _member(make, read(row, at)[0]) if row[byte] & mask else None

    def get_listed(self: Any) -> Any:
        row = self._row
        return members[row[at]] if row[byte] & mask else None

    def get_bytes(self: Any) -> Any:
        row = self._row
        return value(row[at:end]) if row[byte] & mask else None

    def get_span(self: Any) -> Any:
        row = self._row
        if not row[byte] & mask:
            return None
        first, size = _SPAN.unpack_from(row, at)
        return value(self._data[first : first + size])

    if isinstance(field, AddressField):
        read_ipv4 = struct.Struct("!I").unpack_from
        ipv4 = _ipv4
        return property(get_address)
    if isinstance(field, NumberField):
        read = read_number[field.size]
        if field.make is None:
            return property(get_number)
        make = field.make
        if field.size == 1:
            # Enumerations are slow.
            members = [*map(functools.partial(_member, make), range(field.highest + 1))]
            return property(get_listed)
        return property(get_named)
    return property(get_span if isinstance(field, SpanField) else get_bytes)


def _quick_ipv4(number: int) -> Any:
    """Return IPv4Address(number), without its checks, which take as long as all else."""
    one: Any = object.__new__(ipaddress.IPv4Address)
    one._ip = number
    return one


# As far as this Python's addresses are made so.
_ipv4 = _quick_ipv4 if "_ip" in ipaddress.IPv4Address.__slots__ else ipaddress.IPv4Address


def column_reader(name: str) -> Callable[[Any], Any]:
    """Return what reads a column (nlct.table.COLUMNS) of a Flow; absent is None."""
    field = FIELDS[name]
    read: Callable[[Any], Any] = reader(field, TUPLES.get(field.part, 0)).fget
    return read
