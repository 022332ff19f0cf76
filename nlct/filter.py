"""Filters: which flows are meant, and what each field accepts."""

from __future__ import annotations

import copy
import functools
import ipaddress
import operator
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional, SupportsIndex, TypeVar, Union, get_args

from nlct import _check, _guard, _program
from nlct import labels as _label_names
from nlct._expression import (
    EVERYTHING,
    And,
    Node,
    Not,
    Pair,
    Test,
    all_of,
    any_of,
    asked,
    depth,
    joined,
)
from nlct._families import ALL_MATCH, Families, families_of
from nlct._ffi import ffi, lib
from nlct._fields import (
    FIELDS,
    IPV4,
    IPV6,
    STATES,
    Address,
    AddressField,
    AddressLike,
    LabelsField,
    Network,
    NumberField,
    TextField,
)
from nlct.enums import Status
from nlct.flow import Flow, pointers

# What fields accept. NumPy's integers are numbers too; a pair is a value and its mask.
_Item = TypeVar("_Item")
_Some = Union[_Item, Iterable[_Item]]
_Number = SupportsIndex
_Pair = tuple[SupportsIndex, SupportsIndex]
_Interface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]
Zones = _Some[_Number]
Numbers = _Some[Union[_Number, range, slice]]
NamedNumbers = _Some[Union[_Number, str, range, slice]]
MaskedNumbers = _Some[Union[_Number, _Pair, range, slice]]
MaskedBits = _Some[Union[_Number, str, _Pair, range, slice]]
Bits = _Some[Union[_Number, str]]
Labels = _Some[Union[_Number, str, _Pair]]
_Network = Union[AddressLike, Network, _Interface]
Networks = _Some[_Network]
# An address and ports, either of which may be None.
Targets = _Some[Union[_Network, tuple[Optional[_Network], Union[Numbers, None]]]]
Texts = _Some[str]

_ADDRESSES = get_args(Union[Address, Network])

# What text shows as [UNREPLIED]: a bit that is not set.
UNREPLIED = (0, int(Status.SEEN_REPLY))
STATUS_NAMES = ", ".join((*Status.__members__, "unreplied")).lower()


# Values ------------------------------------------------------------------------------------------


def _items(value: Any) -> Iterator[Any]:
    """Yield the alternatives: the items of a collection, or the value itself."""
    # Flags are integers, but iterating over them yields their bits.
    single = (int, str, bytes, tuple, range, ipaddress.IPv4Network, ipaddress.IPv6Network)
    if isinstance(value, Iterable) and not isinstance(value, single):
        yield from value
    else:
        yield value


