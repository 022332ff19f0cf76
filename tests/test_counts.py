"""Counts and sums by up to three fields, held against plain Python on a table of every kind."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlct
from nlct import Filter, Flow, Proto, Tuple
from tests.support import filters
from tests.support.command import nlct_
from tests.support.examples import examples
from tests.support.filters import Facts
from tests.support.namespaces import scratch

PLAIN = ("zone", "proto", "state", "mark", "status", "sport", "dport", "labels", "helper", "family")
ADDRESSES = ("src", "dst", "reply_src", "reply_dst")
COUNTERS = ("packets_orig", "bytes_orig", "packets_reply", "bytes_reply")


class Where:
    """The table as plain Python reads it, with and without counters, and who groups it."""

    def __init__(self, netns: nlct.Netns, ct: nlct.Conntrack) -> None:
        self.ct, self.netns = ct, netns
        self.option = f"--netns=/proc/{os.getpid()}/fd/{netns.fileno()}"
        self.table = filters.read(netns)


@pytest.fixture(scope="module")
def where() -> Iterator[Where]:
    """Flows of every kind; those that packets made have counters."""
    netns = scratch()
    with netns, nlct.Conntrack(netns) as ct:
        filters.prepare(netns)
        assert set(ct.load(filters.random_flows(2, 200)).failed) <= {errno.EEXIST, errno.EOPNOTSUPP}
        filters.talk(netns)
        # These have counters of 0.
        ct.create(Flow(Tuple("fd00::7", "fd00::8", "udp", 1, 2), timeout=filters.STEP))
        ct.create(Flow(Tuple("10.7.7.7", "10.0.0.2", "esp"), timeout=filters.STEP))
        yield Where(netns, ct)


def key(facts: Facts, field: str) -> Any:
    """The value of a field such as "mark" or "src/24/64"."""
    name, *bits = field.split("/")
    value = facts.get("tcp_state" if name == "state" else name)
    if value is None or not bits:
        return value
    numbers = [*map(int, bits)]
    if len(bits) == 1:
        numbers = [numbers[0], 128] if numbers[0] <= 32 else [32, numbers[0]]
    length = numbers[0] if value.version == 4 else numbers[1]
    return ipaddress.ip_network(f"{value}/{length}", strict=False)


def keys(table: list[Facts], by: tuple[str, ...]) -> list[Any]:
    """What each flow is grouped by."""
    found = [tuple(key(facts, field) for field in by) for facts in table]
    return found if len(by) > 1 else [one for (one,) in found]


def sums(table: list[Facts], by: tuple[str, ...], of: str) -> dict[Any, int | None]:
    """The sums of a counter."""
    found: dict[Any, int | None] = dict.fromkeys(keys(table, by))
    for one, facts in zip(keys(table, by), table):
        if of in facts:
            found[one] = (found[one] or 0) + facts[of]
    return found


def fields() -> st.SearchStrategy[str]:
    """Any field, addresses with and without prefixes."""
    ipv4, ipv6, high = st.integers(0, 32), st.integers(0, 128), st.integers(33, 128)
    tails = (
        st.just("")
        | (ipv4 | high).map(lambda bits: f"/{bits}")
        | st.tuples(ipv4, ipv6).map(lambda bits: f"/{bits[0]}/{bits[1]}")
    )
    addresses = st.tuples(st.sampled_from(ADDRESSES), tails).map("".join)
    return st.sampled_from(PLAIN) | addresses


@examples(100)
@given(st.lists(fields(), min_size=1, max_size=3), st.permutations(COUNTERS), filters.specs())
def test_random_groups(where: Where, by: list[str], of: list[str], spec: filters.Spec) -> None:
    """Counts and sums of each group, and which groups there are."""
    wanted = filters.build(spec)
    meant = [facts for facts in where.table if filters.matches(spec, facts)]
    by_ = tuple(by)
    found = where.ct.count_by(*by, filter=wanted)
    assert found == Counter(keys(meant, by_))
    expected = [sums(meant, by_, one) for one in of]
    every = where.ct.sum_by(*by, of=of, filter=wanted)
    assert every == {one: tuple(found[one] for found in expected) for one in found}
    assert where.ct.sum_by(*by, of=of[0], filter=wanted) == expected[0]
    # In the same order.
    assert list(every) == list(found)


def test_sums_are_of_flows_that_have_counters(where: Where) -> None:
    """The table has all three: counters, counters of 0, and none, where a sum is None."""
    by_proto = where.ct.sum_by("proto", of="bytes_orig")
    assert by_proto[Proto.TCP] is None
    assert by_proto[Proto.ESP] == 0
    assert (by_proto[Proto.UDP] or 0) > 1000
    assert where.ct.sum_by("proto", of="bytes_orig", zone=4242) == {}
    with_none = Filter(src=["10.7.7.7", "127.0.0.0/8"]) | Filter(proto="tcp")
    assert None in where.ct.sum_by("src/8", of="packets_reply", filter=with_none).values()
    assert where.ct.sum_by("src/8/0", "family", "zone", of=["packets_orig"])


def test_networks_are_keys(where: Where) -> None:
    """Of one family each; IPv4 comes first."""
    found = where.ct.count_by("src/8")
    kinds = [type(network) for network in found]
    assert set(kinds) == {ipaddress.IPv4Network, ipaddress.IPv6Network}
    assert kinds == sorted(kinds, key=lambda kind: kind is ipaddress.IPv6Network)
    assert {network.prefixlen for network in found} == {8, 128}
    assert {network.prefixlen for network in where.ct.count_by("src/64")} == {32, 64}
    whole = where.ct.count_by("src/0/0")
    assert [*map(str, whole)] == ["0.0.0.0/0", "::/0"]
    assert sum(whole.values()) == len(where.table)


def test_wrong_groups_and_counters(where: Where) -> None:
    """They are named, with what is accepted."""
    for what in ((), ("zone", "proto", "mark", "src")):
        with pytest.raises(TypeError, match="from one to 3"):
            where.ct.count_by(*what)
    for bad in (
        *("src/33/1", "src/129", "src/24/129", "src/", "src/24/", "src/1/2/3", "src/a", "src/024"),
        *("src/-1", "src/ 8", "zone/8", "mark/8", "src//8", "dst/\u0662"),
    ):
        with pytest.raises(ValueError, match=f"'src/24/64', not {re.escape(repr(bad))}$"):
            where.ct.sum_by("zone", bad, of="bytes_orig")
    for bad in ("", "/24", "secctx", "unknown", "bytes", 7, None):
        with pytest.raises(ValueError, match=r"^fields must be .*fixed size"):
            where.ct.count_by("zone", bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"not <?.*Filter.*; give a Filter as filter=\.\.\.$"):
        where.ct.count_by("zone", Filter(zone=7))  # type: ignore[arg-type]
    for of in ("timeout", "bytes", ("bytes_orig", "mark"), ["zone"], ("bytes_orig",) * 2, (7,)):
        with pytest.raises(ValueError, match=r"^of must"):
            where.ct.sum_by("zone", of=of)  # type: ignore[call-overload]
    for of in ("", (), [], None, 7, {"bytes_orig"}):
        with pytest.raises(TypeError, match=r"^of must"):
            where.ct.sum_by("zone", of=of)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="of"):
        where.ct.sum_by("zone")  # type: ignore[call-overload]


def words(value: Any) -> str:
    """A group in JSON."""
    return "null" if value is None else str(int(value) if isinstance(value, int) else value)


def test_the_command(where: Where) -> None:
    """Three fields nest in JSON; sums are exact there, and short in a table."""
    run = json.loads(nlct_("count", where.option, "--by", "dst/8,zone,mark", "--json").stdout)
    nested: dict[str, Any] = {}
    for (net, zone, mark), count in where.ct.count_by("dst/8", "zone", "mark").items():
        nested.setdefault(words(net), {}).setdefault(words(zone), {})[words(mark)] = count
    by = ["dst/8", "zone", "mark"]
    assert run == {"count": len(where.table), "by": by, "counts": nested}
    asked = ("count", where.option, "--by", "proto", "--sum", "bytes_orig,packets_reply")
    run = json.loads(nlct_(*asked, "--json").stdout)
    expected = where.ct.sum_by("proto", of=("bytes_orig", "packets_reply"))
    names = {int(member): member.name.lower() for member in Proto}
    each = {names[proto]: [*found] for proto, found in expected.items()}
    assert {name: [*found.values()] for name, found in run["sums"].items()} == each
    udp, esp = each["udp"], each["esp"]
    assert run["total"] == {"bytes_orig": udp[0], "packets_reply": udp[1]}
    assert run["by"] == "proto"
    assert esp == [0, 0]
    text = nlct_(*asked).stdout
    assert re.search(rf"^ +udp +{udp[0] / 1000:.1f} kB +{udp[1]:,} *$", text, re.M)
    assert re.search(r"^ +tcp +- +- *$", text, re.M)
    assert re.search(rf"^ +all +{udp[0] / 1000:.1f} kB +{udp[1]} *$", text, re.M)
    top = json.loads(nlct_(*asked, "--top", "2", "--json").stdout)
    assert [*top["sums"]] == ["udp", next(n for n, found in each.items() if n != "udp")]
    assert top["total"] == run["total"]
    assert nlct_(*asked).stderr == ""
    filters.write(where.netns, "acct", 0)
    try:
        assert nlct_(*asked).stderr.count("nf_conntrack_acct is 0") == 1
    finally:
        filters.write(where.netns, "acct", 1)


def test_wrong_options(where: Where) -> None:
    """Before anything is read."""
    for args, word in (
        (("--sum", "bytes_orig"), "--by"),
        (("--by", "src/33/1"), "src/33/1"),
        (("--by", "zone,mark,src,dst"), "up to 3"),
        (("--by", "zone,zone"), "different"),
        (("--by", "secctx"), "secctx"),
        (("--by", "zone", "--sum", "mark"), "bytes_orig"),
        (("--by", "zone", "--sum", "bytes_orig", "--sum", "bytes_orig"), "twice"),
    ):
        done = nlct_("count", where.option, *args)
        assert (done.exit_code, done.stdout) == (2, "")
        assert word in done.stderr
