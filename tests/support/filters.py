"""What a filter means, in plain Python, and random tables and filters to hold nlct against it.

A flow is a dict of facts by the names of Filter's fields, as far as the kernel told them, read
here from its own messages. A filter is the dict of arguments that Filter gets, or ("and", a, b),
("or", a, b), ("not", a). Nothing here knows how nlct compiles or matches one.
"""

from __future__ import annotations

import functools
import ipaddress
import operator
import os
import random
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Union

import pytest
from hypothesis import strategies as st

import nlct
from nlct import DccpState, Filter, Flow, Proto, SctpState, Status, TcpState, Tuple
from tests.support import encoder, oracle, tool
from tests.support.flows import reverse

Facts = dict[str, Any]
Spec = Union[dict[str, Any], tuple[Any, ...]]

# Timeouts are this far apart, and filters ask for what is half-way between: clocks do not matter.
STEP = 100_000


# Reading the table -------------------------------------------------------------------------------

# Facts that a message may lack; all others are in each.
OPTIONAL = (
    *("tcp_state", "sctp_state", "dccp_state", "sctp_vtag_orig", "sctp_vtag_reply", "labels"),
    *("timestamp_start", "timestamp_stop"),
    *("packets_orig", "bytes_orig", "packets_reply", "bytes_reply"),
)


def _facts(message: bytes) -> Facts:
    flow = encoder.decode(message)
    facts: Facts = {name: flow[name] for name in ("family", "status", "timeout", "mark", "id")}
    for prefix, direction in (("", "orig"), ("reply_", "reply"), ("master_", "master")):
        for name, value in flow.get(direction, {}).items():
            made = ipaddress.ip_address(value) if isinstance(value, bytes) else value
            facts[(prefix or "orig_" if name == "zone" else prefix) + name] = made
    facts["zone"] = flow["zone"]
    facts.update({name: flow[name] for name in OPTIONAL if name in flow})
    if "helper" in flow:
        facts["helper"] = flow["helper"].decode()
    return facts


def read(netns: nlct.Netns) -> list[Facts]:
    """Read the whole table; the kernel is asked to leave out nothing."""
    return [_facts(message) for message in oracle.messages(netns)]


# What a filter means -----------------------------------------------------------------------------

FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
PROTOS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132, "dccp": 33}
SIDES = ("src", "dst", "reply_src", "reply_dst")
ADDRESSES = (*SIDES, "address", "master_src", "master_dst")
STATES = {TcpState: "tcp_state", SctpState: "sctp_state", DccpState: "dccp_state"}
# By argument: the status bit that says that it happened, and where the new address and port stand.
TRANSLATED = {
    "snat": [(0x10, "reply_dst", "reply_dport")],
    "dnat": [(0x20, "reply_src", "reply_sport")],
}
TRANSLATED["any_nat"] = TRANSLATED["snat"] + TRANSLATED["dnat"]


def matches(spec: Spec, facts: Facts) -> bool:
    """Tell if a filter means this flow."""
    if isinstance(spec, tuple):
        word, *parts = spec
        answers = [matches(part, facts) for part in parts]
        return {"and": all(answers), "or": any(answers), "not": not answers[0]}[word]
    return all(value is None or _agrees(name, value, facts, spec) for name, value in spec.items())


def _alternatives(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, set, frozenset)) else [value]


def _agrees(name: str, value: Any, facts: Facts, spec: dict[str, Any]) -> bool:
    values = _alternatives(value)
    if name in TRANSLATED:
        return _translated(TRANSLATED[name], value, facts)
    if name == "status_none":
        return bool(values) and not any(facts["status"] & _bits(item) for item in values)
    if name == "status":
        return any(_has_bits(facts["status"], item) for item in values)
    if name == "labels":
        return "labels" in facts and any(_has_bits(facts["labels"], item) for item in values)
    if name == "state":
        return any(_in_state(item, facts, spec) for item in values)
    if name == "address":
        return any(_agrees(side, value, facts, spec) for side in SIDES)
    if name not in facts:
        return False
    if name in ADDRESSES:
        return any(_is_in(facts[name], item) for item in values)
    return any(_is_number(facts[name], number) for number in _named(name, values))