def zone_set(value: Zones) -> frozenset[int]:
    """Return the zones as a set. None is refused: it must never mean every zone."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return frozenset(_check.integer("zone", zone, 0, _check.U16) for zone in value)
    return frozenset((_check.integer("zone", value, 0, _check.U16),))


def _in_ranges(ranges: Iterable[Pair]) -> frozenset[int]:
    return frozenset(number for low, high in ranges for number in range(low, high + 1))


def _bounds(name: str, value: range | slice, high: int) -> list[Pair]:
    """Read a range or a slice (end excluded); an empty one gives []."""
    if (value.step or 1) != 1:
        raise ValueError(f"{name} must be a range in steps of one, not {value!r}")
    first = 0 if value.start is None else _check.integer(name, value.start, 0, high)
    last = high if value.stop is None else _check.integer(name, value.stop, 0, high + 1) - 1
    return [(first, last)] if first <= last else []


def _numbers(
    field: str, value: Any, name: str = "", *, pairs: bool = False, bits: bool = False
) -> Node:
    """Test a number: alternatives of numbers, names, ranges, slices and (value, mask) pairs.

    ``bits``: a number alone means all of its bits, not equality.
    """
    name = name or field
    one = FIELDS[field]
    assert isinstance(one, (NumberField, LabelsField))
    ranges: list[Pair] = []
    masks: list[Pair] = []
    for item in _items(value):
        if pairs and isinstance(item, tuple):
            masks.append(_pair(one, name, item))
        elif isinstance(item, (range, slice)) and isinstance(one, NumberField):
            ranges += _bounds(name, item, one.highest)
        elif bits:
            masks.append(_pair(one, name, (item, item)))
        else:
            number = one.check(item, name)
            ranges.append((number, number))
    tests: list[Node] = []
    if ranges or not (masks or bits):
        tests.append(Test(field, tuple(joined(ranges))))
    if masks or not tests:
        tests.append(Test(field, tuple(sorted(masks)), masked=True))
    return any_of(tests)


def _pair(field: NumberField | LabelsField, name: str, pair: tuple[Any, ...]) -> Pair:
    """Read a value and its mask. Refuse a mask of 0 and a value outside its mask."""
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number or a pair (value, mask), not {pair!r}")
    value, mask = (field.check(part, name) for part in pair)
    if not mask:
        bit = "bit" if isinstance(field, NumberField) else "label"
        raise ValueError(f"{name} must name a {bit} at least, or have a mask that is not 0")
    if value & ~mask:
        raise ValueError(
            f"{name} must be within its mask: {value:#x} has bits outside of {mask:#x}"
        )
    return value, mask


def _zones(value: Zones | slice) -> Node:
    if isinstance(value, slice):
        return _numbers("zone", value)
    return Test("zone", tuple(joined((zone, zone) for zone in zone_set(value))))


def _family(value: Any) -> Node:
    families = {IPV4: IPV4, IPV6: IPV6, "ipv4": IPV4, "ipv6": IPV6}
    known = isinstance(value, (int, str)) and not isinstance(value, bool)
    if not known or value not in families:
        raise ValueError(
            f"family must be 'ipv4', 'ipv6', socket.AF_INET or AF_INET6, not {value!r}"
        )
    return _numbers("family", families[value])


def _network(name: str, value: Any) -> Any:
    """Read an address or a network."""
    if isinstance(value, ipaddress.IPv6Address) and value.scope_id is not None:
        value = str(value)
    if isinstance(value, (ipaddress.IPv4Interface, ipaddress.IPv6Interface)):
        value = str(value)
    if isinstance(value, _ADDRESSES):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be addresses or networks, not {value!r}")
    try:
        return read_network(value)
    except ValueError as exc:
        raise ValueError(f"{name} must be an address or a network, not {value!r}: {exc}") from None


def read_network(text: str) -> Any:
    """Read an address or a network; the error says what may have been meant."""
    if "%" in text:
        raise ValueError(f"{text} names an interface, which no flow does")
    mask = text.partition("/")[2]
    try:
        found: Any = ipaddress.ip_network(text) if mask else ipaddress.ip_address(text)
    except ValueError as exc:
        try:
            meant = ipaddress.ip_interface(text)
        except ValueError:
            raise exc from None
        raise ValueError(
            f"{text} is an address in the network {meant.network}: give one of both"
        ) from None
    # ipaddress also accepts an inverted netmask, which is likely a mistake.
    if "." in mask and mask != str(found.netmask):
        raise ValueError(f"{mask} is no netmask; {found} is a network of as many addresses")
    return found


def _addresses(field: str, value: Any, name: str = "") -> Test:
    one = FIELDS[field]
    assert isinstance(one, AddressField)
    found = {one.interval(_network(name or field, item)) for item in _items(value)}
    return Test(field, tuple(sorted(found)))


def _any_address(value: Any) -> Node:
    """Test both addresses of both directions. They share their values, which may be many."""
    test = _addresses("src", value, "address")
    return any_of(test._replace(field=field) for field in ("src", "dst", "reply_src", "reply_dst"))


def _texts(field: str, value: Any) -> Node:
    found = {int.from_bytes(FIELDS[field].pack(item), "big") for item in _items(value)}
    return Test(field, tuple((number, number) for number in sorted(found)))


def _states(value: Any, proto: Node | None) -> Node:
    """Test the state of each protocol in ``proto``; without ``proto``, that of TCP."""
    given = _with_states(proto)
    items: dict[str, list[Any]] = {name: [] for name in STATES}
    for item in _items(value):
        for field in _stateful(item, given):
            items[field].append(item)
    tests = [_numbers(field, some, "state") for field, some in items.items() if some]
    return any_of(tests or [Test("tcp_state", ())])


def _with_states(proto: Node | None) -> list[str] | None:
    """Return the state fields of the protocols in ``proto``; None without ``proto``."""
    if not isinstance(proto, Test) or not proto.values:
        return None
    return [
        name
        for name in STATES
        if any(low <= (FIELDS[name].proto or 0) <= high for low, high in proto.values)
    ]


def _stateful(item: Any, given: list[str] | None) -> list[str]:
    """Return the fields that a state may mean: its enumeration's, or those that know its name."""
    own = [field for field, names in STATES.items() if isinstance(item, names)]
    possible = ["tcp_state"] if given is None else given
    found = [field for field in own if given is None or field in given] if own else possible
    if isinstance(item, str):
        found = [field for field in found if item.upper() in STATES[field].__members__]
    if not found:
        if not possible:
            raise ValueError("state must go with a proto that has states: tcp, sctp or dccp")
        known = " or ".join(
            f"{field.partition('_')[0]}'s {', '.join(STATES[field].__members__).lower()}"
            for field in possible
        )
        raise ValueError(f"state must be from 0 to 255 or one of {known}, not {item!r}")
    return found


