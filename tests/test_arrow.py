"""Flow tables as Arrow arrays: the libraries that take them see the same values."""

from __future__ import annotations

import datetime
import gc
import importlib.util
import ipaddress
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Iterable
from typing import Any, Callable, get_args

import pytest

import nlct
from nlct import arrow
from nlct._ffi import lib
from nlct._fields import FIELDS
from nlct.table import FlowTable
from tests.support.flows import populate

Row = dict[str, Any]
Frame = Callable[[Any], list[Row]]

ENUMS = get_args(arrow.Enums)
UTC = datetime.timezone.utc
# To the microsecond, which is what Python's datetime can hold.
START = 1_700_000_000_123_456_000


def library(name: str) -> Any:
    """Import what a test is about."""
    return pytest.importorskip(name, reason=f"MISSING: {name}")


pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nanoarrow") is None, reason="MISSING: nanoarrow"
)


def pack(name: str, value: Any, heap: bytearray) -> bytes:
    """One value as it stands in a column."""
    kind, size = FIELDS[name].kind, FIELDS[name].size
    if value is None:
        return bytes(size)
    if kind == lib.NLCT_ADDRESS:
        return ipaddress.ip_address(value).packed.ljust(size, b"\0")
    if kind == lib.NLCT_LABELS:
        words = (sum(1 << label % 64 for label in value if label // 64 == at) for at in range(2))
        return struct.pack("=QQ", *words)
    if kind == lib.NLCT_TEXT:
        return bytes(value.ljust(size, b"\0"))
    if kind == lib.NLCT_SPAN:
        heap += value
        return struct.pack("=II", len(heap) - len(value), len(value))
    return int(value).to_bytes(size, sys.byteorder)


def made_of(rows: list[Row], names: Iterable[str] | None = None) -> FlowTable:
    """A table of the rows, in which a byte that is not 0 says that a value is there."""
    heap = bytearray(b"\xff")
    columns: dict[str, bytes] = {}
    valid: dict[str, bytes] = {}
    for name in names or dict.fromkeys(name for row in rows for name in row):
        columns[name] = b"".join(pack(name, row.get(name), heap) for row in rows)
        flags = bytes(255 * (row.get(name) is not None) for row in rows)
        if not all(flags):
            valid[name] = flags
    return FlowTable(columns, valid, heap)


ROWS: list[Row] = [
    {
        "family": socket.AF_INET,
        "zone": 65535,
        "proto": 6,
        "src": "10.0.0.1",
        "dst": "255.255.255.255",
        "sport": 65535,
        "reply_proto": 6,
        "reply_src": "8.8.8.8",
        "tcp_state": 3,
        "status": 0x8000000E,
        "mark": 2**32 - 1,
        "bytes_orig": 2**64 - 1,
        "timestamp_start": START,
        "labels": {0, 63, 64, 127},
        "helper": b"ftp",
        "helper_info": b"\0\xff",
        "secctx": b"system_u:object_r:unlabeled_t:s0",
        "unknown": b"\4\0\x63\0",
    },
    {
        "family": socket.AF_INET6,
        "zone": 0,
        "proto": 132,
        "src": "fd00::1",
        "dst": "::",
        "sport": 0,
        "sctp_state": 7,
        "status": 0,
        "mark": 0,
        "bytes_orig": 0,
        "timestamp_start": START + 1000,
        "labels": set(),
        "helper": b"0123456789abcdef",
        "helper_info": b"",
        "secctx": b"",
    },
    {"family": socket.AF_INET6, "zone": 1, "proto": 99, "master_src": "::1", "dccp_state": 255},
    {"family": 7, "zone": 256, "dccp_state": 1, "master_proto": 58},
    *({"family": socket.AF_INET, "zone": zone, "proto": 17} for zone in range(2, 8)),
]

WORDS = {
    "family": {2: "ipv4", 10: "ipv6", 7: "7"},
    "proto": {6: "tcp", 17: "udp", 58: "icmpv6", 99: "99", 132: "sctp"},
    "tcp_state": {3: "established"},
    "sctp_state": {7: "shutdown_ack_sent"},
    "dccp_state": {1: "request", 255: "255"},
}


def text(name: str, value: Any) -> Any:
    """What a value is in Arrow, by default."""
    if value is None:
        return None
    words = WORDS.get(name) or WORDS.get(name.rpartition("_")[2])
    if words:
        return words[value]
    if name == "labels":
        return sorted(value)
    if name in ("helper", "secctx"):
        return value.decode()
    if name == "timestamp_start":
        seconds, rest = divmod(value, 10**9)
        moment = datetime.datetime.fromtimestamp(seconds, UTC)
        return moment.replace(microsecond=rest // 1000)
    return value


def expected(rows: list[Row], names: Iterable[str]) -> list[Row]:
    """The rows in Arrow, by default."""
    return [{name: text(name, row.get(name)) for name in names} for row in rows]


def in_nanoarrow(stream: Any) -> list[Row]:
    """Rows of nanoarrow's."""
    return list(library("nanoarrow").ArrayStream(stream).read_all().to_pylist())


def in_pyarrow(stream: Any) -> list[Row]:
    """Rows of pyarrow's, which also checks the arrays."""
    table = library("pyarrow").table(stream)
    table.validate(full=True)
    return list(table.to_pylist())


def in_polars(stream: Any) -> list[Row]:
    """Rows of polars'."""
    return list(library("polars").DataFrame(stream).to_dicts())


def in_pandas(stream: Any) -> list[Row]:
    """Rows of pandas', through pyarrow."""
    pandas = library("pandas")
    # NumPy's types know no null in most of theirs.
    frame = library("pyarrow").table(stream).to_pandas(types_mapper=pandas.ArrowDtype)
    return [
        {name: None if value is pandas.NA else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def in_duckdb(stream: Any) -> list[Row]:
    """Rows of DuckDB's."""
    duckdb = library("duckdb")
    names = list(stream.names)
    # Its own way to datetime needs one more package.
    columns = [
        f"epoch_us({name}::timestamptz) as {name}" if name.startswith("timestamp") else name
        for name in names
    ]
    with duckdb.connect() as connection:
        connection.register("flows", stream)
        rows = connection.sql(f"select {', '.join(columns)} from flows").fetchall()
    found = [dict(zip(names, row)) for row in rows]
    for row in found:
        if row.get("timestamp_start") is not None:
            row["timestamp_start"] = text("timestamp_start", row["timestamp_start"] * 1000)
    return found


FRAMES = (in_nanoarrow, in_pyarrow, in_polars, in_pandas, in_duckdb)


@pytest.fixture(params=FRAMES, ids=lambda frame: frame.__name__[3:])
def frame(request: pytest.FixtureRequest) -> Frame:
    """Each library in turn: rows of Python's values from a stream."""
    return request.param  # type: ignore[no-any-return]


def test_libraries_see_the_values(frame: Frame) -> None:
    """Every type of column, nulls, both families: as they are in the rows."""
    table = made_of(ROWS)
    assert frame(arrow.ArrowTable(table)) == expected(ROWS, table.names)


def test_kernel_table(ct: nlct.Conntrack, frame: Frame) -> None:
    """What the kernel tells, of both families and in every kind of zone, as its flows have it."""
    populate(ct)
    table = ct.table()
    rows = frame(table)
    assert len(rows) == ct.count() > 0
    for flow, row in zip(table, rows):
        for prefix, one in (("", flow.orig), ("reply_", flow.reply)):
            assert one is not None
            assert one.proto is not None
            assert [row[f"{prefix}src"], row[f"{prefix}dst"]] == [str(one.src), str(one.dst)]
            assert row[f"{prefix}proto"] == nlct.Proto(one.proto).name.lower()
            for name in ("sport", "dport", "icmp_id", "icmp_type", "icmp_code"):
                assert row[prefix + name] == getattr(one, name)
            assert row[f"{prefix or 'orig_'}zone"] == one.zone
        assert row["family"] == {2: "ipv4", 10: "ipv6", None: None}[flow.family]
        for name in ("zone", "status", "mark", "id", "use", "timeout"):
            assert row[name] == getattr(flow, name)


def test_choices_of_a_table(ct: nlct.Conntrack) -> None:
    """table.arrow() chooses other types, and a table gives its schema alone."""
    pa = library("pyarrow")
    populate(ct)
    table = ct.table()
    assert pa.schema(table).field("src").type == pa.string()
    chosen = pa.table(table.arrow(addresses="bytes", enums="dictionary"))
    packed = [flow.orig.src.packed.ljust(16, b"\0") for flow in table if flow.orig.src]
    assert chosen["src"].to_pylist() == packed
    assert pa.types.is_dictionary(chosen.schema.field("proto").type)
    assert pa.table(table.arrow(enums="numbers"))["proto"].to_pylist() == [
        flow.orig.proto for flow in table
    ]


def test_no_rows(frame: Frame) -> None:
    """An empty table has its columns and no rows, with all its types."""
    for enums in ENUMS:
        assert frame(arrow.ArrowTable(made_of([], FIELDS), enums=enums)) == []
    assert library("pyarrow").table(arrow.ArrowTable(made_of([], FIELDS))).column_names == [*FIELDS]


def test_batches(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows come in batches, which begin anywhere in a byte of the validity bits."""
    monkeypatch.setattr(arrow, "ROWS", 3)
    table = made_of(ROWS)
    for enums in ("text", "dictionary"):
        assert frame(arrow.ArrowTable(table, enums=enums)) == expected(ROWS, table.names)
    assert library("pyarrow").table(arrow.ArrowTable(table))["zone"].num_chunks == 4


def test_all_columns(frame: Frame) -> None:
    """A column that the table does not have is null in every row; the order is the caller's."""
    names = [*reversed(FIELDS)]
    for enums in ("text", "dictionary"):
        rows = frame(arrow.ArrowTable(made_of(ROWS), columns=names, enums=enums))
        assert rows == expected(ROWS, names)
        assert list(rows[0]) == names


def test_bytes_and_numbers(frame: Frame) -> None:
    """Addresses as 16 bytes, IPv4 in the first four; enumerations as the kernel's numbers."""
    table = made_of(ROWS)
    rows = frame(arrow.ArrowTable(table, addresses="bytes", enums="numbers"))
    assert rows[0]["src"] == bytes((10, 0, 0, 1)) + bytes(12)
    assert rows[1]["src"] == ipaddress.ip_address("fd00::1").packed
    assert rows[3]["src"] is None
    for name in ("family", "proto", "tcp_state", "sctp_state", "dccp_state", "master_proto"):
        assert [row[name] for row in rows] == [row.get(name) for row in ROWS]


def test_types() -> None:
    """The types are those that the documentation names, before any row is made."""
    pa = library("pyarrow")
    types = {
        "family": pa.string(),
        "zone": pa.uint16(),
        "status": pa.uint32(),
        "tcp_state": pa.string(),
        "tcp_flags_orig": pa.uint8(),
        "bytes_orig": pa.uint64(),
        "timestamp_stop": pa.timestamp("ns", "UTC"),
        "labels": pa.list_(pa.uint8()),
        "helper": pa.string(),
        "helper_info": pa.large_binary(),
        "secctx": pa.large_string(),
        "unknown": pa.large_binary(),
        "reply_src": pa.string(),
    }
    table = made_of(ROWS)
    schema = pa.schema(arrow.ArrowTable(table, columns=types))
    assert dict(zip(schema.names, schema.types)) == types
    chosen = pa.schema(
        arrow.ArrowTable(table, columns=["src", "proto"], addresses="bytes", enums="dictionary")
    )
    assert chosen.types == [pa.binary(16), pa.dictionary(pa.uint8(), pa.string())]
    assert pa.schema(arrow.ArrowTable(table)) == pa.table(arrow.ArrowTable(table)).schema


def test_nanoseconds() -> None:
    """Timestamps keep their nanoseconds."""
    pa = library("pyarrow")
    rows = [{"family": 2, "timestamp_stop": START + number} for number in range(3)]
    column = pa.table(arrow.ArrowTable(made_of(rows)))["timestamp_stop"]
    assert column.cast(pa.int64()).to_pylist() == [row["timestamp_stop"] for row in rows]


def test_dictionary_holds_what_occurs() -> None:
    """A dictionary has the words of the table, in the order of their numbers, in every batch."""
    table = made_of(ROWS)
    column = library("pyarrow").table(arrow.ArrowTable(table, enums="dictionary"))["proto"]
    assert column.chunk(0).dictionary.to_pylist() == ["tcp", "udp", "99", "sctp"]


@pytest.mark.parametrize("position", range(4))
def test_ipv4_text(position: int) -> None:
    """Every byte in every place of an address."""
    addresses = [
        socket.inet_ntoa(bytes(byte if place == position else 10 for place in range(4)))
        for byte in range(256)
    ]
    rows = [{"family": socket.AF_INET, "src": address} for address in addresses]
    found = in_nanoarrow(arrow.ArrowTable(made_of(rows)))
    assert [row["src"] for row in found] == addresses


def test_ipv6_text() -> None:
    """Runs of zeros in every arrangement, words of every length, IPv4 inside IPv6."""
    packed = [
        struct.pack("!8H", *(word * (zeros >> place & 1) for place in range(8)))
        for zeros in range(256)
        for word in (1, 0x12, 0x123, 0x1234, 0xFFFF)
    ]
    packed += [bytes(10) + b"\xff\xff" + bytes((192, 0, 2, last)) for last in (0, 9, 99, 255)]
    rows = [{"family": socket.AF_INET6, "dst": ipaddress.ip_address(one)} for one in packed]
    found = in_nanoarrow(arrow.ArrowTable(made_of(rows)))
    assert [row["dst"] for row in found] == [
        socket.inet_ntop(socket.AF_INET6, one) for one in packed
    ]


@pytest.mark.parametrize("name", ["helper", "secctx"])
def test_bytes_that_are_no_text(name: str) -> None:
    """Arrow's text is UTF-8: what is not becomes U+FFFD, and its neighbours stay."""
    values = [b"a", b"\xff!", None, "é".encode(), b"\xe2\x82", b"z"]
    rows = [{"family": 2, name: value} for value in values]
    found = in_pyarrow(arrow.ArrowTable(made_of(rows)))
    assert [row[name] for row in found] == ["a", "\ufffd!", None, "é", "\ufffd", "z"]


def test_span_outside_the_heap() -> None:
    """A row that points outside the heap is an error, not somebody else's memory."""
    table = made_of([{"family": 2, "secctx": b"abc"}])
    table.heap = table.heap[:-1]
    with pytest.raises(ValueError, match="within the heap"):
        in_nanoarrow(arrow.ArrowTable(table))


class Tracked(bytearray):
    """Bytes whose end can be seen."""


def tracked() -> tuple[FlowTable, weakref.ref[Tracked]]:
    """A table, and whether its marks are still in memory."""
    marks = Tracked(struct.pack("=100I", *range(100)))
    return FlowTable({"family": bytes(100), "mark": marks}), weakref.ref(marks)


def test_memory_lives_as_long_as_its_consumer() -> None:
    """Numbers are not copied: the arrays keep the table's memory, and let go of it at the end."""
    pa = library("pyarrow")
    table, alive = tracked()
    taken = pa.table(arrow.ArrowTable(table))
    address = memoryview(taken["mark"].chunk(0).buffers()[1])
    del table
    gc.collect()
    assert taken["mark"].to_pylist() == list(range(100))
    held = alive()
    assert held is not None
    held[0] = 77
    assert address[0] == 77
    del taken, address, held
    gc.collect()
    assert alive() is None


def test_memory_of_a_stream_that_nobody_reads() -> None:
    """A capsule that is dropped lets go of the memory too."""
    table, alive = tracked()
    capsule = arrow.ArrowTable(table).__arrow_c_stream__()
    del table
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("enums", ENUMS)
def test_made_memory_is_freed(enums: Any) -> None:
    """What is made for the arrays goes with them."""
    pa = library("pyarrow")
    table = made_of(ROWS * 1000)

    def once() -> None:
        pa.table(arrow.ArrowTable(table, enums=enums))

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    once()
    before = resident()
    for _ in range(50):
        once()
    # One stream of these is more than 100 pages.
    assert resident() - before < 3000


def test_requested_schema_is_a_wish() -> None:
    """A consumer that asks for other types gets ours, and converts them."""
    pa = library("pyarrow")
    stream = arrow.ArrowTable(made_of(ROWS), columns=["src"])
    wanted = pa.schema({"src": pa.large_string()})
    assert pa.RecordBatchReader.from_stream(stream, schema=wanted).schema.types == [pa.string()]
    assert pa.table(stream, schema=wanted).schema == wanted


@pytest.mark.parametrize(
    "choice",
    [{"columns": ["sorce"]}, {"columns": ["src", "src"]}, {"addresses": "int"}, {"enums": "enum"}],
)
def test_wrong_choices(choice: dict[str, Any]) -> None:
    """A wrong choice is named, with the right ones."""
    with pytest.raises(ValueError, match=next(iter(choice))):
        arrow.ArrowTable(made_of(ROWS), **choice)


def test_without_nanoarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra an error says what to install."""
    monkeypatch.setitem(sys.modules, "nanoarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'nlct\[arrow\]'"):
        arrow.ArrowTable(made_of(ROWS))


def test_import_is_lazy() -> None:
    """Neither nlct nor its Arrow module imports nanoarrow before it is used."""
    code = "import nlct, nlct.arrow, sys; assert 'nanoarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_at_any_address() -> None:
    """Columns may begin anywhere, as a slice of somebody's bytes does."""
    labels = memoryview(b"x" + struct.pack("=4Q", 1 << 5, 0, 0, 1))[1:]
    spans = memoryview(b"x" + struct.pack("=4I", 0, 1, 1, 2))[1:]
    marks = memoryview(b"x" + struct.pack("=2I", 7, 2**32 - 1))[1:]
    columns = {"family": bytes(2), "labels": labels, "unknown": spans, "mark": marks}
    taken = in_pyarrow(FlowTable(columns, heap=b"abc"))
    assert [row["labels"] for row in taken] == [[5], [64]]
    assert [row["unknown"] for row in taken] == [b"a", b"bc"]
    assert [row["mark"] for row in taken] == [7, 2**32 - 1]