def _named(name: str, values: list[Any]) -> list[Any]:
    names = {"family": FAMILIES, "proto": PROTOS, "master_proto": PROTOS}.get(name, {})
    return [names[item] if isinstance(item, str) and names else item for item in values]


def _is_number(number: Any, item: Any) -> bool:
    if isinstance(item, range):
        return number in item
    if isinstance(item, slice):
        return (item.start or 0) <= number and (item.stop is None or number < item.stop)
    if isinstance(item, tuple):
        value, mask = item
        return bool(number & mask == value)
    return bool(number == item)


def _bits(item: Any) -> int:
    return int(Status[item.upper()] if isinstance(item, str) else item)


def _has_bits(number: int, item: Any) -> bool:
    if isinstance(item, tuple):
        return _is_number(number, item)
    if item == "unreplied":
        return not number & 2
    return number & _bits(item) == _bits(item)


def _in_state(item: Any, facts: Facts, spec: dict[str, Any]) -> bool:
    for states, field in STATES.items():
        if field not in facts or (type(item) in STATES and type(item) is not states):
            continue
        if type(item) not in STATES and states is not TcpState and not protos(spec):
            continue
        if not isinstance(item, str):
            return _is_number(facts[field], item)
        return item.upper() in states.__members__ and facts[field] == states[item.upper()]
    return False


def protos(spec: dict[str, Any]) -> set[int]:
    """The protocols that a filter names."""
    values = _named("proto", _alternatives([] if spec.get("proto") is None else spec["proto"]))
    return {number for number in range(256) if any(_is_number(number, item) for item in values)}


def _is_in(address: Any, item: Any) -> bool:
    network = ipaddress.ip_network(item)
    return bool(address.version == network.version and address in network)


def target(item: Any) -> tuple[Any, Any]:
    """The address and the ports that a flow is translated to; None for any."""
    if isinstance(item, tuple):
        return item
    host, colon, port = str(item).rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return item, None
    first, _, last = port.partition("-")
    return host.strip("[]") or None, range(int(first), int(last or first) + 1)


def _translated(ways: list[tuple[int, str, str]], value: Any, facts: Facts) -> bool:
    happened = [way[1:] for way in ways if facts["status"] & way[0]]
    if isinstance(value, bool):
        return bool(happened) is value
    return any(
        (host is None or _is_in(facts[address], host))
        and (ports is None or (port in facts and _is_number(facts[port], ports)))
        for address, port in happened
        for host, ports in map(target, _alternatives(value))
    )


# What contradicts itself -------------------------------------------------------------------------

STATEFUL = {6: TcpState, 132: SctpState, 33: DccpState}
BOTH = {4, 6}


def contradicts(spec: Spec) -> bool:
    """Tell if a filter contradicts itself, or a part of it does."""
    if isinstance(spec, tuple):
        word, *parts = spec
        if any(map(contradicts, parts)):
            return True
        one, other = (_versions(part) for part in (parts[0], parts[-1]))
        return word == "and" and all((one, other)) and not one & other
    return not _versions(spec) or _state_is_none(spec) or _status_is_none(spec)


def _versions(spec: Spec, inverted: bool = False) -> set[int]:
    """The IP versions of flows that may match, as far as families and addresses say."""
    if isinstance(spec, tuple):
        word, *parts = spec
        if word == "not":
            return _versions(parts[0], not inverted)
        one, other = (_versions(part, inverted) for part in parts)
        return one & other if (word == "and") is not inverted else one | other
    each = [_versions_of(name, value, inverted) for name, value in spec.items()]
    if inverted:
        return set().union(*each)
    return BOTH.intersection(*each)


