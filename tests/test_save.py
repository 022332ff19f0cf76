"""Saving and restoring: lines of conntrack -o save, JSON, Arrow, Parquet; --save and --print."""

from __future__ import annotations

import errno
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nlct
from nlct import Flow, Status, Tuple
from tests.support import everything, flows, tool
from tests.support.command import in_shell, nlct_, refused

# What lines can say of a status.
SAID = Status.SEEN_REPLY | Status.ASSURED | Status.FIXED_TIMEOUT
# Flows that conntrack -R does not read, and their lines where it wrote them itself.
UNREADABLE = re.compile(r"--state \(null\)|-p dccp$|^# ")


class Saved(NamedTuple):
    """A table with every kind of flow, and what each tool saved of it."""

    flows: list[Flow]
    ours: list[str]
    theirs: list[str]
    json: bytes


@pytest.fixture(scope="module")
def saved() -> Saved:
    """Saved once, for all tests."""
    if tool.version() < tool.WHOLE:
        pytest.skip("MISSING: conntrack 1.4.7: those before save fewer protocols")
    with everything.everything() as table, nlct.Conntrack(table.netns) as ct:
        theirs = tool.run(table.netns, "conntrack", "-L", "-o", "save").splitlines()
        found = list(ct.dump())
        ours = b"".join(ct.dump_save()).decode().splitlines()
    lines = "".join(json.dumps(flow.to_dict()) + "\n" for flow in found)
    return Saved(found, ours, theirs, lines.encode())


def without_time(line: str) -> str:
    """A line without the seconds left."""
    return re.sub(r" -t \d+", "", line)


def as_lines(lines: list[str]) -> io.BytesIO:
    """Lines as a file."""
    return io.BytesIO("".join(line + "\n" for line in lines).encode())


# What is written ----------------------------------------------------------------------------------


def test_every_line_is_the_tools(saved: Saved) -> None:
    """But for the mark, for EXPECTED, and for what conntrack -R cannot read, a comment."""
    theirs = sorted(map(without_time, saved.theirs))
    assert sorted(as_the_tool(*one) for one in zip(saved.flows, saved.ours)) == theirs


def as_the_tool(flow: Flow, line: str) -> str:
    """Our line without what the tool does otherwise."""
    if line.startswith("# "):
        assert flow.timeout is None or flow.sctp_state == 8 or flow.orig.sport is None
        line = line[2:].replace("HEARTBEAT_SENT", "(null)")
    if flow.mark:
        line = line[: -len(f" -m {flow.mark}")]
    if Status.EXPECTED in Status(flow.status or 0):
        line = re.sub("-u (UNSET)?", "-u EXPECTED,", line).replace(", ", " ")
    return without_time(line)


# What is restored ---------------------------------------------------------------------------------


def said(flow: Flow) -> dict[str, Any]:
    """What lines say of a flow, but for the seconds left and the mark."""
    names = ("tcp_state", "sctp_state", "sctp_vtag_orig", "sctp_vtag_reply", "dccp_state")
    values = {name: getattr(flow, name) for name in names}
    return {"reply": flow.reply, "status": (flow.status or 0) & SAID, **values}


def key(flow: Flow) -> tuple[Any, ...]:
    """What names a flow, both kinds of zones included."""
    return flow.orig, flow.zone, flow.reply is not None and flow.reply.zone