def _status_bit(value: Any, name: str) -> Any:
    """Replace a name by the bit that it stands for."""
    if not isinstance(value, str):
        return value
    try:
        return Status[value.upper()]
    except KeyError:
        raise ValueError(f"{name} must be bits or one of {STATUS_NAMES}, not {value!r}") from None


def _status(value: Any) -> Node:
    def read(item: Any) -> Any:
        unreplied = isinstance(item, str) and item.lower() == "unreplied"
        return UNREPLIED if unreplied else _status_bit(item, "status")

    return _numbers("status", [read(item) for item in _items(value)], pairs=True, bits=True)


def _none_of(value: Any) -> Node:
    name = "status_none"
    status = FIELDS["status"]
    assert isinstance(status, NumberField)
    bits = functools.reduce(
        operator.or_, (status.check(_status_bit(b, name), name) for b in _items(value)), 0
    )
    return Test("status", (_pair(status, name, (0, bits)),), masked=True)


def _labels(value: Any) -> Node:
    """Test labels; a name is resolved now."""
    found = [
        1 << _label_names.number(item) if isinstance(item, str) else item for item in _items(value)
    ]
    return _numbers("labels", found, pairs=True, bits=True)


# NAT ---------------------------------------------------------------------------------------------

_PORT = "0|[1-9][0-9]{0,4}"
_TARGET = re.compile(rf"(?:\[([^\]]*)\]|([^:\[\]]*)):({_PORT})(?:-({_PORT}))?")


def read_target(text: str) -> Any:
    """Read "10.0.0.1:80", "[fd00::1]:80-90" or ":80" as a pair, and anything else as a network."""
    match = _TARGET.fullmatch(text)
    if match is None:
        return read_network(text)
    host = match[1] if match[1] is not None else match[2] or None
    first, last = int(match[3]), int(match[4] or match[3])
    if last < first:
        raise ValueError(f"the ports of {text} begin after their end")
    return None if host is None else read_network(host), range(first, last + 1)