def _versions_of(name: str, value: Any, inverted: bool) -> set[int]:
    values = _alternatives(value)
    if name == "family":
        found = {{"ipv4": 4, "ipv6": 6, socket.AF_INET: 4, socket.AF_INET6: 6}[value]}
        return BOTH - found if inverted else found
    if value is None or isinstance(value, bool) or name not in (*ADDRESSES, *TRANSLATED):
        return set() if value is None and inverted else BOTH
    hosts = [target(item)[0] for item in values] if name in TRANSLATED else values
    if None in hosts:
        return BOTH
    networks = [ipaddress.ip_network(item) for item in hosts]
    if inverted:
        # Without a translation or a master an address does not match, whatever it is.
        whole = {net.version for net in networks if net.prefixlen == 0}
        return BOTH if name in TRANSLATED or name[:7] == "master_" else BOTH - whole
    return {net.version for net in networks} or BOTH


def _state_is_none(spec: dict[str, Any]) -> bool:
    items = _alternatives([] if spec.get("state") is None else spec["state"])
    named = protos(spec)
    known = [states for number, states in STATEFUL.items() if number in named]
    if items and named and not known:
        return True
    if not named:
        known = [TcpState]
    for item in items:
        if isinstance(item, str) and not any(item.upper() in one.__members__ for one in known):
            return True
        if named and type(item) in STATES and type(item) not in known:
            return True
    return False


def _status_is_none(spec: dict[str, Any]) -> bool:
    """Whether no status agrees with all of what each by itself could be."""
    tests = []
    used = 8
    for name in ("status", "status_none", *TRANSLATED):
        value = spec.get(name)
        if value is None or (name == "any_nat" and not isinstance(value, bool)):
            continue
        if name in TRANSLATED and (isinstance(value, bool) or list(_alternatives(value))):
            used |= 0x30
            tests.append({name: value is not False})
        elif name not in TRANSLATED:
            used |= functools.reduce(operator.or_, map(_mask, _alternatives(value)), 0)
            tests.append({name: value})
    statuses = [{"status": bits} for bits in _subsets(used) if bits & 8]
    tests = [test for test in tests if any(matches(test, facts) for facts in statuses)]
    return not any(all(matches(test, facts) for test in tests) for facts in statuses)


def _mask(item: Any) -> int:
    if isinstance(item, tuple):
        return int(item[1])
    return 2 if item == "unreplied" else _bits(item)


def _subsets(bits: int) -> Iterator[int]:
    """Every number that has none but these bits."""
    one = bits
    while one:
        yield one
        one = (one - 1) & bits
    yield 0


def build(spec: Spec) -> Filter:
    """Make nlct's own filter of it."""
    if isinstance(spec, dict):
        return Filter(**spec)
    word, *parts = spec
    made = [build(part) for part in parts]
    if word == "not":
        return ~made[0]
    return made[0] & made[1] if word == "and" else made[0] | made[1]


def ids(table: Iterable[Facts], spec: Spec | None = None) -> list[int]:
    """The ids of the flows that a filter means; of all without one."""
    return sorted(facts["id"] for facts in table if spec is None or matches(spec, facts))


# Random tables -----------------------------------------------------------------------------------

HOSTS = {
    4: ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "192.0.2.1", "192.0.2.129"),
    6: ("fd00::1", "fd00::2", "fd00::3", "fd00:0:0:1::1", "2001:db8::1"),
}
TRANSLATIONS = {4: "198.51.100.7", 6: "2001:db8:1::7"}
ZONES = (0, 0, 1, 5, 255, 256, 65535)
MARKS = (0, 0, 1, 2, 3, 0x100, 0x80000001, 0xFFFFFFFF)
PORTS = (1, 53, 80, 1024, 65535)
STATUSES = (None, None, Status.SEEN_REPLY, Status.SEEN_REPLY | Status.ASSURED)
LABEL_SETS = (None, None, 1, 1 << 5, 1 << 127, 1 << 127 | 1 << 5, 1 << 64)