@pytest.mark.parametrize("restore", ["nlct", "conntrack"])
@pytest.mark.parametrize("save", ["nlct", "conntrack"])
def test_lines_are_restored(
    save: str, restore: str, saved: Saved, ct: nlct.Conntrack, netns: nlct.Netns
) -> None:
    """Saved by one tool, restored by the other: the same flows, as far as lines go."""
    lines = saved.ours if save == "nlct" else saved.theirs
    lines = [line for line in lines if not UNREADABLE.search(line)]
    if restore == "nlct":
        result = ct.load(nlct.read_flows(as_lines(lines)))
        assert (result.created, result.failed) == (len(lines), {})
    else:
        if save == "conntrack":
            # The kernel refuses them, and the tool then stops.
            lines = [re.sub(r"-u EXPECTED(,| )", "-u UNSET\\1", line) for line in lines]
        given = "".join(line + "\n" for line in lines)
        tool.run(netns, "conntrack", "-R", "-", given=given)
    expected = {
        key(flow): flow for flow, line in zip(saved.flows, saved.ours) if not line.startswith("#")
    }
    found = {key(flow): flow for flow in ct.dump()}
    assert found.keys() == expected.keys()
    wrong = {}
    for name, flow in expected.items():
        again = found[name]
        # Where both addresses are translated, the tool loses the ports.
        both = Status.SRC_NAT | Status.DST_NAT
        if restore == "conntrack" and (flow.status or 0) & both == both:
            continue
        if said(flow) != said(again) or (save == "nlct" and flow.mark != again.mark):
            wrong[name] = said(flow), said(again), flow.mark, again.mark
    assert not wrong, wrong


# What a restored flow has anew; see also tests/test_whole_flow.py.
ANEW = ("id", "use", "timeout", "timestamp_start", "tcp_wscale_orig", "tcp_wscale_reply")
ANEW += ("packets_orig", "bytes_orig", "packets_reply", "bytes_reply")
ANEW += ("synproxy_isn", "synproxy_its", "synproxy_tsoff")
OWN = Status.SRC_NAT_DONE | Status.DST_NAT_DONE | Status.HELPER


def kept(flow: Flow) -> dict[str, Any]:
    """A flow as a dict, without what the kernel gives."""
    flags = {name: (getattr(flow, name) or 0) & 0x0B for name in ("tcp_flags_orig",)}
    values = flow.replace(
        **dict.fromkeys(ANEW), status=Status(flow.status or 0) & ~OWN, tcp_flags_reply=None
    ).to_dict()
    return {**values, **flags}


def test_objects_restore_everything(saved: Saved) -> None:
    """JSON brings back helper, NAT, master, labels and sequence adjustment."""
    table = nlct.read_flows(io.BytesIO(saved.json))
    assert [flow.to_dict() for flow in table] == [flow.to_dict() for flow in saved.flows]
    with everything.prepared() as other, nlct.Conntrack(other.netns) as ct:
        ct.flush_all()
        result = ct.load(table)
        offloaded = sum(flow.timeout is None for flow in saved.flows)
        assert result.failed == ({errno.EINVAL: offloaded} if offloaded else {})
        found = {key(flow): flow for flow in ct.dump()}
    wrong = {
        key(flow): (kept(flow), kept(found[key(flow)]))
        for flow in saved.flows
        if flow.timeout is not None and kept(flow) != kept(found[key(flow)])
    }
    assert not wrong, wrong


