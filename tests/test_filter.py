"""Filters mean what plain Python says they mean, through every door, whoever filters."""

from __future__ import annotations

import copy
import errno
import functools
import ipaddress
import operator
import pathlib
import pickle
import re
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import nlct
from nlct import ALL, DccpState, Filter, Flow, SctpState, Status, TcpState, Tuple, _handle, labels
from nlct._ffi import ffi, lib
from tests.support import everything, filters, oracle, tool
from tests.support.core import Lib
from tests.support.examples import examples
from tests.support.namespaces import scratch

AF_BRIDGE = 7


def lasting(line: str) -> str:
    """A line without its clocks and what else refers to the flow.

    To older kernels a dump itself does: to the flow with which the next datagram begins.
    """
    return re.sub(r" use=\d+", "", tool.without_clocks(line))


class Where:
    """A random table that holds still, and who looks at it: with the kernel's help, and without."""

    def __init__(self, netns: nlct.Netns, asking: nlct.Conntrack, alone: nlct.Conntrack) -> None:
        self.netns = netns
        self.asking = asking
        self.alone = alone
        self.both = (asking, alone)
        self.table = filters.read(netns)
        self.flows = list(asking.dump())
        self.lines = {flow.id or 0: lasting(str(flow)) for flow in self.flows}


@pytest.fixture(scope="module")
def where() -> Iterator[Where]:
    """Some hundred flows of every kind."""
    netns = scratch()
    with netns, nlct.Conntrack(netns) as asking:
        filters.prepare(netns)
        filters.write(netns, "timestamp", 1)
        flows = filters.random_flows(1, 400)
        for some in (flows, filters.expected_flows(flows[::8])):
            loaded = asking.load(some)
            # Some are there twice, or have no master then; a kernel may lack the helper of FTP.
            assert set(loaded.failed) <= {errno.EEXIST, errno.EOPNOTSUPP, errno.ENOENT}
        filters.talk(netns)
        with nlct.Conntrack(netns, kernel_filter=False) as alone:
            yield Where(netns, asking, alone)


def test_the_table_has_something_of_everything(where: Where) -> None:
    """Or the rest proves little."""
    assert len(where.table) > 300
    # No kernel sends the zone of a master; a flow has stopped when it is gone.
    unseen = {
        "master_zone",
        "timestamp_stop",
        *(f"master_icmp_{n}" for n in ("id", "type", "code")),
    }
    special = {"state", "status_none", "snat", "dnat", "any_nat", "address"}
    for name in filters.FIELDS.keys() - special - unseen:
        found = Counter(filters.numbered(where.table, name))
        assert len(found) > 1 or name == "helper", name
    for spec in (
        {"snat": True},
        {"dnat": True},
        {"state": list(TcpState)},
        {"state": list(SctpState)},
        {"labels": 1 << 127 | 1 << 5},
        {"packets_reply": slice(1, None)},
        {"orig_zone": 5},
        {"reply_zone": 5},
        {"sctp_vtag_reply": 2},
        {"master_proto": "udp", "master_src": "10.0.0.0/8"},
        {"master_src": "fd00::/16"},
        {"snat": "198.51.100.7:80"},
        {"dnat": [("2001:db8:1::7", range(1025)), ":53"]},
    ):
        assert filters.ids(where.table, spec), spec
    zones = Counter(
        (flow.orig.zone is not None, flow.reply is not None and flow.reply.zone is not None)
        for flow in where.asking.dump()
    )
    assert len(zones) == 3
    if not filters.ids(where.table, {"helper": "ftp"}):
        pytest.skip("MISSING: the helper of FTP")


def test_it_holds_still(where: Where) -> None:
    """Nothing came or went since, and no timeout is near to those that filters ask for."""
    table = filters.read(where.netns)
    assert filters.ids(table) == filters.ids(where.table)
    assert all(-facts["timeout"] % filters.STEP < filters.STEP / 4 for facts in table)


# Random filters ----------------------------------------------------------------------------------

# Few examples each: each dump takes the kernel over all of its hash table.


@examples(100)
@given(filters.simple_specs())
def test_fields(where: Where, spec: filters.Spec) -> None:
    """Fields by themselves and together, as plain Python says."""
    meant = filters.ids(where.table, spec)
    for ct in where.both:
        assert sorted(flow.id or 0 for flow in ct.dump(filters.build(spec))) == meant


@examples(100)
@given(filters.specs())
def test_joined_filters(where: Where, spec: filters.Spec) -> None:
    """Whatever is joined by and, or, not."""
    meant = filters.ids(where.table, spec)
    for ct in where.both:
        assert sorted(flow.id or 0 for flow in ct.dump(filters.build(spec))) == meant


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", sorted(filters.FIELDS))
def test_each_field(where: Where, name: str) -> None:
    """No field is left to chance."""

    @examples(8)
    @given(filters.FIELDS[name], st.booleans())
    def check(value: Any, inverted: bool) -> None:
        spec: filters.Spec = {name: value}
        assume(not filters.contradicts(spec))
        spec = ("not", spec) if inverted else spec
        meant = filters.ids(where.table, spec)
        for ct in where.both:
            assert sorted(flow.id or 0 for flow in ct.dump(filters.build(spec))) == meant

    check()


@examples(25)
@given(filters.specs(), st.integers(1, 40))
@example({"family": "ipv4"}, 40)  # other datagrams than those of the whole table
def test_every_door(where: Where, spec: filters.Spec, rows: int) -> None:
    """Counts, tables, batches, text and a dry run agree with each other and with plain Python."""
    wanted = filters.build(spec)
    meant = [facts for facts in where.table if filters.matches(spec, facts)]
    ids = filters.ids(meant)
    for ct in where.both:
        assert ct.count(wanted) == len(meant)
        table = ct.table(wanted)
        # An empty table has no columns.
        assert sorted(table.column("id") if len(table) else ()) == ids
        batches = list(ct.batches(wanted, columns=["id"], rows=rows))
        assert sorted(one for batch in batches for one in batch.column("id")) == ids
        assert all(0 < len(batch) <= rows for batch in batches)
        by_kind = Counter(filters.numbered(meant, "zone", "proto"))
        assert ct.count_by("zone", "proto", filter=wanted) == by_kind
        by_state = Counter(filters.numbered(meant, "tcp_state"))
        assert ct.count_by("state", filter=wanted) == by_state
        by_address = Counter(filters.numbered(meant, "src", "reply_dst"))
        assert ct.count_by("src", "reply_dst", filter=wanted) == by_address
        lines = b"".join(ct.dump_text(wanted)).decode().splitlines()
        assert sorted(map(lasting, lines)) == sorted(where.lines[one] for one in ids)


@examples(100)
@given(st.one_of(filters.simple_specs(), filters.specs()))
def test_flows_in_memory(where: Where, spec: filters.Spec) -> None:
    """A flow of a dump matches where a dump with the filter has it, and plain Python agrees."""
    wanted = filters.build(spec)
    found = sorted(flow.id or 0 for flow in where.flows if wanted.matches(flow))
    assert found == filters.ids(where.table, spec)
    assert found == sorted(flow.id or 0 for flow in where.alone.dump(wanted))