LABEL_RULE = """
table inet labels {
    chain output {
        type filter hook output priority filter
        ct mark 77 ct label set 5
    }
}
"""


def _orig(rng: random.Random, proto: str, version: int) -> Tuple:
    src, dst = rng.sample(HOSTS[version], 2)
    if proto == "icmp":
        kind = rng.choice((8, 13)) if version == 4 else 128
        name = "icmp" if version == 4 else "icmpv6"
        return Tuple(src, dst, name, icmp_id=rng.choice(PORTS), icmp_type=kind, icmp_code=0)
    return Tuple(src, dst, proto, rng.choice(PORTS), rng.choice(PORTS))


def _with_zone(rng: random.Random, flow: Flow) -> Flow:
    """The flow in a zone, which may be that of one direction."""
    zone = rng.choice(ZONES)
    which = rng.randrange(6)
    if which == 0:
        return flow.replace(orig=flow.orig.replace(zone=zone), zone=None)
    if which == 1 and flow.orig.icmp_id is None:
        reply = flow.reply or reverse(flow.orig)
        return flow.replace(reply=reply.replace(zone=zone), zone=None)
    return flow.replace(zone=zone)


def _flow(rng: random.Random) -> Flow:
    proto = rng.choice(("tcp", "tcp", "udp", "udp", "icmp", "sctp", "gre"))
    version = rng.choice((4, 6))
    more: dict[str, Any] = {"labels": rng.choice(LABEL_SETS), "status": rng.choice(STATUSES)}
    orig = _orig(rng, proto, version)
    if proto == "tcp":
        more["tcp_state"] = rng.choice(list(TcpState)[1:9])
        more["helper"] = rng.choice((None, "ftp"))
    if proto == "sctp":
        more["sctp_state"] = rng.choice(list(SctpState)[1:8])
        more.update(sctp_vtag_orig=1, sctp_vtag_reply=2)
    if proto in ("tcp", "udp") and rng.randrange(3) == 0:
        reply = reverse(orig)
        way = rng.choice((Status.SRC_NAT, Status.DST_NAT))
        changed = "dst" if way == Status.SRC_NAT else "src"
        more["reply"] = reply.replace(**{changed: TRANSLATIONS[version]})
        more["status"] = (more["status"] or Status(0)) | way
    flow = Flow(orig, timeout=STEP * rng.randint(1, 5), mark=rng.choice(MARKS), **more)
    return _with_zone(rng, flow)


def random_flows(seed: int, count: int) -> list[Flow]:
    """Flows of every kind, from so few addresses and ports that filters hit."""
    rng = random.Random(seed)
    return [_flow(rng) for _ in range(count)]


def expected_flows(masters: Iterable[Flow]) -> list[Flow]:
    """Flows that others expected: each has the original tuple of its master, one port higher."""
    found = []
    for master in masters:
        orig = master.orig
        one_zone = orig.zone is None and (master.reply is None or master.reply.zone is None)
        can_expect = one_zone and orig.proto != Proto.GRE  # nlct refuses a master for GRE
        if can_expect and orig.sport is not None and orig.sport < 65535:
            new = orig.replace(sport=orig.sport + 1, dport=7)
            found.append(Flow(new, zone=master.zone, timeout=STEP, master=orig))
    return found


def prepare(netns: nlct.Netns) -> None:
    """Make labels work: the kernel keeps none unless a rule speaks of them."""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root, to run tools in a namespace")
    tool.run(netns, "nft", "-f", "-", given=LABEL_RULE)


def write(netns: nlct.Netns, name: str, value: int) -> None:
    """Change a setting of conntrack in the namespace."""
    fd = netns.open_file(f"/proc/sys/net/netfilter/nf_conntrack_{name}", os.O_WRONLY)
    with os.fdopen(fd, "w") as file:
        file.write(str(value))