@pytest.mark.parametrize("form", ["stream", "file", "parquet"])
def test_arrow_is_read_as_objects_are(form: str, saved: Saved) -> None:
    """By content, not by name: every field of every flow."""
    pyarrow = pytest.importorskip("pyarrow", reason="MISSING: pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="MISSING: pyarrow")
    pytest.importorskip("nanoarrow", reason="MISSING: nanoarrow")
    table = pyarrow.table(nlct.FlowTable.from_flows(saved.flows))
    out = io.BytesIO()
    if form == "parquet":
        parquet.write_table(table, out)
    else:
        open_ = pyarrow.ipc.new_stream if form == "stream" else pyarrow.ipc.new_file
        with open_(out, table.schema) as writer:
            writer.write_table(table)
    again = nlct.read_flows(io.BytesIO(out.getvalue()))
    assert [flow.to_dict() for flow in again] == [flow.to_dict() for flow in saved.flows]
    # A stream ends with eight bytes that pyarrow does not need.
    for cut in (50, 8):
        with pytest.raises(ValueError, match=r"\w"):
            nlct.read_flows(io.BytesIO(out.getvalue()[:-cut]))


# Lines, one by one --------------------------------------------------------------------------------

TCP = "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1 --dport 2 --state ESTABLISHED"
PAIR = Tuple("10.0.0.1", "10.0.0.2", "tcp", 1, 2)
BACK = Tuple("10.0.0.2", "10.0.0.1", "tcp", 2, 1)


@pytest.mark.parametrize(
    ("line", "flow"),
    [
        (TCP, Flow(PAIR, timeout=60, tcp_state=3)),
        (
            "  --create conntrack --timeout=0x3c --orig-src 10.0.0.1 --dst 10.0.0.2 "
            "--protonum 6 --orig-port-src 1 --dport 2 --state listen -u seen_reply,EXPECTED",
            Flow(PAIR, timeout=60, tcp_state=9, status=2),
        ),
        (
            f"{TCP} -n 10.0.0.9:4000 -m 0x10 -w 7",
            Flow(
                PAIR,
                BACK.replace(dst="10.0.0.9", dport=4000),
                *(7, Status.SRC_NAT, 60, 16),
                tcp_state=3,
            ),
        ),
        (
            f"{TCP} -g 10.0.0.8 --orig-zone 5 -u ASSURED",
            Flow(
                PAIR.replace(zone=5),
                BACK.replace(src="10.0.0.8"),
                *(5, Status.DST_NAT | Status.ASSURED, 60),
                tcp_state=3,
            ),
        ),
        (
            f"{TCP} --reply-zone 6",
            Flow(PAIR, BACK.replace(zone=6), timeout=60, tcp_state=3),
        ),
        (
            "-I -t 5 -s fd00::1 -d fd00::2 -p udp --sport 1 --dport 2 -n [fd00::9]:77 -r fd00::2",
            Flow(
                Tuple("fd00::1", "fd00::2", "udp", 1, 2),
                Tuple("fd00::2", "fd00::9", "udp", 2, 77),
                *(None, Status.SRC_NAT, 5),
            ),
        ),
        (
            "-A -t 5 -s 1.2.3.4 -d 5.6.7.8 -p dccp --sport 1 --dport 2 --state OPEN --role server",
            Flow(Tuple("1.2.3.4", "5.6.7.8", 33, 1, 2), timeout=5, dccp_state=4, dccp_role=1),
        ),
    ],
)
def test_a_line_is_a_flow(line: str, flow: Flow) -> None:
    """Every option by each of its names."""
    (found,) = nlct.read_flows(io.BytesIO(f"# a comment\n\n{line}\r\n".encode()))
    assert found.to_dict() == flow.to_dict()


BAD_LINES = {
    "-D -s 10.0.0.1": "'-D' is no command that creates a flow",
    "-A expect": "'expect' is no option",
    f"{TCP} --label-add blue": "'--label-add' is no option",
    f"{TCP} -m": "'-m' needs a value",
    f"{TCP} -m 1/2": "'1/2' must be a number from 0 to 4294967295",
    f"{TCP} -w 65536": "'65536' must be a number from 0 to 65535",
    f"{TCP} -w 07": "'07' must be a number",
    f"{TCP} -w 1 --orig-zone 1": "a second zone",
    f"{TCP} --dport 3": "'3' is a second value",
    f"{TCP} -r fd00::1": "'fd00::1' is of another family",
    f"{TCP} -q 10.0.0.300": "'10.0.0.300' is no IPv4 or IPv6 address",
    f"{TCP} -n 10.0.0.1:x": "must be ADDRESS or ADDRESS:PORT",
    f"{TCP} -u NOPE": "'NOPE' is no status",
    f"{TCP} -u ASSURED,": "'' is no status",
    f"{TCP} --icmp-type 8": "options of another protocol",
    TCP.replace("ESTABLISHED", "OPEN"): "'OPEN' is no state of this protocol",
    TCP.replace("-p tcp", "-p nope"): "'nope' is no protocol",
    TCP.replace("-t 60", ""): "lacks one of -s, -d, -p and -t",
    f"{TCP} -q 10.0.0.1\0": r"'10.0.0.1\x00' is no IPv4 or IPv6 address",
    f"{TCP} {'x' * 500}": f"'{'x' * 60}...' is no option",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named(line: str) -> None:
    """By its number and by what is wrong; nothing of the file is a flow."""
    with pytest.raises(ValueError, match=f"^line 3: .*{re.escape(BAD_LINES[line])}"):
        nlct.read_flows(io.BytesIO(f"{TCP}\n\n{line}\n{TCP}\n".encode()))


GOOD = json.dumps(Flow(PAIR, timeout=60).to_dict())
BAD_FILES = {
    b"hello\n": "it begins with 'hello",
    b"\0\1\2": "it begins with",
    b"[1]\n": "it begins with",
    TCP.encode(): "line 1 has no end: the file is cut off",
    TCP.encode() + b"\n-A -t 1": "line 2 has no end",
    b"# " + b"x" * 3_000_000: "a line is longer than",
    GOOD.encode()[:-5]: "line 1: no JSON object",
    GOOD.encode() + b"\n7\n": "line 2: a flow must be an object",
    b"\n{" + b'"a":[' * 100_000: r"line 2: ",
    b'{"orig": {"src": "\xff"}}\n': "line 1: ",
    b'{"orig": {"src": "10.0.0.1", "x": 1}}\n': "orig has no field 'x'",
    b'{"orig": []}\n': "orig must be an object",
    b'{"reply": {}}\n': "must have 'orig'",
    b'{"orig": {}, "weather": 1}\n': "no field 'weather'",
    b'{"orig": {}, "status": 7}\n': "status must be a list",
    b'{"orig": {}, "status": ["nope"]}\n': "not 'nope'",
    b'{"orig": {}, "labels": [128]}\n': "labels must be from 0 to 127",
    b'{"orig": {}, "helper_info": "x"}\n': "helper_info must be hexadecimal",
    b'{"orig": {}, "unknown": {"x": ""}}\n': "unknown must name",
    b'{"orig": {}, "timeout": -1}\n': "timeout must be from 0",
    b'{"orig": {"src": "10.0.0.1", "dst": "::1"}}\n': "one family",
}
BAD_ARROW = (b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f")


@pytest.mark.parametrize("number", range(len(BAD_FILES)))
def test_a_bad_file_is_a_value_error(number: int) -> None:
    """Whatever it holds."""
    data, says = list(BAD_FILES.items())[number]
    with pytest.raises(ValueError, match=says):
        nlct.read_flows(io.BytesIO(data))


def test_bad_arrow_is_a_value_error() -> None:
    """As soon as it begins like one."""
    pytest.importorskip("pyarrow", reason="MISSING: pyarrow")
    for data in BAD_ARROW:
        with pytest.raises(ValueError, match=r"\w"):
            nlct.read_flows(io.BytesIO(data))


def test_files_without_flows(tmp_path: Path) -> None:
    """Nothing, blanks and comments; a path is read like a file, and progress is told."""
    for data in (b"", b"\n \n", b"# nothing\n"):
        assert len(nlct.read_flows(io.BytesIO(data))) == 0
    path = tmp_path / "flows"
    path.write_text(f"{TCP}\n")
    seen: list[int] = []
    assert len(nlct.read_flows(path, progress=seen.append)) == 1
    assert seen == [1]
    # Lines that two blocks share.
    path.write_text("".join(f"{GOOD}\n" for _ in range(3000)))
    assert len(nlct.read_flows(str(path))) == 3000


def test_a_flow_comes_back_from_its_dict() -> None:
    """Bits and numbers without a name, bytes, and attributes that nobody knows."""
    flow = Flow(
        PAIR,
        status=0x80000000 | Status.ASSURED,
        tcp_state=77,
        labels=1 << 127 | 1,
        helper="ftp",
        helper_info=b"\0\xff",
        unknown={40: b"abc"},
        master=BACK,
        secctx="system_u",
    )
    values = json.loads(json.dumps(flow.to_dict()))
    assert Flow.from_dict(values).to_dict() == flow.to_dict()


# The command --------------------------------------------------------------------------------------


def fill(ct: nlct.Conntrack, count: int = 6) -> None:
    """Flows in zones 1 and 2."""
    ct.load([flows.udp(number, 1 + number % 2).replace(mark=number) for number in range(count)])


def table_of(ct: nlct.Conntrack) -> dict[Flow, dict[str, Any]]:
    """The table, without what the kernel gives."""
    return {flow: kept(flow) for flow in ct.dump()}


def test_the_command_saves_and_loads(ct: nlct.Conntrack, where: str, tmp_path: Path) -> None:
    """dump, flush and load by each format; counts, JSON, exit codes."""
    fill(ct)
    before = table_of(ct)
    file = str(tmp_path / "flows")
    for form in ("save", "json"):
        nlct_("dump", where, "--format", form, "--output", file)
        ct.flush_all()
        done = nlct_("load", where, file)
        assert (done.exit_code, done.stderr) == (0, "")
        assert re.fullmatch(r"6 flows created \(.*\)\n", done.stdout)
        assert table_of(ct) == before
    # There already: a failure, unless that is meant.
    done = nlct_("load", where, file)
    assert (done.exit_code, done.stderr) == (1, "nlct: flows not created: 6 File exists\n")
    ct.delete(nlct.Filter(zone=2))
    done = nlct_("load", where, "--if-absent", "--json", "-", given=Path(file).read_text())
    said = json.loads(done.stdout)
    assert said.pop("seconds") > 0
    assert said == {"created": 3, "existed": 3, "ended": 0, "failed": {}, "dropped": {}}
    assert done.exit_code == 0
    # Of two that cannot be made, one has ended.
    over = flows.udp(98).replace(timeout=0).to_dict()
    given = "".join(json.dumps({**over, "timeout": left}) + "\n" for left in (0, None))
    done = nlct_("load", where, "-", given=given)
    assert (done.exit_code, done.stderr) == (1, "nlct: flows not created: 1 Invalid argument\n")
    assert done.stdout.startswith("0 flows created, 1 had ended (")
    done = nlct_("load", where, "--json", "-", given=json.dumps(over))
    assert (done.exit_code, json.loads(done.stdout)["ended"]) == (0, 1)
    # A label that no rule uses is dropped, and said to be.
    labelled = json.dumps(flows.udp(99).replace(labels=2).to_dict())
    done = nlct_("load", where, "-", given=f"{labelled}\n")
    assert (done.exit_code, done.stderr) == (1, "nlct: the kernel dropped labels of 1 flow\n")
    # Nothing of a file with a bad line.
    before = table_of(ct)
    done = nlct_("load", where, "-", given=f"{TCP}\nnonsense\n")
    assert "standard input: line 2: 'nonsense'" in refused(done, 1)
    assert "No such file" in refused(nlct_("load", where, file + "x"), 1)
    assert "directory" in refused(nlct_("load", where, str(tmp_path)), 1)
    assert "--output" not in refused(
        nlct_("dump", where, "--format", "save", "--columns", "src"), 2
    )
    assert table_of(ct) == before


def test_streams_of_load_may_be_closed(ct: nlct.Conntrack, where: str, tmp_path: Path) -> None:
    """It works without an output, and fails without the input that it needs."""
    file = tmp_path / "flows"
    file.write_text(f"{TCP}\n")
    assert in_shell(">&- 2>&- <&-", "load", where, str(file))[0] == 0
    assert ct.count() == 1
    code, _, says = in_shell("<&-", "load", where, "-")
    assert (code, says) == (1, "nlct: standard input: standard input is closed\n")


def test_delete_and_flush_save_first(
    ct: nlct.Conntrack, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is deleted is in the file, and comes back; what cannot be saved stays."""
    fill(ct)
    deletes: list[nlct.FlushResult] = []
    delete_flows = nlct.Conntrack.delete_flows

    def recorded(*args: Any, **more: Any) -> nlct.FlushResult:
        deletes.append(delete_flows(*args, **more))
        return deletes[-1]

    monkeypatch.setattr(nlct.Conntrack, "delete_flows", recorded)
    before = table_of(ct)
    file = str(tmp_path / "undo")
    for command, deleted in (
        (("delete", "--zone", "2"), 3),
        (("flush", "--zone", "1"), 3),
        (("flush", "--all", "--yes"), 6),
        (("delete", "--all", "--yes"), 6),
        (("delete", "--mark", "4711"), 0),
    ):
        done = nlct_(*command, where, "--save", file, "--json")
        said = json.loads(done.stdout)
        assert (said["deleted"], said["matched"], said["complete"]) == (deleted, deleted, True)
        assert said["strategy"] == "scan"
        # The time of the dump and of the file counts, too.
        assert said["seconds"] > deletes[-1].seconds
        assert ct.count() == 6 - deleted
        assert len(nlct.read_flows(file)) == deleted
        assert nlct_("load", where, file).exit_code == 0
        assert table_of(ct) == before
    for nowhere in (str(tmp_path / "no/such"), "/dev/full"):
        done = nlct_("flush", "--zone", "1", where, "--save", nowhere)
        assert nowhere in refused(done, 1)
    wrong = {
        ("--strategy", "kernel"): "--strategy kernel",
        ("--dry-run",): "--dry-run",
        ("--passes", "2"): "--passes",
        ("--netns", "/proc/self/ns/net"): "one --netns",
        ("--save", ""): "--save",
    }
    for options, says in wrong.items():
        given = options if "--save" in options else ("--save", file, *options)
        done = nlct_("flush", "--zone", "1", where, *given)
        assert says in refused(done, 2)
    assert table_of(ct) == before


def test_delete_prints_what_it_deleted(
    ct: nlct.Conntrack, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of conntrack -D; a flow that went by itself is said not to be among them."""
    fill(ct)
    found = list(ct.dump(zone=2))
    lines = {tool.without_clocks(str(flow)) for flow in found}
    gone = found[0]
    line = tool.without_clocks(str(gone))
    whole = nlct.Conntrack.table

    def table(self: nlct.Conntrack, *args: Any, **options: Any) -> nlct.FlowTable:
        made = whole(self, *args, **options)
        ct.delete_flow(gone)
        return made

    monkeypatch.setattr(nlct.Conntrack, "table", table)
    done = nlct_("delete", "--zone", "2", where, "--print")
    assert set(map(tool.without_clocks, done.stdout.splitlines())) == lines - {line}
    said = done.stderr.splitlines()[0].partition(": ")
    assert (said[0], tool.without_clocks(said[2])) == ("not deleted (already gone)", line)
    assert "2 flows deleted, 1 already gone" in done.stderr
    assert done.exit_code == 0
    assert {flow.zone for flow in ct.dump()} == {1}
    assert in_shell(">&-", "delete", "--zone", "1", where, "--print")[0] == 1
    assert ct.count() == 3
    both = nlct_("delete", "--zone", "1", where, "--print", "--json")
    assert "--json" in refused(both, 2)


def test_delete_flows_tells_of_each(ct: nlct.Conntrack) -> None:
    """Each flow, in order, with what became of it."""
    fill(ct, 3)
    found = list(ct.dump())
    ct.delete_flow(found[1])
    told: list[tuple[Flow, int]] = []
    ct.delete_flows(found, each=lambda flow, error: told.append((flow, error)))
    assert told == list(zip(found, (0, errno.ENOENT, 0)))
    with pytest.raises(TypeError, match="each"):
        ct.delete_flows([], each=7)  # type: ignore[arg-type]