# What a filter and a flow call alike.
SAME = ("zone", "mark", "status", "labels", "helper", "timeout", "id")
COUNTERS = ("packets_orig", "bytes_orig", "packets_reply", "bytes_reply")
OF_TUPLES = ("src", "dst", "proto", "sport", "dport", "icmp_type", "icmp_code", "icmp_id")


def values_of(flow: Flow) -> dict[str, Any]:
    """What a filter may ask of a flow, by its own names."""
    values = {name: getattr(flow, name) for name in (*SAME, *COUNTERS)}
    values.update({name: getattr(flow.orig, name) for name in OF_TUPLES})
    if flow.reply is not None:
        for name in ("src", "dst", "sport", "dport"):
            values[f"reply_{name}"] = getattr(flow.reply, name)
    return {name: value for name, value in values.items() if value is not None}


def test_flows_of_every_kind_in_memory() -> None:
    """With every attribute that the kernel sends: half of the values there are, field by field."""
    with everything.everything() as made, nlct.Conntrack(made.netns) as ct:
        flows = list(ct.dump())
        assert len(flows) > 100
        given = [values_of(flow) for flow in flows]
        # What goes on changes the timeout from one dump to the next.
        names = set().union(*given) - {"timeout"}
        assert len(names) > 20
        for name in sorted(names):
            values = sorted({values[name] for values in given if name in values}, key=str)
            # No bits at all are asked for in another way.
            some = [value for value in values[::2] if value or name not in ("status", "labels")]
            for wanted in (Filter(**{name: some}), ~Filter(**{name: some})):
                there = {flow.id for flow in ct.dump(wanted)}
                assert {flow.id for flow in flows if wanted.matches(flow)} == there, wanted
        states = Filter(proto="tcp", state=list(TcpState)) | Filter(any_nat=True)
        assert {f.id for f in flows if states.matches(f)} == {f.id for f in ct.dump(states)}


def test_flows_that_the_kernel_never_had() -> None:
    """Absent fields do not match; the zone is always there."""
    bare = Flow(Tuple("10.0.0.1", "10.0.0.2"))
    assert Filter().matches(bare)
    assert ALL.matches(bare)
    assert Filter(src="10.0.0.0/8", family="ipv4", zone=0).matches(bare)
    assert Filter(zone=5).matches(Flow(bare.orig.replace(zone=5)))
    for name, value in {
        "sport": range(65536),
        "proto": range(256),
        "reply_src": "0.0.0.0/0",
        "mark": range(2**32),
        "timeout": slice(0, None),
        "status_none": "dying",
        "labels": (0, 1),
        "helper": "ftp",
        "bytes_orig": slice(0, None),
        "zone": range(1, 65536),
        "family": "ipv6",
    }.items():
        wanted = Filter(**{name: value})  # type: ignore[arg-type]
        assert not wanted.matches(bare), name
        assert (~wanted).matches(bare), name
    assert not Filter(src=[]).matches(bare)
    assert Filter(reply_src="::/0").matches(Flow(Tuple("::1", "::2"), Tuple("::2", "::1")))


def test_only_a_flow_can_match() -> None:
    """Anything else is a TypeError, even if everything matches."""
    for wrong in (None, 7, Tuple("10.0.0.1", "10.0.0.2"), Filter(), {}, b""):
        for wanted in (ALL, Filter(zone=7)):
            with pytest.raises(TypeError, match="flow must be a Flow"):
                wanted.matches(wrong)  # type: ignore[arg-type]


@examples(25)
@given(filters.specs())
def test_a_dry_run_counts_and_deletes_nothing(where: Where, spec: filters.Spec) -> None:
    """It counts what is meant; what may mean everything is refused even then."""
    wanted = filters.build(spec)
    meant = filters.ids(where.table, spec)
    for ct in where.both:
        if wanted.restricts_nothing:
            assert meant == filters.ids(where.table)
            with pytest.raises(ValueError, match=r"nlct\.ALL"):
                ct.delete(wanted, dry_run=True)
            continue
        result = ct.delete(wanted, dry_run=True)
        assert (result.matched, result.deleted, result.failed) == (len(meant), 0, {})
        assert result.complete is (not meant)
    assert where.asking.count() == len(where.table)


@examples(60)
@given(filters.specs())
def test_a_filter_is_what_it_is_joined_of(where: Where, spec: filters.Spec) -> None:
    """It survives pickling and copying, equals its like, and two times not is nothing."""
    wanted = filters.build(spec)
    again = filters.build(spec)
    assert wanted == again
    assert hash(wanted) == hash(again)
    assert repr(wanted) == repr(again)
    assert ~~wanted == wanted
    for other in (pickle.loads(pickle.dumps(wanted)), copy.copy(wanted), copy.deepcopy(wanted)):
        assert (other, repr(other)) == (wanted, repr(wanted))
    assert where.asking.count(other) == len(filters.ids(where.table, spec))


# What is asked of the kernel ---------------------------------------------------------------------

# It leaves these out on every kernel.
ASKED: list[filters.Spec] = [
    {"mark": 0},
    {"mark": 0x80000001},
    {"mark": (0x80000000, 0x80000000)},
    {"mark": (0, 1)},
    {"family": "ipv6"},
    {"src": "10.0.0.1"},
    {"dst": "10.0.0.1/32"},
    {"src": "10.0.0.1", "dst": "10.0.0.2", "mark": 0},
    {"family": "ipv4", "proto": "tcp", "dport": 80},
    {"family": "ipv6", "proto": "udp", "sport": 53},
]
# It would leave out the wrong ones, or refuse to.
NOT_ASKED: list[filters.Spec] = [
    {"src": "10.0.0.0/24"},
    {"src": ["10.0.0.1", "fd00::1"]},
    {"dport": 80},
    {"address": "10.0.0.1"},
    {"orig_zone": 5},
    {"reply_zone": 5},
    {"master_src": "10.0.0.1", "master_proto": "udp"},
    {"proto": "tcp", "dport": 80},
    {"reply_src": "10.0.0.1"},
    {"mark": [(1, 3), (2, 3)]},
    {"status": (0, 4)},
    {"status_none": "assured"},
    ("not", {"mark": 0}),
    ("or", {"mark": 0}, {"mark": 1}),
    ("not", {"src": "10.0.0.1"}),
]


@pytest.mark.parametrize("spec", ASKED, ids=repr)
def test_what_the_kernel_leaves_out(where: Where, spec: filters.Spec) -> None:
    """It sends what is meant and nothing else."""
    result = where.asking.delete(filters.build(spec), dry_run=True)
    assert result.scanned == result.matched == len(filters.ids(where.table, spec))
    assert where.alone.delete(filters.build(spec), dry_run=True).scanned == len(where.table)


