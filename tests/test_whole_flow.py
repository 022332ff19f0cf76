"""Every field of every kind of flow, held against conntrack(8), in XML and text, and pyroute2."""

from __future__ import annotations

import errno
import json
import pickle
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nlct
from tests.support import everything, pyroute, tool
from tests.support.everything import Everything

# What a restored flow has anew, or not yet; by field.
NEW_AFTER_RESTORING = {
    "id": "the kernel gives it",
    "use": "what else refers to it: helpers and children are not the same objects",
    r"(packets|bytes)_(orig|reply)": "no request sets counters",
    r"timestamp_start": "no request sets timestamps",
    r"tcp_wscale_orig": "the kernel takes scales only where both directions have one",
    r"synproxy_.*": "the kernel adds it to what it is asked to create, with zeros",
}


class Reading(NamedTuple):
    """A table, and what nlct says of it; flows by id."""

    table: Everything
    flows: dict[int, nlct.Flow]


@pytest.fixture(scope="module", params=[True, False], ids=["full", "bare"])
def reading(request: pytest.FixtureRequest) -> Iterator[Reading]:
    """The table with accounting and timestamps, and without them."""
    with everything.everything(acct=request.param, timestamp=request.param) as table:
        with nlct.Conntrack(table.netns) as ct:
            flows = {flow.id or 0: flow for flow in ct.dump()}
        yield Reading(table, flows)


def tuple_as_read(one: nlct.Tuple) -> everything.Flow:
    """A tuple as the other readers tell it; Python's IPv6 text is not that of inet_ntop(3)."""
    values = {name: getattr(one, name) for name in everything.TUPLE_FIELDS}
    family = socket.AF_INET if one.family == socket.AF_INET else socket.AF_INET6
    return {
        name: socket.inet_ntop(family, value.packed) if name in ("src", "dst") else int(value)
        for name, value in values.items()
        if value is not None
    }


def as_read(flow: nlct.Flow) -> everything.Flow:
    """A flow as the other readers tell it; the zone of one direction is in its tuple alone."""
    found: dict[str, Any] = {}
    for name in everything.FIELDS:
        value = getattr(flow, name)
        if isinstance(value, nlct.Tuple):
            found[name] = tuple_as_read(value)
        elif value is not None:
            found[name] = value if isinstance(value, str) else int(value)
    of_tuple = any("zone" in found.get(name, {}) for name in ("orig", "reply"))
    if of_tuple or not found["zone"]:
        del found["zone"]
    return found


def test_every_field_is_what_pyroute2_says(reading: Reading) -> None:
    """Flow by flow, field by field, in both directions of the comparison."""
    theirs = everything.by_id(pyroute.dump(reading.table.netns))
    assert theirs.keys() == reading.flows.keys()
    unknown = {}
    for number, flow in reading.flows.items():
        for name, two in everything.differences(as_read(flow), theirs[number]).items():
            unknown[number, name] = two
    assert not unknown, unknown


def test_every_field_is_what_the_tool_says(reading: Reading) -> None:
    """The same against its XML, but for what that says nothing of."""
    theirs = everything.by_id(tool.xml(reading.table.netns))
    assert theirs.keys() == reading.flows.keys()
    unknown = {}
    for number, flow in reading.flows.items():
        assert flow.status is not None
        bits = {
            "assured": bool(flow.status & nlct.Status.ASSURED),
            "unreplied": not flow.status & nlct.Status.SEEN_REPLY,
        }
        found = everything.differences({**as_read(flow), **bits}, theirs[number])
        for name, (ours, xml) in found.items():
            silent = xml is None and any(re.fullmatch(known, name) for known in tool.NOT_IN_XML)
            if not silent and not (tool.PORTS.fullmatch(name) and (ours, xml) == (None, 0)):
                unknown[number, name] = (ours, xml)
    assert not unknown, unknown


def test_every_line_is_the_tools(reading: Reading) -> None:
    """`conntrack -L`, str() of each flow and dump_text() are one text; JSON is to_dict()."""
    if tool.version() < tool.WHOLE:
        pytest.skip("MISSING: conntrack 1.4.7: those before have names for other states of DCCP")
    theirs = sorted(map(tool.without_clocks, tool.lines(reading.table.netns)))
    with nlct.Conntrack(reading.table.netns) as ct:
        text = b"".join(ct.dump_text()).decode().splitlines()
        each = [str(flow) for flow in ct.dump()]
        found = {
            flow["id"]: flow for flow in map(json.loads, b"".join(ct.dump_json()).splitlines())
        }
    for number, flow in reading.flows.items():
        # The clock and what refers to a flow go on meanwhile.
        moving = {name: found[number][name] for name in ("timeout", "use")}
        assert found[number] == {**flow.to_dict(), **moving}
    assert sorted(map(tool.without_clocks, text)) == theirs
    assert sorted(map(tool.without_clocks, each)) == theirs