def _target(name: str, item: Any) -> tuple[Any, Any]:
    """Return an address or a network, and ports; either may be None."""
    if isinstance(item, str):
        try:
            item = read_target(item)
        except ValueError as exc:
            raise ValueError(
                f"{name} must be an address or a network, or one with a port as in 10.0.0.1:80 or "
                f"[fd00::1]:80, not {item!r}: {exc}"
            ) from None
    if not isinstance(item, tuple):
        return item, None
    if len(item) != 2 or item == (None, None):
        raise ValueError(f"{name} must be a pair (address, ports), not {item!r}")
    return item


def _targets(address: str, port: str, value: Any, name: str) -> Node:
    """Test where a flow is translated to. Addresses without ports, perhaps many, are one test."""
    alone: list[Any] = []
    tests: list[Node] = []
    for host, ports in (_target(name, item) for item in _items(value)):
        if ports is None:
            alone.append(host)
            continue
        test = _numbers(port, ports, f"{name}'s port")
        tests.append(test if host is None else all_of((_addresses(address, host, name), test)))
    return any_of([_addresses(address, alone, name), *tests] if alone or not tests else tests)


def _translated(name: str, value: Any, ways: dict[Status, tuple[str, str]]) -> Node:
    """Test for NAT by the status; compare an address and ports with the reply's."""
    if value is False:
        return Not(_translated(name, True, ways))
    tests: list[Node] = []
    for status, to in ways.items():
        test = _numbers("status", int(status), name, bits=True)
        tests.append(test if value is True else all_of((test, _targets(*to, value, name))))
    return any_of(tests)


_SOURCE = {Status.SRC_NAT: ("reply_dst", "reply_dport")}
_DESTINATION = {Status.DST_NAT: ("reply_src", "reply_sport")}

# Arguments ---------------------------------------------------------------------------------------

# Arguments that mean more than a field and its alternatives.
_READERS: dict[str, Callable[[Any], Node]] = {
    "zone": _zones,
    "family": _family,
    "mark": lambda value: _numbers("mark", value, pairs=True),
    "labels": _labels,
    "status": _status,
    "status_none": _none_of,
    "address": _any_address,
    "snat": lambda value: _translated("snat", value, _SOURCE),
    "dnat": lambda value: _translated("dnat", value, _DESTINATION),
    "any_nat": lambda value: _translated("any_nat", value, {**_SOURCE, **_DESTINATION}),
}


def _node(name: str, value: Any, proto: Node | None) -> Node:
    """Make the test of one argument."""
    if name == "state":
        return _states(value, proto)
    if name in _READERS:
        return _READERS[name](value)
    if isinstance(FIELDS[name], AddressField):
        return _addresses(name, value)
    return _texts(name, value) if isinstance(FIELDS[name], TextField) else _numbers(name, value)


_STATUS = ("status", "status_none", "snat", "dnat", "any_nat")


def _check_status(nodes: dict[str, Node]) -> None:
    """Refuse bits of the status that exclude each other."""
    given = [name for name in _STATUS if name in nodes]
    if len(given) > 1:
        given = [name for name in given if not _matches_nothing(nodes[name])]
        if _matches_nothing(all_of(nodes[name] for name in given)):
            raise ValueError(f"{' and '.join(given)} must not exclude each other, as these bits do")


def _matches_nothing(node: Node) -> bool:
    return _guard.cover(node, True) is _guard.Cover.WHOLE


# Filters -----------------------------------------------------------------------------------------

# Nested joins. Copying or comparing takes several Python calls a level, and Python allows 1,000.
MOST_DEEP = 100


class _Made(NamedTuple):
    """What a filter was made of: its parts and the word that joins them, its depth and families."""

    word: str
    depth: int
    families: Families
    parts: tuple[Filter, ...] = ()