def talk(netns: nlct.Netns) -> None:
    """Flows that packets made, with counters: there and back, and of many sizes."""
    tool.run(netns, "ip", "link", "set", "lo", "up")
    write(netns, "acct", 1)
    for name in ("udp_timeout", "udp_timeout_stream"):
        write(netns, name, 6 * STEP)
    for number in range(6):
        with ExitStack() as stack:
            there, back = (
                stack.enter_context(netns.socket(socket.AF_INET, socket.SOCK_DGRAM))
                for _ in range(2)
            )
            for sock in (there, back):
                sock.bind(("127.0.0.1", 0))
            for sender, receiver, packets in ((there, back, number + 1), (back, there, number)):
                for _ in range(packets):
                    sender.sendto(bytes(100 * number), receiver.getsockname())


# Random filters ----------------------------------------------------------------------------------

NETWORKS = (
    *("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.2/31", "192.0.2.128/25"),
    *("fd00::/64", "fd00::/48", "fd00::2/127", "2001:db8::/32", "127.0.0.0/8"),
)


def _one_or_many(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return item | st.lists(item, max_size=4)


def _intervals(number: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    ends = st.tuples(number, number)
    return (
        ends.map(lambda two: range(*two))
        | ends.map(lambda two: slice(*sorted(two)))
        | number.map(lambda one: slice(one, None))
        | number.map(lambda one: slice(None, one))
    )


def _pairs(number: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return st.tuples(number, number.filter(bool)).map(lambda two: (two[0] & two[1], two[1]))


def _numbers(bits: int, *usual: int) -> st.SearchStrategy[Any]:
    number = st.sampled_from(usual) | st.integers(0, 2**bits - 1)
    return _one_or_many(number | _intervals(number)) | st.frozensets(number, max_size=4)


def _bit_sets(bits: int, *usual: int) -> st.SearchStrategy[int]:
    one = st.sampled_from(usual) | st.integers(0, bits - 1).map(lambda bit: 1 << bit)
    return st.lists(one, min_size=1, max_size=3).map(
        lambda found: functools.reduce(lambda a, b: a | b, found)
    )


def _addresses() -> st.SearchStrategy[Any]:
    text = st.sampled_from((*HOSTS[4], *HOSTS[6], *NETWORKS, *TRANSLATIONS.values(), "127.0.0.1"))
    item = text | text.map(ipaddress.ip_network)
    host = st.sampled_from((*HOSTS[4], *HOSTS[6])).map(ipaddress.ip_address)
    return _one_or_many(item | host) | st.frozensets(item, max_size=6)


_MARK = st.sampled_from(MARKS) | st.integers(0, 2**32 - 1)
_STATUS = _bit_sets(16, 0x2, 0x4, 0x6, 0x8, 0x10, 0x20)
_STATUS_ITEM = (
    _STATUS
    | _STATUS.map(Status)
    | st.sampled_from(("assured", "seen_reply", "CONFIRMED", "src_nat", "dst_nat"))
)
_UNREPLIED = st.just("unreplied")
_LABELS = _bit_sets(128, 1, 1 << 5, 1 << 127, 1 << 64)
# Never near to a timeout that a flow may have.
_BETWEEN = st.integers(0, 7).map(lambda number: number * STEP + STEP // 2)
_TCP = st.sampled_from(list(TcpState))
_PORT = st.sampled_from(PORTS)
_TARGET = (
    st.tuples(st.sampled_from((*TRANSLATIONS.values(), *NETWORKS, None)), _PORT | _intervals(_PORT))
    | _PORT.map(lambda port: f":{port}")
    | _PORT.map(lambda port: f"{TRANSLATIONS[4]}:{port}")
    | _PORT.map(lambda port: f"[{TRANSLATIONS[6]}]:{port}-65535")
)
_NAT = st.booleans() | _addresses() | _one_or_many(_TARGET | st.just(TRANSLATIONS[4]))

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "zone": st.sampled_from(ZONES)
    | st.frozensets(st.sampled_from(ZONES), max_size=4)
    | st.lists(st.integers(0, 65535), max_size=3)
    | st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda two: range(*two)),
    "family": st.sampled_from(("ipv4", "ipv6", socket.AF_INET, socket.AF_INET6)),
    "proto": _one_or_many(st.sampled_from(sorted(PROTOS))) | _numbers(8, *PROTOS.values()),
    **dict.fromkeys(ADDRESSES, _addresses()),
    **dict.fromkeys(("sport", "dport", "reply_sport", "reply_dport"), _numbers(16, *PORTS)),
    **dict.fromkeys(("master_sport", "master_dport"), _numbers(16, *PORTS)),
    **dict.fromkeys(("orig_zone", "reply_zone", "master_zone"), _numbers(16, *ZONES)),
    "master_proto": _one_or_many(st.sampled_from(("tcp", "udp", 132, 47))),
    **dict.fromkeys(("icmp_type", "master_icmp_type"), _numbers(8, 0, 8, 13, 128)),
    **dict.fromkeys(("icmp_code", "master_icmp_code"), _numbers(8, 0, 1)),
    **dict.fromkeys(("icmp_id", "master_icmp_id"), _numbers(16, *PORTS)),
    **dict.fromkeys(("sctp_vtag_orig", "sctp_vtag_reply"), _numbers(32, 0, 1, 2)),
    **dict.fromkeys(("timestamp_start", "timestamp_stop"), _numbers(64, 0, 1_700_000_000 * 10**9)),
    "mark": _one_or_many(_MARK | _intervals(_MARK) | _pairs(_MARK)),
    "status": _one_or_many(_STATUS_ITEM | _UNREPLIED | _pairs(_STATUS | st.just(0))),
    "status_none": _STATUS_ITEM | st.lists(_STATUS_ITEM, min_size=1, max_size=4),
    "state": _one_or_many(
        _TCP
        | _TCP.map(int)
        | _TCP.map(lambda state: state.name)
        | st.sampled_from((*SctpState, *DccpState, "Established", "listen", "cookie_wait", "open"))
        | st.just(range(2, 5))
    ),
    "labels": _one_or_many(_LABELS | _pairs(_LABELS)),
    "helper": _one_or_many(st.sampled_from(("ftp", "sip", "", "fifteen bytes ok"[:15]))),
    "timeout": _one_or_many(_intervals(_BETWEEN) | _BETWEEN),
    "id": _numbers(32, 0, 2**31, 2**32 - 1),
    **dict.fromkeys(("packets_orig", "packets_reply"), _numbers(64, *range(7))),
    **dict.fromkeys(("bytes_orig", "bytes_reply"), _numbers(64, 28, 128, 1000, 3000)),
    **dict.fromkeys(("snat", "dnat", "any_nat"), _NAT),
}


def any_simple_specs() -> st.SearchStrategy[Spec]:
    """Up to three fields together, which may contradict each other."""
    names = st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True)
    # A state means something else where a protocol is given.
    names = names | st.just(["proto", "state"]) | st.just(["snat", "status", "status_none"])
    return names.flatmap(lambda some: st.fixed_dictionaries({name: FIELDS[name] for name in some}))


def simple_specs() -> st.SearchStrategy[Spec]:
    """Up to three fields together."""
    return any_simple_specs().filter(lambda spec: not contradicts(spec))


def specs() -> st.SearchStrategy[Spec]:
    """Filters, joined to some depth; among them those that match everything or nothing."""
    return joined(simple_specs()).filter(lambda spec: not contradicts(spec))


def joined(leaves: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
    """Join filters, to some depth."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(st.just("and"), inner, inner),
            st.tuples(st.just("or"), inner, inner),
            st.tuples(st.just("not"), inner),
        ),
        max_leaves=8,
    )


def numbered(table: Iterable[Facts], *names: str) -> Iterator[Any]:
    """What a table has in some fields: tuples if they are more than one."""
    for facts in table:
        values = tuple(facts.get(name) for name in names)
        yield values if len(values) > 1 else values[0]
