"""The command line, on the real kernel: what it prints, what it deletes, how it ends."""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

import nlct
from nlct import Flow, Tuple, _handle, capabilities
from nlct.cli.commands import cli
from nlct.cli.commands import delete as delete_command
from nlct.cli.options import zone_names
from nlct.cli.progress import Bar, Total
from nlct.fill import fill
from nlct.table import COLUMNS
from tests.support import flows, tool
from tests.support.command import NLCT, at_terminal, nlct_, process, refused

ENOUGH_TO_WATCH = 20000


@pytest.fixture
def zones(ct: nlct.Conntrack) -> Iterator[dict[int, int]]:
    """A table with 100 flows in each of the zones 1 to 10."""
    fill(ct, 1000, 10)
    counts = dict.fromkeys(range(1, 11), 100)
    assert ct.count_by("zone") == counts
    return counts


def only(counts: dict[int, int], *gone: int) -> dict[int, int]:
    """The zones without some."""
    return {zone: count for zone, count in counts.items() if zone not in gone}


# probe, count, dump ------------------------------------------------------------------------------


def test_probe_says_each_capability_with_its_evidence() -> None:
    """Text and JSON are what nlct.probe() returns."""
    found = nlct.probe()
    assert json.loads(nlct_("probe", "--json").stdout) == found._asdict()
    text = nlct_("probe").stdout
    assert f"Linux {found.release}" in text
    for name, evidence in found.evidence.items():
        answer = "yes" if getattr(found, name) else "no"
        assert re.search(rf"^\s*{name}\s+{answer}\s+{evidence}\s", text, re.M)


@pytest.mark.usefixtures("zones")
def test_count_is_the_table(where: str) -> None:
    """All flows, and those of repeated zones and ranges, each zone once."""
    assert nlct_("count", where).stdout == "1000\n"
    assert json.loads(nlct_("count", where, "--json").stdout) == {"count": 1000}
    args = ("count", where, "--zone", "3", "-z", "5-7", "--zone", "6-8", "--zone", "99")
    assert nlct_(*args).stdout == "500\n"
    assert json.loads(nlct_(*args, "--json").stdout) == {"count": 500}


def test_count_by_zone(zones: dict[int, int], where: str) -> None:
    """A row a zone and their sum; only the zones that were asked for."""
    text = nlct_("count", where, "--by", "zone", "--zone", "2-3").stdout
    assert re.findall(r"^\s*(\w+)\s+(\d+)\b", text, re.M) == [
        ("2", "100"),
        ("3", "100"),
        ("all", "200"),
    ]
    found = json.loads(nlct_("count", where, "--by", "zone", "--json").stdout)
    assert found == {"count": 1000, "by": "zone", "counts": {str(z): n for z, n in zones.items()}}


@pytest.mark.usefixtures("ct")
def test_count_by_zone_of_nothing(where: str) -> None:
    """An empty table is no error."""
    assert nlct_("count", where, "--by", "zone").exit_code == 0
    empty = nlct_("count", where, "--by", "zone", "--json")
    assert json.loads(empty.stdout) == {"count": 0, "by": "zone", "counts": {}}


@pytest.mark.parametrize("by", [("--by", "zone,proto"), ("--by", "zone", "--by", "proto")])
def test_count_by_two_fields(ct: nlct.Conntrack, where: str, by: tuple[str, ...]) -> None:
    """A row a pair; in JSON one object in another."""
    flows.populate(ct, [5, 7])
    found = json.loads(nlct_("count", where, *by, "--json", "--zone", "7").stdout)
    # In their order, which is that of the numbers.
    counts = {
        "5": {"icmp": 1, "tcp": 4, "udp": 4, "gre": 1, "icmpv6": 1},
        "7": {"icmp": 1, "tcp": 2, "udp": 2, "gre": 1, "icmpv6": 1},
    }
    assert found == {"count": 7, "by": ["zone", "proto"], "counts": {"7": counts["7"]}}
    text = nlct_("count", where, *by).stdout
    assert re.findall(r"^ +(\d+) +([a-z]\w*) +(\d+) +\S+%", text, re.M) == [
        (zone, proto, str(count)) for zone in ("5", "7") for proto, count in counts[zone].items()
    ]
    assert re.search(r"^ +all +18\b", text, re.M)


@pytest.mark.parametrize(
    ("field", "counts"),
    [
        ("proto", {"tcp": 2, "udp": 2, "icmp": 1, "icmpv6": 1, "gre": 1}),
        ("state", {"null": 5, "none": 2}),
        ("mark", {str(mark): 1 for mark in range(7)}),
        ("src", {"10.0.0.1": 4, "fd00::1": 3}),
        ("dst", {"10.0.0.2": 4, "fd00::2": 3}),
        ("status", {"confirmed": 7}),
    ],
)
def test_count_by_each_field(
    ct: nlct.Conntrack, where: str, field: str, counts: dict[str, int]
) -> None:
    """Values are in words, and a flow without the field counts for null."""
    flows.populate(ct, [7])
    found = json.loads(nlct_("count", where, "--by", field, "--json").stdout)
    assert found == {"count": 7, "by": field, "counts": counts}
    text = nlct_("count", where, "--by", field).stdout
    rows = re.findall(r"^ +(\S+) +(\d+) +\S+%", text, re.M)
    assert {value.replace("-", "null"): int(count) for value, count in rows} == counts


def test_what_is_counted_is_not_cut_off(ct: nlct.Conntrack, where: str) -> None:
    """However wide it is."""
    ends = ("2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:7777:8888:9999:aaaa:bbbb:cccc")
    ct.create(Flow(Tuple(*ends, "udp", 1, 2), timeout=100))
    text = nlct_("count", where, "--by", "src,dst").stdout
    assert re.search(rf"^ +{ends[0]} +{ends[1]} +1 ", text, re.M)
    _, text = at_terminal("count", where, "--by", "src,dst")
    assert "\u2026" not in text


def test_the_largest_counts(ct: nlct.Conntrack, where: str) -> None:
    """They come first; the sum is that of all."""
    fill(ct, 5, 2)
    fill(ct, 13, 4)
    assert ct.count_by("zone") == {1: 5, 2: 4, 3: 3, 4: 3}
    top = nlct_("count", where, "--by", "zone", "--top", "2", "--zone", "2-4", "--json").stdout
    assert json.loads(top) == {"count": 10, "by": "zone", "counts": {"2": 4, "3": 3}}
    assert list(json.loads(top)["counts"]) == ["2", "3"]


def from_json(line: str) -> Flow:
    """The flow of a line of `nlct dump --json`."""
    fields = json.loads(line)
    status = sum(nlct.Status[name.upper()] for name in fields["status"])
    protocol = fields.pop("protocol")
    assert Tuple(proto=protocol).proto == fields["orig"]["proto"]
    reply = fields.pop("reply")
    return Flow(Tuple(**fields.pop("orig")), Tuple(**reply), **{**fields, "status": status})


def ageless(found: Iterable[Flow]) -> list[dict[str, Any]]:
    """Everything about the flows, whatever the time."""
    return [flow.replace(timeout=None).to_dict() for flow in sorted(found)]


def test_dump_as_json_loses_nothing(ct: nlct.Conntrack, where: str) -> None:
    """The lines rebuild every flow of every kind and zone, directional ones included."""
    flows.populate(ct)
    lines = nlct_("dump", where, "--json").stdout.splitlines()
    assert len(lines) == ct.count()
    assert ageless(map(from_json, lines)) == ageless(ct.dump())
    again = nlct_("dump", where, "--format", "json").stdout.splitlines()
    assert ageless(map(from_json, again)) == ageless(ct.dump())


def test_dump_lists_only_the_zones_asked_for(ct: nlct.Conntrack, where: str) -> None:
    """One line a flow; zone 0 is a zone like any other."""
    flows.populate(ct)
    for zone in (0, 5, 7, 99):
        lines = nlct_("dump", where, "--zone", str(zone)).stdout.splitlines()
        found = nlct_("dump", where, "--zone", str(zone), "--json").stdout.splitlines()
        assert len(lines) == len(found) == ct.count(zone=zone)
        assert {json.loads(line)["zone"] for line in found} <= {zone}