class Filter:
    """Which flows are meant. Fields are ANDed; a set, list or range inside a field is ORed.

    A field that is None, or not given, restricts nothing. An empty set matches nothing, and a flow
    without the field does not match. For numbers you may give ``range(1000, 2000)``, which excludes
    its end, or ``slice(1000, None)``, which has no end.

    ``zone``: ids from 0 to 65535 (``CTA_ZONE``, ``-w``), whichever direction they apply to; since
    Linux 4.3 a zone may apply to one direction alone. ``orig_zone``, ``reply_zone``: ids of a zone
    that applies to this direction alone (``CTA_TUPLE_ZONE``, ``--orig-zone``, ``--reply-zone``);
    other flows have neither.
    ``family``: "ipv4" or "ipv6", or ``socket.AF_INET`` or ``AF_INET6`` (``-f``).
    ``proto``: 0 to 255, a number as text, or a name, of Proto ("tcp", "esp", "ipv6-icmp") or of
    /etc/protocols (``CTA_PROTO_NUM``, ``-p``).
    ``src``, ``dst``, ``reply_src``, ``reply_dst``: addresses and networks, as text or ``ipaddress``
    objects (``CTA_TUPLE_IP``, ``-s``, ``-d``, ``-r``, ``-q``). ``address``: any of these four.
    ``sport``, ``dport``, ``reply_sport``, ``reply_dport``: 0 to 65535 (``CTA_PROTO_SRC_PORT``,
    ``CTA_PROTO_DST_PORT``, ``--sport``, ``--dport``, ``--reply-port-src``, ``--reply-port-dst``).
    ``icmp_type``, ``icmp_code``: 0 to 255; ``icmp_id``: 0 to 65535; of ICMP and ICMPv6
    (``CTA_PROTO_ICMP_...``, ``CTA_PROTO_ICMPV6_...``, ``--icmp-type``, ``--icmp-code``,
    ``--icmp-id``).
    ``mark``: 0 to 2**32 - 1, or pairs (value, mask), the value within the mask (``CTA_MARK``,
    ``-m``).
    ``status``: bits that are all set, at least one, as a Status or by name, or pairs (value, mask)
    (``CTA_STATUS``, ``-u``); "unreplied" is for SEEN_REPLY not set. ``status_none``: bits none of
    which is set. OFFLOAD came with Linux 4.16, HW_OFFLOAD with 5.8.
    ``state``: a name or a number, the state of the protocols that ``proto`` in the same filter
    names, of TCP without ``proto`` (``CTA_PROTOINFO``, ``--state``). "listen" is TCP's SYN_SENT2. A
    TcpState, SctpState or DccpState is a state of its own protocol.
    ``sctp_vtag_orig``, ``sctp_vtag_reply``: 0 to 2**32 - 1 (``CTA_PROTOINFO_SCTP_VTAG_...``,
    ``--orig-vtag``, ``--reply-vtag``).
    ``labels``: a number whose bits, the labels 0 to 127, are all set, or pairs (value, mask)
    (``CTA_LABELS``, ``-l``); or the name of one label, which nlct.labels looks up at once.
    ``helper``: a name, up to 15 bytes (``CTA_HELP_NAME``).
    ``timeout``: seconds left, 0 to 2**32 - 1 (``CTA_TIMEOUT``, ``-t``). ``id``: 0 to 2**32 - 1
    (``CTA_ID``). ``use``: references to the flow (``CTA_USE``).
    ``timestamp_start``, ``timestamp_stop``: nanoseconds since 1970 (``CTA_TIMESTAMP_...``).
    ``packets_orig``, ``bytes_orig``, ``packets_reply``, ``bytes_reply``: 0 to 2**64 - 1
    (``CTA_COUNTERS_ORIG``, ``CTA_COUNTERS_REPLY``).
    ``snat``, ``dnat``, ``any_nat``: True for flows that are translated in this way, False for the
    others; or the addresses and networks that they are translated to (``CTA_STATUS`` and the reply,
    ``-n``, ``-g``, ``-j``). With ports these are text, "10.0.0.1:80", "[fd00::1]:80-90" or ":80",
    or pairs (address, ports), where the address may be None. The flow must have both after the
    translation, even if that changed only one of them.
    ``master_src``, ``master_dst``, ``master_proto``, ``master_sport``, ``master_dport``,
    ``master_icmp_type``, ``master_icmp_code``, ``master_icmp_id``, ``master_zone``: the same of the
    flow that an expected flow belongs to (``CTA_TUPLE_MASTER``).

    Join filters with ``a & b``, ``a | b`` and ``~a``, nested up to 100 deep; a chain such as
    ``a | b | c`` may have any length.

    Raises TypeError for a value of a wrong type and ValueError for one out of range, both naming
    the field. Raises ValueError for a contradiction, too: a value outside its mask, IPv4 beside
    IPv6 in one filter or joined by ``&``, a ``state`` that ``proto`` lacks, bits of the status that
    exclude each other; and for joins that are nested too deep. ``Filter(zone=1) & Filter(zone=2)``
    is no contradiction and matches nothing.
    """

    _made: _Made
    # The expression and the text. A join makes them when they are first needed.
    _known: tuple[Node, str] | None = None
    _cover: _guard.Cover | None = None
    _zone: frozenset[int] | None = None
    _zone_known = False
    _compiled: ffi.CData | None = None

    def __init__(
        self,
        *,
        zone: Zones | slice | None = None,
        orig_zone: Numbers | None = None,
        reply_zone: Numbers | None = None,
        family: int | str | None = None,
        proto: NamedNumbers | None = None,
        src: Networks | None = None,
        dst: Networks | None = None,
        sport: Numbers | None = None,
        dport: Numbers | None = None,
        reply_src: Networks | None = None,
        reply_dst: Networks | None = None,
        address: Networks | None = None,
        reply_sport: Numbers | None = None,
        reply_dport: Numbers | None = None,
        icmp_type: Numbers | None = None,
        icmp_code: Numbers | None = None,
        icmp_id: Numbers | None = None,
        mark: MaskedNumbers | None = None,
        status: MaskedBits | None = None,
        status_none: Bits | None = None,
        state: NamedNumbers | None = None,
        sctp_vtag_orig: Numbers | None = None,
        sctp_vtag_reply: Numbers | None = None,
        labels: Labels | None = None,
        helper: Texts | None = None,
        timeout: Numbers | None = None,
        id: Numbers | None = None,
        use: Numbers | None = None,
        timestamp_start: Numbers | None = None,
        timestamp_stop: Numbers | None = None,
        packets_orig: Numbers | None = None,
        bytes_orig: Numbers | None = None,
        packets_reply: Numbers | None = None,
        bytes_reply: Numbers | None = None,
        snat: bool | Targets | None = None,
        dnat: bool | Targets | None = None,
        any_nat: bool | Targets | None = None,
        master_src: Networks | None = None,
        master_dst: Networks | None = None,
        master_proto: NamedNumbers | None = None,
        master_sport: Numbers | None = None,
        master_dport: Numbers | None = None,
        master_icmp_type: Numbers | None = None,
        master_icmp_code: Numbers | None = None,
        master_icmp_id: Numbers | None = None,
        master_zone: Numbers | None = None,
    ) -> None:
        """Check the fields."""
        given = {k: v for k, v in locals().items() if k != "self" and v is not None}
        nodes: dict[str, Node] = {}
        families = ALL_MATCH
        for name, value in given.items():
            # A generator would be empty the second time.
            kept = list(value) if isinstance(value, Iterator) else value
            given[name] = kept
            nodes[name] = _node(name, kept, nodes.get("proto"))
            families = families.both(families_of(nodes[name], name))
        _check_status(nodes)
        node = all_of(nodes.values())
        text = f"Filter({', '.join(f'{k}={v!r}' for k, v in given.items())})"
        word = "" if isinstance(node, Test) else node.word
        self._made = _Made(word, depth(node), families)
        self._known = node, text

    @classmethod
    def _of(cls, made: _Made, known: tuple[Node, str] | None = None) -> Filter:
        new = object.__new__(Filter)
        new._made = made
        new._known = known
        return new

    def _join(self, word: str, families: Families, *parts: Filter) -> Filter:
        # Parts joined by the same word form one chain.
        deep = (one._made.depth + (word == "not" or one._made.word != word) for one in parts)
        made = _Made(word, max(deep), families, parts)
        if made.depth > MOST_DEEP:
            raise ValueError(
                f"filters must be nested at most {MOST_DEEP} deep; a & b & c, or a | b | c, is not"
            )
        return self._of(made)

    def _plain(self) -> Filter:
        """Return an equal filter that is never nlct.ALL."""
        return Filter() if self.matches_everything else self

    def __and__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        if self.matches_everything or other.matches_everything:
            return (other if self.matches_everything else self)._plain()
        families = self._made.families.both(other._made.families)
        return self._join("and", families, self, other)

    def __or__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        if self.matches_everything or other.matches_everything:
            return Filter()
        families = self._made.families.either(other._made.families)
        return self._join("or", families, self, other)

    def __invert__(self) -> Filter:
        # "not not" is the filter itself, but not nlct.ALL by accident.
        if self._made.word == "not" and self._made.parts:
            return self._made.parts[0]._plain()
        return self._join("not", self._made.families.inverse(), self)

    def _expression(self) -> tuple[Node, str]:
        """Build the expression and the text of a join. A chain of joins may be very long."""
        if self._known is None:
            word, parts = self._made.word, self._chain()
            nodes = [part._node for part in parts]
            texts = [repr(part) for part in parts]
            if word == "not":
                (node,) = nodes
                node = node.part if isinstance(node, Not) else Not(node)
                self._known = node, f"~({texts[0]})"
            elif word == "and":
                self._known = all_of(nodes), " & ".join(texts)
            else:
                self._known = any_of(nodes), f"({' | '.join(texts)})"
        return self._known

    def _chain(self) -> list[Filter]:
        """Return the parts that are joined by the same word, in order."""
        found = []
        todo = list(reversed(self._made.parts))
        while todo:
            part = todo.pop()
            if part._made.word == self._made.word != "not" and part._known is None:
                todo += reversed(part._made.parts)
            else:
                found.append(part)
        return found

    @property
    def _node(self) -> Node:
        return self._expression()[0]

    def __eq__(self, other: object) -> bool:
        return self._node == other._node if isinstance(other, Filter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._node)

    def __repr__(self) -> str:
        return self._expression()[1]

    def __reduce__(self) -> Any:
        made = self._made
        # The expression tells everything but what a "not" was made of.
        parts = made.parts if made.word == "not" else ()
        return Filter._of, (made._replace(parts=parts), self._expression())

    def __deepcopy__(self, _memo: Any) -> Filter:
        return copy.copy(self)

    @property
    def matches_everything(self) -> bool:
        """True for a filter without any restriction."""
        return self._known is not None and self._known[0] == EVERYTHING

    @property
    def matches_nothing(self) -> bool:
        """True if a field that every match needs was given an empty set."""
        return any(not test.values for test in self._required())

    @property
    def restricts_nothing(self) -> bool:
        """True if the filter matches every flow, or if nlct cannot tell.

        It is exact for numbers, ranges and networks, however many, and for up to 1,000 masked
        values of a field; more of them, and combinations that take too long to judge, count as
        everything. Of filters joined by ``|`` it sees that they leave nothing out together, as
        ``a | ~a`` does; beyond 64 that are about several fields each it judges each alone. It knows
        that every flow is CONFIRMED, but not which bits of the status or numbers of a state no flow
        ever has, nor what one field says of another.
        """
        return self._covered() is not _guard.Cover.PART

    def _covered(self) -> _guard.Cover:
        if self._cover is None:
            self._cover = _guard.cover(self._node)
        return self._cover

    @property
    def zone(self) -> frozenset[int] | None:
        """The zones that the filter is restricted to; None if it is not restricted to zones."""
        if not self._zone_known:
            tests = (test.values for test in self._required() if test.field == "zone")
            found = next(tests, None)
            self._zone = None if found is None else _in_ranges(found)
            self._zone_known = True
        return self._zone

    def only(self, name: str) -> tuple[Pair, ...] | None:
        """Return the intervals in which a field of every match lies; None if it may be anything."""
        tests = (test.values for test in self._required() if test.field == name and not test.masked)
        return next(tests, None)

    def within(self, fields: Collection[str]) -> tuple[Filter, bool]:
        """Return what the filter asks of these fields alone of every match, as a filter.

        The second value tells if that is all it asks.
        """
        if asked(self._node) <= set(fields):
            return self, True
        node = all_of(test for test in self._required() if test.field in fields)
        return Filter._of(_Made("", depth(node), ALL_MATCH), (node, "part of a filter")), False

    @property
    def is_zones(self) -> bool:
        """True for a filter by zones and nothing else."""
        return isinstance(self._node, Test) and self._node.field == "zone"

    @property
    def fields(self) -> frozenset[str]:
        """The columns (nlct.table.COLUMNS) that it asks about."""
        return frozenset(asked(self._node))

    def _required(self) -> Iterator[Test]:
        """Return the tests that every match must pass."""
        parts = self._node.parts if isinstance(self._node, And) else (self._node,)
        return (part for part in parts if isinstance(part, Test))

    def to_c(self) -> ffi.CData:
        """Return the ``struct nlct_filter **`` for the core, good while it or the filter lives."""
        compiled = self._compiled
        if compiled is None:
            # Of threads that do so at once the first wins: others must not free what it uses.
            made = _program.compile_filter(self._node)
            compiled = self.__dict__.setdefault("_compiled", made)
        return compiled

    def matches(self, flow: Flow) -> bool:
        """Tell if a flow in memory matches, just as it would in a dump.

        Raises TypeError for anything but a Flow.
        """
        if not isinstance(flow, Flow):
            raise TypeError(f"flow must be a Flow, not {flow!r}")
        return bool(lib.nlct_filter_match(self.to_c()[0], pointers(flow)[0]))

    def kernel_filter(self, zone_request: int) -> ffi.CData:
        """Make the ``struct nlct_kernel_filter *``: what the kernel may leave out, for speed alone.

        ``zone_request``: how to ask for a zone.
        """
        return _program.kernel_filter(self._required(), zone_request)