def test_a_table_says_the_same_as_its_flows(reading: Reading) -> None:
    """Columns, rows of columns and single look-ups are the same flows."""
    with nlct.Conntrack(reading.table.netns) as ct:
        for flow in ct.table():
            other = reading.flows[flow.id or 0]
            assert not everything.differences(as_read(other), as_read(flow))
        for flow in reading.flows.values():
            found = ct.get(flow.orig, zone=named(flow))
            # A look-up uses the flow itself.
            assert everything.differences(as_read(flow), as_read(found)).keys() <= {"use"}
            assert flow.unknown is None


def test_a_table_comes_back_from_other_forms(reading: Reading, tmp_path: Path) -> None:
    """From a pickle, from Arrow, and from the file of ``nlct dump --format parquet``."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="MISSING: pyarrow")
    # Other kernels have neither.
    from tests.support.command import nlct_  # noqa: PLC0415

    with nlct.Conntrack(reading.table.netns) as ct:
        table = ct.table()
    where = f"/proc/self/fd/{reading.table.netns.fileno()}"
    file = tmp_path / "flows.parquet"
    done = nlct_("dump", "--netns", where, "--format", "parquet", "--output", str(file))
    assert done.exit_code == 0, done.output
    forms = (
        pickle.loads(pickle.dumps(table)),
        nlct.FlowTable.from_arrow(table),
        nlct.FlowTable.from_arrow(table.arrow(enums="numbers", addresses="bytes")),
        nlct.FlowTable.from_arrow(parquet.read_table(file)),
    )
    for again in forms:
        assert again.names == table.names
        rows = {flow.id: flow for flow in again}
        assert len(again) == len(table) == len(rows)
        for flow in table:
            assert not everything.differences(as_read(flow), as_read(rows[flow.id]))
    for name in table.names:
        assert list(table[name]) == list(forms[1][name])


def named(flow: nlct.Flow) -> int | None:
    """The zone in which the original tuple is looked up; none where one direction alone has it."""
    in_reply = flow.reply is not None and flow.reply.zone is not None
    return None if in_reply or flow.orig.zone is not None else flow.zone


def settable(flow: nlct.Flow) -> everything.Flow:
    """A flow without the bits that say who thought of NAT and helper: the kernel, or a request.

    Nor has it the TCP flags that the kernel alone can mean.
    """
    own = nlct.Status.SRC_NAT_DONE | nlct.Status.DST_NAT_DONE | nlct.Status.HELPER
    read = as_read(flow)
    flags = {name: read[name] & 0x0B for name in read if name.startswith("tcp_flags_")}
    return {**read, **flags, "status": int((flow.status or 0) & ~own)}


def test_a_saved_table_is_restored(reading: Reading) -> None:
    """Created, dumped, loaded elsewhere, dumped: the same table but for what is the kernel's."""
    with (
        everything.everything() as other,
        nlct.Conntrack(other.netns) as ct,
        nlct.Conntrack(reading.table.netns) as source,
    ):
        saved = source.table()
        ct.flush_all()
        result = ct.load(saved)
        # The kernel does not say how long offloaded flows live, and makes none without that.
        offloaded = sum(flow.timeout is None for flow in saved)
        assert result.failed == ({errno.EINVAL: offloaded} if offloaded else {})
        assert result.created == len(saved) - offloaded
        restored = {(flow.orig, flow.zone): flow for flow in ct.dump()}
    assert result.dropped == {}
    assert not any((flow.tcp_flags_orig or 0) & ~0x0B for flow in restored.values())
    assert len(restored) == result.created
    unknown = {}
    for flow in saved:
        if flow.timeout is None:
            continue
        again = restored[flow.orig, flow.zone]
        for name, two in everything.differences(settable(flow), settable(again)).items():
            if not any(re.fullmatch(known, name) for known in NEW_AFTER_RESTORING):
                unknown[str(flow), name] = two
    assert not unknown, unknown