@pytest.mark.parametrize("spec", NOT_ASKED, ids=repr)
def test_what_the_kernel_is_not_asked(where: Where, spec: filters.Spec) -> None:
    """It sends everything, and what is meant is found in it."""
    result = where.asking.delete(filters.build(spec), dry_run=True)
    assert (result.scanned, result.matched) == (
        len(where.table),
        len(filters.ids(where.table, spec)),
    )


@pytest.mark.parametrize("spec", [{"src": "fd00::1"}, {"dst": "fd00::1"}], ids=repr)
def test_of_an_ipv6_address_the_kernel_is_asked_for_the_family(
    where: Where, spec: filters.Spec
) -> None:
    """Every kernel so far compares IPv6 addresses the wrong way round."""
    result = where.asking.delete(filters.build(spec), dry_run=True)
    assert (result.scanned, result.matched) == (
        len(filters.ids(where.table, {"family": "ipv6"})),
        len(filters.ids(where.table, spec)),
    )


OVERLAPPING: list[filters.Spec] = [
    {"mark": [range(2**32 - 1), range(1, 2), range(2, 3)]},
    {"mark": [slice(2, None), range(0x80000000, 0x80000002), 0]},
    {"timeout": [slice(None), range(1), range(filters.STEP // 2)]},
    {"bytes_orig": [range(1000), range(100, 200), 128, slice(2000, None)]},
    {"dport": [range(1, 60), range(50, 90), slice(80, None), 0]},
    {"src": ["10.0.0.0/8", "10.0.0.1", "10.0.0.0/30", "fd00::/16", "fd00::1"]},
]


@pytest.mark.parametrize("spec", OVERLAPPING, ids=repr)
def test_alternatives_may_overlap(where: Where, spec: filters.Spec) -> None:
    """The widest of them counts, in whatever order they come."""
    meant = filters.ids(where.table, spec)
    assert meant
    for ct in where.both:
        assert sorted(flow.id or 0 for flow in ct.dump(filters.build(spec))) == meant


def test_different_values_of_one_field(where: Where) -> None:
    """The last of two values is no better than the first: none is left, which is no error."""
    for one, other in (
        ({"mark": 0}, {"mark": 1}),
        ({"zone": 1}, {"zone": 5}),
        ({"src": "10.0.0.1"}, {"src": "10.0.0.2"}),
        ({"proto": "tcp", "family": "ipv4"}, {"proto": "udp"}),
    ):
        for spec in (("and", one, other), ("and", other, one)):
            assert filters.ids(where.table, spec) == []
            assert [ct.count(filters.build(spec)) for ct in where.both] == [0, 0]


def test_a_kernel_that_refuses_is_asked_for_everything(
    where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refusal changes nothing but the time."""
    asked = []

    def start(handle: ffi.CData, sock: ffi.CData, wanted: ffi.CData, ask: Any, fd: int) -> int:
        if ask != ffi.NULL:
            ask.family = ask.orig.family = AF_BRIDGE
        asked.append(ask != ffi.NULL)
        return int(lib.nlct_dump_start(handle, sock, wanted, ask, fd))

    monkeypatch.setattr(_handle, "lib", Lib(nlct_dump_start=start))
    spec = {"proto": "tcp", "family": "ipv4"}
    ids = filters.ids(where.table, spec)
    assert sorted(flow.id or 0 for flow in where.asking.dump(filters.build(spec))) == ids
    assert asked == [True, False]
    result = where.asking.delete(filters.build(spec), dry_run=True)
    assert (result.scanned, result.matched) == (len(where.table), len(ids))


# Sets --------------------------------------------------------------------------------------------


SETS: dict[str, list[Any]] = {
    "dport": [53, 80],
    "mark": [0, 1],
    "zone": [0, 65535],
    "proto": ["tcp", 17],
    "src": ["10.0.0.1", "fd00::/64"],
    "state": [TcpState.ESTABLISHED, "close"],
    "status": [Status.ASSURED, Status.SRC_NAT],
    "status_none": [Status.ASSURED, Status.SRC_NAT],
    "labels": [1, 1 << 127],
    "helper": ["ftp", "sip"],
    "snat": ["198.51.100.0/24", "fd00::/16"],
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", [set, list, frozenset, iter, dict.fromkeys])
def test_collections(where: Where, name: str, kind: Callable[[Any], Any]) -> None:
    """A set, a list, a generator and anything that is like them."""
    wanted = Filter(**{name: kind(SETS[name])})
    meant = filters.ids(where.table, {name: SETS[name]})
    if name == "helper" and not meant:
        pytest.skip("MISSING: the helper of FTP")
    assert 0 < len(meant) < len(where.table)
    # More than once: a generator is not empty the second time.
    for _ in range(2):
        assert sorted(flow.id or 0 for flow in where.asking.dump(wanted)) == meant


def test_numpy_numbers(where: Where) -> None:
    """NumPy's integers and arrays of them are numbers like any others."""
    numpy = pytest.importorskip("numpy", reason="MISSING: numpy")
    for name, values in {"dport": [53, 80], "mark": [0, 1], "zone": [0, 65535]}.items():
        meant = filters.ids(where.table, {name: values})
        for kind in ("uint32", "int64"):
            array = numpy.array(values, dtype=kind)
            for value in (array, list(array)):
                assert where.asking.count(Filter(**{name: value})) == len(meant)
        wanted = Filter(**{name: numpy.uint16(1)})
        assert where.asking.count(wanted) == len(filters.ids(where.table, {name: 1}))
    for bad in (numpy.float64(1), numpy.True_, numpy.array([1.5])):
        with pytest.raises(TypeError, match="dport"):
            Filter(dport=bad)


def test_a_hundred_thousand_addresses(where: Where) -> None:
    """Hits and misses of both families among very many, networks between them."""
    many: set[Any] = {ipaddress.IPv4Address(0x0B000000 + 3 * number) for number in range(50_000)}
    many |= {ipaddress.IPv6Address((0xFD77 << 112) + 5 * number) for number in range(50_000)}
    many |= {ipaddress.ip_network((0x0C000000 + 256 * number, 24)) for number in range(1000)}
    spec = {"src": [*filters.HOSTS[4][:3], "fd00::2", "fd00:0:0:1::/64"]}
    meant = filters.ids(where.table, spec)
    for wanted, expected in (
        (Filter(src=many), []),
        (Filter(src=many | set(spec["src"])), meant),
        (Filter(src=many) | Filter(**spec), meant),
    ):
        for ct in where.both:
            assert sorted(flow.id or 0 for flow in ct.dump(wanted)) == expected


def test_a_hundred_thousand_addresses_that_are_there(ct: nlct.Conntrack) -> None:
    """Each of them is found, and none beside it."""
    hosts = [ipaddress.IPv4Address(0x0A000000 + 3 * number) for number in range(20_000)]
    loaded = ct.load(
        Flow(Tuple(host, "192.0.2.1", "udp", 1, 2), timeout=3600, mark=number % 2)
        for number, host in enumerate(hosts)
    )
    assert loaded.created == len(hosts)
    wanted = Filter(src=(host for number, host in enumerate(hosts) if number % 2))
    assert ct.count_by("mark", filter=wanted) == {1: len(hosts) // 2}
    assert ct.count_by("mark", filter=~wanted) == {0: len(hosts) // 2}
    assert ct.count(Filter(src=[host + 1 for host in hosts])) == 0


def test_very_many_joined_filters(where: Where) -> None:
    """A rule for each of thousands of services: neither depth nor number is a limit."""
    rules: list[filters.Spec] = [{"src": "10.0.0.1", "dport": port} for port in range(1500)]
    for join, word in ((operator.or_, "or"), (operator.and_, "and")):
        made = functools.reduce(join, map(filters.build, rules))
        answer = any if word == "or" else all
        meant = [f["id"] for f in where.table if answer(filters.matches(r, f) for r in rules)]
        assert sorted(flow.id or 0 for flow in where.asking.dump(made)) == sorted(meant)
        assert where.asking.count(~made) == len(where.table) - len(meant)
        assert made == functools.reduce(join, map(filters.build, rules))


def test_a_hundred_thousand_addresses_of_any_side(where: Where) -> None:
    """Each side is looked up, among very many; the core keeps them once."""
    some = ["198.51.100.7", "fd00::2", "2001:db8:1::7"]
    many = {ipaddress.IPv4Address(0x0B000000 + 3 * number) for number in range(100_000)}
    meant = filters.ids(where.table, {"address": some})
    wanted = Filter(address=[*many, *some])
    for ct in where.both:
        assert sorted(flow.id or 0 for flow in ct.dump(wanted)) == meant
    for field in filters.SIDES:
        of_one = set(filters.ids(where.table, {field: some}))
        assert of_one < set(meant)


# Names of labels ---------------------------------------------------------------------------------

CONNLABEL = """\
# comment
1 one
  5   five  # and why
0x7f last
8 two words
six 6
128 beyond
9
"""


def test_labels_by_name(
    where: Where, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is what the file says when the filter is made."""
    file = tmp_path / "connlabel.conf"
    file.write_text(CONNLABEL)
    monkeypatch.setattr(labels, "PATH", str(file))
    names = {"one": 1, "five": 5, "last": 127, "two words": 8}
    assert labels.read() == labels.read(str(file)) == names
    for name, number in names.items():
        assert labels.number(name) == number
        assert Filter(labels=name) == Filter(labels=1 << number)
    either = Filter(labels={"five", "last"})
    assert either == Filter(labels=[1 << 5, 1 << 127])
    assert where.asking.count(either) == len(
        filters.ids(where.table, {"labels": [1 << 5, 1 << 127]})
    )
    for unknown in ("six", "beyond", "comment", "", "1"):
        with pytest.raises(ValueError, match=f"^labels must .*{file}, not '{unknown}'"):
            Filter(labels=unknown)
    file.write_text("7 one\n")
    assert Filter(labels="one") == Filter(labels=1 << 7) != either
    file.write_text("7 one\n8 one\n")
    with pytest.raises(ValueError, match=f"^{file} gives 'one' two numbers"):
        Filter(labels="one")
    file.unlink()
    with pytest.raises(ValueError, match=f"^labels must .*{file} cannot be read .No such file"):
        Filter(labels="one")


def test_unreplied_is_a_bit_that_is_not_set(where: Where) -> None:
    """As the text has it; it excludes SEEN_REPLY."""
    unreplied = Filter(status="unreplied")
    assert unreplied == Filter(status=(0, Status.SEEN_REPLY)) == Filter(status=["UNREPLIED"])
    lines = b"".join(where.asking.dump_text(unreplied)).decode().splitlines()
    assert lines
    assert all("[UNREPLIED]" in line for line in lines)
    shown = [line for line in where.lines.values() if "[UNREPLIED]" in line]
    assert sorted(map(lasting, lines)) == sorted(shown)
    with pytest.raises(ValueError, match=r"^status and status_none must not exclude"):
        Filter(status=(2, 2), status_none=2)
    with pytest.raises(ValueError, match=r"^status_none must .* not 'unreplied'"):
        Filter(status_none="unreplied")


def test_ports_of_nat(where: Where) -> None:
    """One spelling as text, one as a pair."""
    for text, pair in {
        "10.0.0.1:80": ("10.0.0.1", 80),
        "10.0.0.0/8:80-90": ("10.0.0.0/8", range(80, 91)),
        "[fd00::1]:0": (ipaddress.ip_address("fd00::1"), 0),
        "[fd00::/16]:65535": ("fd00::/16", [65535]),
        ":80": (None, 80),
        "fd00::1:80": ("fd00::1:80", None),
    }.items():
        for name in filters.TRANSLATED:
            assert Filter(**{name: text}) == Filter(**{name: [pair]})
            assert filters.target(text)[0] == (pair[0] and str(pair[0]))
    for bad in ("10.0.0.1:", "fd00::1]:80", "10.0.0.1:080", "10.0.0.1:9-8", ":", "[10.0.0.1:80"):
        with pytest.raises(ValueError, match=r"^snat must .* not '"):
            Filter(snat=bad)
    for wrong in ("10.0.0.1:65536", ("10.0.0.1", 65536), (None, -1)):
        with pytest.raises(ValueError, match=r"^snat's port must be"):
            Filter(snat=wrong)
    for pair in ((None, None), (), ("10.0.0.1",), ("10.0.0.1", 1, 2)):
        with pytest.raises(ValueError, match=r"^snat must be a pair"):
            Filter(snat=pair)
    with pytest.raises(TypeError, match=r"^snat's port must be an integer"):
        Filter(snat=("10.0.0.1", "80"))
    assert where.asking.count(Filter(any_nat=":1-65535"))


def test_references_are_counted(where: Where) -> None:
    """A master has one more; how many a dump adds depends on the kernel."""
    use = Counter(flow.use for flow in where.asking.dump())
    assert sum(use.values()) == len(where.table)
    assert where.asking.count(Filter(use=range(max(use) + 2))) == len(where.table)
    assert where.asking.count(Filter(use=0)) == 0


# What could be taken for more than it is ---------------------------------------------------------

NOTHING = ~ALL
MEAGRE: dict[str, tuple[Filter, filters.Spec]] = {
    "all of two bits, not one of them": (
        Filter(status=Status.SEEN_REPLY | Status.ASSURED),
        {"status": 6},
    ),
    "all of three bits in a list": (
        Filter(status=[Status.SEEN_REPLY | Status.ASSURED | Status.SRC_NAT]),
        {"status": 0x16},
    ),
    "nothing, and then or": (
        (NOTHING & Filter(proto="tcp")) | Filter(proto="sctp"),
        {"proto": "sctp"},
    ),
    "nothing, in the midst of it": (
        (Filter(proto="tcp") & NOTHING & Filter(mark=0)) | (NOTHING & Filter(mark=1)),
        {"zone": []},
    ),
    "not nothing": (~(NOTHING & Filter(proto="tcp")) & Filter(mark=1), {"mark": 1}),
    "everything, in the midst of it": ((ALL & Filter(mark=1)) & ~NOTHING, {"mark": 1}),
    "a mark of 0": (Filter(mark=0), {"mark": 0}),
    "a zone of 0": (Filter(zone=0), {"zone": 0}),
    "a port of 0": (Filter(dport=0), {"dport": 0}),
    "a protocol of 0": (Filter(proto=0), {"proto": 0}),
    "a timeout of 0": (Filter(timeout=0), {"timeout": 0}),
    "a state of 0": (Filter(state=0), {"state": 0}),
    "an id of 0": (Filter(id=0), {"id": 0}),
    "an empty helper": (Filter(helper=""), {"helper": ""}),
    "an address, not the other family's first bytes": (
        Filter(src="fd00::/16"),
        {"src": "fd00::/16"},
    ),
    "IPv4, not all there is": (Filter(src="0.0.0.0/0"), {"family": "ipv4"}),
    "IPv6, not all there is": (Filter(src="::/0"), {"family": "ipv6"}),
}


@pytest.mark.parametrize("name", MEAGRE)
def test_filters_that_mean_little(where: Where, name: str) -> None:
    """What a filter means is never more than was said."""
    wanted, spec = MEAGRE[name]
    for ct in where.both:
        assert sorted(f.id or 0 for f in ct.dump(wanted)) == filters.ids(where.table, spec)
    assert not wanted.restricts_nothing


@pytest.mark.parametrize("name", sorted(filters.FIELDS.keys() - {"family", "status_none"}))
def test_an_empty_set_matches_nothing(where: Where, name: str) -> None:
    """In every field that takes sets."""
    for empty in ([], set(), frozenset(), iter(())):
        wanted = Filter(**{name: empty})
        assert [ct.count(wanted) for ct in where.both] == [0, 0]
        assert not wanted.matches_everything
        assert not wanted.restricts_nothing


@pytest.mark.parametrize("name", [n for n in sorted(filters.FIELDS) if n != "status_none"])
def test_a_flow_without_the_field_does_not_match(where: Where, name: str) -> None:
    """A filter and its inverse make the whole, and who lacks the field is in the inverse."""
    addresses = dict.fromkeys((*filters.ADDRESSES, "snat", "dnat", "any_nat"), "::/0")
    bits = [(0, 2), (2, 2)]
    others = {"family": "ipv4", "helper": "ftp", "labels": bits, "status": bits}
    whole: Any = {**addresses, **others}.get(name, slice(None))
    wanted = Filter(**{name: whole})
    meant = filters.ids(where.table, {name: whole})
    rest = sorted(set(filters.ids(where.table)) - set(meant))
    for ct in where.both:
        assert sorted(flow.id or 0 for flow in ct.dump(wanted)) == meant
        assert sorted(flow.id or 0 for flow in ct.dump(~wanted)) == rest


EVERYTHING = {
    "Filter()": Filter(),
    "None": Filter(zone=None, src=None, mark=None),
    "or": Filter(mark=1) | Filter(),
    "or of ALL": ALL | Filter(mark=1),
    "and": Filter() & Filter(),
    "and of ALL": ALL & ALL,
    "not nothing": ~(~Filter()),
    "not an empty set": ~Filter(src=[]),
    "not an empty set of zones": ~Filter(zone=set()),
    "not an empty set, or": ~Filter(src=[]) | Filter(mark=1),
    "neither of two empty sets": ~(Filter(src=[]) | Filter(dst=[])),
    "every zone": Filter(zone=range(65536)),
    "every mark in a range": Filter(mark=slice(None)),
    "every address": Filter(src=["0.0.0.0/0", "::/0"]),
    "every protocol": Filter(proto=range(256)),
    "every protocol in two": Filter(proto=[range(17), range(17, 256)]),
    "every timeout": Filter(timeout=slice(0, None)),
    "every address of the replies": Filter(reply_src=["0.0.0.0/0", "::/0"]),
    "every address beside a thousand": Filter(src=map(ipaddress.ip_address, range(1001)))
    | Filter(src=["0.0.0.0/0", "::/0"]),
    "every address, piece by piece": functools.reduce(
        operator.or_,
        [Filter(src=[f"{n}.0.0.0/8", f"{n:02x}00::/8"]) for n in range(256)],
    ),
    "a bit that is set or not": Filter(mark=[(0, 1), (1, 1)]),
    "each value of a mask": Filter(mark=[(n << 8, 0xFF00) for n in range(256)]),
    "a mask, and the numbers besides": Filter(mark=[(1 << 31, 1 << 31), range(2**31)]),
    "all but one, or that one": ~Filter(mark=7) | Filter(mark=7),
    "not two at a time": ~(Filter(zone=1) & Filter(zone=2)),
    "with a port or without": Filter(sport=7) | ~Filter(sport=7),
    "with labels or without": Filter(labels=7) | ~Filter(labels=7),
    "not labels of which none is set": ~Filter(labels=(0, 2**128 - 1)),
    "a helper or none": Filter(helper="ftp") | ~Filter(helper="ftp"),
    "not without what every flow has": ~Filter(status_none="confirmed"),
    "translated or not": Filter(snat=True) | Filter(mark=1) | Filter(snat=False),
    "each of two is every one": Filter(zone=slice(None), mark=slice(None)),
    "every id": Filter(id=range(2**32)),
    "every number of references": Filter(use=slice(0, None)),
    "every address of any side": Filter(address=["0.0.0.0/0", "::/0"]),
    "not no address of any side": ~Filter(address=[]),
    "replied or not": Filter(status=["unreplied", "seen_reply"]),
    "a master or none": Filter(master_dport=1) | ~Filter(master_dport=1),
    "a port of NAT or not": Filter(snat=":80") | ~Filter(snat=":80"),
    "two fields or not": Filter(src="10.0.0.1", dport=80) | ~Filter(src="10.0.0.1", dport=80),
    "any side or not": Filter(address="10.0.0.1") | ~Filter(address="10.0.0.1") & Filter(),
    "one of two, the other, neither": (Filter(mark=1, zone=5) | Filter(mark=1) & ~Filter(zone=5))
    | ~Filter(mark=1),
    "in a zone of one direction or not": Filter(orig_zone=range(65536)) | ~Filter(orig_zone=[5]),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_is_known_as_such(where: Where, name: str) -> None:
    """However it is said, a delete is refused, since only nlct.ALL says it on purpose."""
    wanted = EVERYTHING[name]
    assert wanted.restricts_nothing
    for ct in where.both:
        assert ct.count(wanted) == len(where.table)
        for strategy in ("auto", "scan", "kernel"):
            for dry_run in (True, False):
                with pytest.raises(ValueError, match=r"nlct\.ALL"):
                    ct.delete(wanted, strategy=strategy, dry_run=dry_run)
    assert filters.ids(filters.read(where.netns)) == filters.ids(where.table)


def test_all_stays_itself() -> None:
    """Pickled or copied it is still said on purpose; nothing else becomes it."""
    for same in (pickle.loads(pickle.dumps(ALL)), copy.copy(ALL), copy.deepcopy(ALL)):
        assert same is ALL
    assert repr(ALL) == "nlct.ALL"
    assert Filter() == ALL
    assert hash(ALL) == hash(Filter())
    for other in (ALL & ALL, ALL | ALL, ~~ALL, type(ALL)(), copy.copy(Filter())):
        assert other is not ALL


def test_filters_are_compared_by_what_they_say() -> None:
    """Equal filters serve as keys; others differ."""
    assert Filter(zone=5) == Filter(zone=[5]) == Filter(zone={5}) == Filter(zone=range(5, 6))
    assert Filter(src="10.0.0.1") == Filter(src=ipaddress.ip_address("10.0.0.1"))
    assert Filter(src="10.0.0.1") == Filter(src="10.0.0.1/32")
    assert Filter(zone=5, mark=1) == Filter(zone=5) & Filter(mark=1)
    assert Filter(mark=(1, 3)) != Filter(mark=[1, 3])
    assert Filter(src="10.0.0.1") != Filter(dst="10.0.0.1")
    assert Filter(mark=1) & Filter(zone=1) != Filter(mark=1) | Filter(zone=1)
    assert ~Filter(mark=1) != Filter(mark=1)
    assert Filter(mark=1) != {"mark": 1}
    assert len({Filter(zone=5), Filter(zone=[5]), ~Filter(zone=5)}) == 2


def test_a_filter_shows_what_was_asked() -> None:
    """For people, and good to paste."""
    for text in (
        "Filter(zone=7, src='10.0.0.0/8', mark=(1, 3))",
        "Filter(zone=7) & Filter(mark=0)",
        "(Filter(zone=7) | Filter(mark=0))",
        "~(Filter(zone=7))",
        "(~(Filter(zone=7)) | Filter(dport=range(1, 5)) & Filter(state='close'))",
    ):
        made = eval(text, {"Filter": Filter})
        assert repr(made) == text
        assert eval(repr(made), {"Filter": Filter}) == made


def test_a_filter_knows_its_zones() -> None:
    """Those that it is restricted to, read out once; and whether they are all it is about."""
    for made, zone, alone in (
        (Filter(zone=7), {7}, True),
        (Filter(zone=[0, range(5, 7).start, 6]), {0, 5, 6}, True),
        (Filter(zone=slice(65534, None)), {65534, 65535}, True),
        (Filter(zone=[]), set(), True),
        (Filter(zone=7, mark=1), {7}, False),
        (Filter(mark=1) & Filter(zone=7), {7}, False),
        (Filter(zone=7) | Filter(mark=1), None, False),
        (~Filter(zone=7), None, False),
        (Filter(mark=1), None, False),
        (ALL, None, False),
    ):
        for one in (made, pickle.loads(pickle.dumps(made))):
            assert (one.zone, one.is_zones) == (zone, alone)
            assert one.zone is one.zone


def test_a_filter_is_compiled_once() -> None:
    """However often it is used; a copy of it is on its own."""
    made = Filter(zone=7) | Filter(src="10.0.0.0/8")
    assert made.to_c() is made.to_c()
    assert copy.copy(made).to_c() is not made.to_c()


# Bad arguments -----------------------------------------------------------------------------------


def test_a_value_outside_of_its_mask() -> None:
    """No flow has one, and every flow has none: not to be inverted by anyone."""
    for name in ("mark", "status", "labels"):
        for bad in ((0x101, 0xFF), (3, 1), (1, 2), (HIGH[name], HIGH[name] - 1)):
            for value in (bad, [1, bad]):
                with pytest.raises(ValueError, match=f"^{name} must be within its mask: 0x"):
                    Filter(**{name: value})


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"family": family, name: address}, f"^family and {name} must be of one family")
        for name in (*filters.ADDRESSES, "snat", "dnat", "any_nat")
        for family, address in (
            ("ipv4", "fd00::1"),
            ("ipv6", "10.0.0.0/8"),
            (socket.AF_INET, ["fd00::1", "fd00::/64"]),
            (socket.AF_INET6, {ipaddress.ip_address("10.0.0.1")}),
        )
    ),
    ({"src": "10.0.0.1", "dst": "fd00::1"}, "^src and dst must be of one family, not IPv4 and"),
    ({"dst": "fd00::1", "reply_src": "10.0.0.1"}, "^dst and reply_src must be of one family"),
    ({"src": "fd00::/8", "snat": "10.0.0.0/8"}, "^src and snat must be of one family"),
    (
        {"src": ["10.0.0.1", "fd00::1"], "dst": "10.0.0.1", "reply_dst": "fd00::1"},
        "^dst and reply_dst must be of one family",
    ),
    ({"status": "assured", "status_none": "assured"}, "^status and status_none must not"),
    ({"status": [6, 4], "status_none": [4, 1]}, "^status and status_none must not"),
    ({"status": (0, 0x10), "snat": True}, "^status and snat must not exclude each other"),
    ({"snat": True, "any_nat": False}, "^snat and any_nat must not exclude each other"),
]


@pytest.mark.parametrize(("spec", "message"), CONTRADICTIONS)
def test_what_contradicts_itself(spec: dict[str, Any], message: str) -> None:
    """It would match nothing, and so be a mistake that nobody is told of."""
    with pytest.raises(ValueError, match=message):
        Filter(**spec)


@pytest.mark.parametrize(("spec", "message"), [one for one in CONTRADICTIONS if "family" in one[1]])
def test_what_contradicts_itself_when_joined(spec: dict[str, Any], message: str) -> None:
    """Alike, whatever else is in the chain; inverted or as an alternative it is none."""
    parts = [Filter(**{name: value}) for name, value in spec.items()]
    for chain in (parts, [Filter(zone=1), *parts], [ALL, *parts, Filter(mark=1)]):
        with pytest.raises(ValueError, match=message):
            functools.reduce(operator.and_, chain)
    functools.reduce(operator.or_, parts)
    ~parts[0] & parts[-1]


def test_what_contradicts_itself_in_alternatives() -> None:
    """It does where each of them is of the other family."""
    ipv4, ipv6 = Filter(family="ipv4"), Filter(family="ipv6")
    either = Filter(src="fd00::1") | Filter(dst="fd00::1")
    with pytest.raises(ValueError, match=r"^family and src or dst must be of"):
        ipv4 & either
    for wrong in (lambda: ~ipv4 & ipv4, lambda: ~ipv4 & ~ipv6, lambda: ~Filter(src="::/0") & ipv6):
        with pytest.raises(ValueError, match="must be of one family"):
            wrong()
    ipv4 & (either | Filter(mark=1))
    ipv4 & (either | Filter(src="10.0.0.1"))
    ~Filter(src="fd00::/8") & ipv6


def test_what_does_not_contradict_itself(where: Where) -> None:
    """Alternatives of which one remains, empty sets, sets that turn out to share nothing."""
    fine: list[filters.Spec] = [
        {"family": "ipv4", "src": ["10.0.0.1", "fd00::1"]},
        {"src": ["10.0.0.1", "fd00::1"], "dst": ["10.0.0.2", "fd00::2"]},
        {"family": "ipv4", "src": []},
        {"src": [], "dst": "fd00::1", "reply_src": []},
        {"status": [], "status_none": "assured"},
        {"status": ["assured", "seen_reply"], "status_none": "assured"},
        {"snat": False, "dnat": True, "any_nat": True},
        ("and", {"zone": 1}, {"zone": [2, 3]}),
        ("and", {"src": "10.0.0.1"}, {"src": "10.0.0.2"}),
        ("and", {"status": "assured"}, {"status_none": "assured"}),
        ("and", ("not", {"master_src": "0.0.0.0/0"}), {"family": "ipv4"}),
    ]
    for spec in fine:
        found = sorted(flow.id or 0 for flow in where.asking.dump(filters.build(spec)))
        assert found == filters.ids(where.table, spec)


@examples(300)
@given(filters.joined(filters.any_simple_specs()))
def test_only_what_contradicts_itself_is_refused(spec: filters.Spec) -> None:
    """As plain Python says."""
    if filters.contradicts(spec):
        with pytest.raises(ValueError, match="must"):
            filters.build(spec)
    else:
        filters.build(spec)


HIGH = {
    "zone": 65535,
    "proto": 255,
    **dict.fromkeys(("sport", "dport", "reply_sport", "reply_dport", "icmp_id"), 65535),
    **dict.fromkeys(("icmp_type", "icmp_code", "state"), 255),
    **dict.fromkeys(("orig_zone", "reply_zone", "master_zone"), 65535),
    **dict.fromkeys(("master_sport", "master_dport", "master_icmp_id"), 65535),
    **dict.fromkeys(("master_proto", "master_icmp_type", "master_icmp_code"), 255),
    **dict.fromkeys(("mark", "status", "status_none", "timeout", "id", "use"), 2**32 - 1),
    **dict.fromkeys(("sctp_vtag_orig", "sctp_vtag_reply"), 2**32 - 1),
    **dict.fromkeys(("timestamp_start", "timestamp_stop"), 2**64 - 1),
    **dict.fromkeys(("packets_orig", "bytes_orig", "packets_reply", "bytes_reply"), 2**64 - 1),
    "labels": 2**128 - 1,
}
RANGED = sorted(set(HIGH) - {"zone", "status", "status_none", "labels", "state"})


@pytest.mark.parametrize("name", HIGH)
def test_numbers_out_of_range(name: str) -> None:
    """The error names field and range; the ends of the range are fine."""
    Filter(**{name: HIGH[name]})
    for bad in (-1, HIGH[name] + 1, 2**200):
        for value in (bad, [1, bad], {bad}, (one for one in (1, bad))):
            with pytest.raises(ValueError, match=f"^{name} must be from 0 to {HIGH[name]}.*{bad}"):
                Filter(**{name: value})


@pytest.mark.parametrize("name", HIGH)
@pytest.mark.parametrize(
    "bad", [1.0, True, False, b"1", pytest.param(object(), id="object()"), None, [1], {}], ids=repr
)
def test_what_is_no_number(name: str, bad: object) -> None:
    """Neither alone nor in a list; text only where there are names, and then a known one."""
    if bad is not None and not isinstance(bad, (list, dict)):
        with pytest.raises(TypeError, match=f"^{name} must be an integer from 0 to {HIGH[name]}"):
            Filter(**{name: bad})
    with pytest.raises(TypeError, match=f"^{name} must be an integer from 0 to {HIGH[name]}"):
        Filter(**{name: [1, bad]})


@pytest.mark.parametrize("name", HIGH)
def test_names_of_numbers(name: str) -> None:
    """Where there are names the error says which; elsewhere text is no number."""
    named = ("proto", "master_proto", "status", "status_none", "state", "labels")
    kind = ValueError if name in named else TypeError
    known = {"status": "assured", "status_none": "assured", "state": "close_wait"}
    # A protocol may be a number as text.
    for bad in ("256" if name.endswith("proto") else "7", "", "nope"):
        with pytest.raises(kind, match=f"^{name.removesuffix('_none')}.*{known.get(name, '')}"):
            Filter(**{name: bad})


@pytest.mark.parametrize("name", RANGED)
def test_bad_ranges(name: str) -> None:
    """Steps, and ends beyond the field's own."""
    high = HIGH[name]
    for fine in (range(5), range(high + 1), range(7, 7), slice(None), slice(high, high + 1)):
        Filter(**{name: fine})
    for bad in (range(0, 10, 2), range(10, 0, -1), slice(0, 10, 2), slice(5, None, -1)):
        with pytest.raises(ValueError, match=f"^{name} must be a range in steps of one"):
            Filter(**{name: bad})
    for bad in (range(-1, 5), range(high + 2), slice(-5, None), slice(None, high + 2)):
        # The end of a range is not in it.
        with pytest.raises(ValueError, match=f"^{name} must be from 0 to ({high}|{high + 1}),"):
            Filter(**{name: bad})
    for wrong in (slice("a", "b"), slice(1.0, 2.0), slice(True, None)):
        with pytest.raises(TypeError, match=f"^{name} must be an integer"):
            Filter(**{name: wrong})


@pytest.mark.parametrize("name", ["mark", "status", "labels"])
def test_bad_pairs(name: str) -> None:
    """A tuple is a value and its mask, nothing else."""
    for bad in ((), (1,), (1, 2, 3), (1, None), (1, "2"), (True, 1), (-1, 1), (1, HIGH[name] + 1)):
        for value in (bad, [1, bad]):
            with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
                Filter(**{name: value})


@pytest.mark.parametrize("name", RANGED)
def test_a_tuple_is_no_set(name: str) -> None:
    """It would be easy to take a pair (value, mask) for one, and the other way round."""
    if name != "mark":
        with pytest.raises(TypeError, match=f"^{name} must be an integer"):
            Filter(**{name: (1, 2)})


NO_BITS: dict[str, list[Any]] = {
    "status": [0, [0], [1, 0], Status(0), (0, 0), [(0, 0)]],
    "status_none": [0, [0], Status(0), [], set()],
    "labels": [0, [0], [1, 0], (0, 0), [(0, 0)]],
    "mark": [(0, 0), [1, (0, 0)], (1, 0)],
}


@pytest.mark.parametrize("name", NO_BITS)
def test_no_bits_are_refused(name: str) -> None:
    """All of no bits are set in every flow, and so are none of them."""
    for nothing in NO_BITS[name]:
        with pytest.raises(ValueError, match=f"^{name} must name a (bit|label) at least"):
            Filter(**{name: nothing})


@pytest.mark.parametrize("name", [*filters.ADDRESSES, "snat", "dnat", "any_nat"])
def test_bad_addresses(name: str) -> None:
    """What is no address; what has bits behind its prefix, and so may mean a host or a network."""
    wrong = ("", "10.0.0", "10.0.0.256", "10.0.0.1/8", "fd00::1/64", "10.0.0.0/33", "host", "::g")
    for bad in wrong:
        for value in (bad, ["10.0.0.1", bad]):
            with pytest.raises(ValueError, match=f"^{name} must be an address or a network"):
                Filter(**{name: value})
    with pytest.raises(ValueError, match=r"in the network 10\.77\.1\.0/24"):
        Filter(**{name: "10.77.1.2/24"})
    for scoped in ("fe80::1%lo", ipaddress.ip_address("fe80::1%lo")):
        with pytest.raises(ValueError, match=f"{name} must .*interface"):
            Filter(**{name: scoped})
    with pytest.raises(ValueError, match=f"{name} must .*no netmask"):
        Filter(**{name: "10.0.0.0/0.0.0.255"})
    assert Filter(**{name: "10.0.0.0/255.0.0.0"}) == Filter(**{name: "10.0.0.0/8"})
    for interface in ("10.77.1.2/24", "fd00::1/64"):
        with pytest.raises(ValueError, match=f"^{name} must be an address or a network"):
            Filter(**{name: ipaddress.ip_interface(interface)})
    # A pair is an address and its port, where the reply has both.
    pair = () if name in filters.TRANSLATED else (("10.0.0.1", "10.0.0.2"),)
    for item in (10, 1.5, b"\x0a\x00\x00\x01", *pair, object(), range(3)):
        for value in (item, ["10.0.0.1", item]):
            with pytest.raises(TypeError, match=f"^{name} must be addresses"):
                Filter(**{name: value})
    with pytest.raises(TypeError, match=f"^{name} must be addresses"):
        Filter(**{name: ["10.0.0.1", None]})


def test_bad_helpers() -> None:
    """Names are text of up to 15 bytes."""
    for bad in ("sixteen bytes ok", "a\0b", "ä" * 8):
        with pytest.raises(ValueError, match=r"^helper must be of up to 15 bytes"):
            Filter(helper=bad)
    for wrong in (7, b"ftp", ("ftp",), object()):
        with pytest.raises(TypeError, match=r"^helper must be text"):
            Filter(helper=[wrong])


def test_bad_states() -> None:
    """States of three protocols, each a number of its own."""
    for state in (TcpState.CLOSE, SctpState.CLOSED, DccpState.OPEN):
        Filter(state=[state])
    for proto in ({}, {"proto": "tcp"}, {"proto": ["sctp", "dccp"]}):
        with pytest.raises(ValueError, match="state must be from 0 to 255"):
            Filter(state=256, **proto)


NAMES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"tcp_state": 3}),
    ({"proto": "tcp"}, {"tcp_state": 3}),
    ({"proto": "sctp"}, {"sctp_state": 4}),
    ({"proto": 132}, {"sctp_state": 4}),
    ({"proto": ["udp", "sctp", 33]}, {"sctp_state": 4}),
    ({"proto": slice(None)}, {"tcp_state": 3, "sctp_state": 4}),
    ({"proto": [range(7), "dccp"]}, {"tcp_state": 3}),
]


@pytest.mark.parametrize(("spec", "meant"), NAMES)
def test_a_state_is_that_of_the_protocol(spec: dict[str, Any], meant: dict[str, int]) -> None:
    """Of those that know the name; a number is the state of each that has states."""
    kinds = {"tcp_state": TcpState, "sctp_state": SctpState, "dccp_state": DccpState}
    members = [kinds[field](number) for field, number in meant.items()]
    expected = Filter(state=members, **spec)
    for name in ("established", "ESTABLISHED", ["Established"]):
        assert Filter(state=name, **spec) == expected
    assert Filter(state=list(range(10)), **spec) == Filter(
        state=[
            member
            for field, number in {"tcp_state": 6, "sctp_state": 132, "dccp_state": 33}.items()
            if (number in filters.protos(spec) if spec else number == 6)
            for member in map(kinds[field], range(10))
        ],
        **spec,
    )


def test_a_state_that_the_protocol_lacks() -> None:
    """The error says which there are."""
    for spec, message in (
        (
            {"state": "cookie_wait"},
            "^state must .* one of tcp's none, .* listen, not 'cookie_wait'",
        ),
        ({"state": "open", "proto": "tcp"}, "^state must .* one of tcp's none, .*, not 'open'"),
        ({"state": "listen", "proto": "sctp"}, "one of sctp's none, closed, .*, not 'listen'"),
        ({"state": "x", "proto": ["tcp", "dccp"]}, "tcp's none, .* or dccp's none, .*, not 'x'"),
        ({"state": ["close", "x"], "proto": "tcp"}, "one of tcp's none, .*, not 'x'"),
        ({"state": SctpState.CLOSED, "proto": "tcp"}, "one of tcp's none"),
        ({"state": "established", "proto": "udp"}, "^state must go with .* tcp, sctp or dccp"),
        ({"state": 3, "proto": ["udp", "icmp"]}, "^state must go with .* tcp, sctp or dccp"),
    ):
        with pytest.raises(ValueError, match=message):
            Filter(**spec)
    # None of no protocols, and no state of one that has none.
    Filter(proto=[], state="established")
    Filter(proto="udp", state=[])


def test_listen_is_a_name() -> None:
    """What conntrack(8) calls the state that the kernel calls SYN_SENT2."""
    assert Filter(state="listen") == Filter(state=TcpState.SYN_SENT2) == Filter(state=9)
    assert TcpState(9).name == "SYN_SENT2"


def test_filters_join_filters_only() -> None:
    """Neither a dict nor a number nor None."""
    for other in (None, {}, {"zone": 5}, 7, True, "zone=7", frozenset({7})):
        for join in (operator.and_, operator.or_):
            with pytest.raises(TypeError):
                join(Filter(zone=7), other)
            with pytest.raises(TypeError):
                join(other, Filter(zone=7))
    with pytest.raises(TypeError):
        Filter({"zone": 7})  # type: ignore[misc]
    with pytest.raises(TypeError, match="zones"):
        Filter(zones=7)  # type: ignore[call-arg]


def test_a_filter_says_nothing_to_the_kernel(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """One bad field spoils the call, and nothing was sent."""
    ct.create(Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2), timeout=3600))
    before = oracle.dump(netns)
    for call in (ct.delete, ct.dump, ct.count, ct.table):
        with pytest.raises(ValueError, match="dport"):
            call(Filter(proto="udp", dport=[2, 65536]))
    assert oracle.dump(netns) == before