@pytest.mark.usefixtures("root")
def test_dump_reads_like_conntrack(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """Line for line, but for the seconds left; in a file as well."""
    flows.populate(ct)
    listing = sorted(map(tool.without_clocks, tool.lines(netns)))
    ours = nlct_("dump", where).stdout
    assert len(listing) == ct.count()
    assert sorted(map(tool.without_clocks, ours.splitlines())) == listing
    assert ours.endswith("\n")


def test_dump_into_a_file(ct: nlct.Conntrack, where: str, tmp_path: Path) -> None:
    """What was in it is gone; standard output stays empty."""
    flows.populate(ct, [5])
    file = tmp_path / "flows"
    for args in ((), ("--columns", "src,zone"), ("--columns", "src,zone", "--json")):
        file.write_text("old\n" * 1000)
        assert nlct_("dump", where, *args, "--output", str(file)).output == ""
        lines = nlct_("dump", where, *args).stdout.splitlines()
        assert len(lines) == ct.count()
        written = file.read_text().splitlines()
        assert [*map(tool.without_clocks, written)] == [*map(tool.without_clocks, lines)]
    for nowhere in ("/no/such/file", "/sys/kernel/uevent_seqnum"):
        assert nowhere in refused(nlct_("dump", where, "--output", nowhere), 1)


def test_columns(ct: nlct.Conntrack, where: str) -> None:
    """In the order asked for: as text with tabs between, as JSON by name; absent is told."""
    given = ("--columns", "zone,src", "--columns", "proto,dport,icmp_id,reply_zone,status")
    flows.populate(ct, [5])
    expected = []
    for flow in ct.dump():
        there, back = flow.to_dict()["orig"], flow.to_dict()["reply"]
        expected.append(
            {
                "zone": 5,
                "src": there["src"],
                "proto": flow.to_dict()["protocol"],
                "dport": there.get("dport"),
                "icmp_id": there.get("icmp_id"),
                "reply_zone": back.get("zone"),
                "status": ["confirmed"],
            }
        )
    found = [
        json.loads(line) for line in nlct_("dump", where, *given, "--json").stdout.splitlines()
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert {tuple(line) for line in found} == {tuple(expected[0])}
    lines = nlct_("dump", where, *given).stdout.splitlines()
    assert sorted(lines) == sorted(
        "\t".join("-" if v is None else str(v).strip("[']") for v in row.values())
        for row in expected
    )


def test_every_column_is_what_the_flow_says(ct: nlct.Conntrack, where: str) -> None:
    """Under the names of the library's columns."""
    flows.populate(ct, [0, 5])
    ct.create(translated())
    given = nlct_("dump", where, "--json", "--columns", ",".join(COLUMNS)).stdout.splitlines()
    for line, whole in zip(given, nlct_("dump", where, "--json").stdout.splitlines()):
        row, flow = json.loads(line), json.loads(whole)
        assert tuple(row) == COLUMNS
        del row["timeout"], flow["timeout"]
        expected = {"family": "ipv6" if ":" in flow["orig"]["src"] else "ipv4"}
        expected.update({f"orig_{k}" if k == "zone" else k: v for k, v in flow["orig"].items()})
        expected.update({f"reply_{k}": v for k, v in flow["reply"].items()})
        expected.update({k: v for k, v in flow.items() if k in COLUMNS})
        expected.update(proto=flow["protocol"], reply_proto=flow["protocol"])
        assert {k: v for k, v in row.items() if v is not None} == expected


def test_columns_that_few_flows_have(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are words and numbers, too; what is nowhere is told."""
    expected = {
        "tcp_state": ["time_wait", "time_wait"],
        "sctp_state": [None, "-"],
        "labels": [[0, 64, 127], "0,64,127"],
        "helper": ["ftp", "ftp"],
        "helper_info": ["01ff", "01ff"],
        "unknown": [{"99": "00"}, '{"99":"00"}'],
        "master_proto": ["tcp", "tcp"],
        "master_dport": [21, "21"],
        "reply_src": [None, "-"],
        "proto": ["200", "200"],
        "bytes_orig": [2**64 - 1, str(2**64 - 1)],
        "status": [["seen_reply", "0x10000"], "seen_reply,0x10000"],
    }
    flow = Flow(
        Tuple("10.0.0.1", "10.0.0.2", 200),
        status=0x10002,
        tcp_state="time_wait",
        labels=1 | 1 << 64 | 1 << 127,
        helper="ftp",
        helper_info=b"\x01\xff",
        unknown={99: b"\0"},
        master=Tuple("10.0.0.1", "10.0.0.2", "tcp", 1000, 21),
        bytes_orig=2**64 - 1,
    )

    def one_flow(*_: object) -> Iterator[None]:
        """In place of Dump.steps(): the flow, and the end."""
        made[-1].add(flow)
        yield

    made: list[Any] = []
    monkeypatch.setattr(nlct._handle.Dump, "steps", one_flow)
    monkeypatch.setattr(nlct.Conntrack, "missing", lambda *_: {})
    make = nlct.conntrack.Values
    keep = lambda *args, **how: made.append(make(*args, **how)) or made[-1]  # noqa: E731
    monkeypatch.setattr(nlct.conntrack, "Values", keep)
    args = ("dump", where, "--columns", ",".join(expected))
    row = json.loads(nlct_(*args, "--json").stdout)
    assert row == {name: value for name, (value, _) in expected.items()}
    assert nlct_(*args).stdout == "\t".join(word for _, word in expected.values()) + "\n"


# Arrow and Parquet -------------------------------------------------------------------------------


@pytest.fixture
def pyarrow() -> Any:
    """It and what it needs."""
    pytest.importorskip("nanoarrow", reason="MISSING: nanoarrow, which nlct[parquet] brings")
    return pytest.importorskip("pyarrow", reason="MISSING: pyarrow, which nlct[parquet] brings")


def read(pyarrow: Any, data: bytes, kind: str) -> Any:
    """A table of the bytes of a file or stream."""
    if kind == "parquet":
        return importlib.import_module("pyarrow.parquet").read_table(pyarrow.BufferReader(data))
    return getattr(pyarrow.ipc, f"open_{kind}")(data).read_all()


@pytest.fixture(params=["parquet", "file", "stream"])
def exported(
    request: pytest.FixtureRequest, where: str, tmp_path: Path, pyarrow: Any
) -> Callable[..., Any]:
    """What reads what a dump in the format wrote."""

    def dump(*args: str) -> Any:
        file = tmp_path / "flows"
        to = () if request.param == "stream" else ("--output", str(file))
        kind = "parquet" if request.param == "parquet" else "arrow"
        done = nlct_("dump", where, "--format", kind, *to, *args)
        assert (done.exit_code, done.stderr) == (0, "")
        if to:
            assert done.stdout_bytes == b""
        return read(pyarrow, file.read_bytes() if to else done.stdout_bytes, request.param)

    return dump


def test_arrow_and_parquet_hold_every_column(
    ct: nlct.Conntrack, exported: Callable[..., Any]
) -> None:
    """Also those that no flow has, and the values are those of the library's own table."""
    flows.populate(ct)
    table = exported()
    assert tuple(table.column_names) == COLUMNS
    rows = {tuple(row.items()) for row in table.drop_columns(["timeout"]).to_pylist()}
    own = ct.table().arrow(columns=[name for name in COLUMNS if name != "timeout"])
    expected = {tuple(row.items()) for row in sys.modules["pyarrow"].table(own).to_pylist()}
    assert len(rows) == ct.count()
    assert rows == expected


def test_arrow_and_parquet_of_some_columns_and_flows(
    ct: nlct.Conntrack, exported: Callable[..., Any]
) -> None:
    """In the order asked for."""
    flows.populate(ct)
    rows = exported("--columns", "dport,src", "--zone", "7", "--proto", "tcp").to_pylist()
    assert sorted(rows, key=str) == [
        {"dport": 80, "src": "10.0.0.1"},
        {"dport": 80, "src": "fd00::1"},
    ]


@pytest.mark.usefixtures("ct")
def test_arrow_and_parquet_of_nothing(exported: Callable[..., Any]) -> None:
    """The schema is that of any other dump."""
    table = exported()
    assert (table.num_rows, tuple(table.column_names)) == (0, COLUMNS)


def test_a_large_dump_is_written_in_parts(
    ct: nlct.Conntrack, where: str, tmp_path: Path, pyarrow: Any
) -> None:
    """A row group a batch, a record batch a batch."""
    fill(ct, 70_000, 1)
    file = str(tmp_path / "flows")
    assert nlct_("dump", where, "--format", "parquet", "--output", file).exit_code == 0
    metadata = importlib.import_module("pyarrow.parquet").ParquetFile(file).metadata
    parts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert parts == [65536, 70_000 - 65536]
    stream = nlct_("dump", where, "--format", "arrow", "--columns", "src").stdout_bytes
    assert [len(batch) for batch in pyarrow.ipc.open_stream(stream)] == parts


@pytest.mark.parametrize("missing", ["pyarrow", "nanoarrow"])
@pytest.mark.parametrize("format_", ["arrow", "parquet"])
@pytest.mark.usefixtures("pyarrow")
def test_without_the_extra_for_arrow(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, format_: str
) -> None:
    """One clear line, and the file is as it was."""
    monkeypatch.setitem(sys.modules, missing, None)
    file = tmp_path / "flows"
    file.write_text("old")
    message = refused(nlct_("dump", where, "--format", format_, "--output", str(file)), 1)
    assert missing in message
    assert "pip install 'nlct[parquet]'" in message
    assert file.read_text() == "old"


def test_arrow_is_not_for_terminals(where: str) -> None:
    """Nor is Parquet for a pipe."""
    code, output = at_terminal("dump", where, "--format", "arrow")
    assert code == 2
    assert "terminal" in output
    for to in ((), ("--output", "-")):
        message = refused(nlct_("dump", where, *to, "--format", "parquet"), 2)
        assert "parquet cannot go to standard output: add --output FILE" in message


# Filters -----------------------------------------------------------------------------------------

S = nlct.Status
FILTERS = [
    ("--zone 7", nlct.Filter(zone=7)),
    ("-z 1,5-6 -z 9", nlct.Filter(zone={1, 5, 6, 9})),
    ("--family ipv6", nlct.Filter(family="ipv6")),
    ("-f ipv4", nlct.Filter(family="ipv4")),
    ("--proto tcp", nlct.Filter(proto="tcp")),
    ("-p udp,6 -p GRE", nlct.Filter(proto={6, 17, 47})),
    ("--src 10.0.0.0/8", nlct.Filter(src="10.0.0.0/8")),
    ("-s fd00::1 -s 10.0.0.1,10.0.0.2", nlct.Filter(src={"fd00::1", "10.0.0.1", "10.0.0.2"})),
    ("--dst 10.0.0.1", nlct.Filter(dst="10.0.0.1")),
    ("-d 10.0.0.1", nlct.Filter(dst="10.0.0.1")),
    ("--reply-src 10.0.0.1", nlct.Filter(reply_src="10.0.0.1")),
    ("-r 10.0.0.1", nlct.Filter(reply_src="10.0.0.1")),
    ("--reply-dst 10.0.0.1", nlct.Filter(reply_dst="10.0.0.1")),
    ("-q 10.0.0.1", nlct.Filter(reply_dst="10.0.0.1")),
    ("--sport 1000", nlct.Filter(sport=1000)),
    ("--dport 1000-1005", nlct.Filter(dport=range(1000, 1006))),
    ("--reply-sport 60000-", nlct.Filter(reply_sport=slice(60000, None))),
    ("--reply-dport 0-1,5", nlct.Filter(reply_dport=[range(2), range(5, 6)])),
    ("--icmp-type 8", nlct.Filter(icmp_type=8)),
    ("--icmp-code 0", nlct.Filter(icmp_code=0)),
    ("--icmp-id 7", nlct.Filter(icmp_id=7)),
    ("--mark 0x10", nlct.Filter(mark=16)),
    ("-m 1/3,0x100/0xff00", nlct.Filter(mark=[(1, 3), (256, 0xFF00)])),
    ("--status assured", nlct.Filter(status=S.ASSURED)),
    ("-u unreplied", nlct.Filter(status="unreplied")),
    ("-u assured,UNREPLIED,unset", nlct.Filter(status=(4, 6))),
    ("-u ASSURED,2 -u 0x10", nlct.Filter(status=S.ASSURED | S.SEEN_REPLY | S.SRC_NAT)),
    ("--status-none assured,dying", nlct.Filter(status_none=S.ASSURED | S.DYING)),
    ("--state established,TIME_WAIT,1", nlct.Filter(state={1, 3, 7})),
    ("--state LISTEN", nlct.Filter(state=9)),
    (
        "--state established,2 -p sctp",
        nlct.Filter(proto="sctp", state=[nlct.SctpState.ESTABLISHED, nlct.SctpState.COOKIE_WAIT]),
    ),
    ("-p dccp --state open", nlct.Filter(proto="dccp", state=nlct.DccpState.OPEN)),
    (
        "-p tcp,sctp,udp --state close,established",
        nlct.Filter(
            proto={"tcp", "sctp", "udp"},
            state=[nlct.TcpState.CLOSE, nlct.TcpState.ESTABLISHED, nlct.SctpState.ESTABLISHED],
        ),
    ),
    ("--label 0", nlct.Filter(labels=1)),
    ("-l 1,127 -l 64", nlct.Filter(labels=2 | 1 << 127 | 1 << 64)),
    (f"-l 0x1/0x3,{1 << 70:#x}/{1 << 70:#x}", nlct.Filter(labels=(1 | 1 << 70, 3 | 1 << 70))),
    ("--helper ftp,sip", nlct.Filter(helper={"ftp", "sip"})),
    ("--timeout 0-60", nlct.Filter(timeout=range(61))),
    ("-t 60-", nlct.Filter(timeout=slice(60, None))),
    ("--snat", nlct.Filter(snat=True)),
    ("--dnat", nlct.Filter(dnat=True)),
    ("--snat 10.0.0.1:80,:5-6", nlct.Filter(snat=["10.0.0.1:80", ":5-6"])),
    ("--dnat [fd00::1]:80", nlct.Filter(dnat=("fd00::1", 80))),
    ("-g 10.0.0.0/8 -g 11.0.0.1", nlct.Filter(dnat={"10.0.0.0/8", "11.0.0.1"})),
    ("--any-nat", nlct.Filter(any_nat=True)),
    ("-j 10.0.0.1", nlct.Filter(any_nat="10.0.0.1")),
    ("--any-nat=10.0.0.1", nlct.Filter(any_nat="10.0.0.1")),
    ("--id 0xffffffff", nlct.Filter(id=2**32 - 1)),
    ("--use 0x2-", nlct.Filter(use=slice(2, None))),
    ("--orig-zone 0,5", nlct.Filter(orig_zone=[0, 5])),
    ("--reply-zone 5-", nlct.Filter(reply_zone=slice(5, None))),
    ("--address 10.0.0.1,fd00::/16", nlct.Filter(address=["10.0.0.1", "fd00::/16"])),
    ("--sctp-vtag-orig 0xffffffff", nlct.Filter(sctp_vtag_orig=2**32 - 1)),
    ("--sctp-vtag-reply 7", nlct.Filter(sctp_vtag_reply=7)),
    (
        "--timestamp-start 0-1700000000000000000",
        nlct.Filter(timestamp_start=range(17 * 10**17 + 1)),
    ),
    ("--timestamp-stop 5", nlct.Filter(timestamp_stop=5)),
    ("--master-src 10.0.0.1", nlct.Filter(master_src="10.0.0.1")),
    ("--master-dst 10.0.0.1", nlct.Filter(master_dst="10.0.0.1")),
    ("--master-proto tcp", nlct.Filter(master_proto="tcp")),
    ("--master-sport 5", nlct.Filter(master_sport=5)),
    ("--master-dport 21", nlct.Filter(master_dport=21)),
    ("--master-icmp-type 8", nlct.Filter(master_icmp_type=8)),
    ("--master-icmp-code 0", nlct.Filter(master_icmp_code=0)),
    ("--master-icmp-id 7", nlct.Filter(master_icmp_id=7)),
    ("--master-zone 5", nlct.Filter(master_zone=5)),
    ("--packets-orig 10-", nlct.Filter(packets_orig=slice(10, None))),
    ("--packets-reply 0", nlct.Filter(packets_reply=0)),
    ("--bytes-orig 0-18446744073709551615", nlct.Filter(bytes_orig=slice(None))),
    ("--bytes-reply 1-2", nlct.Filter(bytes_reply=range(1, 3))),
]


@pytest.mark.parametrize(("given", "filter_"), FILTERS)
def test_what_an_option_means(
    where: str, monkeypatch: pytest.MonkeyPatch, given: str, filter_: nlct.Filter
) -> None:
    """To each command alike."""
    asked = []

    def ask(_ct: nlct.Conntrack, wanted: nlct.Filter = nlct.ALL, **_: object) -> Any:
        asked.append(wanted)
        return nlct.FlushResult(0, 0, 0, 0, {})

    monkeypatch.setattr(nlct.Conntrack, "delete", ask)
    assert nlct_("delete", where, *given.split()).exit_code == 0
    monkeypatch.setattr(nlct.Conntrack, "count", ask)
    assert nlct_("count", where, *given.split()).exit_code == 0
    monkeypatch.setattr(nlct.Conntrack, "dump_text", lambda *args, **_: ask(*args) and ())
    assert nlct_("dump", where, *given.split()).exit_code == 0
    assert {wanted for wanted in asked if not wanted.matches_everything} == {filter_}


def test_every_field_of_a_filter_has_an_option() -> None:
    """And none is left out of the test above."""
    options = {name for given, _ in FILTERS for name in given.split() if name.startswith("--")}
    fields = inspect.signature(nlct.Filter).parameters
    assert len({name.partition("=")[0] for name in options}) == len(fields)


@pytest.mark.parametrize("command", ["count", "dump", "delete"])
@pytest.mark.parametrize(
    "given",
    [
        *("--family ipv5", "--family 2", "--proto 256", "--proto colour", "--proto tcp,"),
        *("--src 10.0.0.1/8", "--src 10.0.0.256", "--src ,", "--src @/no/such/file", "--src @/"),
        *("--sport 65536", "--sport 9-1", "--sport -1", "--sport 1-2-3", "--dport http"),
        *("--icmp-type 256", "--mark 4294967296", "--mark 1/", "--mark /1", "--mark 0xg"),
        *("--status colour", "--status 0", "--status-none 0", "--status 0x100000000"),
        *("--state open", "--state 256", "--label 128", "--label ssh", "--timeout 1s"),
        *("--helper sixteen-letters-", "--id 4294967296", "--any-nat here"),
        *("--bytes-orig 18446744073709551616", "--bytes-orig " + "9" * 5000),
        *("--mark 0x101/0xff", "--mark 1,3/1", "--mark 1/0"),
        *("--src fd00::1%lo", "--dst 10.0.0.0/0.0.0.255", "--sport 1-010", "--zone 07"),
        *("--status unset", "--status unreplied,seen_reply", "--status-none unreplied"),
        *("--label 1,0/0x2", "--label 4/3", "--label 0/0", "--label 0/0x1" + "0" * 32),
        *("--snat 10.0.0.1:", "--snat 10.0.0.1:65536", "--dnat [::1", "--any-nat :9-8"),
        *("--srckey 65536", "--not-srckey x", "--not-src 10.0.0", "--not-status 0"),
        *("--orig-zone 65536", "--address host", "--master-dport x", "--not-orig-src ,"),
        *("--mark 010", "--mark 1/01", "--proto 06", "--status 010", "--label 01"),
    ],
)
def test_a_bad_value_is_wrong_usage(
    ct: nlct.Conntrack, where: str, command: str, given: str
) -> None:
    """The option is named, and nothing is deleted."""
    fill(ct, 10, 1)
    option, value = given.split()
    assert option in refused(nlct_(command, where, option, value), 2)
    assert ct.count() == 10


def test_standard_input_is_read_for_one_option(ct: nlct.Conntrack, where: str) -> None:
    """The second one would get nothing, and match nothing."""
    fill(ct, 10, 1)
    said = nlct_("delete", where, "--src", "@-", "--dst", "@-", given="10.0.0.1\n")
    assert "--dst" in refused(said, 2)
    assert nlct_("delete", where, "--src", "@-", given="10.0.0.1\n").exit_code == 0
    assert ct.count() == 9


@pytest.mark.parametrize("command", ["count", "dump", "delete"])
@pytest.mark.parametrize(
    ("given", "named", "why"),
    [
        ("--family ipv4 --src fd00::1", "--src", "family and src must be of one family"),
        ("--dst 10.0.0.1 -f ipv6", "--dst", "family and dst must be of one family"),
        ("-s 10.0.0.1 -d fd00::/8", "--dst", "src and dst must be of one family"),
        ("-r 10.0.0.1 -q ::1", "--reply-dst", "reply_src and reply_dst must be"),
        ("--src 10.0.0.1 --src-nat=fd00::1", "--src-nat", "src and snat must be"),
        ("-f ipv6 -g 10.0.0.1", "--dnat", "family and dnat must be"),
        ("-j 10.0.0.1 -f ipv6", "--any-nat", "family and any_nat must be"),
        ("-u assured --status-none 4", "--status-none", "must not exclude each other"),
        ("--proto sctp --state close", "--state", "sctp's none, closed, cookie_wait"),
        ("--state close -p dccp,sctp", "--state", "sctp's none, closed, "),
        ("--proto udp --state established", "--state", "tcp, sctp or dccp"),
        ("--zone 1 --state cookie_wait", "--state", "tcp's none, syn_sent, .*listen"),
        ("--src 10.77.1.2/24", "--src", r"in the network 10\.77\.1\.0/24"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(
    ct: nlct.Conntrack, where: str, command: str, given: str, named: str, why: str
) -> None:
    """The option is named at which it does, whatever their order; nothing is deleted."""
    fill(ct, 10, 1)
    said = refused(nlct_(command, where, *given.split()), 2)
    assert f"'{named}'" in said
    assert re.search(why, said)
    assert ct.count() == 10


def test_both_families_contradict_nothing(ct: nlct.Conntrack, where: str) -> None:
    """Nor do they restrict anything."""
    flows.populate(ct)
    both = ("count", where, "--family", "ipv4,ipv6")
    assert nlct_(*both).stdout == f"{ct.count()}\n"
    assert nlct_(*both, "--src", "fd00::1").stdout == f"{ct.count(nlct.Filter(src='fd00::1'))}\n"


def test_addresses_from_a_file(ct: nlct.Conntrack, where: str, tmp_path: Path) -> None:
    """One a line, networks too; of several files and beside others. None is no flow."""
    flows.populate(ct)
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("# some\n\n 10.0.0.0/24  # those\n")
    other.write_text("fd00::1\r\n10.9.9.9")
    several = ("count", where, "--src", f"@{file}", "-s", f"@{other}", "-s", "10.9.9.1")
    expected = nlct.Filter(src={"10.0.0.0/24", "fd00::1", "10.9.9.1"})
    assert nlct_(*several).stdout == f"{ct.count(expected)}\n"
    assert 0 < ct.count(expected) < ct.count()
    with open(other, "rb") as stdin, process("count", where, "-s", "@-", stdin=stdin) as count:
        output, _ = count.communicate(timeout=240)
    assert output == b"%d\n" % ct.count(nlct.Filter(src="fd00::1"))
    file.write_text("\n")
    assert nlct_("count", where, "--src", f"@{file}").stdout == "0\n"
    file.write_text("10.0.0.1\nhost\n")
    assert f"{file}:2: " in refused(nlct_("count", where, "--src", f"@{file}"), 2)
    file.write_text("10.0.0.1\n10.77.1.2/24\n")
    said = refused(nlct_("count", where, "--src", f"@{file}"), 2)
    assert f"{file}:2: " in said
    assert "in the network 10.77.1.0/24" in said
    file.write_bytes(b"\xff\n")
    assert str(file) in refused(nlct_("count", where, "--src", f"@{file}"), 2)


# delete ------------------------------------------------------------------------------------------


def translated() -> Flow:
    """A TCP connection whose ends are both translated."""
    status = S.SRC_NAT | S.DST_NAT | S.SEEN_REPLY | S.ASSURED
    orig = Tuple("10.1.1.1", "10.1.1.2", "tcp", 5, 80)
    reply = Tuple("10.7.7.7", "10.8.8.8", "tcp", 80, 5)
    return Flow(orig, reply, status=status, timeout=100, tcp_state="established", mark=0x1FF)


@pytest.mark.parametrize(
    "given",
    [
        *("--src-nat", "--dst-nat 10.7.7.7", "--any-nat 10.8.8.0/24 --proto tcp", "--zone 5,7"),
        *("--proto tcp --dport 80 --zone 0-6", "--state established", "--status assured"),
        *("--status-none assured --family ipv6", "--mark 0x100/0xff00", "--mark 1,2"),
        *("--timeout 0-200", "--src 10.0.0.0/8 --sport 1000", "--icmp-type 8,128 --icmp-id 7"),
        *("--reply-src 10.7.7.7", "--reply-dst fd00::/64", "--reply-sport 53", "--reply-dport 5"),
    ],
)
def test_delete_deletes_what_count_counts_and_dump_lists(
    ct: nlct.Conntrack, where: str, given: str
) -> None:
    """And nothing else."""
    flows.populate(ct)
    ct.create(translated())
    before = set(ct.dump())
    args = (where, *given.split(), "--json")
    meant = set(map(from_json, nlct_("dump", *args).stdout.splitlines()))
    assert 0 < len(meant) < len(before)
    assert json.loads(nlct_("count", *args).stdout) == {"count": len(meant)}
    dry = json.loads(nlct_("delete", *args, "--dry-run").stdout)
    assert (dry["matched"], dry["deleted"], dry["dry_run"]) == (len(meant), 0, True)
    assert set(ct.dump()) == before
    done = nlct_("delete", *args)
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert set(result) == {*nlct.FlushResult._fields, "dry_run"}
    assert result["complete"]
    assert result["deleted"] in (len(meant), None)
    assert set(ct.dump()) == before - meant


@pytest.mark.usefixtures("zones")
def test_delete_says_how_many(where: str) -> None:
    """To people; it dumps as often as it may, and nothing to delete is no failure."""
    args = ("delete", where, "--sport", "0-", "--zone", "3", "--passes", "3")
    seconds = r"[\d.]+ m?s\)\n"
    text = nlct_(*args, "--dry-run").stdout
    assert re.fullmatch(r"100 flows would be deleted \(" + seconds, text)
    text = nlct_(*args).stdout
    assert re.fullmatch(r"100 flows deleted \(scan, [\d,]+ scanned, 2 passes, " + seconds, text)
    again = nlct_(*args)
    assert again.exit_code == 0
    assert again.stdout.startswith("0 flows deleted (")


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--yes",),
        ("--all",),
        ("--dry-run",),
        ("--passes", "2"),
        ("--mark", "0/1,1/1"),
        ("--src", "0.0.0.0/0,::/0"),
        ("--family", "ipv4,ipv6"),
        ("--mark", ",".join(f"{n}/0xffff" for n in range(1001))),
        ("--all", "--src", "10.0.0.1"),
        ("--all", "--yes", "--zone", "1"),
    ],
)
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_nothing_is_deleted_by_accident(
    ct: nlct.Conntrack,
    zones: dict[int, int],
    where: str,
    args: tuple[str, ...],
    as_json: tuple[str, ...],
) -> None:
    """Everything goes with --all --yes, not with less nor with a filter beside it."""
    refused(nlct_("delete", where, *args, *as_json), 2)
    assert ct.count_by("zone") == zones


@pytest.mark.usefixtures("zones")
def test_delete_everything(ct: nlct.Conntrack, where: str) -> None:
    """With --all --yes; without --yes it asks, if it can."""
    assert "1,000 flows would" in nlct_("delete", where, "--all", "--dry-run").stdout
    assert at_terminal("delete", where, answer=b"y\n")[0] == 2
    code, output = at_terminal("delete", where, "--all", answer=b"n\n")
    assert (code, ct.count()) == (1, 1000)
    assert "Delete all 1,000 flows" in output
    assert json.loads(nlct_("delete", where, "--all", "--yes", "--json").stdout)["complete"]
    assert ct.count_by("zone") == {}
    fill(ct, 10, 1)
    assert at_terminal("delete", where, "--all", answer=b"y\n")[0] == 0
    assert ct.count_by("zone") == {}


# flush -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "scan", "kernel"])
def test_flush_deletes_the_zones_named_and_no_other(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, strategy: str
) -> None:
    """With ranges, in text and in JSON; a zone without flows is done as well."""
    if strategy == "kernel" and not nlct.probe().zone_flush:
        pytest.skip("MISSING: a zone flush of the kernel's own")
    args = ("flush", where, "--strategy", strategy)
    text = nlct_(*args, "--zone", "7")
    assert text.exit_code == 0
    assert text.stdout.startswith("zone 7: ")
    assert ct.count_by("zone") == only(zones, 7)
    done = nlct_(*args, "--zone", "2-4", "--zone", "9", "--json")
    assert done.exit_code == 0
    assert ct.count_by("zone") == only(zones, 7, 2, 3, 4, 9)
    result = json.loads(done.stdout)
    assert set(result) == {*nlct.FlushResult._fields, "dry_run"}
    assert result["complete"]
    assert result["deleted"] in (400, None)
    assert (result["deleted"] is None) == ("kernel" in result["strategy"])
    assert nlct_(*args, "--zone", "7").exit_code == 0


def test_flush_of_a_small_table_is_one_dump(
    ct: nlct.Conntrack, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is probed, whatever the kernel could do."""
    dumps: list[object] = []
    start = _handle.Dump._start

    def counted(dump: _handle.Dump) -> None:
        dumps.append(dump)
        start(dump)

    def probed(*_: object) -> None:
        pytest.fail("it was probed")

    monkeypatch.setattr(capabilities, "_known", {})
    monkeypatch.setattr(capabilities, "measure", probed)
    monkeypatch.setattr(_handle.Dump, "_start", counted)
    flows.populate(ct)
    before = ct.count_by("zone")
    dumps.clear()
    assert nlct_("flush", "--zone", "7", where).exit_code == 0
    assert len(dumps) == 1
    before.pop(7)
    assert ct.count_by("zone") == before


@pytest.mark.usefixtures("zones")
def test_flush_says_how_many(where: str) -> None:
    """What a scan deleted is said to people too, and so are the dumps."""
    text = nlct_("flush", where, "--zone", "1-2", "--strategy", "scan", "--passes", "3").stdout
    assert re.fullmatch(
        r"zones 1-2: 200 flows deleted \(scan, 1,800 scanned, 2 passes, [\d.]+ m?s\)\n", text
    )


@pytest.mark.parametrize("everything", [(), ("--all",), ("--zone", "1-3")])
def test_a_dry_run_counts_and_deletes_nothing(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, everything: tuple[str, ...]
) -> None:
    """Nor does it need a confirmation."""
    matched = 300 if "--zone" in everything else 1000
    text = nlct_("flush", where, "--dry-run", *everything)
    assert text.exit_code == 0
    assert f"{matched:,} flows would be deleted" in text.stdout
    result = json.loads(nlct_("flush", where, "--dry-run", *everything, "--json").stdout)
    assert (result["matched"], result["deleted"], result["dry_run"]) == (matched, 0, True)
    assert ct.count_by("zone") == zones


@pytest.mark.parametrize(
    "args",
    [(), ("--all",), ("--yes",), ("--all", "--zone", "1"), ("--all", "--yes", "--zone", "1")],
)
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_nothing_is_flushed_by_accident(
    ct: nlct.Conntrack,
    zones: dict[int, int],
    where: str,
    args: tuple[str, ...],
    as_json: tuple[str, ...],
) -> None:
    """In a script everything goes with --all --yes, not with less nor with a zone beside it."""
    refused(nlct_("flush", where, *args, *as_json), 2)
    assert ct.count_by("zone") == zones


@pytest.mark.usefixtures("zones")
def test_flush_everything(ct: nlct.Conntrack, where: str) -> None:
    """With --all --yes the table is empty, by a scan as well."""
    assert json.loads(nlct_("flush", where, "--all", "--yes", "--json").stdout)["complete"]
    assert ct.count_by("zone") == {}
    fill(ct, 100, 10)
    args = ("flush", where, "--all", "--yes", "--strategy", "scan")
    assert nlct_(*args).stdout.startswith("all zones: 100 flows deleted")
    assert ct.count_by("zone") == {}


@pytest.mark.parametrize(
    ("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1000), (b"\n", 1, 1000)]
)
@pytest.mark.parametrize("args", [(), ("--all",), ("--json",)])
@pytest.mark.usefixtures("zones")
def test_flush_asks_on_a_terminal(
    ct: nlct.Conntrack,
    where: str,
    args: tuple[str, ...],
    answer: bytes,
    code: int,
    left: int,
) -> None:
    """It says how many flows; only yes deletes them."""
    ended, output = at_terminal("flush", where, *args, answer=answer)
    assert "Delete all 1,000 flows" in output
    assert (ended, ct.count()) == (code, left)


@pytest.mark.usefixtures("zones")
def test_ctrl_c_at_the_question_deletes_nothing(ct: nlct.Conntrack, where: str) -> None:
    """It ends as any interrupted program does."""
    ended, output = at_terminal("flush", where, answer=b"\x03")
    assert (ended, ct.count()) == (130, 1000)
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "zone",
    ["-1", "65536", "1-65536", "20-10", "x", "", "1,,2", "1,", "-", "7-", "0x", "7.0", "\u0667"],
)
@pytest.mark.parametrize("command", ["count", "dump", "flush", "delete"])
def test_a_bad_zone_is_wrong_usage(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, command: str, zone: str
) -> None:
    """It is refused by name before anything is sent."""
    assert "zone" in refused(nlct_(command, where, "--zone", zone, "--json"), 2)
    assert ct.count_by("zone") == zones


def test_zones_are_named_in_few_words() -> None:
    """Runs are written as ranges; very many zones as their number."""
    assert zone_names({7}) == "zone 7"
    assert zone_names({9, 1, 3, 2, 65535}) == "zones 1-3, 9, 65535"
    assert zone_names(range(0, 40, 2)) == "20 zones"


# Several namespaces ------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[nlct.Netns]:
    """Another scratch namespace."""
    with nlct.Netns.scratch() as scratch:
        yield scratch


@pytest.fixture
def there(other: nlct.Netns) -> Iterator[nlct.Conntrack]:
    """Its table, with 50 flows in each of the zones 1 to 10."""
    with nlct.Conntrack(other) as conntrack:
        fill(conntrack, 500, 10)
        yield conntrack


@pytest.fixture
def both(where: str, other: nlct.Netns) -> tuple[str, str]:
    """How a command reaches the two of them."""
    return where, f"--netns=/proc/{os.getpid()}/fd/{other.fileno()}"


def name_of(option: str) -> str:
    """What a --netns was given."""
    return option.partition("=")[2]


@pytest.mark.parametrize("command", ["flush", "delete"])
@pytest.mark.usefixtures("zones")
def test_each_namespace_is_flushed(
    ct: nlct.Conntrack, there: nlct.Conntrack, both: tuple[str, str], command: str
) -> None:
    """With a result each, which says whose it is; a dry run as well."""
    names = [*map(name_of, both)]
    dry = nlct_(command, *both, "--zone", "1-2", "--dry-run", "--json")
    found = [json.loads(line) for line in dry.stdout.splitlines()]
    assert [(each["netns"], each["matched"]) for each in found] == [
        (names[0], 200),
        (names[1], 100),
    ]
    assert (ct.count(), there.count()) == (1000, 500)
    done = nlct_(command, *both, "--zone", "1-2", "--json")
    assert done.exit_code == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["netns"] for each in found] == names
    for each in found:
        assert set(each) == {"netns", *nlct.FlushResult._fields, "dry_run"}
        assert each["complete"]
    assert set(ct.count_by("zone")) == set(there.count_by("zone")) == set(range(3, 11))
    done = nlct_(command, *both, "--zone", "3")
    assert done.exit_code == 0
    for line, name in zip(done.stdout.splitlines(), names):
        assert line.startswith(f"{name}: ")
    assert set(ct.count_by("zone")) == set(there.count_by("zone")) == set(range(4, 11))


@pytest.mark.usefixtures("zones", "there")
def test_each_namespace_is_counted_and_dumped(where: str, both: tuple[str, str]) -> None:
    """In text and JSON, each line under its name."""
    here_, there_ = map(name_of, both)
    assert nlct_("count", *both).stdout == f"{here_}: 1000\n{there_}: 500\n"
    lines = nlct_("count", *both, "--by", "zone", "--zone", "3", "--json").stdout.splitlines()
    assert [*map(json.loads, lines)] == [
        {"netns": here_, "count": 100, "by": "zone", "counts": {"3": 100}},
        {"netns": there_, "count": 50, "by": "zone", "counts": {"3": 50}},
    ]
    text = nlct_("count", *both, "--by", "zone", "--zone", "3").stdout
    assert re.findall(r"^ +3 +(\d+)", text, re.M) == ["100", "50"]
    assert text.index(here_) < text.index(there_)
    zone = ("--zone", "7")
    for given, expected in (
        ((), ": udp "),
        (("--columns", "zone,proto"), "\t7\tudp"),
    ):
        lines = nlct_("dump", *both, *zone, *given).stdout.splitlines()
        assert len(lines) == 150
        assert all(line.startswith(f"{here_}{expected}") for line in lines[:100])
        assert all(line.startswith(f"{there_}{expected}") for line in lines[100:])
    for given in ((), ("--columns", "zone,mark")):
        lines = nlct_("dump", *both, *zone, *given, "--json").stdout.splitlines()
        one = nlct_("dump", where, *zone, *given, "--json").stdout.splitlines()
        found = [json.loads(line) for line in lines]
        assert [flow["netns"] for flow in found] == [here_] * 100 + [there_] * 50
        assert all(list(flow) == ["netns", *json.loads(one[0])] for flow in found)


@pytest.mark.usefixtures("zones", "there")
def test_several_namespaces_are_dumped_into_one_file(both: tuple[str, str], tmp_path: Path) -> None:
    """As text or JSON; Arrow and Parquet have no column for the name."""
    file = tmp_path / "flows"
    assert nlct_("dump", *both, "--output", str(file)).exit_code == 0
    assert len(file.read_text().splitlines()) == 1500
    for form in ("arrow", "parquet"):
        refused(nlct_("dump", *both, "--format", form, "--output", str(file)), 2)


def test_each_namespace_is_filled(
    ct: nlct.Conntrack, there: nlct.Conntrack, both: tuple[str, str]
) -> None:
    """One that has such flows already does not keep the next from getting them."""
    args = ("fill", *reversed(both), "--flows", "20", "--zones", "10", "--json")
    done = nlct_(*args)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["netns"] for each in found] == [*map(name_of, reversed(both))]
    assert (found[0]["created"], found[0]["failed"]) == (0, {"EEXIST": 20})
    assert (found[1]["created"], found[1]["failed"]) == (20, {})
    assert done.exit_code == 1
    assert done.stderr.startswith(f"nlct: {name_of(both[1])}: flows not created: ")
    assert (ct.count(), there.count()) == (20, 500)


def test_one_probe_tells_of_each_namespace(both: tuple[str, str]) -> None:
    """There is one answer."""
    assert json.loads(nlct_("probe", *both, "--json").stdout) == nlct.probe()._asdict()


@pytest.mark.parametrize(
    ("error", "code"),
    [(nlct.PrivilegeError, 3), (nlct.UnsupportedError, 4), (nlct.Error, 1)],
)
@pytest.mark.usefixtures("zones")
def test_a_namespace_that_fails_does_not_stop_the_next(
    there: nlct.Conntrack,
    both: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[nlct.Error],
    code: int,
) -> None:
    """Its error names it; the exit code is the worst."""
    flush_zones = nlct.Conntrack.flush_zones
    calls = []

    def fail_once(*args: Any, **options: Any) -> nlct.FlushResult:
        calls.append(args)
        if len(calls) == 1:
            raise error(errno.EPERM, "flush")
        return flush_zones(*args, **options)

    monkeypatch.setattr(nlct.Conntrack, "flush_zones", fail_once)
    done = nlct_("flush", *both, "--zone", "1")
    assert done.exit_code == code
    assert re.fullmatch(rf"nlct: {name_of(both[0])}: flush: [^\n]*\n", done.stderr)
    assert done.stdout.startswith(f"{name_of(both[1])}: zone 1: ")
    assert len(done.stdout.splitlines()) == 1
    assert there.count_by("zone") == dict.fromkeys(range(2, 11), 50)


@pytest.mark.parametrize("command", ["flush", "delete", "count", "dump"])
def test_a_namespace_that_is_not_there_stops_all(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, command: str
) -> None:
    """Before anything is done in another; so does one that is named twice."""
    pid, number = os.getpid(), name_of(where).rpartition("/")[2]
    twice = f"--netns=/proc/{pid}/task/{pid}/fd/{number}"
    for other in ("--netns=no-such-namespace", where, twice):
        message = refused(nlct_(command, where, other, "--zone", "1"), 2)
        assert "--netns" in message
        assert name_of(other) in message
    assert ct.count_by("zone") == zones


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1500)])
@pytest.mark.parametrize("command", ["flush", "delete"])
@pytest.mark.usefixtures("zones")
def test_one_question_is_asked_for_all_namespaces(
    ct: nlct.Conntrack,
    there: nlct.Conntrack,
    both: tuple[str, str],
    command: str,
    answer: bytes,
    code: int,
    left: int,
) -> None:
    """Before anything is deleted in one of them."""
    ended, output = at_terminal(command, *both, "--all", answer=answer)
    here_, there_ = map(name_of, both)
    assert f"Delete all 1,500 flows of {here_} (1,000), {there_} (500)?" in " ".join(output.split())
    assert output.count("[y/N]") == 1
    assert (ended, ct.count() + there.count()) == (code, left)


# Exit codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        "flush --zone 1 --strategy scan --strategy kernel",
        "flush --zone 1 --passes 2 --passes 2",
        "delete --zone 1 --passes 1 --passes 2",
        "dump --output a --output b",
        "dump --format json --format text",
        "count --by zone --top 1 --top 2",
        "fill --zones 1 --flows 1 --flows 2",
        "fill --flows 1 --zones 1 --zones 2",
        "demo --flows 9 --samples 1 --samples 2",
    ],
)
def test_what_has_one_value_is_given_once(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, args: str
) -> None:
    """The last would win without a word."""
    command, *given = args.split()
    message = refused(nlct_(command, *([] if command == "demo" else [where]), *given), 2)
    assert given[-2] in message
    assert "2 times" in message
    assert ct.count_by("zone") == zones


@pytest.mark.parametrize(("command", "method"), [("flush", "flush_zones"), ("delete", "delete")])
@pytest.mark.usefixtures("zones")
def test_deletes_that_failed_are_exit_code_1(
    where: str, monkeypatch: pytest.MonkeyPatch, command: str, method: str
) -> None:
    """The result is printed all the same; standard error says what failed."""
    result = nlct.FlushResult(9, 9, 6, 1, {errno.EBUSY: 2}, complete=False)
    monkeypatch.setattr(nlct.Conntrack, method, lambda *_, **__: result)
    done = nlct_(command, where, "--zone", "1", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failed"] == {"EBUSY": 2}
    assert re.fullmatch(r"nlct: not complete: .*2 [^\n]*\n", done.stderr)


def test_no_privilege_is_exit_code_3() -> None:
    """Run as a user without any, for real."""
    code = (
        "import json, os, nlct.cli.commands.count, nlct.cli.commands as c, nlct.conntrack\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([])\n"
        "    os.setresgid(65534, 65534, 65534)\n"
        "    os.setresuid(65534, 65534, 65534)\n"
        "c.cli.main(['count', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"nlct: [^\n]*CAP_NET_ADMIN[^\n]*\n", done.stderr)


def test_what_this_kernel_cannot_is_exit_code_4(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's flush is refused where it was not seen to work, and nothing is deleted."""
    found = nlct.probe()._replace(zone_flush=False)
    monkeypatch.setitem(capabilities._known, found.release, found)
    refused(nlct_("flush", where, "--zone", "1", "--strategy", "kernel", "--json"), 4)
    assert ct.count_by("zone") == zones
    assert json.loads(nlct_("probe", "--json").stdout)["zone_flush"] is False


@pytest.mark.parametrize(
    "args",
    [
        ("count", "--netns", "no-such-namespace"),
        ("count", "--netns", "/etc/passwd"),
        ("count", "--by", "colour"),
        ("count", "--by", "zone,proto,src,dst"),
        ("count", "--by", "zone,zone"),
        ("count", "--top", "3"),
        ("dump", "--columns", "colour"),
        ("dump", "--columns", "src,src"),
        ("dump", "--json", "--format", "text"),
        ("flush", "--zone", "1", "--strategy", "hope"),
        ("flush", "--zone", "1", "--passes", "0"),
        ("fill", "--flows", "0", "--zones", "1"),
        ("fill", "--flows", "1", "--zones", "65536"),
        ("completion", "cmd"),
        ("nonsense",),
        ("--nonsense",),
    ],
)
def test_wrong_usage_is_exit_code_2(args: tuple[str, ...]) -> None:
    """One line on standard error says what is wrong and where help is."""
    assert "--help" in refused(nlct_(*args), 2)


@pytest.mark.parametrize(
    "args",
    ["count --by", "count --nonsense", "dump --output", "flush --passes x", "fill", "demo x"],
)
def test_wrong_usage_names_the_help_of_its_command(args: str) -> None:
    """Also where a value is missing."""
    command = args.split(maxsplit=1)[0]
    assert f"(see nlct {command} --help)" in refused(nlct_(*args.split()), 2)


def test_an_empty_name_is_no_file(where: str) -> None:
    """A variable that is not set is wrong usage."""
    assert "--output" in refused(nlct_("dump", where, "--output", ""), 2)


def test_without_a_command_there_is_help() -> None:
    """It goes to standard error: it was not asked for."""
    result = nlct_()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: nlct" in result.stderr


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_each_command_has_help_with_examples(command: str) -> None:
    """Examples keep their lines."""
    text = nlct_(command, "--help").stdout
    assert re.search(rf"^  Examples:\n.*\bnlct {command}\b", text, re.M | re.S)
    assert "\b" not in text


# fill --------------------------------------------------------------------------------------------


def test_fill_makes_the_table(ct: nlct.Conntrack, where: str) -> None:
    """So many flows in so many zones; a second time they are there already, which is a failure."""
    assert nlct_("fill", where, "--flows", "1001", "--zones", "10").stdout.startswith(
        "1,001 flows created in 10 zones ("
    )
    assert ct.count_by("zone") == {**dict.fromkeys(range(1, 11), 100), 1: 101}
    again = nlct_("fill", where, "--flows", "1002", "--zones", "10", "--json")
    assert again.exit_code == 1
    result = json.loads(again.stdout)
    assert (result["created"], result["failed"]) == (1, {"EEXIST": 1001})


def test_fill_keeps_off_the_namespace_you_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --netns it opens no table at all, unless it is told to."""

    def opened(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "opened")

    monkeypatch.setattr(nlct.Conntrack, "__init__", opened)
    assert "--netns" in refused(nlct_("fill", "--flows", "1", "--zones", "1"), 2)
    # By whatever name.
    own = "--netns=/proc/self/ns/net"
    assert "--netns" in refused(nlct_("fill", own, "--flows", "1", "--zones", "1"), 2)
    args = ("fill", "--flows", "1", "--zones", "1", "--yes-in-this-namespace")
    assert "opened" in refused(nlct_(*args), 1)


def test_fill_says_when_the_flows_do_not_fit(ct: nlct.Conntrack, where: str) -> None:
    """It creates none of them, and says what to do."""
    fill(ct, 1, 1)
    if not 0 < ct.limit < 2**24:
        pytest.skip("MISSING: an nf_conntrack_max below 16,777,216")
    message = refused(nlct_("fill", where, "--flows", str(ct.limit), "--zones", "1"), 1)
    assert f"nf_conntrack_max={ct.limit + 1}" in message
    assert ct.count() == 1


# As a process ------------------------------------------------------------------------------------


def test_version() -> None:
    """`python -m nlct` is the command, and calls itself so."""
    done = subprocess.run([*NLCT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"nlct {nlct.__version__}\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_there_is_one_clear_line(missing: str) -> None:
    """The core does not need it, and the command says how to get it."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['nlct', 'probe']\n"
        "import nlct.cli\n"
        "nlct.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.fullmatch(r"nlct: [^\n]*pip install 'nlct\[cli\]'\n", done.stderr)


def test_the_core_does_not_import_the_extra() -> None:
    """`import nlct` stays lean."""
    code = "import sys, nlct, nlct.fill; print({'click', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_dump_does_not_wait_for_what_it_does_not_use() -> None:
    """Drawing and Arrow would take longer than a small dump."""
    code = (
        "import sys, nlct.cli.commands\n"
        "print({'rich', 'pyarrow', 'nanoarrow', 'statistics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_reader_that_has_seen_enough_is_no_error(ct: nlct.Conntrack, where: str) -> None:
    """`nlct dump | head -1` is silent."""
    fill(ct, ENOUGH_TO_WATCH, 1)
    with process("dump", where) as dump:
        assert dump.stdout is not None
        assert dump.stdout.readline().startswith(b"udp ")
        dump.stdout.close()
        assert dump.stderr is not None
        assert dump.stderr.read() == b""
    assert dump.returncode == 141


@pytest.mark.usefixtures("zones")
def test_output_that_cannot_be_written_is_an_error(where: str) -> None:
    """A full disk is one line and exit code 1."""
    with open("/dev/full", "wb") as full, process("dump", where, stdout=full) as dump:
        _, error = dump.communicate(timeout=240)
    assert dump.returncode == 1
    assert re.fullmatch(r"nlct: [^\n]+\n", error.decode())


def test_ctrl_c_ends_a_command_whose_reader_does_not_read(ct: nlct.Conntrack, where: str) -> None:
    """Without a traceback, as any interrupted program."""
    fill(ct, ENOUGH_TO_WATCH, 1)
    with process("dump", where) as dump:
        assert dump.stdout is not None
        dump.stdout.readline()
        dump.send_signal(signal.SIGINT)
        assert dump.wait(timeout=240) == 130
        assert dump.stderr is not None
        assert dump.stderr.read().strip() == b""


def test_a_bar_knows_how_many_flows_a_dump_will_be_sent(
    ct: nlct.Conntrack, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all are deleted, too, which is done by a dump."""
    totals: list[int | None] = []

    def bar(_what: str, total: Total) -> Bar:
        totals.append(total() if callable(total) else total)
        return Bar("", total)

    monkeypatch.setattr(delete_command, "Bar", bar)
    for args in (("--all", "--dry-run"), ("--all", "--yes"), ("--proto", "udp")):
        fill(ct, 10, 1)
        assert nlct_("delete", where, *args).exit_code == 0
    assert totals == [10, 10, None]


@pytest.mark.usefixtures("zones")
def test_without_a_terminal_nobody_asks_how_many_flows_there_are(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a bar that is shown needs to know."""
    monkeypatch.setattr(nlct.Conntrack, "count", None)
    for command in (("count", "--by", "zone"), ("dump",), ("flush", "--zone", "1-2")):
        assert nlct_(*command, where).exit_code == 0
    assert nlct_("flush", where, "--zone", "1-2", "--strategy", "scan").exit_code == 0
    assert nlct_("delete", where, "--all", "--yes").exit_code == 0


def test_progress_is_shown_on_a_terminal_only(ct: nlct.Conntrack, where: str) -> None:
    """And wiped away; what is left is the result."""
    fill(ct, ENOUGH_TO_WATCH, 10)
    args = ("flush", where, "--zone", "1-2", "--strategy", "scan")
    ended, output = at_terminal(*args)
    assert ended == 0
    assert "flushing" in output
    assert "100%" in output
    assert re.search(r" m?s\)$", output.splitlines()[-1])
    with process(*args) as flush:
        output_, error = flush.communicate(timeout=240)
    assert output_.startswith(b"zones 1-2: 0 flows deleted (scan")
    assert error == b""


@pytest.mark.parametrize("form", ["text", "json", "arrow", "parquet"])
def test_a_dump_into_a_file_shows_how_far_it_is(
    ct: nlct.Conntrack, where: str, tmp_path: Path, request: pytest.FixtureRequest, form: str
) -> None:
    """To the terminal that the file leaves free."""
    if form in ("arrow", "parquet"):
        request.getfixturevalue("pyarrow")
    fill(ct, ENOUGH_TO_WATCH, 10)
    file = tmp_path / "flows"
    code, output = at_terminal("dump", where, "--format", form, "--output", str(file))
    assert code == 0
    assert "listing" in output
    assert "100%" in output
    assert file.stat().st_size > ENOUGH_TO_WATCH


# Completion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    """One that asks nlct itself."""
    if shell == "bash" and not shutil.which("bash"):
        pytest.skip("MISSING: bash")
    result = nlct_("completion", shell)
    assert result.exit_code == 0
    assert f"_NLCT_COMPLETE={shell}_complete" in result.stdout


def complete(*words: str) -> set[str]:
    """What bash would be offered for the last of the words."""
    done = subprocess.run(
        NLCT,
        env={
            **os.environ,
            "_NLCT_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("nlct", *words)),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_completion_offers_commands_options_and_values() -> None:
    """Also behind a --netns that does not exist."""
    assert complete("fl") == {"flush"}
    assert {"--zone", "--netns", "--dry-run"} <= complete("flush", "--")
    assert complete("flush", "--netns", "no-such-namespace", "--strategy", "") == {
        "auto",
        "scan",
        "kernel",
    }


def test_completion_offers_names_in_lists() -> None:
    """Behind each comma."""
    assert {"state", "src", "status"} <= complete("count", "--by", "s")
    assert {"zone,src", "zone,status"} <= complete("count", "--by", "zone,s")
    assert {"src,dst", "src,dport"} <= complete("dump", "--columns", "src,d")


@pytest.mark.usefixtures("root")
def test_completion_offers_namespaces() -> None:
    """Those of `ip netns`, by their beginning."""
    if not shutil.which("ip"):
        pytest.skip("MISSING: ip(8)")
    name = f"nlct-test-{os.getpid()}-completion"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        assert Path("/run/netns", name).exists()
        assert complete("count", "--netns", name[:-3]) == {name}
        assert nlct_("count", "--netns", name).stdout == "0\n"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