class _All(Filter):
    """Every flow there is, meant on purpose."""

    def __repr__(self) -> str:
        return "nlct.ALL"

    def __reduce__(self) -> str:
        return "ALL"


ALL = _All()


def to_delete(filter: Filter) -> Filter:
    """Refuse a filter that would delete every flow, unless it is nlct.ALL."""
    return _meant(filter, "deletes every flow there is")


def to_zero(filter: Filter) -> Filter:
    """Refuse a filter that would zero the counters of every flow, unless it is nlct.ALL."""
    return _meant(filter, "is for the counters of every flow there is")


def to_update(filter: Filter) -> Filter:
    """Refuse a filter that would change every flow, unless it is nlct.ALL."""
    return _meant(filter, "changes every flow there is")


def _meant(filter: Filter, all_does: str) -> Filter:
    if not isinstance(filter, Filter):
        raise TypeError(f"filter must be a Filter, not {filter!r}")
    reason = too_wide(filter)
    if reason is not None and filter is not ALL:
        raise ValueError(f"filter {reason}; nlct.ALL {all_does}")
    return filter


def too_wide(filter: Filter) -> str | None:
    """Say why a filter restricts too little to change flows by it; None if it restricts enough."""
    covered = filter._covered()
    if covered is _guard.Cover.PART:
        return None
    if covered is _guard.Cover.WHOLE:
        return "must restrict something"
    return (
        f"has so many masked values of one field (more than {_guard.MOST_MASKED:,}, or too many "
        "combinations of them) that they count as everything"
    )
